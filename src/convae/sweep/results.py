"""The results of a sweep: the table, the chart, and the best config, ready for `convae train`."""

from __future__ import annotations

import json
import math
import re
import shlex
import textwrap
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from convae.config.loader import load_config
from convae.console import format_table
from convae.errors import FileError
from convae.files import write_atomic
from convae.sweep.space import to_json

if TYPE_CHECKING:
    import optuna

    from convae.sweep.space import Parameter, Sweep

OUTCOMES = ("complete", "pruned", "running", "interrupted", "failed")  # the order of the table
FAILURES_SHOWN = 5  # below the table, with their reasons


@dataclass(frozen=True)
class Trial:
    """A trial and its outcome; `name` is its folder's."""

    name: str
    outcome: str  # one of OUTCOMES
    value: float | None  # the metric of its best epoch so far
    epochs: int
    seconds: float
    parameters: dict[str, Any]  # by the config's key
    reason: str = ""  # of a failure
    run: str = ""


@dataclass(frozen=True)
class Results:
    """The state of a study; `trials` in the order of their start."""

    study: str
    metric: str
    trials: tuple[Trial, ...]
    stopped: str  # why the sweep ended early, or ""
    folder: Path

    @property
    def best(self) -> Trial | None:
        """The complete trial with the lowest metric; the first of equals."""
        return min(self.complete, key=lambda trial: trial.value or 0.0, default=None)

    @property
    def complete(self) -> list[Trial]:
        """The trials that trained to their end."""
        return [trial for trial in self.trials if trial.outcome == "complete"]

    @property
    def ranked(self) -> list[Trial]:
        """Best first: complete trials by their metric, then pruned, then all others."""

        def rank(trial: Trial) -> tuple[int, float]:
            value = math.inf if trial.value is None else trial.value
            return OUTCOMES.index(trial.outcome), value

        return sorted(self.trials, key=rank)

    def record(self) -> dict[str, Any]:
        """Return the results for JSON."""
        return {
            "study": self.study,
            "metric": self.metric,
            "stopped": self.stopped,
            "best": asdict(self.best) if self.best else None,
            "best_config": str(self.folder / "best.yaml") if self.best else None,
            "trials": [asdict(trial) for trial in self.ranked],
        }


def collect(
    study: optuna.Study, settings: Sweep, words: Sequence[str], folder: Path, stopped: str
) -> Results:
    """Return the results of `study`; write best.yaml and sweep.png if a trial is complete.

    `words` are the config's path and overrides; `stopped` is why the sweep ended early, or "".

    Raises:
        FileError: If the files cannot be written.
    """
    # A trial that was stopped and resumed is several of Optuna's, all with the same folder.
    attempts: dict[str, list[optuna.trial.FrozenTrial]] = {}
    waiting = set()
    for trial in study.get_trials(deepcopy=False):
        if trial.state.name == "WAITING":
            waiting.add(folder_name(trial))
        elif trial.params:
            attempts.setdefault(folder_name(trial), []).append(trial)
    trials = []
    for name, tries in sorted(attempts.items()):
        last = tries[-1]
        outcome = {"FAIL": "failed"}.get(last.state.name, last.state.name.lower())
        values = last.intermediate_values  # by epoch
        made = Trial(
            name=name,
            outcome="interrupted" if name in waiting else outcome,
            value=min(values.values(), default=None),
            epochs=max(values, default=0),
            seconds=sum(one.duration.total_seconds() for one in tries if one.duration),
            parameters={key: json.loads(to_json(last.params[key])) for key in settings.parameters},
            reason=last.user_attrs.get("reason", ""),
            run=last.user_attrs.get("run", ""),
        )
        trials.append(made)
    results = Results(study.study_name, settings.metric, tuple(trials), stopped, folder)
    if results.best:
        try:
            folder.mkdir(parents=True, exist_ok=True)
            write_atomic(folder / "best.yaml", _best_config(results, results.best, words).encode())
            _draw(study, results, settings.parameters)
        except OSError as error:
            raise FileError(f"{folder}: the results cannot be written: {error}") from None
    return results


def folder_name(trial: optuna.trial.FrozenTrial | optuna.trial.Trial) -> str:
    """Return the name of a trial's folder: that of its first attempt."""
    return str(trial.user_attrs.get("folder", f"trial-{trial.number:04d}"))


