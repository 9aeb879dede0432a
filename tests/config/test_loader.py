from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from convae.config.loader import load_config, parse_config
from convae.config.optimizer_schema import Adam
from convae.config.renamed import RENAMED
from convae.config.schema import Config
from convae.config.task_schema import Anomaly
from convae.errors import ConvaeError
from convae.layers.spec import ConvTranspose
from tests.conftest import ROOT

MNIST = ROOT / "configs/mnist.yaml"


def write(folder: Path, text: str, name: str = "c.yaml") -> Path:
    path = folder / name
    path.write_text(f"base: {MNIST}\n{text}")
    return path


def message(path: Path, *overrides: str) -> str:
    with pytest.raises(ConvaeError) as caught:
        load_config(path, overrides)
    return str(caught.value)


def test_mnist_yaml_is_the_article() -> None:
    config = load_config(MNIST)
    layers = config.model.layers
    assert [layer.filters for layer in layers] == [32, 16, 8, 8, 16, 32, 1]
    assert {layer.kernel_size for layer in layers} == {(3, 3)}
    assert [isinstance(layer, ConvTranspose) for layer in layers] == [0, 0, 0, 1, 1, 1, 0]
    assert [layer.padding for layer in layers] == ["valid"] * 6 + ["same"]
    assert [layer.activation for layer in layers] == ["relu"] * 6 + ["sigmoid"]
    assert {layer.kernel_initializer for layer in layers[:-1]} == {"he_normal"}
    assert (config.training.epochs, config.training.batch_size) == (25, 1000)
    assert (config.training.optimizer, config.training.loss) == (Adam(), "binary_crossentropy")
    assert (config.data.validation_split, config.seed, config.name) == (0.2, 0, "mnist")


def test_all_errors_come_at_once_each_with_its_line(tmp_path: Path) -> None:
    text = "training:\n  epoch: 3\n  batch_size: 0\ndata:\n  subset: many\ncolor: red\n"
    path = write(tmp_path, text)
    lines = message(path).splitlines()
    assert lines[0] == f"{path}: 4 errors"
    assert any("line 3: training.epoch: unknown key; did you mean epochs?" in x for x in lines)
    assert any("line 4: training.batch_size" in line and "Received: 0" in line for line in lines)
    assert any("line 6: data.subset" in line and "Received: 'many'" in line for line in lines)
    assert any("line 7: color: unknown key; known here: name, seed" in line for line in lines)


@pytest.mark.parametrize(
    ("override", "part"),
    [
        ("training.epochs=2.5", "training.epochs: input should be a valid integer"),
        ("training.epochs=true", "training.epochs: input should be a valid integer"),
        ("training.learning_rate=0", "greater than 0. Received: 0"),
        ("training.learning_rate=.inf", "finite number"),
        ("model.encoder.0.filters=-1", "model.encoder.0.filters: input should be greater"),
        ("model.encoder.0.filter=1", "model.encoder.0.filter: unknown key; did you mean filters?"),
        ("model.encoder.9.filters=1", "9 is no place in a list of 3"),
        ("model.encoder=[]", "model.encoder: "),
        ("model.encoder.0.type=dense", "'conv', 'conv_transpose'"),
        ("model.decoder.0.output_padding=1", "smaller than strides 1. Received: 1"),
        ("model.encoder.0={type: conv, filters: 1, kernel_size: 3, strides: 2, dilation_rate: 2}",
         "cannot both be above 1"),
        ("model.decoder.3.activation=relu", "needs a last layer with activation: sigmoid"),
        ("training.schedule=one_cycle", "mapping of keys to values. Received: 'one_cycle': write "
         "{type: one_cycle}"),
        ("training.early_stopping=5", "must be a mapping of keys to values. Received: 5"),
        ("training.schedule.type=cosine", "'constant', 'one_cycle', 'reduce_on_plateau'"),
        ("training.schedule={type: one_cycle, warm_up: 0.1}", "did you mean warmup?"),
        ("training.optimizer=adamm", "'adam', 'adamw', 'nadam', 'rmsprop', 'sgd', 'lion', 'muon'"),
        ("training.optimizer.momentum=0.9", "known here: type, global_clipnorm, ema_momentum, "
         "beta_1, beta_2, epsilon"),
        ("training.optimizer={type: sgd, nesterow: true}", "did you mean nesterov? known here: "),
        ("training.optimizer.beta_2=1", "beta_2: input should be less than 1. Received: 1"),
        ("training.optimizer={type: sgd, momentum: -0.1}", "greater than or equal to 0"),
        ("training.optimizer.global_clipnorm=0", "input should be greater than 0. Received: 0"),
        ("training.optimizer.ema_momentum=1", "input should be less than 1. Received: 1"),
        ("training.schedule={type: one_cycle, warmup: 1}", "warmup: input should be less than 1"),
        ("training", "must read key=value"),
        ("a b=1", "must read key=value"),
        ("training.epochs=[1", "not YAML"),
        ("seed.x=1", "seed"),
        ("name=../evil", "name: "),
    ],
)  # fmt: skip
def test_wrong_overrides(override: str, part: str) -> None:
    text = message(MNIST, override)
    assert part in text
    assert "Traceback" not in text


