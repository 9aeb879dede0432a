"""A variational autoencoder, from its loss to its figures. Bits of a resume: test_resume.py."""

import json
import os
import signal
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from convae.config.loader import load_config
from convae.data.loading import Split
from convae.errors import ConfigError
from convae.tasks import Examples, build_task
from convae.tasks.task import batch_examples
from tests.conftest import ROOT, SAMPLE, Command

GENERATE = ROOT / "configs/generate.yaml"
TINY = [
    "model.input_shape=[4, 4, 1]",
    "model.encoder=[{type: gaussian, latent_dim: 2, kernel_size: 4}]",
    "model.decoder=[{type: conv_transpose, filters: 1, kernel_size: 4, activation: sigmoid}]",
]
SMALL = [
    "model.encoder=[{type: conv, filters: 4, kernel_size: 4, strides: 4, activation: relu},"
    "{type: gaussian, latent_dim: 3, kernel_size: 7}]",
    "model.decoder=[{type: conv_transpose, filters: 4, kernel_size: 7, activation: relu},"
    "{type: conv_transpose, filters: 1, kernel_size: 4, strides: 4, activation: sigmoid}]",
]  # fmt: skip


def digits(count: int) -> Split:
    with np.load(SAMPLE) as file:
        return Split(file["x_train"][:count, ..., None], file["y_train"][:count].astype(np.int64))


def negative_elbo(
    weights: Sequence[Any], images: Any, noise: Any, kl_weight: float
) -> tuple[float, float]:
    """The loss of TINY and its KL term, in NumPy, from its four weights."""
    kernel, bias, transposed, offset = weights
    x = images[..., 0] / 255
    drawn = np.tensordot(x, kernel[:, :, 0], 2) + bias
    mean, log_variance = drawn[:, :2], drawn[:, 2:]
    code = mean + np.exp(log_variance / 2) * noise.reshape(mean.shape)
    logits = np.tensordot(code, transposed[:, :, 0], ([1], [2])) + offset
    bce = (np.logaddexp(0, logits) - x * logits).sum(axis=(1, 2))
    kl = (mean**2 + np.exp(log_variance) - 1 - log_variance).sum(axis=1) / 2
    return float((bce + kl_weight * kl).mean()), float(kl.mean())


@pytest.mark.parametrize("kl_weight", [1.0, 4.0])
def test_a_step_follows_the_gradient_of_the_elbo(kl_weight: float) -> None:
    """Against central differences of the loss in float64."""
    from convae.models.builder import build_model
    from convae.runtime.backend import keras
    from convae.training.engine import Engine
    from tests.training.test_engine import PLAN

    config = load_config(GENERATE, [*TINY, f"task.kl_weight={kl_weight}", "task.kl_warmup=0"])
    model, rng = build_model(config), np.random.default_rng(0)
    images = rng.integers(0, 256, (13, 4, 4, 1), np.uint8)
    noise = rng.standard_normal((13, 1, 1, 2), np.float32)
    before = [w.astype(np.float64) + 0.1 * rng.normal(size=w.shape) for w in model.get_weights()]
    model.set_weights(before)
    engine = Engine(model, config, PLAN, keras.optimizers.SGD(1e-2))
    expected, kl = negative_elbo(before, images, noise, kl_weight)
    losses = engine.evaluate(images, images, noise)
    assert losses == pytest.approx({"loss": expected, "kl": kl}, rel=1e-5)
    assert engine.step(images, images, noise) == pytest.approx(expected, rel=1e-5)
    for place, (old, new) in enumerate(zip(before, model.get_weights(), strict=True)):
        gradient = np.zeros_like(old)
        for index in np.ndindex(old.shape):
            moved = [[w.copy() for w in before] for _ in range(2)]
            moved[0][place][index] += 1e-5
            moved[1][place][index] -= 1e-5
            high, low = (negative_elbo(w, images, noise, kl_weight)[0] for w in moved)
            gradient[index] = (high - low) / 2e-5
        np.testing.assert_allclose(old - new, 1e-2 * gradient, atol=2e-6)


