from pathlib import Path
from typing import Any

import numpy as np
import pytest

import convae
from convae.config.loader import load_config
from convae.errors import ConvaeError
from convae.runs.run import Run
from tests.conftest import ROOT
from tests.models.test_builder import STACKS

MNIST = ROOT / "configs/mnist.yaml"


def untrained(folder: Path, *overrides: str) -> Run:
    """Return a run whose best weights are the initial ones."""
    from convae.models.builder import build_model, save_plain

    config = load_config(MNIST, [f"output.folder={folder}", *overrides])
    run = Run.create(config)
    run.save_model("best.keras", lambda path: save_plain(build_model(config), path))
    return run


# What the tasks change: the output's size and channels, and ways around the code.
TASKS = {
    "upscale": [
        "task={type: upscale}",
        "model.input_shape=[14, 14, 1]",
        "model.encoder=[{type: conv, filters: 4, kernel_size: 3, padding: same, activation: relu}]",
        "model.decoder=[{type: resize_conv, filters: 1, kernel_size: 3, strides: 2,"
        "activation: sigmoid}]",
    ],
    "segment": [
        "task={type: segment, scenes: 30}",
        "model.input_shape=[28, 28, 3]",
        "training.loss=sparse_categorical_crossentropy",
        "model.encoder=[{type: conv, name: first, filters: 4, kernel_size: 3, strides: 2,"
        "padding: same, activation: relu},"
        "{type: conv, filters: 6, kernel_size: 3, strides: 2, padding: same, activation: relu}]",
        "model.decoder=[{type: depth_to_space, filters: 4, kernel_size: 3, strides: 2,"
        "activation: relu},"
        "{type: conv_transpose, skip: first, filters: 11, kernel_size: 3, strides: 2,"
        "padding: same, activation: softmax}]",
    ],
}


def unet() -> Any:
    """A model with a skip connection."""
    from convae.runtime.backend import keras

    conv, transpose = keras.layers.Conv2D, keras.layers.Conv2DTranspose
    image = keras.Input((28, 28, 1))
    options = {"strides": 2, "padding": "same", "activation": "relu"}
    first = conv(4, 3, **options)(image)
    encoder = keras.Model(image, [conv(6, 3, **options)(first), first], name="encoder")
    code, skip = keras.Input((7, 7, 6)), keras.Input((14, 14, 4))
    up = keras.layers.Concatenate()([transpose(4, 3, **options)(code), skip])
    last = transpose(1, 3, strides=2, padding="same", activation="sigmoid")(up)
    decoder = keras.Model([code, skip], last, name="decoder")
    image = keras.Input((28, 28, 1))
    return keras.Model(image, decoder(encoder(image)))


@pytest.fixture
def digits28() -> Any:
    return np.random.default_rng(0).integers(0, 256, (11, 28, 28, 1), np.uint8)


@pytest.mark.parametrize("stack", ["strided", "dilated", "RGB and not square"])
def test_encoder_and_decoder_equal_the_keras_model(tmp_path: Path, stack: str) -> None:
    run = untrained(tmp_path, *STACKS[stack], "runtime.micro_batch_size=4")
    autoencoder = convae.load(run.path)
    assert autoencoder.config == run.config
    shape = autoencoder.model.input_shape[1:]
    images = np.random.default_rng(0).integers(0, 256, (11, *shape), np.uint8)
    scaled = images / np.float32(255)
    expected = np.asarray(autoencoder.model(scaled))
    codes = autoencoder.encode(images)
    np.testing.assert_allclose(codes, autoencoder.model.get_layer("encoder")(scaled), atol=1e-6)
    np.testing.assert_allclose(autoencoder.decode(codes), expected, atol=1e-6)
    np.testing.assert_allclose(autoencoder.decode(codes[0]), expected[:1], atol=1e-6)
    np.testing.assert_allclose(autoencoder.reconstruct(images), expected, atol=2e-6)
    errors = np.square(expected - scaled).mean(axis=(1, 2, 3))
    np.testing.assert_allclose(autoencoder.score(images), errors, atol=1e-6)
    assert autoencoder.score(images, images[::-1])[0] != errors[0]


def test_all_forms_of_images_give_the_same_codes(tmp_path: Path, digits28: Any) -> None:
    autoencoder = convae.load(untrained(tmp_path, *STACKS["strided"]).path)
    expected = autoencoder.encode(digits28)
    sorts = [digits28[..., 0], digits28.astype(np.int64), digits28 / 255,
             (digits28 / np.float32(255)).astype(np.float32), digits28.tolist()]  # fmt: skip
    for images in sorts:
        np.testing.assert_array_equal(autoencoder.encode(images), expected)
    for single in (digits28[3], digits28[3, ..., 0]):
        np.testing.assert_allclose(autoencoder.encode(single), expected[3:4], atol=1e-6)
    assert autoencoder.reconstruct(digits28[:0]).shape == (0, 28, 28, 1)
    assert autoencoder.score(np.zeros((0, 28, 28))).shape == (0,)


