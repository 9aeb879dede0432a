import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from convae.config.loader import load_config
from convae.config.schema import Config
from tests.conftest import ROOT

MNIST = ROOT / "configs/mnist.yaml"
ARTICLE = """\
conv2d_1 (Conv2D)                     (None, 26, 26, 32)      320
conv2d_2 (Conv2D)                     (None, 24, 24, 16)    4,624
conv2d_3 (Conv2D)                     (None, 22, 22, 8)     1,160
conv2d_transpose_1 (Conv2DTranspose)  (None, 24, 24, 8)       584
conv2d_transpose_2 (Conv2DTranspose)  (None, 26, 26, 16)    1,168
conv2d_transpose_3 (Conv2DTranspose)  (None, 28, 28, 32)    4,640
conv2d_4 (Conv2D)                     (None, 28, 28, 1)       289
Total params: 12,785"""

# Stacks that are unlike the article's, as overrides of it.
STACKS = {
    "strided": [
        "model.encoder=[{type: conv, filters: 4, kernel_size: 3, strides: 2, padding: same},"
        "{type: conv, filters: 6, kernel_size: 3, strides: 2, padding: same, activation: elu}]",
        "model.decoder=[{type: conv_transpose, filters: 4, kernel_size: 3, strides: 2,"
        "padding: same, output_padding: 1},"
        "{type: conv_transpose, filters: 1, kernel_size: 4, strides: 2, padding: same,"
        "activation: sigmoid}]",
    ],
    "dilated": [
        "model.encoder=[{type: conv, filters: 3, kernel_size: [3, 5], dilation_rate: [2, 1]}]",
        "model.decoder=[{type: conv_transpose, filters: 1, kernel_size: [3, 5],"
        "dilation_rate: [2, 1], activation: sigmoid, use_bias: false}]",
    ],
    "RGB and not square": [
        "model.input_shape=[20, 14, 3]",
        "model.encoder=[{type: conv, filters: 5, kernel_size: 2, strides: [2, 1]}]",
        "model.decoder=[{type: conv_transpose, filters: 3, kernel_size: 2, strides: [2, 1],"
        "activation: sigmoid}]",
    ],
    "zero_center": ["model.zero_center=true"],
    "nearest": [
        "model.encoder=[{type: conv, filters: 4, kernel_size: 3, strides: [2, 4], padding: same}]",
        "model.decoder=[{type: resize_conv, filters: 1, kernel_size: 3, strides: [2, 4],"
        "activation: sigmoid}]",
    ],
    "bilinear": [
        "model.encoder=[{type: conv, filters: 4, kernel_size: 3, strides: 2, padding: same}]",
        "model.decoder=[{type: resize_conv, filters: 1, kernel_size: [3, 5], strides: 2,"
        "interpolation: bilinear, activation: sigmoid}]",
    ],
    "depth to space": [
        "model.encoder=[{type: conv, filters: 4, kernel_size: 3, strides: [2, 4], padding: same}]",
        "model.decoder=[{type: depth_to_space, filters: 3, kernel_size: 3, strides: [2, 4],"
        "activation: relu}, {type: conv, filters: 1, kernel_size: 3, padding: same,"
        "activation: sigmoid}]",
    ],
    "skips": [
        "model.encoder=[{type: conv, filters: 3, kernel_size: 3, padding: same, name: full},"
        "{type: conv, filters: 4, kernel_size: 3, strides: 2, padding: same, name: half},"
        "{type: conv, filters: 5, kernel_size: 3, strides: 2, padding: same}]",
        "model.decoder=[{type: depth_to_space, filters: 4, kernel_size: 3, strides: 2},"
        "{type: resize_conv, filters: 3, kernel_size: 3, strides: 2, skip: half},"
        "{type: conv, filters: 3, kernel_size: 3, padding: same, skip: full},"
        "{type: conv_transpose, filters: 1, kernel_size: 3, padding: same, skip: full,"
        "activation: sigmoid}]",
    ],
    "mean squared error": ["model.decoder.3.activation=linear", "training.loss=mean_squared_error"],
}


