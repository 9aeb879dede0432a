"""The schema of a config, and its way from YAML: read, `base:`, overrides, check.

YAML keys are field names are builder arguments: there is no second vocabulary. Everything here
works without TensorFlow, so a wrong config is answered at once.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal, get_args

import yaml
from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationError, model_validator

from convae.errors import UserError
from convae.lab import ledger

MAX_BYTES = 1_000_000  # a config is written by hand; anything longer is a mistake or an attack
MAX_DEPTH = 20


class Section(BaseModel):
    """A frozen part of a config; an unknown key is an error."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)


def _both(value: object) -> object:
    """`3` means the same along both axes: (3, 3)."""
    return (value, value) if isinstance(value, int) and not isinstance(value, bool) else value


Size = Annotated[int, Field(ge=1)]
Pair = Annotated[tuple[Size, Size], BeforeValidator(_both)]
Extra = Annotated[
    tuple[Annotated[int, Field(ge=0)], Annotated[int, Field(ge=0)]], BeforeValidator(_both)
]
Fraction = Annotated[float, Field(gt=0, lt=1)]
Activation = Literal[
    "linear", "relu", "leaky_relu", "elu", "selu", "gelu", "silu", "softplus", "tanh", "sigmoid"
]
Initializer = Literal[
    "he_normal", "he_uniform", "glorot_normal", "glorot_uniform", "lecun_normal", "lecun_uniform"
]


class Conv(Section):
    """A `keras.layers.Conv2D`; the options are Keras' own."""

    type: Literal["conv"]
    name: Annotated[str, Field(pattern=r"^[A-Za-z][A-Za-z0-9_]*$")] | None = None
    filters: Size
    kernel_size: Pair
    strides: Pair = (1, 1)
    padding: Literal["valid", "same"] = "valid"
    dilation_rate: Pair = (1, 1)
    activation: Activation = "linear"
    use_bias: bool = True
    kernel_initializer: Initializer = "glorot_uniform"

    @model_validator(mode="after")
    def _stride_or_dilation(self) -> Conv:
        if max(self.strides) > 1 and max(self.dilation_rate) > 1:
            raise ValueError("strides and dilation_rate cannot both be above 1 (Keras refuses it)")
        return self


class ConvTranspose(Conv):
    """A `keras.layers.Conv2DTranspose`; the options are Keras' own."""

    type: Literal["conv_transpose"]  # type: ignore[assignment]
    output_padding: Extra | None = None

    @model_validator(mode="after")
    def _output_padding_below_strides(self) -> ConvTranspose:
        if self.output_padding and any(
            o >= s for o, s in zip(self.output_padding, self.strides, strict=True)
        ):
            raise ValueError(
                f"output_padding {self.output_padding} must be smaller than strides {self.strides}"
            )
        return self


Layer = Annotated[Conv | ConvTranspose, Field(discriminator="type")]
Stack = Annotated[tuple[Layer, ...], Field(min_length=1)]


class Model(Section):
    """Layer by layer: what the encoder makes of an image, and the decoder of the code."""

    input_shape: tuple[Size, Size, Literal[1, 3]] = (28, 28, 1)  # height, width, channels
    encoder: Stack
    decoder: Stack

    @property
    def layers(self) -> tuple[Layer, ...]:
        """All layers in the order in which an image passes them."""
        return self.encoder + self.decoder


class Data(Section):
    """Where images come from and how they are split."""

    path: str | None = None  # npz, folder of IDX files, folder of images; null: MNIST
    download: bool = True
    allow_sample: bool = True
    resize: Pair | None = None  # height, width
    subset: Size | None = None  # the first so many training images
    validation_split: Fraction = 0.2
    test_split: Fraction = 0.1  # only for data that come without a test part


class Constant(Section):
    """The learning rate stays what it is."""

    type: Literal["constant"] = "constant"


class OneCycle(Section):
    """A linear warm-up to `learning_rate`, then a cosine to zero at the last step."""

    type: Literal["one_cycle"]
    warmup: Annotated[float, Field(ge=0, lt=1)] = 0.1  # share of all steps


class ReduceOnPlateau(Section):
    """The learning rate falls by `factor` after `patience` epochs without a better val_loss."""

    type: Literal["reduce_on_plateau"]
    factor: Fraction = 0.5
    patience: Size = 3
    min_learning_rate: Annotated[float, Field(ge=0)] = 0.0