def test_the_weight_of_the_kl_term_rises_in_the_warmup() -> None:
    from convae.models.builder import build_model
    from convae.runtime.backend import keras
    from convae.training.engine import Engine
    from tests.training.test_engine import PLAN

    config = load_config(GENERATE, [*TINY, "task.kl_weight=2", "task.kl_warmup=4"])
    model, rng = build_model(config), np.random.default_rng(0)
    images = rng.integers(0, 256, (6, 4, 4, 1), np.uint8)
    noise = rng.standard_normal((6, 1, 1, 2), np.float32)
    engine = Engine(model, config, PLAN, keras.optimizers.SGD(1e-9))  # the weights stay
    weights = model.get_weights()
    for step in range(6):
        expected, _ = negative_elbo(weights, images, noise, 2 * min(step / 4, 1))
        assert engine.step(images, images, noise) == pytest.approx(expected, rel=1e-5)
    expected, _ = negative_elbo(weights, images, noise, 2)
    assert engine.evaluate(images, images, noise)["loss"] == pytest.approx(expected, rel=1e-5)


def test_the_noise_follows_from_seed_epoch_step_and_place() -> None:
    task, split = build_task(load_config(GENERATE, SMALL)), digits(140)
    chosen = np.arange(130)
    whole = batch_examples(task, split, chosen, slice(0, 130), 1, 2)
    parts = [
        batch_examples(task, split, chosen, part, 1, 2) for part in (slice(0, 65), slice(65, 130))
    ]
    assert whole.noise is not None
    assert whole.noise.shape == (130, 1, 1, 3)
    np.testing.assert_array_equal(whole.noise, Examples.concatenate(parts).noise)
    other = batch_examples(task, split, chosen, slice(0, 130), 1, 3).arrays[2]
    assert not np.array_equal(whole.noise, other)
    assert whole.noise.std() == pytest.approx(1, abs=0.1)
    few = whole[slice(5)]
    assert few.targets is few.inputs


def test_binarized_digits_are_new_in_each_epoch_and_fixed_in_evaluation() -> None:
    task, split = build_task(load_config(GENERATE, ["task.binarize=true"])), digits(60)
    first, second = (batch_examples(task, split, np.arange(60), slice(0, 60), e, 0) for e in (0, 1))
    assert set(np.unique(first.inputs)) == {0, 255}
    np.testing.assert_array_equal(first.inputs, first.targets)
    assert not np.array_equal(first.inputs, second.inputs)
    third, fourth = (task.evaluation_examples(split).inputs for _ in range(2))
    np.testing.assert_array_equal(third, fourth)


def test_a_collapsed_posterior_is_as_good_as_the_mean_image() -> None:
    """The loss with which check_progress compares: that of the mean image, with KL 0."""
    task, split = build_task(load_config(GENERATE)), digits(200)
    floor, baseline = task.reference_losses(split, task.evaluation_examples(split))
    scores = task.score(task.baselines(_data(split))["mean_image"], task.evaluation_examples(split))
    assert baseline == pytest.approx(-scores["elbo"].mean(), rel=1e-4)
    assert 0 < floor < baseline


def _data(split: Split) -> Any:
    from convae.data.loading import TrainingData

    return TrainingData(
        name="digits", is_sample=False, sha256="", notice=None, classes=None, train=split,
        validation=split, samples_per_epoch=len(split), splits={},
    )  # fmt: skip


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("task.kl_weight=-1", "task.kl_weight: input should be greater than or equal to 0"),
        ("model.encoder.3.latent_dim=0", "latent_dim: input should be greater than or equal to 1"),
        ("model.decoder.1.skip=conv2d_1", "generate images from a code alone"),
        ("task={type: reconstruct}", "a gaussian layer needs task.type: generate"),
        ("model.encoder.3={type: conv, filters: 4, kernel_size: 4}", "task.type: generate needs"),
        ("model.decoder.0={type: gaussian, latent_dim: 4, kernel_size: 1}", "the encoder's last"),
        ("training.loss=mean_squared_error", "needs training.loss: binary_crossentropy"),
    ],
)
def test_what_is_impossible_is_one_error(override: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message) as error:
        load_config(GENERATE, [override])
    assert "1 error" in str(error.value)