def test_sizes_that_are_not_restored_show_the_table_and_a_fix(tmp_path: Path) -> None:
    path = write(tmp_path, "seed: 1")
    text = message(path, "model.decoder.0.padding=same")
    assert "conv2d_4: the decoder gives 26x26x1, but its input is 28x28x1" in text
    assert "suggested fix: conv2d_transpose_1: padding: valid" in text
    assert "conv2d_transpose_1 (Conv2DTranspose)  (None, 22, 22, 8)" in text
    assert text.count("<--") == 1
    assert load_config(path, ["model.decoder.0.padding=same", "model.decoder.0.padding=valid"])


UNET = (
    "model.encoder=[{type: conv, filters: 4, kernel_size: 3, padding: same, name: full},"
    "{type: conv, filters: 4, kernel_size: 3, strides: 2, padding: same, name: half},"
    "{type: conv, filters: 4, kernel_size: 3, strides: 2, padding: same}]",
    "model.decoder=[{type: resize_conv, filters: 4, kernel_size: 3, strides: 2},"
    "{type: depth_to_space, filters: 4, kernel_size: 3, strides: 2, skip: half},"
    "{type: conv, filters: 1, kernel_size: 3, padding: same, skip: full, activation: sigmoid}]",
)


def test_a_skip_names_an_encoder_layer_of_its_size() -> None:
    config = load_config(MNIST, UNET)
    assert [layer.skip for layer in config.model.decoder] == [None, "half", "full"]
    unknown = message(MNIST, *UNET, "model.decoder.1.skip=halves")
    assert "the encoder has no layer called halves; layers of that size: half" in unknown
    large = message(MNIST, *UNET, "model.decoder.1.skip=full")
    assert "skip: full gives 28x28, but the input is 14x14" in large
    assert "layers of that size: half" in large
    early = message(MNIST, *UNET, "model.encoder.1.skip=full")
    assert "skip: only a layer of the decoder can have one" in early
    twice = message(MNIST, *UNET, "model.encoder.1.name=full")
    assert "two layers are called full" in twice