class EarlyStopping(Section):
    """Training ends after `patience` epochs without a val_loss better by `min_delta`."""

    patience: Size = 5
    min_delta: Annotated[float, Field(ge=0)] = 0.0


class Training(Section):
    """How the weights are found."""

    epochs: Size = 25
    batch_size: Size = 1000
    optimizer: Literal["adam", "sgd"] = "adam"
    learning_rate: Annotated[float, Field(gt=0)] = 1e-3
    schedule: Annotated[Constant | OneCycle | ReduceOnPlateau, Field(discriminator="type")] = (
        Constant()
    )
    early_stopping: EarlyStopping | None = None
    loss: Literal["binary_crossentropy", "mean_squared_error"] = "binary_crossentropy"


class Runtime(Section):
    """What the training runs on; `auto` is decided once, printed and recorded."""

    device: Literal["auto", "cpu", "gpu"] = "auto"
    precision: Literal["auto", "float32", "mixed_bfloat16"] = "auto"
    jit_compile: bool | Literal["auto"] = "auto"
    strands: Size | Literal["auto"] = "auto"
    micro_batch: Size | Literal["auto"] = "auto"


class Output(Section):
    """Where runs are kept."""

    folder: str = "outputs"


class Config(Section):
    """One experiment, whole."""

    name: Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9_.-]{0,63}$")]
    seed: Annotated[int, Field(ge=0, lt=2**32)] = 0
    data: Data = Data()
    model: Model
    training: Training = Training()
    runtime: Runtime = Runtime()
    output: Output = Output()

    @model_validator(mode="after")
    def _loss_fits_activation(self) -> Config:
        last = self.model.decoder[-1].activation
        if self.training.loss == "binary_crossentropy" and last != "sigmoid":
            raise ValueError(
                f"binary_crossentropy needs a last layer with activation: sigmoid. Received: {last}"
            )
        return self

    def to_yaml(self) -> str:
        """The resolved config as YAML: every default written out."""
        return yaml.safe_dump(self.model_dump(mode="json"), sort_keys=False, width=100)


Path_ = tuple[str | int, ...]  # the way to a key: ("model", "encoder", 0, "filters")


class _Loader(yaml.SafeLoader):
    """SafeLoader that also takes YAML 1.2's floats: PyYAML reads 1e-3 as text."""


_Loader.yaml_implicit_resolvers = {k: list(v) for k, v in _Loader.yaml_implicit_resolvers.items()}
_Loader.add_implicit_resolver(
    "tag:yaml.org,2002:float", re.compile(r"^[-+]?\d+(\.\d*)?[eE][-+]?\d+$"), list("-+0123456789")
)


def load_config(path: str | Path, overrides: Sequence[str] = ()) -> Config:
    """Read the YAML at `path`, its `base:` files below it and `key.sub=value` overrides above it.

    Raises UserError with every error of the config at once, each with file and line.
    """
    tree, places = _read(Path(path), ())
    tree.setdefault("name", Path(path).stem)
    for override in overrides:
        _override(tree, places, override)
    return _check(tree, places, str(path))


def parse_config(text: str, source: str, overrides: Sequence[str] = ()) -> Config:
    """The config in a YAML text without `base:`, such as a run's resolved one."""
    tree, places = _parse(text, source)
    for override in overrides:
        _override(tree, places, override)
    return _check(tree, places, source)


def _check(tree: dict[str, Any], places: Mapping[Path_, str], source: str) -> Config:
    try:
        config = Config.model_validate(_tuples(tree))
    except ValidationError as error:
        lines = [_line(tree, places, e) for e in error.errors(include_url=False)]
        count = "1 error" if len(lines) == 1 else f"{len(lines)} errors"
        raise UserError(f"{source}: {count}\n" + "\n".join(f"  {line}" for line in lines)) from None
    if problem := ledger.check(
        config.model.input_shape, config.model.encoder, config.model.decoder
    ):
        index, text = problem
        encoder = len(config.model.encoder)
        where = ("encoder", index) if index < encoder else ("decoder", index - encoder)
        place = _place(places, ("model", *where))
        raise UserError(f"{source}: the layers do not fit together\n  {place}{text}")
    return config


