"""What came of a sweep: the table, the chart, and the best config, ready for `convae train`."""

from __future__ import annotations

import json
import math
import shlex
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from convae.config.loader import load_config
from convae.errors import ConfigError
from convae.files import write_atomic

if TYPE_CHECKING:
    import optuna
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

    from convae.sweep.space import Parameter, Sweep

Outcome = Literal["complete", "pruned", "failed", "running", "interrupted"]
FAILED_SHOWN = 5  # of each table, with their reasons


@dataclass(frozen=True)
class Trial:
    """One trial and how it ended. `name` is its folder's."""

    name: str
    outcome: Outcome
    value: float | None  # the metric of its best epoch; of a pruned trial, so far
    epochs: int
    seconds: float
    parameters: dict[str, Any]  # by the config's key
    reason: str = ""  # of a failure
    run: str = ""


@dataclass(frozen=True)
class Results:
    """A study as it stands; `trials` in the order in which they began."""

    study: str
    metric: str
    trials: tuple[Trial, ...]
    total: int  # how many trials were asked for
    stopped: str  # why it ended before that; "" if it did not
    folder: Path

    @property
    def best(self) -> Trial | None:
        """The complete trial with the lowest metric; the first of equals."""
        complete = [trial for trial in self.trials if trial.outcome == "complete"]
        return min(complete, key=lambda trial: trial.value or 0.0, default=None)

    @property
    def ranked(self) -> list[Trial]:
        """Best first: complete trials by their metric, then pruned, then all others."""
        order = ("complete", "pruned", "running", "interrupted", "failed")
        return sorted(
            self.trials,
            key=lambda t: (order.index(t.outcome), math.inf if t.value is None else t.value),
        )

    def record(self) -> dict[str, Any]:
        """The results for a program that reads JSON."""
        best = self.best
        return {
            "study": self.study,
            "metric": self.metric,
            "stopped": self.stopped,
            "best": asdict(best) if best else None,
            "best_config": str(self.folder / "best.yaml") if best else None,
            "trials": [asdict(trial) for trial in self.ranked],
        }


def collect(
    study: optuna.Study,
    settings: Sweep,
    config_path: str,
    overrides: Sequence[str],
    folder: Path,
    stopped: str,
) -> Results:
    """Read the study; write its best.yaml and sweep.png if a trial is complete."""
    from optuna.trial import TrialState

    # A trial that was stopped and goes on is several of Optuna's, all with the same folder.
    tries: dict[str, list[optuna.trial.FrozenTrial]] = {}
    waiting = set()
    for one in study.get_trials(deepcopy=False):
        if one.state == TrialState.WAITING:
            waiting.add(folder_of(one))
        elif one.params:
            tries.setdefault(folder_of(one), []).append(one)
    trials = tuple(
        _trial(name, tries[name], name in waiting, settings.parameters) for name in sorted(tries)
    )
    results = Results(study.study_name, settings.metric, trials, settings.trials, stopped, folder)
    if results.best:
        try:
            folder.mkdir(parents=True, exist_ok=True)
            text = best_config(results, config_path, overrides)
            write_atomic(folder / "best.yaml", text.encode())
            from convae.plots.style import save

            save(chart(results, settings.parameters), folder / "sweep.png")
        except OSError as error:
            raise ConfigError(f"{folder}: the results cannot be written: {error}") from None
    return results


def folder_of(trial: optuna.trial.FrozenTrial | optuna.trial.Trial) -> str:
    """The name of a trial's folder: that of its first try."""
    return str(trial.user_attrs.get("folder", f"trial-{trial.number:04d}"))


def _trial(
    name: str, tries: Sequence[optuna.trial.FrozenTrial], waits: bool, keys: Iterable[str]
) -> Trial:
    from optuna.trial import TrialState

    outcomes: dict[TrialState, Outcome] = {
        TrialState.COMPLETE: "complete",
        TrialState.PRUNED: "pruned",
        TrialState.FAIL: "failed",
        TrialState.RUNNING: "running",
    }
    last = tries[-1]
    seen = last.intermediate_values
    return Trial(
        name=name,
        outcome="interrupted" if waits else outcomes[last.state],
        value=min(seen.values()) if seen else None,
        epochs=max(seen, default=0),
        seconds=sum(one.duration.total_seconds() for one in tries if one.duration),
        parameters={key: plain(last.params[key]) for key in keys},
        reason=last.user_attrs.get("reason", ""),
        run=last.user_attrs.get("run", ""),
    )


