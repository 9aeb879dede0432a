"""Runs the trials of a study, each as a `convae train` in a process of its own.

One thread without callbacks: a loop that checks the study and its processes a few times a second.
"""

from __future__ import annotations

import math
import os
import socket
import subprocess
import sys
import time
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from signal import SIGTERM
from typing import Any

import numpy as np
import optuna
from optuna import pruners, samplers
from optuna.exceptions import UpdateFinishedTrialError
from optuna.trial import TrialState

from convae import files
from convae.config.schema import Config
from convae.console import logger, progress_bar
from convae.runs.run import Run
from convae.runtime import processes
from convae.runtime.hardware import core_count, split_evenly, visible_gpus
from convae.sweep.results import folder_name
from convae.sweep.space import Sweep, to_json

POLL_SECONDS = 0.25
SAVING_SECONDS = 60.0  # for a stopped trial to finish its step and save
HEARTBEAT_SECONDS = 30.0  # between two marks in the storage that a trial runs
STALE_SECONDS = 150.0  # without a mark, until a trial of another machine counts as dead
TRAIN = (sys.executable, "-m", "convae", "train")
STARTUP_TRIALS = 5  # before trials are compared with their median


@dataclass
class Job:
    """A running trial."""

    trial: optuna.trial.Trial
    process: subprocess.Popen[bytes]
    slot: int  # from 0 to workers - 1
    folder: Path
    reported: int = 0  # epochs
    pruned: bool = False