def _read(path: Path, above: tuple[Path, ...]) -> tuple[dict[str, Any], dict[Path_, str]]:
    """A YAML file over its `base:`, and for each key the file and line that it came from."""
    resolved = path.resolve()
    if resolved in above:
        chain = " -> ".join(p.name for p in (*above, resolved))
        raise UserError(f"{path}: `base:` leads back to the file itself: {chain}")
    try:
        if path.stat().st_size > MAX_BYTES:
            raise UserError(f"{path}: a config of more than {MAX_BYTES:,} bytes is refused")
        text = path.read_text(encoding="utf-8")
    except FileNotFoundError:
        raise UserError(f"{path}: no such file.{_near_files(path)}") from None
    except (OSError, UnicodeDecodeError, ValueError) as error:
        raise UserError(f"{path}: cannot be read as a text file: {error}") from None
    tree, places = _parse(text, str(path))
    base = tree.pop("base", None)
    if base is None:
        return tree, places
    if not isinstance(base, str):
        raise UserError(f"{_place(places, ('base',))}base: must name a YAML file. Received: {base}")
    below, below_places = _read(path.parent / base, (*above, resolved))
    below.pop("name", None)  # a config is named by its own file
    return _merge(below, tree), below_places | places


def _near_files(path: Path) -> str:
    there = sorted(p.name for p in path.parent.glob("*.y*ml")) if path.parent.is_dir() else []
    near = difflib.get_close_matches(path.name, there, 3, 0.5) or there[:8]
    return f" In {path.parent}: {', '.join(near)}" if near else ""


def _parse(text: str, source: str) -> tuple[dict[str, Any], dict[Path_, str]]:
    places: dict[Path_, str] = {}

    def value(node: yaml.Node, path: Path_) -> Any:
        line = node.start_mark.line + 1
        places.setdefault(path, f"{source}, line {line}")
        if isinstance(node, yaml.SequenceNode):
            return [value(item, (*path, i)) for i, item in enumerate(node.value)]
        if isinstance(node, yaml.MappingNode):
            result: dict[str, Any] = {}
            for key_node, item in node.value:
                at = f"{source}, line {key_node.start_mark.line + 1}"
                if not isinstance(key_node, yaml.ScalarNode):
                    raise UserError(f"{at}: a key must be a word")
                key = str(key_node.value)
                if key in result:
                    raise UserError(f"{at}: {key} stands here for the second time")
                places[(*path, key)] = at
                result[key] = value(item, (*path, key))
            return result
        return loader.construct_object(node)

    try:
        _refuse_traps(text, source)
        loader = _Loader(text)
        try:
            node = loader.get_single_node()
            tree = {} if node is None else value(node, ())
        finally:
            loader.dispose()
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark
        at = f", line {mark.line + 1}, column {mark.column + 1}" if mark else ""
        raise UserError(f"{source}{at}: not YAML: {error.problem or error.context}") from None
    except (yaml.YAMLError, ValueError) as error:
        raise UserError(f"{source}: not YAML: {error}") from None
    if not isinstance(tree, dict):
        raise UserError(f"{source}: must be a mapping of keys to values. Received: {tree!r:.80}")
    return tree, places


def _refuse_traps(text: str, source: str) -> None:
    """Stop at the first alias or too deep level: both can make a small file a huge tree."""
    depth = 0
    for event in yaml.parse(text, Loader=_Loader):
        place = f"{source}, line {event.start_mark.line + 1}"
        if isinstance(event, yaml.AliasEvent):
            raise UserError(f"{place}: YAML aliases (*name) are refused; `base:` shares settings")
        depth += isinstance(event, yaml.CollectionStartEvent)
        depth -= isinstance(event, yaml.CollectionEndEvent)
        if depth > MAX_DEPTH:
            raise UserError(f"{place}: nested more than {MAX_DEPTH} deep")


def _merge(below: dict[str, Any], above: dict[str, Any]) -> dict[str, Any]:
    """Mappings merge key by key, all else is replaced, and so is a mapping of another `type`."""
    merged = dict(below)
    for key, value in above.items():
        old = merged.get(key)
        if isinstance(old, dict) and isinstance(value, dict):
            same = value.get("type", old.get("type")) == old.get("type")
            merged[key] = _merge(old, value) if same else value
        else:
            merged[key] = value
    return merged


