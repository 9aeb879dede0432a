"""Runs the trials of a study: asks for values, starts processes, follows them, tells their end.

One thread and no callbacks: a loop that looks at everything that runs, a few times a second.
"""

from __future__ import annotations

import itertools
import json
import math
import os
import socket
import sys
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from signal import SIGTERM
from typing import TYPE_CHECKING, Any

import numpy as np

from convae import files as atomic
from convae.console import logger
from convae.runs.run import Run
from convae.runtime import processes
from convae.runtime.hardware import core_count, split_evenly, visible_gpus
from convae.sweep.results import folder_of

if TYPE_CHECKING:
    import subprocess

    import optuna

    from convae.config.schema import Config
    from convae.sweep.space import Sweep

LOOK_SECONDS = 0.25  # between two looks; each asks the study and reads the trials' histories
SAVING = 60.0  # seconds in which a trial that is stopped finishes its step and saves
SEEN_SECONDS = 30.0  # a machine says so often that its trials are alive,
STALE_SECONDS = 150.0  # and one that has not said so for so long is taken for dead
TRAIN = (sys.executable, "-m", "convae", "train")
STARTUP_TRIALS = 5  # before trials are compared with their median


@dataclass
class Job:
    """A trial that runs now."""

    trial: optuna.trial.Trial
    process: subprocess.Popen[bytes]
    slot: int  # from 0 to workers - 1
    folder: Path
    reported: int = 0  # epochs
    pruned: bool = False
    seen: float = field(default_factory=time.monotonic)