def stacks() -> list[Config]:
    return [load_config(MNIST, overrides) for overrides in STACKS.values()]


def test_the_table_and_the_model_are_those_of_the_article() -> None:
    from convae.models.builder import build_model, layer_stack

    config = load_config(MNIST)
    rows = config.model_summary.rows
    assert config.model_summary.table().endswith(ARTICLE)
    model = build_model(config)
    layers = layer_stack(model, config.model)
    assert model.count_params() == 12_785
    assert [layer.name for layer in layers] == [row.name for row in rows]
    assert [tuple(layer.output.shape[1:]) for layer in layers] == [row.output_shape for row in rows]


@pytest.mark.parametrize("config", stacks(), ids=STACKS)
def test_keras_has_the_shapes_and_parameters_of_the_model_summary(config: Config) -> None:
    from convae.models.builder import build_model, layer_stack

    model = build_model(config)
    layers = layer_stack(model, config.model)
    rows = config.model_summary.rows
    for layer, row, spec in zip(layers, rows, config.model.layers, strict=True):
        height, width, channels = row.output_shape
        if spec.type == "depth_to_space":  # its Conv2D, before the channels become pixels
            down, across = spec.strides
            height, width, channels = height // down, width // across, channels * down * across
        assert tuple(layer.output.shape[1:]) == (height, width, channels)
    assert [layer.count_params() for layer in layers] == [row.parameters for row in rows]
    images = np.zeros((2, *config.model.input_shape), np.float32)
    assert model.predict_on_batch(images).shape[1:] == rows[-1].output_shape


def test_the_seed_alone_decides_the_weights() -> None:
    from convae.models.builder import arrays_sha256, build_model
    from convae.runtime.backend import keras

    def sha256(seed: int) -> str:
        return arrays_sha256(build_model(load_config(MNIST, [f"seed={seed}"])).get_weights())

    first = sha256(0)
    keras.utils.set_random_seed(99)  # hidden state must not matter
    assert sha256(0) == first != sha256(1)


SETTINGS: dict[str, Callable[[Any], None]] = {
    "channels_first": lambda config: config.set_image_data_format("channels_first"),
    "float16": lambda config: config.set_floatx("float16"),
    "float64": lambda config: config.set_floatx("float64"),
    "mixed_float16": lambda config: config.set_dtype_policy("mixed_float16"),
    "epsilon": lambda config: config.set_epsilon(0.1),
}


@pytest.fixture
def keras_settings() -> Iterator[Any]:
    """The settings of Keras in this process, which are restored afterwards."""
    from convae.runtime.backend import keras

    config = keras.config
    before = config.image_data_format(), config.floatx(), config.dtype_policy(), config.epsilon()
    yield config
    config.set_image_data_format(before[0])
    config.set_floatx(before[1])
    config.set_dtype_policy(before[2])
    config.set_epsilon(before[3])


@pytest.mark.parametrize(
    ("stack", "optimizer"), [("skips", "adam"), ("bilinear", "nadam"), ("zero_center", "muon")]
)
def test_the_settings_of_keras_change_no_bit(
    tmp_path: Path, keras_settings: Any, stack: str, optimizer: str
) -> None:
    from convae.inference.autoencoder import Autoencoder, make_plan
    from convae.models.builder import arrays_sha256, build_model, read_model, save_plain
    from convae.training.engine import Engine
    from convae.training.optimizers import build_optimizer

    config = load_config(MNIST, [*STACKS[stack], f"training.optimizer.type={optimizer}"])
    images = np.random.default_rng(0).integers(0, 256, (4, 28, 28, 1), np.uint8)

    def result() -> str:
        model = build_model(config)
        optimizer = build_optimizer(config, 2)
        engine = Engine(model, config, make_plan(config), optimizer)
        loss = [np.float32(engine.step(images, images)) for _ in range(2)]
        save_plain(model, str(tmp_path / "m.keras"))
        loaded = Autoencoder(read_model(tmp_path / "m.keras"))  # Keras' own forward pass
        arrays = [*model.get_weights(), *(np.asarray(v) for v in optimizer.variables)]
        outputs = engine.predict(images), loaded.encode(images), loaded.reconstruct(images)
        return arrays_sha256([*arrays, *outputs, np.array(loss)])

    expected = result()
    for name, change in SETTINGS.items():
        change(keras_settings)
        found = keras_settings.floatx(), keras_settings.dtype_policy().name
        assert result() == expected, name
        assert found == (keras_settings.floatx(), keras_settings.dtype_policy().name)