class Sweeper:
    """Starts the trials of a study, follows their histories, and records their outcomes.

    `words` are the config's path and overrides.
    """

    def __init__(
        self, study: optuna.Study, settings: Sweep, words: list[str], config: Config, folder: Path
    ) -> None:
        self.study, self.settings, self.folder = study, settings, folder
        self._words = list(words)
        self._jobs: list[Job] = []
        self._last_heartbeat = -math.inf
        median = settings.pruner == "median"
        study.pruner = pruners.MedianPruner(STARTUP_TRIALS) if median else pruners.NopPruner()
        self._distributions = {k: p.distribution() for k, p in settings.parameters.items()}
        self._gpus = split_evenly(visible_gpus(), settings.workers)
        alone = settings.workers == 1 or config.runtime.threads != "auto"
        if not alone and "runtime.threads" not in settings.parameters and not self._gpus[0]:
            threads = max(1, core_count() // settings.workers)
            self._words.append(f"runtime.threads={min(threads, 256)}")

    def run(self, deadline: float, stop_requests: Sequence[int]) -> str:
        """Run trials until the study has its number, `deadline` (monotonic seconds) or a signal.

        Returns why the sweep stopped early, or "".
        """
        bar = progress_bar(total=self.settings.trials, desc="trials", unit=" trials", leave=True)
        bar.initial = bar.n = self._finished()
        try:
            while True:
                if not bar.disable:
                    bar.n = self._finished()
                    bar.refresh()
                if stop_requests or time.monotonic() > deadline:
                    self._stop()
                    return "interrupted" if stop_requests else "out of time"
                if time.monotonic() - self._last_heartbeat > HEARTBEAT_SECONDS:
                    self._last_heartbeat = time.monotonic()
                    self._mark_and_retry()
                while len(self._jobs) < self.settings.workers and self._has_more():
                    self._start()
                if not self._jobs:
                    return ""
                for job in list(self._jobs):
                    self._follow(job)
                time.sleep(POLL_SECONDS)
        except KeyboardInterrupt:  # the second Ctrl-C
            return "interrupted"
        finally:
            bar.close()
            processes.end([job.process for job in self._jobs], SIGTERM, 0)

    def _finished(self) -> int:
        """Return the number of trials that ended and do not wait to be resumed."""
        trials = self.study.get_trials(deepcopy=False)
        waiting = {folder_name(trial) for trial in trials if not trial.state.is_finished()}
        return len({folder_name(trial) for trial in trials} - waiting)

    def _has_more(self) -> bool:
        """Return whether a trial waits to be resumed, or the study has fewer than its number."""
        trials = self.study.get_trials(deepcopy=False)
        if any(trial.state == TrialState.WAITING for trial in trials):
            return True
        combinations = {str(trial.params) for trial in trials if trial.params}
        enough = len(combinations) >= self.settings.combinations
        return len({folder_name(trial) for trial in trials}) < self.settings.trials and not enough

    def _start(self) -> None:
        """Start the process of a new trial, or of one that was stopped and resumes."""
        self.study.sampler = self._sampler()
        trial = self.study.ask(self._distributions)
        folder = self.folder / folder_name(trial)
        attributes = {"folder": folder.name, "host": socket.gethostname(), "pid": os.getpid()}
        for name, value in {**attributes, "seen": time.time()}.items():
            trial.set_user_attr(name, value)
        run = _find_run(folder)
        if run and run.has_checkpoint:
            words = ["--resume", str(run.path)]
        else:
            chosen = [f"{key}={to_json(value)}" for key, value in trial.params.items()]
            words = [*self._words, *chosen, "--runs-dir", str(folder)]
        slot = min(set(range(self.settings.workers)) - {job.slot for job in self._jobs})
        environment = dict(os.environ)
        if self._gpus[slot]:
            environment["CUDA_VISIBLE_DEVICES"] = ",".join(self._gpus[slot])
        folder.mkdir(parents=True, exist_ok=True)
        with (folder / "train.log").open("ab") as log:
            process = processes.start([*TRAIN, *words], stdout=log, stderr=log, env=environment)
        self._jobs.append(Job(trial, process, slot, folder))

    def _sampler(self) -> samplers.BaseSampler:
        if self.settings.sampler == "grid":
            space = {key: p.stored_choices for key, p in self.settings.parameters.items()}
            return _Grid(space, seed=self.settings.seed)
        # Seeded by the number of trials, so that a resumed or shared study draws new values.
        key = [self.settings.seed, len(self.study.get_trials(deepcopy=False))]
        seed = int(np.random.SeedSequence(key).generate_state(1)[0])
        if self.settings.sampler == "random":
            return samplers.RandomSampler(seed=seed)
        return samplers.TPESampler(seed=seed)

    def _follow(self, job: Job) -> None:
        """Report the epochs that a trial has finished, prune it, or record its outcome."""
        code = job.process.poll()  # first, so that all that it wrote before its end is read
        run = _find_run(job.folder)
        rows = run.history if run else []
        for row in rows[job.reported :]:
            job.trial.report(row[self.settings.metric], int(row["epoch"]))
        if len(rows) > job.reported and code is None and not job.pruned:
            job.pruned = job.trial.should_prune()
            if job.pruned:
                processes.send(job.process, SIGTERM)
        job.reported = len(rows)
        if code is None:
            return
        self._jobs.remove(job)
        if run:
            job.trial.set_user_attr("run", str(run.path))
        if code == 0 and rows:
            best = min(row[self.settings.metric] for row in rows)
            self.study.tell(job.trial, best)
            outcome = f"{self.settings.metric} {best:.5f}"
        elif job.pruned:
            self.study.tell(job.trial, state=TrialState.PRUNED)
            outcome = f"pruned after epoch {len(rows)}"
        else:
            reason = _last_message(job.folder / "train.log") or f"exit code {code}"
            job.trial.set_user_attr("reason", reason)
            self.study.tell(job.trial, state=TrialState.FAIL)
            outcome = f"failed: {reason[:120]}"
        values = ", ".join(f"{k}={to_json(v)}" for k, v in job.trial.params.items())
        logger.info(f"{job.folder.name}: {outcome}  ({values})")

    def _stop(self) -> None:
        """End all trials so that the next sweep of this study resumes them."""
        logger.info(f"saving and ending {len(self._jobs)} trials; Ctrl-C again ends them at once")
        processes.end([job.process for job in self._jobs], SIGTERM, SAVING_SECONDS)
        for job in list(self._jobs):
            if job.process.returncode == 0 or job.pruned:
                self._follow(job)
            else:
                self._jobs.remove(job)
                self._requeue(job.trial)

    def _mark_and_retry(self) -> None:
        """Mark our trials as alive, and requeue those of a sweep that has ended anywhere."""
        for job in self._jobs:
            job.trial.set_user_attr("seen", time.time())
        own = {job.trial.number for job in self._jobs}
        for trial in self.study.get_trials(deepcopy=False, states=(TrialState.RUNNING,)):
            if trial.number not in own and is_stale(trial):
                # Another machine may be quicker.
                with suppress(UpdateFinishedTrialError, ValueError):
                    self._requeue(trial)

    def _requeue(self, trial: optuna.trial.FrozenTrial | optuna.trial.Trial) -> None:
        self.study.tell(trial.number, state=TrialState.FAIL)
        self.study.enqueue_trial(trial.params, user_attrs={"folder": folder_name(trial)})


class _Grid(samplers.GridSampler):
    def after_trial(self, *_: Any) -> None:
        """Do not stop the study at its last point: only Study.optimize can be stopped."""


def is_stale(trial: optuna.trial.FrozenTrial) -> bool:
    """Return whether the sweep that ran `trial` has ended."""
    attributes = trial.user_attrs
    here = attributes.get("host") == socket.gethostname() and "pid" in attributes
    if here and not files.is_running(int(attributes["pid"])):
        return True
    started = trial.datetime_start.timestamp() if trial.datetime_start else 0.0
    return bool(time.time() - float(attributes.get("seen", started)) > STALE_SECONDS)


def _find_run(folder: Path) -> Run | None:
    return next(reversed(Run.all(str(folder))), None)


def _last_message(log: Path) -> str:
    """Return the last message of convae in a trial's log, or its last line."""
    with suppress(OSError):
        text = log.read_text(encoding="utf-8", errors="replace")
        lines = [line.strip() for line in text.splitlines() if line.strip()]
        messages = [index for index, line in enumerate(lines) if line.startswith("convae: ")]
        return " ".join(lines[messages[-1] if messages else -1 :]).removeprefix("convae: ")[:400]
    return ""