class Sweeper:
    """Starts trials, follows their histories, and tells the study how they ended."""

    def __init__(
        self,
        study: optuna.Study,
        settings: Sweep,
        config_path: str,
        overrides: list[str],
        config: Config,
        folder: Path,
    ) -> None:
        self.study, self.settings, self.folder = study, settings, folder
        self._words = [config_path, *overrides]
        self._jobs: list[Job] = []
        self._checked = -math.inf
        self._distributions = {k: p.distribution() for k, p in settings.parameters.items()}
        self._gpus = split_evenly(visible_gpus(), settings.workers)
        alone = settings.workers == 1 or config.runtime.threads != "auto"
        if not alone and "runtime.threads" not in settings.parameters and not self._gpus[0]:
            threads = max(1, core_count() // settings.workers)
            self._words.append(f"runtime.threads={min(threads, 256)}")

    def run(self, deadline: float, received: Sequence[int]) -> str:
        """Work until nothing is left to do; why it stopped before, or "" if it did not."""
        if self.settings.sampler == "grid":
            self._queue_grid()
        try:
            while True:
                if received or time.monotonic() > deadline:
                    self._stop()
                    return "interrupted" if received else "out of time"
                self._retry_stale()
                while len(self._jobs) < self.settings.workers and self._has_more():
                    self._begin()
                if not self._jobs:
                    return ""
                for job in list(self._jobs):
                    self._follow(job)
                time.sleep(LOOK_SECONDS)
        except KeyboardInterrupt:  # the second Ctrl-C
            return "interrupted"
        finally:
            processes.end([job.process for job in self._jobs], SIGTERM, 0)

    def _has_more(self) -> bool:
        """Whether a trial waits to be tried again, or the study has fewer than its number."""
        from optuna.trial import TrialState

        trials = self.study.get_trials(deepcopy=False)
        waiting = [t for t in trials if t.state == TrialState.WAITING]
        if any("folder" in t.user_attrs for t in waiting):
            return True
        begun = {folder_of(t) for t in trials if t.state != TrialState.WAITING}
        left = len(begun) < self.settings.trials
        return left and (bool(waiting) or self.settings.sampler != "grid")

    def _queue_grid(self) -> None:
        """All combinations of the choices, the last key fastest, as far as `trials` goes."""
        keys = self.settings.parameters
        points = itertools.product(*(p.stored for p in keys.values()))
        for point in itertools.islice(points, self.settings.trials):
            self.study.enqueue_trial(dict(zip(keys, point, strict=True)), skip_if_exists=True)

    def _begin(self) -> None:
        """Ask for a trial and start its process; one that was stopped goes on where it was."""
        from optuna import pruners, samplers

        # Keyed by the trials so far: a study that is resumed or shared does not draw twice alike.
        key = [self.settings.seed, len(self.study.get_trials(deepcopy=False))]
        seed = int(np.random.SeedSequence(key).generate_state(1)[0])
        tpe = self.settings.sampler == "tpe"
        self.study.sampler = (samplers.TPESampler if tpe else samplers.RandomSampler)(seed=seed)
        median = self.settings.pruner == "median"
        self.study.pruner = pruners.MedianPruner(STARTUP_TRIALS) if median else pruners.NopPruner()
        trial = self.study.ask(self._distributions)
        folder = self.folder / folder_of(trial)
        attributes = {"folder": folder.name, "host": socket.gethostname(), "pid": os.getpid()}
        for name, value in {**attributes, "seen": time.time()}.items():
            trial.set_user_attr(name, value)

        run = find_run(folder)
        if run and run.has_checkpoint:
            words = ["--resume", str(run.path)]
        else:
            config, *overrides = self._words
            chosen = [f"{key}={as_json(value)}" for key, value in trial.params.items()]
            words = [config, *overrides, *chosen, "--runs-dir", str(folder)]
        slot = min(set(range(self.settings.workers)) - {job.slot for job in self._jobs})
        environment = dict(os.environ)
        if self._gpus[slot]:
            environment["CUDA_VISIBLE_DEVICES"] = ",".join(self._gpus[slot])
        folder.mkdir(parents=True, exist_ok=True)
        with (folder / "train.log").open("ab") as log:
            process = processes.start([*TRAIN, *words], stdout=log, stderr=log, env=environment)
        self._jobs.append(Job(trial, process, slot, folder))

    def _follow(self, job: Job) -> None:
        """Report the epochs that have ended, end a poor trial, tell the end of one that is over."""
        code = job.process.poll()  # first: what it wrote before its end is then seen
        run = find_run(job.folder)
        rows = run.history if run else []
        for row in rows[job.reported :]:
            job.trial.report(row[self.settings.metric], int(row["epoch"]))
        if len(rows) > job.reported and code is None and not job.pruned:
            job.pruned = job.trial.should_prune()
            if job.pruned:
                job.process.send_signal(SIGTERM)
        job.reported = len(rows)
        if time.monotonic() - job.seen > SEEN_SECONDS:
            job.seen = time.monotonic()
            job.trial.set_user_attr("seen", time.time())
        if code is not None:
            self._finish(job, code, run, rows)

    def _finish(
        self, job: Job, code: int, run: Run | None, rows: Sequence[Mapping[str, float]]
    ) -> None:
        from optuna.trial import TrialState

        self._jobs.remove(job)
        if run:
            job.trial.set_user_attr("run", str(run.path))
        values = ", ".join(f"{k}={as_json(v)}" for k, v in job.trial.params.items())
        if code == 0 and rows:
            best = min(row[self.settings.metric] for row in rows)
            self.study.tell(job.trial, best)
            came_to = f"{self.settings.metric} {best:.5f}"
        elif job.pruned:
            self.study.tell(job.trial, state=TrialState.PRUNED)
            came_to = f"pruned after epoch {len(rows)}"
        else:
            reason = last_words(job.folder / "train.log") or f"exit code {code}"
            job.trial.set_user_attr("reason", reason)
            self.study.tell(job.trial, state=TrialState.FAIL)
            came_to = f"failed: {reason[:120]}"
        logger.info(f"{job.folder.name}: {came_to}  ({values})")

    def _stop(self) -> None:
        """End all trials so that the next sweep of this study goes on with them."""
        from optuna.trial import TrialState

        logger.info(f"ending and saving {len(self._jobs)} trials; once more to stop at once")
        processes.end([job.process for job in self._jobs], SIGTERM, SAVING)
        for job in list(self._jobs):
            if job.process.returncode == 0 or job.pruned:
                self._follow(job)
                continue
            self._jobs.remove(job)
            self.study.tell(job.trial, state=TrialState.FAIL)
            self._queue_again(job.trial.params, job.folder.name)

    def _retry_stale(self) -> None:
        """Queue again what ran in a sweep that is dead: killed here, or silent elsewhere."""
        from optuna.exceptions import UpdateFinishedTrialError
        from optuna.trial import TrialState

        if time.monotonic() - self._checked < SEEN_SECONDS:
            return
        self._checked = time.monotonic()
        own = {job.trial.number for job in self._jobs}
        for trial in self.study.get_trials(deepcopy=False, states=(TrialState.RUNNING,)):
            if trial.number in own or not is_stale(trial):
                continue
            # ValueError: another machine was quicker.
            with suppress(UpdateFinishedTrialError, ValueError):
                self.study.tell(trial.number, state=TrialState.FAIL)
                self._queue_again(trial.params, folder_of(trial))

    def _queue_again(self, params: dict[str, Any], folder: str) -> None:
        self.study.enqueue_trial(params, user_attrs={"folder": folder})


def is_stale(trial: optuna.trial.FrozenTrial) -> bool:
    """Whether the sweep that ran `trial` is dead."""
    about = trial.user_attrs
    here = about.get("host") == socket.gethostname() and "pid" in about
    if here and not atomic.lives(int(about["pid"])):
        return True
    began = trial.datetime_start.timestamp() if trial.datetime_start else 0.0
    return bool(time.time() - float(about.get("seen", began)) > STALE_SECONDS)


def find_run(folder: Path) -> Run | None:
    """The run that a trial has made in its folder, once there is one."""
    runs = Run.all(str(folder))
    return runs[-1] if runs else None


def as_json(value: Any) -> str:
    """A value as Optuna keeps it -> JSON: choices are that already."""
    return value if isinstance(value, str) else json.dumps(value)


def last_words(log: Path) -> str:
    """What a trial said of its failure: the last message of convae, or the last line."""
    with suppress(OSError):
        lines = [line.strip() for line in log.read_text(errors="replace").splitlines()]
        lines = [line for line in lines if line]
        told = [place for place, line in enumerate(lines) if line.startswith("convae: ")]
        return " ".join(lines[told[-1] if told else -1 :]).removeprefix("convae: ")[:400]
    return ""
