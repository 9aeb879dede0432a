"""The key `training.optimizer` of a config: names, options and defaults are those of Keras."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field

from convae.section import Section

Momentum = Annotated[float, Field(ge=0, lt=1)]
Positive = Annotated[float, Field(gt=0)]
NotNegative = Annotated[float, Field(ge=0)]


class Optimizer(Section):
    """The options that every optimizer has."""

    type: str

    global_clipnorm: Positive | None = None
    """The largest norm of the gradient of all weights; a longer one is shortened. null: any."""

    ema_momentum: Momentum | None = None
    """Of an exponential moving average of the weights, which is validated and saved. null: none."""


class Adam(Optimizer):
    """Kingma and Ba, "Adam: a method for stochastic optimization", 2014."""

    type: Literal["adam"] = "adam"

    beta_1: Momentum = 0.9
    """How slowly the mean of the gradient changes."""

    beta_2: Momentum = 0.999
    """How slowly the mean of its square changes; less suits trainings of a few hundred steps."""

    epsilon: Positive = 1e-7
    """Added to the root of that square."""


class AdamW(Adam):
    """Adam with weight decay: Loshchilov and Hutter, "Decoupled weight decay", 2019."""

    type: Literal["adamw"]  # type: ignore[assignment]

    weight_decay: NotNegative = 0.004
    """The share of a weight that a step removes, times the learning rate."""


class Nadam(Adam):
    """Adam with Nesterov's momentum: Dozat, "Incorporating Nesterov momentum into Adam", 2016."""

    type: Literal["nadam"]  # type: ignore[assignment]


class RMSprop(Optimizer):
    """The gradient over the root of the mean of its square: Hinton, 2012."""

    type: Literal["rmsprop"]

    rho: Momentum = 0.9
    """How slowly the mean of the square changes."""

    momentum: Momentum = 0.0
    """The share of the last step that is repeated."""

    epsilon: Positive = 1e-7
    """Added to the mean of the square."""

    centered: bool = False
    """Whether the variance of the gradient takes the place of the mean of its square."""


class Sgd(Optimizer):
    """Gradient descent."""

    type: Literal["sgd"]

    momentum: Momentum = 0.0
    """The share of the last step that is repeated."""

    nesterov: bool = False
    """Whether the gradient is taken after that repeated part of the step."""


class Lion(Optimizer):
    """The sign of a mean of gradients: Chen et al., "Symbolic discovery of optimization", 2023."""

    type: Literal["lion"]

    beta_1: Momentum = 0.9
    """The share of the mean, the rest is the gradient, in the sum whose sign is the step."""

    beta_2: Momentum = 0.99
    """How slowly the mean of the gradient changes."""

    weight_decay: NotNegative = 0.0
    """The share of a weight that a step removes, times the learning rate."""


class Muon(Optimizer):
    """Orthogonal steps for kernels, AdamW for biases: Jordan et al., "Muon", 2024.

    A kernel is a matrix with a row for each of its positions and channels on all axes but the last.
    """

    type: Literal["muon"]

    momentum: Momentum = 0.95
    """How slowly the mean of a kernel's gradient changes."""

    nesterov: bool = True
    """Whether the gradient counts again on top of that mean."""

    ns_steps: Annotated[int, Field(ge=1, le=50)] = 5
    """The Newton-Schulz iterations that make the step of a kernel nearly orthogonal."""

    weight_decay: NotNegative = 0.004
    """The share of a kernel's weight that a step removes, times the learning rate."""

    adam_beta_1: Momentum = 0.9
    """beta_1 of Adam for biases."""

    adam_beta_2: Momentum = 0.999
    """beta_2 of Adam for biases."""

    adam_weight_decay: NotNegative = 0.004
    """The share of a bias that a step removes, times the learning rate."""

    epsilon: Positive = 1e-7
    """epsilon of Adam for biases."""


def _with_type(optimizer: Any) -> Any:
    """Let options without a type be those of Adam."""
    return {"type": "adam", **optimizer} if isinstance(optimizer, dict) else optimizer


_Sections = Annotated[
    Adam | AdamW | Nadam | RMSprop | Sgd | Lion | Muon, Field(discriminator="type")
]
_Types = Literal["adam", "adamw", "nadam", "rmsprop", "sgd", "lion", "muon"]
AnyOptimizer = Annotated[
    _Sections, BeforeValidator(_with_type, json_schema_input_type=_Sections | _Types)
]