@pytest.mark.slow
def test_a_saved_model_needs_keras_alone(tmp_path: Path) -> None:
    from convae.models.builder import build_model, save_plain

    model = build_model(load_config(MNIST))
    model.compile(optimizer="adam")
    save_plain(model, str(tmp_path / "m.keras"))
    images = np.random.default_rng(0).random((3, 28, 28, 1), np.float32)
    np.save(tmp_path / "x.npy", images)
    script = (
        "import sys; sys.modules['convae'] = None\n"
        "import keras, numpy as np\n"
        "m = keras.models.load_model('m.keras', safe_mode=True)\n"
        "x = np.load('x.npy')\n"
        "code = m.get_layer('encoder')(x)\n"
        "assert code.shape == (3, 22, 22, 8), code.shape\n"
        "np.save('y.npy', m(x)); np.save('z.npy', m.get_layer('decoder')(code))\n"
    )
    env = {k: v for k, v in os.environ.items() if k != "PYTHONPATH"} | {
        "TF_CPP_MIN_LOG_LEVEL": "3",
        "TF_ENABLE_ONEDNN_OPTS": "1",
    }
    subprocess.run([sys.executable, "-c", script], cwd=tmp_path, env=env, check=True, timeout=100)
    expected = np.asarray(model(images))
    np.testing.assert_array_equal(np.load(tmp_path / "y.npy"), expected)
    np.testing.assert_array_equal(np.load(tmp_path / "z.npy"), expected)
    assert (tmp_path / "m.keras").stat().st_size < 120_000  # the weights alone, no optimizer


@pytest.mark.slow
@pytest.mark.parametrize("version", ["3.5.0", "3.8.0", "3.10.0", "3.12.0"])
def test_an_older_keras_loads_a_saved_model(tmp_path: Path, version: str) -> None:
    from convae.models.builder import arrays_sha256, build_model, save_plain

    pip = [sys.executable, "-m", "pip", "install", "-q", "--no-deps", "--retries", "0"]
    older = tmp_path / "older"
    installed = subprocess.run(
        [*pip, "--target", str(older), f"keras=={version}"],
        capture_output=True, text=True, timeout=200, check=False,
    )  # fmt: skip
    if installed.returncode:
        pytest.skip(f"pip cannot install keras {version}: {installed.stderr[-200:]}")
    expected = {}
    for name, overrides in STACKS.items():
        model = build_model(load_config(MNIST, overrides))
        save_plain(model, str(tmp_path / f"{name}.keras"))
        expected[name] = arrays_sha256(model.get_weights())
    script = (
        "import hashlib, json, pathlib, keras\n"
        f"assert keras.__version__ == {version!r}, keras.__version__\n"
        "found = {}\n"
        "for path in pathlib.Path().glob('*.keras'):\n"
        "    weights = keras.models.load_model(path).get_weights()\n"
        "    data = b''.join(array.tobytes() for array in weights)\n"
        "    found[path.stem] = hashlib.sha256(data).hexdigest()\n"
        "print(json.dumps(found))\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", script], cwd=tmp_path, capture_output=True, text=True, timeout=200,
        env={**os.environ, "PYTHONPATH": str(older), "TF_ENABLE_ONEDNN_OPTS": "1"}, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-2000:]
    assert json.loads(done.stdout.splitlines()[-1]) == expected