@pytest.mark.parametrize(
    ("overrides", "parts"),
    [
        (["model.decoder.3.activation=softmax"], ["binary_crossentropy needs", "sigmoid"]),
        (["model.decoder.3.activation=linear"], ["binary_crossentropy needs", "sigmoid"]),
        (
            ["model.decoder.3.activation=softmax", "training.loss=mean_squared_error"],
            ["mean_squared_error needs", "linear, sigmoid"],
        ),
        (["training.loss=sparse_categorical_crossentropy"], ["softmax. Received: sigmoid"]),
        (
            ["training.loss=sparse_categorical_crossentropy", "model.decoder.3.activation=softmax"],
            ["task.type: reconstruct needs training.loss: binary_crossentropy"],
        ),
        (["task={type: segment}"], ["segment needs training.loss: sparse_categorical"]),
        (["task={type: segment, digits: [4, 2]}"], ["digits must be [fewest, most]"]),
        (["task={type: upscale, factor: 1}"], ["task.factor", "greater than or equal to 2"]),
        (["task={type: paint}"], ["task", "paint"]),
        (["task={type: denoise, noise: {type: hum}}"], ["task.noise", "hum"]),
        (["task={type: anomaly, target_fpr: 1.5}"], ["task.target_fpr", "1.5"]),
        ([UNET[0], UNET[1], "model.decoder.0.dilation_rate=2"], ["dilat"]),
        ([UNET[0], UNET[1], "model.decoder.0.padding=valid"], ["padding"]),
        (["model.encoder.1.kernel_size=40"],
         ["conv2d_2: kernel_size 40", "larger than its input of 26 pixels"]),
    ],
)  # fmt: skip
def test_what_does_not_go_together(overrides: list[str], parts: list[str]) -> None:
    text = message(MNIST, *overrides)
    for part in parts:
        assert part in text, text


def test_a_decoder_that_misses_the_size_of_the_task_gets_a_fix() -> None:
    upscale = ["task={type: upscale, factor: 2}", "model.input_shape=[14, 14, 1]"]
    stack = [
        "model.encoder=[{type: conv, filters: 4, kernel_size: 3, padding: same}]",
        "model.decoder=[{type: conv_transpose, filters: 4, kernel_size: 3, padding: same},"
        "{type: conv, filters: 1, kernel_size: 3, padding: same, activation: sigmoid}]",
    ]
    text = message(MNIST, *upscale, *stack)
    assert "the decoder gives 14x14x1, but the task requires 28x28x1" in text
    assert "suggested fix: " in text
    fix = "model.decoder.0.strides=2"
    assert load_config(MNIST, [*upscale, *stack, fix]).output_shape == (28, 28, 1)
    text = message(MNIST, *upscale, *stack, fix, "task.factor=3")
    assert "the decoder gives 28x28x1, but the task requires 42x42x1" in text


def test_base_is_merged_key_by_key(tmp_path: Path) -> None:
    write(tmp_path, "training: {epochs: 7, schedule: {type: one_cycle, warmup: 0.3}}", "a.yaml")
    (tmp_path / "b.yaml").write_text("base: a.yaml\ntraining:\n  schedule: {type: constant}\n")
    config = load_config(tmp_path / "b.yaml", ["training.batch_size=10"])
    assert (config.name, config.training.epochs, config.training.batch_size) == ("b", 7, 10)
    assert config.training.schedule.type == "constant"
    assert config.model == load_config(MNIST).model


def test_errors_name_the_file_that_says_it(tmp_path: Path) -> None:
    path = write(tmp_path, "model:\n  encoder:\n    - {type: conv, filters: 3}\n")
    assert message(path).splitlines() == [
        f"{path}: 1 error",
        f"  {path}, line 4: model.encoder.0.kernel_size: is missing",
    ]
    replaced = "override model.input_shape=[28, 28]: model.input_shape.2: is missing"
    assert replaced in message(MNIST, "model.input_shape=[28, 28]")
    assert "override trainin.epochs=1: trainin: unknown key" in message(MNIST, "trainin.epochs=1")
    text = message(MNIST, "runtime.threads=many")
    assert text.count("runtime.threads: ") == 1
    missing = tmp_path / "m.yaml"
    missing.write_text("seed: 1\nbase: nope.yaml\n")
    assert f"{missing}, line 2: base: " in message(missing)