def plain(value: Any) -> Any:
    """A value as Optuna keeps it -> as YAML gives it: choices are kept as JSON."""
    return json.loads(value) if isinstance(value, str) else value


def best_config(results: Results, config_path: str, overrides: Sequence[str]) -> str:
    """The resolved config of the best trial, with a head that says where it is from."""
    best = results.best
    assert best is not None  # noqa: S101
    chosen = [f"{key}={json.dumps(value)}" for key, value in best.parameters.items()]
    values = "".join(f"#   {word}\n" for word in chosen)
    return (
        f"# The best of {len(results.trials)} trials of the sweep {results.study} over "
        f"{config_path}: {results.metric} {best.value:.5f} ({best.name}).\n{values}#\n"
        f"#   convae train {shlex.quote(str(results.folder / 'best.yaml'))}\n"
        + load_config(config_path, [*overrides, *chosen]).to_yaml()
    )


def short_names(keys: Sequence[str]) -> dict[str, str]:
    """Each dotted key by as few of its last words as tell it from the others."""
    found = {}
    for key in keys:
        words = key.split(".")
        for count in range(1, len(words) + 1):
            name = ".".join(words[-count:])
            others = (other for other in keys if other != key)
            told = not any(f".{other}".endswith(f".{name}") for other in others)
            if told and not name[0].isdecimal():  # the place in a list says nothing without it
                break
        found[key] = name
    return found


def table(results: Results) -> str:
    """The trials, best first, and where the best config is, for a terminal."""
    names = short_names(list(results.trials[0].parameters)) if results.trials else {}
    head = ["trial", results.metric, "epochs", "time", *names.values()]
    rows = [head]
    failed = [trial for trial in results.ranked if trial.outcome == "failed"]
    for trial in results.ranked:
        value = "-" if trial.value is None else f"{trial.value:.5f}"
        if trial.outcome != "complete":
            value = f"{trial.outcome} {value}" if trial.value is not None else trial.outcome
        values = [_text(trial.parameters[key]) for key in names]
        rows.append([trial.name, value, str(trial.epochs), f"{trial.seconds:.0f} s", *values])
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    lines = [
        "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip()
        for row in rows
    ]
    lines += [f"{trial.name} failed: {trial.reason}" for trial in failed[:FAILED_SHOWN]]
    if len(failed) > FAILED_SHOWN:
        lines.append(f"... and {len(failed) - FAILED_SHOWN} more, see their train.log")
    if best := results.best:
        lines += [
            f"best: {results.metric} {best.value:.5f} ({best.name})",
            f"wrote {results.folder / 'best.yaml'} and {results.folder / 'sweep.png'}",
        ]
    elif results.trials:
        lines.append("no trial has come to its end: there is no best config")
    return "\n".join(lines)


def _text(value: Any) -> str:
    if isinstance(value, float):
        return f"{value:.4g}"
    return value if isinstance(value, str) else json.dumps(value)