def _best_config(results: Results, best: Trial, words: Sequence[str]) -> str:
    config, *overrides = words
    chosen = [f"{key}={json.dumps(value)}" for key, value in best.parameters.items()]
    values = "".join(f"#   {word}\n" for word in chosen)
    return (
        f"# The best of {len(results.trials)} trials of the sweep {results.study} over "
        f"{config}: {results.metric} {best.value:.5f} ({best.name}).\n{values}#\n"
        f"#   convae train {shlex.quote(str(results.folder / 'best.yaml'))}\n"
        + load_config(config, [*overrides, *chosen]).to_yaml()
    )


def shorten_keys(keys: Sequence[str]) -> dict[str, str]:
    """Return for each dotted key the shortest end of it that no other key has."""
    names = {}
    for key in keys:
        words = key.split(".")
        for count in range(1, len(words) + 1):
            name = ".".join(words[-count:])
            shared = any(f".{other}".endswith(f".{name}") for other in keys if other != key)
            if not shared and not name[0].isdecimal():  # an index alone says nothing
                break
        names[key] = name
    return names


def format_results(results: Results) -> str:
    """Return the trials as a table, best first, and where the best config is."""
    names = shorten_keys(list(results.trials[0].parameters)) if results.trials else {}
    rows = [("trial", results.metric, "epochs", "time", *names.values())]
    for trial in results.ranked:
        value = "" if trial.value is None else f"{trial.value:.5f}"
        if trial.outcome != "complete":
            value = f"{trial.outcome} {value}".rstrip()
        chosen = [trial.parameters[key] for key in names]
        values = [f"{v:.4g}" if isinstance(v, float) else to_json(v) for v in chosen]
        rows.append((trial.name, value, str(trial.epochs), f"{trial.seconds:.0f} s", *values))
    lines = [format_table(rows)]
    failed = [trial for trial in results.ranked if trial.outcome == "failed"]
    lines += [f"{trial.name} failed: {trial.reason}" for trial in failed[:FAILURES_SHOWN]]
    if len(failed) > FAILURES_SHOWN:
        lines.append(f"... and {len(failed) - FAILURES_SHOWN} more: see their train.log")
    if best := results.best:
        lines += [
            f"best: {results.metric} {best.value:.5f} ({best.name})",
            f"wrote {results.folder / 'best.yaml'} and {results.folder / 'sweep.png'}",
        ]
    elif results.trials:
        lines.append("no trial is complete: there is no best config")
    return "\n".join(lines)


def _draw(study: optuna.Study, results: Results, parameters: Mapping[str, Parameter]) -> None:
    """Write sweep.png: the metric of complete trials by trial, and by each parameter's value."""
    import matplotlib as mpl
    import matplotlib.pyplot as plt
    from optuna.visualization import matplotlib as charts

    from convae.data.transforms import png
    from convae.plots import style

    values = [trial.value for trial in results.complete if trial.value is not None]
    names, count = shorten_keys(list(parameters)), len(parameters)
    width, height = max(10.0, 3.2 * count), 3.6  # inches
    plt.switch_backend("agg")
    plt.style.library["ggplot"] = mpl.RcParams()  # Optuna would apply it over ours
    with style.applied(), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # that Optuna's charts are experimental
        plt.rcParams["figure.constrained_layout.use"] = True
        plt.rcParams["figure.figsize"] = (width, height)
        history = charts.plot_optimization_history(study, target_name=results.metric)
        history.set_title(f"Sweep {results.study}, complete trials: {len(values)}")
        history.legend()
        history.locator_params(axis="x", integer=True)
        plt.rcParams["figure.figsize"] = (width if count == 1 else 2 * width / count, height)
        slices: Any = charts.plot_slice(study, list(parameters), target_name=results.metric)
        slices = np.atleast_1d(slices)
        slices[0].figure.suptitle("")
        for axes in slices:
            key = axes.get_xlabel()
            axes.set(title="", xlabel=names[key])
            if parameters[key].log:
                style.log_axis(axes, "x", [parameters[key].low or 0, parameters[key].high or 0])
            elif parameters[key].choices:
                labels = (re.sub("[]['\"{}]", "", t.get_text()) for t in axes.get_xticklabels())
                axes.set_xticks(axes.get_xticks(), [textwrap.fill(label, 16) for label in labels])
        if 0 < 4 * min(values) < max(values):
            style.log_axis(history, "y", values)
            style.log_axis(slices[0], "y", values)
        figures: Any = (history.get_figure(), slices[0].get_figure())
        for figure in figures:
            figure.canvas.draw()
        pixels = [np.asarray(figure.canvas.buffer_rgba())[..., :3] for figure in figures]
        plt.close("all")
    plt.style.reload_library()
    write_atomic(results.folder / "sweep.png", png(np.concatenate(pixels)))