def small(source: Path, outputs: Path, *more: str) -> list[str]:
    data = [f"data.path={source}", f"output.folder={outputs}", "data.subset=120"]
    return [*SMALL, *data, "training.batch_size=32", "training.epochs=2", *more]


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Any:
    """A small run of two epochs, evaluated."""
    from convae.evaluation.evaluate import evaluate
    from convae.training.trainer import train

    folder = tmp_path_factory.mktemp("generate")
    source = folder / "digits.npz"
    with np.load(SAMPLE) as file:
        np.savez(source, **{n: file[n][:160] for n in ("x_train", "y_train")},
                 **{n: file[n][:60] for n in ("x_test", "y_test")})  # fmt: skip
    run = train(load_config(GENERATE, small(source, folder / "outputs")))
    evaluate(run)
    return run


def test_history_has_the_terms_of_the_loss(run: Any) -> None:
    row = run.history[-1]
    assert list(row)[-2:] == ["kl", "val_kl"]
    assert row["val_loss"] - row["val_excess"] < row["val_loss"]
    assert row["val_kl"] > 0


def test_the_evaluation_measures_bounds_codes_and_samples(run: Any) -> None:
    result = run.metrics
    test, bound = result["test"], result["importance_weighted_bound"]
    assert test["elbo"] == pytest.approx(-test["reconstruction"] - test["kl"])
    assert (bound["images"], bound["samples"]) == (60, 500)
    assert test["elbo"] - 0.5 < bound["nats"] < 0
    assert result["binarized"]["elbo"] < 0
    assert 0 <= result["active_units"] <= result["latent_dim"] == 3
    assert set(result["samples"]) == {"this run", "mean_image", "gaussian_pca", "training_images"}
    for measures in result["samples"].values():
        assert measures["frechet_distance"] >= 0
        assert sum(measures["digits"]) == 60
    assert {"samples", "traversal", "training", "code_map"} <= {
        path.stem for path in (run.path / "figures").iterdir()
    }


def test_the_elbo_of_the_evaluation_is_the_loss_of_the_engine(run: Any) -> None:
    """One in NumPy from probabilities, the other in TensorFlow from logits."""
    from convae.data.loading import load_test
    from convae.models.builder import read_model
    from convae.training.engine import Engine
    from tests.training.test_engine import PLAN

    config = run.config
    examples = build_task(config).evaluation_examples(
        load_test(config.data, config.output_shape).test
    )
    engine = Engine(read_model(run.best), config, PLAN)
    losses = engine.evaluate(*examples.arrays)
    test = run.metrics["test"]
    assert losses["loss"] == pytest.approx(-test["elbo"], rel=1e-4)
    assert losses["kl"] == pytest.approx(test["kl"], rel=1e-4)


def test_the_saved_parts_are_plain_layers_and_fit_together(run: Any) -> None:
    from convae.models.builder import read_model

    model = read_model(run.best)
    encoder, decoder = model.get_layer("encoder"), model.get_layer("decoder")
    images = digits(5).images / np.float32(255)
    mean, log_variance = encoder(images)
    assert mean.shape == log_variance.shape == (5, 1, 1, 3)
    np.testing.assert_allclose(model(images), decoder(mean), atol=1e-6)
    loaded = {type(layer).__module__.split(".")[0] for layer in encoder.layers}
    assert loaded == {"keras"}