def test_file_names_may_have_blanks_and_a_missing_one_offers_near_names(tmp_path: Path) -> None:
    assert load_config(write(tmp_path, "", "my config.yaml")).name == "my-config"
    assert load_config(write(tmp_path, "", "模型.yaml")).name == "config"
    assert load_config(write(tmp_path, "", f"{'long' * 20}.yaml")).name == "long" * 16
    write(tmp_path, "", "mnist.yaml")
    assert "mnist.yaml" in message(tmp_path / "mnits.yaml")


def test_a_circle_of_bases_is_refused(tmp_path: Path) -> None:
    (tmp_path / "a.yaml").write_text("base: b.yaml\n")
    (tmp_path / "b.yaml").write_text("base: a.yaml\n")
    assert "a.yaml -> b.yaml -> a.yaml" in message(tmp_path / "a.yaml")


@pytest.mark.parametrize(
    ("text", "part"),
    [
        ("- 1\n- 2\n", "must be a mapping"),
        ("a: [1\n", "not YAML"),
        ("seed: 1\nseed: 2\n", "line 2: seed stands here for the second time"),
        ("a: &x 1\nb: *x\n", "aliases"),
        ("[" * 5000 + "]" * 5000, "deep"),
        ("a: !!python/object:os.system 1\n", "tags (!name) are refused"),
        ("? [1, 2]\n: 3\n", "a key must be a word"),
        ("\x00", "not YAML"),
        ("", "model: is missing"),
        ("base: 3\n", "base: must name a YAML file"),
    ],
)
def test_files_that_are_no_config(tmp_path: Path, text: str, part: str) -> None:
    path = tmp_path / "c.yaml"
    path.write_text(text)
    assert part in message(path)
    assert message(path).count(str(path)) == 1
    assert ("not YAML" in message(path)) == (part == "not YAML")


def test_a_config_survives_its_yaml() -> None:
    overrides = ["training.early_stopping={patience: 2}", "training.schedule={type: one_cycle}"]
    config = load_config(MNIST, [*overrides, "training.learning_rate=1e-3", "seed=0"])
    assert config.training.learning_rate == 1e-3
    assert parse_config(config.to_yaml(), "again") == config


def test_a_config_cannot_be_changed() -> None:
    with pytest.raises(ValueError, match="frozen"):
        load_config(MNIST).seed = 1  # type: ignore[misc]


@given(st.text(max_size=60), st.text(max_size=60))
def test_any_override_is_taken_or_refused_in_words(key: str, value: str) -> None:
    try:
        result: object = load_config(MNIST, [f"{key}={value}"])
    except ConvaeError as error:
        result = str(error)
    assert isinstance(result, Config) or result


def test_an_optimizer_is_a_type_or_a_section() -> None:
    assert load_config(MNIST, ["training.optimizer=adam"]) == load_config(MNIST)
    assert load_config(MNIST, ["training.optimizer={beta_2: 0.9}"]).training.optimizer == Adam(
        beta_2=0.9
    )
    written = load_config(MNIST, ["training.optimizer={type: sgd, momentum: 0.5}"])
    assert parse_config(written.to_yaml(), "text") == written


def test_an_optimizer_by_name_and_its_options_combine(tmp_path: Path) -> None:
    sgd = load_config(MNIST, ["training.optimizer={type: sgd, momentum: 0.5}"]).training.optimizer
    options = ["training.optimizer=sgd", "training.optimizer.momentum=0.5"]
    assert load_config(MNIST, options).training.optimizer == sgd
    write(tmp_path, "training: {optimizer: sgd}", "a.yaml")
    (tmp_path / "b.yaml").write_text("base: a.yaml\ntraining: {optimizer: {momentum: 0.5}}\n")
    (tmp_path / "c.yaml").write_text("base: b.yaml\ntraining: {optimizer: sgd}\n")
    assert load_config(tmp_path / "a.yaml", options[1:]).training.optimizer == sgd
    assert load_config(tmp_path / "b.yaml").training.optimizer == sgd
    assert load_config(tmp_path / "c.yaml").training.optimizer == sgd
    adam = load_config(tmp_path / "b.yaml", ["training.optimizer=adam"])
    assert adam.training.optimizer == Adam()