def chart(results: Results, parameters: Mapping[str, Parameter]) -> Figure:
    """The metric by trial with the best so far, and a panel for each parameter."""
    from convae.plots import style

    with style.applied():
        names = short_names(list(parameters))
        columns = 2 if len(parameters) in {2, 4} else min(3, len(parameters))
        rows = -(-len(parameters) // columns)
        left, gap, width = style.MARGIN + 50.0, 66.0, 860.0
        room = width - left - style.MARGIN
        wide = (room + gap) / columns - gap
        best = results.best
        counts = {
            outcome: sum(trial.outcome == outcome for trial in results.trials)
            for outcome in ("complete", "pruned", "failed")
        }
        told = ", ".join(f"{count} {outcome}" for outcome, count in counts.items() if count)
        paper = style.sheet(
            width,
            310 + rows * 260,
            f"Sweep {results.study}: {results.metric} of {len(results.trials)} trials",
            f"{told}. Best: {best.value:.5f}, {best.name}" if best else told,
        )
        _over_trials(paper.panel(left, 30, room, 210), results)
        for index, (key, parameter) in enumerate(parameters.items()):
            x = left + index % columns * (wide + gap)
            y = 330 + index // columns * 260
            _over_values(paper.panel(x, y, wide, 180), results, key, parameter, names[key])
        return paper.figure


def _scatter(axes: Axes, xs: Mapping[str, float], results: Results) -> None:
    """A dot a trial that has a value, the best one marked; `xs` by the trial's name."""
    from convae.plots import style

    looks = {"complete": (style.BLUE, "o"), "pruned": (style.ORANGE, "x")}
    for outcome, (color, marker) in looks.items():
        shown = [t for t in results.trials if t.outcome == outcome and t.value is not None]
        if shown:
            axes.scatter(
                [xs[t.name] for t in shown],
                [t.value or 0.0 for t in shown],
                color=color,
                marker=marker,
                s=26,
                label=outcome,
            )
    best = results.best
    if best and best.value is not None:
        axes.scatter(
            [xs[best.name]], [best.value], s=110, facecolors="none", edgecolors=style.VERMILION,
            linewidths=1.8, label="best",
        )  # fmt: skip
    values = [trial.value for trial in results.trials if trial.value is not None]
    if values and 0 < 4 * min(values) < max(values):
        _log(axes, "y", min(values), max(values))


def _over_trials(axes: Axes, results: Results) -> None:
    from matplotlib.ticker import MaxNLocator

    from convae.plots import style

    order = {trial.name: float(number) for number, trial in enumerate(results.trials, 1)}
    so_far, steps = math.inf, []
    for trial in results.trials:
        if trial.outcome == "complete" and trial.value is not None:
            so_far = min(so_far, trial.value)
        steps.append(so_far)
    axes.step(list(order.values()), steps, where="post", color=style.SKY, zorder=1)
    _scatter(axes, order, results)
    failed = [order[trial.name] for trial in results.trials if trial.outcome == "failed"]
    if failed:
        axes.scatter(
            failed, [0.02] * len(failed), marker="v", color=style.GRAY, s=26, label="failed",
            transform=axes.get_xaxis_transform(), clip_on=False,
        )  # fmt: skip
    axes.set_title(f"{results.metric} by trial, and the best so far")
    axes.set_xlabel("trial, in the order of their beginning")
    axes.set_xlim(0.5, len(order) + 0.5)
    axes.xaxis.set_major_locator(MaxNLocator(10, integer=True, min_n_ticks=1))
    axes.legend(loc="lower right", bbox_to_anchor=(1, 1), ncols=4, borderaxespad=0.2)


def _over_values(axes: Axes, results: Results, key: str, parameter: Parameter, name: str) -> None:
    from matplotlib.ticker import MaxNLocator

    if parameter.choices is None:
        xs = {trial.name: float(trial.parameters[key]) for trial in results.trials}
        low, high = float(parameter.low or 0), float(parameter.high or 0)
        if parameter.log:
            _log(axes, "x", low, high)
        else:
            room = (high - low) * 0.04
            axes.set_xlim(low - room, high + room)
            whole = isinstance(parameter.low, int) and isinstance(parameter.high, int)
            axes.xaxis.set_major_locator(MaxNLocator(6, integer=whole))
    else:
        places = {value: float(place) for place, value in enumerate(parameter.stored)}
        xs = {trial.name: places[json.dumps(trial.parameters[key])] for trial in results.trials}
        texts = [_text(choice)[:14] for choice in parameter.choices]
        axes.set_xticks(range(len(texts)), texts)
        axes.set_xlim(-0.5, len(texts) - 0.5)
    _scatter(axes, xs, results)
    axes.set_title(f"by {name}")


def _log(axes: Axes, which: Literal["x", "y"], low: float, high: float) -> None:
    """A log axis whose ticks are plain numbers: 1, 3, 10, ..., or as many as there is room for."""
    from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter

    axis = {"x": axes.xaxis, "y": axes.yaxis}[which]
    axes.set(**{f"{which}scale": "log", f"{which}lim": (low / 1.15, high * 1.15)})
    decades = math.log10(high / low)
    subs = (1.0, 2.0, 5.0) if decades < 1.5 else (1.0, 3.0) if decades < 2.6 else (1.0,)
    axis.set_major_locator(LogLocator(subs=subs, numticks=12))
    axis.set_major_formatter(FuncFormatter(lambda x, _: f"{x:g}"))
    axis.set_minor_formatter(NullFormatter())
