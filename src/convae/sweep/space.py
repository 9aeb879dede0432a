"""The schema of a sweep.yaml: which values the keys of a config may take."""

from __future__ import annotations

import json
import math
from typing import TYPE_CHECKING, Annotated, Any, Literal

from pydantic import Field, model_validator

from convae.layers.spec import Size
from convae.section import Section

if TYPE_CHECKING:
    import optuna


class Parameter(Section):
    """The values that a config key may take: a range from `low` to `high`, or choices."""

    low: int | float | None = None
    """The lowest value. If both ends are integers, only integers are chosen."""

    high: int | float | None = None
    """The highest value, included."""

    log: bool = False
    """Whether equal ratios are equally likely, not equal differences."""

    choices: tuple[Any, ...] | None = None
    """The values themselves, in the place of `low` and `high`."""

    @model_validator(mode="after")
    def _range_or_choices(self) -> Parameter:
        if self.choices is not None:
            if self.low is not None or self.high is not None or self.log:
                raise ValueError("takes choices, or low and high, not both")
            if not self.choices or len(set(self.stored_choices)) < len(self.choices):
                raise ValueError("choices must be different values, at least one")
            return self
        if self.low is None or self.high is None:
            raise ValueError("needs low and high, or choices")
        if not self.low < self.high:
            raise ValueError(f"low must be below high. Received: {self.low} and {self.high}")
        if self.log and self.low <= 0:
            raise ValueError(f"log: true needs low above 0. Received: {self.low}")
        return self

    @property
    def stored_choices(self) -> list[str]:
        """The choices as JSON: Optuna stores no lists or mappings."""
        return [json.dumps(choice) for choice in self.choices or ()]

    @property
    def extremes(self) -> list[str]:
        """All choices, or the ends of the range, as JSON."""
        return self.stored_choices or [json.dumps(self.low), json.dumps(self.high)]

    def distribution(self) -> optuna.distributions.BaseDistribution:
        """Return Optuna's distribution; of integers if both ends are integers."""
        from optuna import distributions

        if self.choices is not None:
            return distributions.CategoricalDistribution(self.stored_choices)
        low, high = self.low or 0, self.high or 0
        if isinstance(low, int) and isinstance(high, int):
            return distributions.IntDistribution(low, high, self.log)
        return distributions.FloatDistribution(float(low), float(high), self.log)


def to_json(stored: Any) -> str:
    """Return a parameter's value in Optuna's storage as JSON."""
    return stored if isinstance(stored, str) else json.dumps(stored)


class Sweep(Section):
    """A search for good values of config keys."""

    parameters: Annotated[dict[str, Parameter], Field(min_length=1)]
    """The keys of the config that vary, such as training.learning_rate, and their values."""

    trials: Size = 20
    """The number of trials of the whole study, those before an interruption included."""

    workers: Annotated[int, Field(ge=1, le=256)] = 1
    """The number of trials side by side on this machine."""

    metric: Literal["val_loss", "val_excess", "loss"] = "val_loss"
    """What the best trial has least of, in its best epoch."""

    pruner: Literal["median", "none"] = "median"
    """median: after 5 trials, one above their median in the same epoch is stopped."""

    sampler: Literal["tpe", "random", "grid"] = "tpe"
    """tpe: 10 random trials, then near the good ones; grid: all choices; random."""

    seed: Annotated[int, Field(ge=0, lt=2**32)] = 0
    """The random choices depend on it."""

    @model_validator(mode="after")
    def _grid_of_choices(self) -> Sweep:
        ranges = [key for key, parameter in self.parameters.items() if not parameter.choices]
        if self.sampler == "grid" and ranges:
            raise ValueError(f"sampler: grid needs choices for every key; {ranges[0]} has a range")
        return self

    @property
    def combinations(self) -> float:
        """How many different trials there can be at most; infinite unless `sampler` is grid."""
        if self.sampler != "grid":
            return math.inf
        return math.prod(len(parameter.choices or ()) for parameter in self.parameters.values())