@pytest.mark.parametrize(
    ("first", "second"),
    [
        ("training.optimizer.momentum=0.5", "training.optimizer=sgd"),
        ("training.schedule.warmup=0.2", "training.schedule={type: one_cycle}"),
        ("training.early_stopping.patience=3", "training.early_stopping=null"),
        ("model.encoder.0.filters=4", "model.encoder=[]"),
        ("model.encoder.0.name=a", "model.encoder.0={type: conv, filters: 8, kernel_size: 3}"),
    ],
)
def test_an_override_that_would_be_undone_is_an_error(first: str, second: str) -> None:
    assert message(MNIST, first, second) == (
        f"override {second}: undoes override {first}: write that after it, or leave it out"
    )


def test_the_last_of_equal_overrides_counts() -> None:
    sizes = ["data.resize=[36, 40]", "data.resize=[28, 28]"]
    types = ["training.optimizer={type: sgd, momentum: 0.5}", "training.optimizer=adam"]
    config = load_config(MNIST, [*sizes, *types, "training.epochs=5", "training.epochs=6"])
    assert (config.data.resize, config.training.optimizer) == ((28, 28), Adam())
    assert config.training.epochs == 6
    types = ["training.optimizer.type=sgd", "training.optimizer=adam"]
    assert load_config(MNIST, types).training.optimizer == Adam()


def test_checkpoint_every_is_steps_or_seconds() -> None:
    assert load_config(MNIST).training.checkpoint_interval is None
    config = load_config(MNIST, ["training.checkpoint_interval={seconds: 60}"])
    every = config.training.checkpoint_interval
    assert every is not None
    assert (every.steps, every.seconds) == (None, 60)
    for wrong in ("{}", "{steps: 0}", "{seconds: 0}", "100"):
        with pytest.raises(ConvaeError, match="training.checkpoint_interval"):
            load_config(MNIST, [f"training.checkpoint_interval={wrong}"])


@pytest.mark.parametrize(
    ("text", "color"),
    [("white", (255, 255, 255)), ("black", (0, 0, 0)), ("9", (9, 9, 9)), ("[1,2,3]", (1, 2, 3))],
)
def test_a_background_is_a_name_a_level_or_a_color(text: str, color: tuple[int, ...]) -> None:
    config = load_config(MNIST, [f"data.background={text}"])
    assert config.data.background == color
    assert parse_config(config.to_yaml(), "again") == config


@pytest.mark.parametrize(
    "text", ["pink", "256", "-1", "0.5", "true", "[1,2]", "[1,2,999]", "null", "{a: 1}"]
)
def test_other_backgrounds_are_refused_in_one_line(text: str) -> None:
    _, line = message(MNIST, f"data.background={text}").splitlines()
    choices = "must be white, black, a gray level from 0 to 255, or [red, green, blue]. Received: "
    assert f"data.background: {choices}" in line


def test_keys_of_earlier_versions_are_translated_in_runs_and_named_in_configs() -> None:
    old = ROOT / "tests/runs/old_run/config.yaml"
    config = parse_config(old.read_text(), str(old), ["training.epochs=2"])
    assert (config.data.resize_mode, config.runtime.threads) == ("crop", "auto")
    assert isinstance(config.task, Anomaly)
    assert (config.task.normal_class, config.task.target_fpr) == (0, 0.05)
    lines = message(old).splitlines()[1:]
    assert len(lines) == 9
    assert any(line.endswith("line 9: data.fit: is now data.resize_mode") for line in lines)
    for key, new_key in RENAMED.items():
        assert message(MNIST, "task.type=reconstruct", f"{key}=1").splitlines()[1:] == [
            f"  override {key}=1: {key}: is now {new_key}"
        ]