@pytest.mark.parametrize(
    ("images", "part"),
    [
        (np.zeros((2, 27, 28), np.uint8), "Nx28x28x1 or Nx28x28. Received: 2x27x28"),
        (np.zeros((2, 28, 28, 3), np.uint8), "Received: 2x28x28x3"),
        (np.zeros(784, np.uint8), "Received: 784"),
        (np.uint8(3), "Received: a single number"),
        (np.full((1, 28, 28), 1.5), "floats must lie in \\[0, 1\\]. Received: 1.5 to 1.5"),
        (np.full((1, 28, 28), np.nan), "Received: nan to nan"),
        (np.full((1, 28, 28), 256), "integers: 0 to 255. Received: 256 to 256"),
        (np.full((1, 28, 28), "a"), "must be uint8, or floats in \\[0, 1\\]"),
    ],
)
def test_wrong_images_are_refused(images: Any, part: str) -> None:
    from convae.inference.autoencoder import to_pixels

    with pytest.raises(ConvaeError, match=part):
        to_pixels(images, (28, 28, 1), "images")


def test_wrong_codes_and_targets_are_refused(tmp_path: Path, digits28: Any) -> None:
    autoencoder = convae.load(untrained(tmp_path, *STACKS["strided"]).path)
    with pytest.raises(
        ConvaeError, match="codes must be Nx7x7x6, as encode gives them. Received: 2x"
    ):
        autoencoder.decode(np.zeros((2, 7, 7, 5)))
    with pytest.raises(ConvaeError, match="codes must be finite"):
        autoencoder.decode(np.full((2, 7, 7, 6), np.inf))
    with pytest.raises(ConvaeError, match="11 images, but 3 targets"):
        autoencoder.score(digits28, digits28[:3])


def test_a_keras_file_without_a_config(tmp_path: Path, digits28: Any) -> None:
    run = untrained(tmp_path / "runs", *STACKS["strided"])
    known = convae.load(run.best)  # its config lies beside it
    assert known.config == run.config
    alone = tmp_path / "alone.keras"
    alone.write_bytes(run.best.read_bytes())
    unknown = convae.load(alone)
    assert unknown.config is None
    np.testing.assert_allclose(
        unknown.reconstruct(digits28), known.reconstruct(digits28), atol=1e-6
    )
    assert repr(unknown) == "<Autoencoder autoencoder: 28x28x1 to a code of 7x7x6>"


def test_a_model_with_skip_connections(tmp_path: Path, digits28: Any) -> None:
    path = tmp_path / "unet.keras"
    unet().save(path)
    autoencoder = convae.load(path)
    assert autoencoder.encode(digits28).shape == (11, 7, 7, 6)
    assert autoencoder.reconstruct(digits28).shape == digits28.shape
    with pytest.raises(ConvaeError, match="has skip connections"):
        autoencoder.decode(np.zeros((1, 7, 7, 6)))


def test_a_model_that_upscales_is_scored_against_targets(tmp_path: Path) -> None:
    autoencoder = convae.load(untrained(tmp_path, *TASKS["upscale"]).path)
    small = np.random.default_rng(0).integers(0, 256, (4, 14, 14), np.uint8)
    made = autoencoder.reconstruct(small)
    assert made.shape == (4, 28, 28, 1)
    with pytest.raises(ConvaeError, match="turns 14x14x1 into 28x28x1: score needs the targets"):
        autoencoder.score(small)
    targets = np.rint(made * 255).astype(np.uint8)
    assert autoencoder.score(small, targets).max() < 1e-5


def test_a_model_that_segments_gives_classes(tmp_path: Path) -> None:
    autoencoder = convae.load(untrained(tmp_path, *TASKS["segment"]).path)
    scenes = np.random.default_rng(0).integers(0, 256, (11, 28, 28, 3), np.uint8)
    chances = autoencoder.reconstruct(scenes)
    assert chances.shape == (11, 28, 28, 11)
    np.testing.assert_allclose(chances.sum(axis=-1), 1, atol=1e-5)
    assert autoencoder.encode(scenes).shape == (11, 7, 7, 6)
    with pytest.raises(ConvaeError, match="have no squared error"):
        autoencoder.score(scenes)


def test_load_errors(tmp_path: Path) -> None:
    from convae.runtime.backend import keras

    with pytest.raises(ConvaeError, match="no.keras: no such file"):
        convae.load(tmp_path / "no.keras")
    with pytest.raises(ConvaeError, match="no run called 'nothing'"):
        convae.load("nothing", runs_dir=str(tmp_path))
    damaged = tmp_path / "damaged.keras"
    damaged.write_bytes(b"no model")
    with pytest.raises(ConvaeError, match="cannot be loaded"):
        convae.load(damaged)
    other = tmp_path / "other.keras"
    keras.Sequential([keras.Input((4,)), keras.layers.Dense(2, name="dense")]).save(other)
    with pytest.raises(ConvaeError, match="lacks the sub-model encoder and the sub-model decoder"):
        convae.load(other)


def test_loading_keeps_the_random_state_of_the_caller(tmp_path: Path) -> None:
    run = untrained(tmp_path, *STACKS["strided"])
    np.random.seed(5)  # noqa: NPY002
    expected = np.random.random(3)  # noqa: NPY002
    np.random.seed(5)  # noqa: NPY002
    convae.load(run.path)
    np.testing.assert_array_equal(np.random.random(3), expected)  # noqa: NPY002