def test_a_stopped_and_resumed_training_gives_the_same_bits(run: Any, tmp_path: Path) -> None:
    from convae.runtime.backend import keras
    from convae.training.trainer import Interrupted, train

    class Stop(keras.callbacks.Callback):  # type: ignore[misc]
        def on_train_batch_end(self, batch: int, logs: Any = None) -> None:
            if batch == 0:
                os.kill(os.getpid(), signal.SIGTERM)

    words = small(Path(run.config.data.path), tmp_path)
    with pytest.raises(Interrupted) as stopped:
        train(load_config(GENERATE, words), callbacks=[Stop()])
    halfway = stopped.value.run
    assert halfway.load_checkpoint()[0]["step"] == 2
    resumed = train(halfway.config, resume=halfway)
    assert resumed.manifest["weights_sha256"] == run.manifest["weights_sha256"]
    for ours, theirs in zip(resumed.history, run.history, strict=True):
        for key in ("loss", "val_loss", "kl", "val_kl"):
            assert ours[key] == theirs[key]


def test_samples_are_files_that_follow_from_the_seed(run: Any, tmp_path: Path) -> None:
    from PIL import Image

    from convae.inference.sample import sample

    made = sample(run, 7, seed=3, output=tmp_path / "a")
    more = sample(run, 9, seed=3, output=tmp_path / "b")
    array, longer = np.load(made.array), np.load(more.array)
    assert array.shape == (7, 28, 28, 1)
    np.testing.assert_array_equal(longer[:7], array)
    assert not np.array_equal(np.load(sample(run, 7, 4, tmp_path / "c").array), array)
    with Image.open(made.images[6]) as picture:
        np.testing.assert_array_equal(picture, np.rint(array[6, ..., 0] * 255))
    assert Path(made.grid).is_file()


def test_the_command_samples_and_refuses(run: Any, convae: Command, tmp_path: Path) -> None:
    words = ("sample", str(run.path), "-n", "3", "--json", "--output-dir", str(tmp_path / "made"))
    made = json.loads(convae(*words, code=0).stdout)
    assert len(made["images"]) == made["count"] == 3
    for count, message in (("0", "at least 1"), ("1000000000000", "must fit in memory")):
        refused = convae("sample", str(run.path), "-n", count, code=2)
        assert message in refused.stderr
        assert refused.stderr.count("\n") == 1
    refused = convae("sample", "pretrained:bottleneck", code=2)
    assert "this model does not generate images" in refused.stderr


@pytest.mark.parametrize("name", ["onnx"])
def test_encoder_and_decoder_export_with_parity(run: Any, tmp_path: Path, name: str) -> None:
    pytest.importorskip("onnxruntime")
    from convae.inference.export import LIMIT, export

    result = export(run, [name], str(tmp_path))
    by_part = {file["part"]: file["difference"] for file in result["files"]}
    assert set(by_part) == {"model", "encoder", "decoder"}
    assert max(by_part.values()) < LIMIT


@pytest.mark.slow
def test_two_workers_train_as_one(run: Any, tmp_path: Path) -> None:
    import sys

    from convae.runs.run import Run
    from convae.runtime.launch import launch

    histories, weights = [], []
    for workers in (1, 2):
        outputs = tmp_path / str(workers)
        words = small(Path(run.config.data.path), outputs, "runtime.threads=1")
        command = [sys.executable, "-m", "convae", "train", str(GENERATE), *words]
        assert launch([command] * workers, 600) == 0
        trained = Run.find("latest", str(outputs))
        histories.append(trained.history)
        weights.append(trained.load_checkpoint()[1])
    for ours, theirs in zip(*weights, strict=True):
        np.testing.assert_allclose(ours, theirs, rtol=1e-5, atol=1e-5)
    for row, other in zip(*histories, strict=True):
        for key in ("loss", "val_loss", "kl", "val_kl"):
            assert row[key] == pytest.approx(other[key], rel=1e-5)