def _override(tree: dict[str, Any], places: dict[Path_, str], text: str) -> None:
    key, equals, raw = text.partition("=")
    if not equals or not re.fullmatch(r"[\w-]+(\.[\w-]+)*", key):
        raise UserError(
            f"override {text!r}: must read key=value or key.sub=value, such as training.epochs=5"
        )
    source = f"override {text}"
    parsed, _ = _parse(f"value: {raw}", source)
    *parents, last = (int(part) if part.isdigit() else part for part in key.split("."))
    node: Any = tree
    for depth, part in enumerate(parents):
        if isinstance(node, list):
            if not isinstance(part, int) or part >= len(node):
                raise UserError(f"{source}: {part} is no place in a list of {len(node)}")
            node = node[part]
        else:
            if not isinstance(node.get(str(part)), dict | list):
                node[str(part)] = {}
            node = node[str(part)]
        if not isinstance(node, dict | list):
            raise UserError(f"{source}: {'.'.join(map(str, parents[: depth + 1]))} holds no keys")
    if isinstance(node, list):
        if not isinstance(last, int) or last >= len(node):
            raise UserError(f"{source}: {last} is no place in a list of {len(node)}")
        node[last] = parsed["value"]
    else:
        last = str(last)
        old = node.get(last)
        if isinstance(old, dict) and isinstance(parsed["value"], dict):
            parsed["value"] = _merge({last: old}, {last: parsed["value"]})[last]
        node[last] = parsed["value"]
    places[(*parents, last)] = source


def _tuples(value: Any) -> Any:
    if isinstance(value, dict):
        return {k: _tuples(v) for k, v in value.items()}
    return tuple(_tuples(v) for v in value) if isinstance(value, list) else value


def _place(places: Mapping[Path_, str], path: Path_) -> str:
    """Where the key stands, or the nearest key above it that stands anywhere."""
    while path and path not in places:
        path = path[:-1]
    return f"{places[path]}: " if path else ""


def _line(tree: Any, places: Mapping[Path_, str], error: Any) -> str:
    """One of pydantic's errors as one line: place, key, what is wrong, what was received."""
    path: list[str | int] = []
    section: Any = Config
    choices: list[Any] = []
    node = tree
    for i, part in enumerate(error["loc"]):
        last = i == len(error["loc"]) - 1
        known = getattr(section, "model_fields", {})
        choice = next((c for c in choices if part in _types(c)), None)
        if choice is not None and not (isinstance(node, dict) and part in node):
            section, choices = choice, []  # the tag of a union, which is no key of the YAML
            continue
        if (
            not isinstance(part, int)
            and part not in known
            and not (last and error["type"] in {"extra_forbidden", "missing"})
        ):
            continue  # the name of a type in a union
        path.append(part)
        if part in known:
            choices = _sections(known[part].annotation)
            section = choices[0] if len(choices) == 1 else None
        try:
            node = node[part]
        except (KeyError, IndexError, TypeError):
            node = None
    key = ".".join(map(str, path))
    place = _place(places, tuple(path))
    message = error["msg"].removeprefix("Value error, ")
    message = message[:1].lower() + message[1:]
    if error["type"] == "missing":
        return f"{place}{key}: is missing"
    if error["type"] == "extra_forbidden":
        known = getattr(section, "model_fields", {})
        near = difflib.get_close_matches(str(path[-1]), known, 1, 0.5)
        hint = f"did you mean {near[0]}?" if near else f"known here: {', '.join(known)}"
        return f"{place}{key}: unknown key; {hint}"
    if error["type"] == "value_error":
        return f"{place}{key}{': ' if key else ''}{message}"
    return f"{place}{key}: {message}. Received: {error['input']!r:.80}"


def _sections(annotation: Any) -> list[Any]:
    """The Section classes inside a type such as tuple[Annotated[Conv | ConvTranspose, ...]]."""
    if isinstance(annotation, type) and issubclass(annotation, Section):
        return [annotation]
    return [s for arg in get_args(annotation) for s in _sections(arg)]


def _types(section: Any) -> tuple[Any, ...]:
    field = section.model_fields.get("type")
    return get_args(field.annotation) if field else ()
