from dataclasses import replace
from types import SimpleNamespace
from typing import Any, cast

import numpy as np
import pytest

from convae.config.loader import load_config
from convae.config.schema import Config
from convae.config.task_schema import TaskSection
from convae.data.loading import Split, TrainingData
from convae.errors import ConfigError, ConvaeError
from convae.evaluation.figures import FIGURES, EvaluationContext, draw
from convae.tasks import TASKS, Examples, Task, build_task, metrics
from convae.tasks.baselines import code_size, principal_components
from convae.tasks.denoise import NOISES
from convae.tasks.metrics import METRICS
from convae.tasks.scenes import INK
from convae.tasks.task import EVALUATION, example_generator
from tests.conftest import ROOT, SAMPLE

MNIST = ROOT / "configs/mnist.yaml"
BOTTLENECK = [
    "model.encoder=[{type: conv, filters: 12, kernel_size: 28}]",
    "model.decoder=[{type: conv_transpose, filters: 1, kernel_size: 28, activation: sigmoid}]",
]
OVERRIDES = {
    "reconstruct": BOTTLENECK,
    "gaussian": ["task={type: denoise}"],
    "salt_and_pepper": ["task={type: denoise, noise: {type: salt_and_pepper, share: 0.3}}"],
    "erased_blocks": [
        "task={type: denoise, noise: {type: erased_blocks, count: 2, size: 6}}"
    ],
    "upscale": [
        "task={type: upscale}",
        "model.input_shape=[14, 14, 1]",
        "model.encoder=[{type: conv, filters: 4, kernel_size: 3, padding: same}]",
        "model.decoder=[{type: conv_transpose, filters: 1, kernel_size: 2, strides: 2,"
        "activation: sigmoid}]",
    ],
    "segment": [
        "task={type: segment, digits: [2, 4], scenes: 30}",
        "model.input_shape=[48, 40, 3]",
        "model.encoder=[{type: conv, filters: 4, kernel_size: 3, padding: same}]",
        "model.decoder=[{type: conv, filters: 11, kernel_size: 1, activation: softmax}]",
        "training.loss=sparse_categorical_crossentropy",
    ],
    "anomaly": ["task={type: anomaly, normal_class: 3, target_fpr: 0.1}", *BOTTLENECK],
    "generate": [
        "task={type: generate}",
        "model.encoder=[{type: gaussian, latent_dim: 4, kernel_size: 28}]",
        BOTTLENECK[1],
    ],
}  # fmt: skip


def config(name: str, *more: str) -> Config:
    return load_config(MNIST, [*OVERRIDES[name], *more])


def task(name: str, *more: str) -> Task:
    return build_task(config(name, *more))


@pytest.fixture(scope="module")
def split() -> Split:
    with np.load(SAMPLE) as file:
        images, labels = file["x_train"][:400, ..., None], file["y_train"][:400]
    return Split(images, labels.astype(np.int64))


@pytest.fixture(scope="module")
def data(split: Split) -> TrainingData:
    assert split.labels is not None
    return TrainingData(
        name="digits", is_sample=False, sha256="", notice=None, classes=None, samples_per_epoch=300,
        splits={}, train=Split(split.images[:300], split.labels[:300]),
        validation=Split(split.images[300:], split.labels[300:]),
    )  # fmt: skip


def of(name: str, split: Split, *key: int) -> Examples:
    return task(name).examples(split, np.arange(40), example_generator(*key))


@pytest.mark.parametrize("name", OVERRIDES)
def test_examples_follow_from_seed_epoch_and_step(name: str, split: Split) -> None:
    first, again = of(name, split, 0, 1, 2), of(name, split, 0, 1, 2)
    np.testing.assert_array_equal(first.inputs, again.inputs)
    np.testing.assert_array_equal(first.targets, again.targets)
    drawn = name in {"gaussian", "salt_and_pepper", "erased_blocks", "segment"}
    for key in ((0, 1, 3), (0, 2, 2), (1, 1, 2), (0, 1, 0)):
        assert np.array_equal(of(name, split, *key).inputs, first.inputs) != drawn


@pytest.mark.parametrize("name", OVERRIDES)
def test_evaluation_examples_fit_the_model_and_are_the_same_at_every_call(
    name: str, split: Split
) -> None:
    settings = config(name)
    examples = task(name).evaluation_examples(split)
    again = task(name).evaluation_examples(split)
    np.testing.assert_array_equal(examples.inputs, again.inputs)
    np.testing.assert_array_equal(examples.targets, again.targets)
    assert examples.inputs.shape[1:] == settings.model.input_shape
    channels = 1 if name == "segment" else settings.output_shape[2]
    assert examples.targets.shape[1:] == (*settings.output_shape[:2], channels)
    assert examples.inputs.dtype == examples.targets.dtype == np.uint8
    assert len(examples) == (30 if name == "segment" else len(split))
    assert len(examples[slice(7)]) == 7


def test_evaluation_has_a_generator_that_no_epoch_has() -> None:
    examples = example_generator(0, EVALUATION, 0).random(8)
    drawn = [example_generator(0, epoch, step).random(8) for epoch in range(5) for step in range(5)]
    assert not any(np.array_equal(examples, numbers) for numbers in drawn)


def test_tasks_do_not_change_the_data(split: Split) -> None:
    before = split.images.copy()
    for name in OVERRIDES:
        of(name, split, 0, 0, 0)
    np.testing.assert_array_equal(split.images, before)


def test_gaussian_noise_has_its_scale_and_is_clipped() -> None:
    gray = Split(np.full((50, 28, 28, 1), 128, np.uint8), None)
    weak = task("gaussian", "task.noise={type: gaussian, scale: 0.1}")
    difference = (weak.evaluation_examples(gray).inputs - 128.0) / 255
    assert abs(difference.mean()) < 0.002
    assert difference.std() == pytest.approx(0.1, rel=0.02)
    neighbors = np.corrcoef(difference[:, :, 1:].ravel(), difference[:, :, :-1].ravel())[0, 1]
    assert abs(neighbors) < 0.02
    strong = task("gaussian").evaluation_examples(gray).inputs
    assert (strong == 0).mean() == pytest.approx(0.158, abs=0.01)  # 0.5 below 0.502: a deviation


def test_salt_and_pepper_replaces_its_share_of_pixels_by_black_or_white() -> None:
    gray = Split(np.full((50, 28, 28, 3), 100, np.uint8), None)
    damaged = task("salt_and_pepper").make_inputs(gray.images, np.random.default_rng(0))
    hit = damaged != 100
    assert hit[..., 0].mean() == pytest.approx(0.3, abs=0.01)
    assert (damaged[hit] == 255).mean() == pytest.approx(0.5, abs=0.02)
    assert set(np.unique(damaged)) == {0, 100, 255}
    assert (damaged == damaged[..., :1]).all()  # the channels of a pixel fall together


def test_erased_blocks_are_squares_of_black() -> None:
    white = np.full((200, 28, 28, 1), 255, np.uint8)
    damaged = task("erased_blocks").make_inputs(white, np.random.default_rng(0))
    black = (damaged == 0).sum(axis=(1, 2, 3))
    assert black.max() == 2 * 6 * 6
    assert black.min() >= 6 * 6  # one may lie on the other
    assert damaged[:, 0].min() == damaged[:, -1].min() == 0  # they reach every edge
    one = task("erased_blocks", "task.noise.count=1").make_inputs(white, np.random.default_rng(0))
    rows, columns = (one[0, ..., 0] == 0).any(axis=1), (one[0, ..., 0] == 0).any(axis=0)
    assert rows.sum() == columns.sum() == 6
    whole = task("erased_blocks", "task.noise.size=99")
    assert not whole.make_inputs(white[:1], np.random.default_rng(0)).any()


def test_inputs_of_upscaling_are_the_means_of_blocks(split: Split) -> None:
    found = task("upscale").evaluation_examples(split)
    blocks = split.images.reshape(-1, 14, 2, 14, 2, 1).mean(axis=(2, 4))
    np.testing.assert_array_equal(found.inputs, np.floor(blocks + 0.5))
    # Whatever keeps the means of the blocks gives the same input: it cannot see the original.
    mixed = split.images.reshape(-1, 14, 2, 14, 2, 1)[:, :, ::-1, :, ::-1].reshape(-1, 28, 28, 1)
    again = task("upscale").evaluation_examples(Split(mixed, None))
    np.testing.assert_array_equal(again.inputs, found.inputs)
    four = task(
        "upscale", "task.factor=4", "model.input_shape=[7, 7, 1]",
        "model.decoder.0.strides=4", "model.decoder.0.kernel_size=4",
    )  # fmt: skip
    assert four.evaluation_examples(split).inputs.shape[1:] == (7, 7, 1)


def test_interpolation_of_constant_and_linear_images(data: TrainingData) -> None:
    flat = np.full((1, 14, 14, 1), 90, np.uint8)
    ramp = np.broadcast_to(np.arange(14, dtype=np.uint8)[:, None] * 10, (14, 14))[None, ..., None]
    baselines = task("upscale").baselines(data)
    assert set(baselines) == {"mean_image", "nearest", "bicubic"}
    for name in ("nearest", "bicubic"):
        found = baselines[name].outputs(flat)
        assert found.shape == (1, 28, 28, 1)
        assert found.dtype == np.float32
        np.testing.assert_allclose(found, 90 / 255, atol=1e-6)
    nearest, bicubic = (baselines[name].outputs(ramp)[0, ..., 0] for name in ("nearest", "bicubic"))
    np.testing.assert_allclose(nearest[::2], ramp[0, ..., 0].repeat(2, axis=1) / 255, atol=1e-6)
    np.testing.assert_allclose(np.diff(bicubic[6:-6], axis=0) * 255, 5, atol=1e-3)


def test_scenes_have_only_digits_of_their_split(split: Split) -> None:
    assert split.labels is not None
    segment = task("segment")
    few = Split(split.images[:20], split.labels[:20] * 0 + 4)
    found = segment.examples(few, np.arange(20), np.random.default_rng(0))
    assert set(np.unique(found.targets)) == {4, 10}
    ink = (few.images[..., 0] >= INK).sum(axis=(1, 2))
    lone = task("segment", "task.digits=[1, 1]")
    one = lone.examples(few, np.arange(20), np.random.default_rng(0))
    np.testing.assert_array_equal((one.targets == 4).sum(axis=(1, 2, 3)), ink)


def test_the_class_map_is_where_the_ink_is() -> None:
    """One digit a scene: the map is its ink, somewhere, and the color changes just there."""
    images = np.zeros((3, 28, 28, 1), np.uint8)
    images[:, 5:23, 10:18] = 255
    lone = task("segment", "task.digits=[1, 1]")
    digits = Split(images, np.array([2, 5, 7]))
    found = lone.examples(digits, np.arange(3), np.random.default_rng(3))
    for scene, classes, label in zip(found.inputs, found.targets[..., 0], (2, 5, 7), strict=True):
        inside = classes == label
        assert (classes[~inside] == 10).all()
        rows, columns = np.flatnonzero(inside.any(axis=1)), np.flatnonzero(inside.any(axis=0))
        assert (len(rows), len(columns), inside.sum()) == (18, 8, 18 * 8)
        assert np.ptp(scene[inside].astype(int), axis=0).max() <= 1  # one color, all through
        around = scene[~inside].astype(int)
        assert np.ptp(around, axis=0).max() > 10  # on a texture


def test_later_digits_cover_earlier_ones() -> None:
    """Full squares that fill the scene: only the last of them can be seen."""
    full = Split(np.full((2, 28, 28, 1), 255, np.uint8), np.array([1, 8]))
    segment = task("segment", "task.digits=[3, 3]", "model.input_shape=[28, 28, 3]")
    found = segment.examples(full, np.zeros(40, np.int64), np.random.default_rng(0)).targets
    seen = {int(classes[0, 0, 0]) for classes in found}
    assert seen == {1, 8}  # the first is always 1, and is covered by 8 at times
    assert all(len(np.unique(classes)) == 1 for classes in found)


def test_reference_losses_of_a_segmentation_are_the_entropy_of_the_shares(split: Split) -> None:
    segment = task("segment")
    examples = segment.evaluation_examples(split)
    best, fixed = segment.reference_losses(split, examples)
    shares = np.bincount(examples.targets.ravel(), minlength=11) / examples.targets.size
    loss = -np.log(shares[examples.targets.ravel()]).mean()
    assert best == 0
    assert fixed == pytest.approx(loss)


def test_a_segmentation_is_scored_over_all_pixels(split: Split) -> None:
    segment = task("segment")
    examples = segment.evaluation_examples(split)[slice(6)]
    perfect = np.eye(11, dtype=np.float32)[examples.targets[..., 0]]
    scores = segment.scores(examples.targets, perfect)
    assert segment.summarize(scores) == {"iou": 1.0, "accuracy": 1.0}
    names = segment.per_class(scores, np.zeros(6, np.int64), [str(i) for i in range(10)])
    assert list(names)[-1] == "background"
    background = segment.baselines(cast("Any", None))["background"]
    scores = segment.scores(examples.targets, background.outputs(examples.inputs))
    share = (examples.targets == 10).mean()
    assert segment.summarize(scores)["accuracy"] == pytest.approx(share)
    there = len(np.unique(examples.targets))
    assert segment.summarize(scores)["iou"] == pytest.approx(share / there)


def test_an_anomaly_task_trains_on_the_normal_class_only(split: Split) -> None:
    chosen = task("anomaly").select(split)
    assert chosen.labels is not None
    assert set(chosen.labels) == {3}
    with pytest.raises(ConvaeError, match="task.normal_class: must be a class.*Received: 77"):
        task("anomaly", "task.normal_class=77").select(split)
    with pytest.raises(ConvaeError, match="labels"):
        task("anomaly").select(Split(split.images, None))


def test_the_threshold_is_a_quantile_of_normal_validation_images(data: TrainingData) -> None:
    anomaly = task("anomaly")
    validation = anomaly.select(data.validation)
    seen = []

    def score(examples: Examples) -> metrics.Scores:
        seen.append(examples)
        return {"score": np.linspace(0, 1, len(examples))}

    selected = replace(data, validation=validation)
    labels = np.array([3] * 10 + [1] * 10)
    scores = {"score": np.r_[np.linspace(0.5, 0.95, 10), np.linspace(0.8, 1.7, 10)]}
    evaluation: Any = SimpleNamespace(scores=scores, labels=labels, data=selected, score=score)
    found = anomaly.extra_metrics(evaluation)["threshold"]
    np.testing.assert_array_equal(seen[0].targets, validation.images)  # no anomaly among them
    assert found["score"] == pytest.approx(0.9)
    assert found["target_fpr"] == 0.1
    assert found["fpr"] == pytest.approx(0.1)  # 0.95
    assert found["recall"] == pytest.approx(0.8)


def test_auroc_by_class_and_over_all() -> None:
    anomaly = task("anomaly")
    labels = np.array([3, 3, 1, 1, 2, 2])
    scores = {"score": np.array([0.1, 0.5, 0.6, 0.7, 0.3, 0.8]), "mse": np.arange(6.0)}
    summary = anomaly.summarize(scores, labels)
    assert summary["auroc"] == pytest.approx((4 + 1 + 2) / 8)
    assert summary["auroc_mse"] == 1
    assert summary["normal_score"] == pytest.approx(0.3)
    assert summary["anomaly_score"] == pytest.approx(0.6)
    classes = anomaly.per_class(scores, labels, ["0", "1", "2", "3"])
    assert {name: found["auroc"] for name, found in classes.items()} == {"1": 1.0, "2": 0.75}
    for wrong in (np.full(6, 3), np.zeros(6, np.int64)):
        with pytest.raises(ConvaeError, match="normal and other"):
            anomaly.summarize(scores, wrong)
    with pytest.raises(ConvaeError, match="labels"):
        anomaly.summarize(scores, None)


def test_principal_components_are_those_of_an_svd(split: Split) -> None:
    found = principal_components(split.images, 12).outputs(split.images[:5])
    flat = split.images.reshape(len(split), -1) / 255
    mean = flat.mean(axis=0)
    axes = np.linalg.svd(flat - mean, full_matrices=False)[2][:12]
    expected = ((flat[:5] - mean) @ axes.T @ axes + mean).clip(0, 1)
    np.testing.assert_allclose(found.reshape(5, -1), expected, atol=1e-4)
    assert found.dtype == np.float32


def test_pca_is_a_baseline_of_bottlenecks_only(data: TrainingData) -> None:
    assert code_size(config("reconstruct")) == 12
    found = task("reconstruct").baselines(data)
    assert set(found) == {"mean_image", "pca"}
    assert found["pca"].description.startswith("PCA with 12 components")
    assert set(build_task(load_config(MNIST)).baselines(data)) == {"mean_image"}  # a wide code


def test_filters_are_tuned_on_validation_images(data: TrainingData) -> None:
    pytest.importorskip("skimage")
    denoise = task("gaussian", "task.noise={type: gaussian, scale: 0.3}")
    few = replace(data, validation=Split(data.validation.images[:20], None))
    found = denoise.baselines(few)
    assert {"noisy_input", "median", "gaussian", "total_variation"} <= set(found)
    examples = denoise.evaluation_examples(few.validation)
    quality = {}
    for name, baseline in found.items():
        outputs = baseline.outputs(examples.inputs)
        scores = metrics.image_scores(examples.targets, outputs, ssim=False)
        quality[name] = scores["psnr"].mean()
    assert all(quality[name] > quality["noisy_input"] for name in ("median", "gaussian"))


def test_a_new_task_is_refused_by_name_until_it_is_complete(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    class FakeSection(TaskSection):
        type: str = "fake"

    class Fake(Task):
        headline = "mse"

    class Complete(Fake):
        description = "Does nothing"
        chart_metric = class_metric = ranking_metric = "mse"
        figures = ("fake_figure",)

    fake = load_config(MNIST).model_copy(update={"task": FakeSection()})
    with pytest.raises(ConfigError, match="task.type: fake is in the schema, but not in"):
        build_task(fake)
    monkeypatch.setitem(TASKS, "fake", Fake)
    with pytest.raises(ConfigError, match="fake: Fake lacks description"):
        build_task(fake)
    monkeypatch.setitem(TASKS, "fake", Complete)
    context = cast("EvaluationContext", SimpleNamespace(task=build_task(fake), codes=None))
    with pytest.raises(ConfigError, match="Complete.figures: fake_figure"):
        draw(context)


def test_a_new_noise_is_refused_by_name_until_it_is_complete(
    split: Split, monkeypatch: pytest.MonkeyPatch
) -> None:
    denoise = task("gaussian")
    denoise.settings = SimpleNamespace(noise=SimpleNamespace(type="fake"))
    with pytest.raises(ConfigError, match="task.noise.type: fake is in the schema, but not in"):
        denoise.evaluation_examples(split)
    monkeypatch.setitem(cast("dict[str, Any]", NOISES), "fake", lambda images, *_: images)
    np.testing.assert_array_equal(denoise.evaluation_examples(split).inputs, split.images)


def test_every_task_lists_figures_and_metrics_that_exist() -> None:
    for kind in TASKS.values():
        assert set(kind.figures) <= set(FIGURES)
    for name in OVERRIDES:
        made = task(name)
        metrics = {made.headline, made.chart_metric, made.class_metric}
        assert metrics <= METRICS.keys() & made.units.keys()


def test_missing_strokes_score_higher_than_single_pixels() -> None:
    anomaly = task("anomaly")
    images = np.zeros((2, 28, 28, 1), np.uint8)
    images[:, 8:20, 8:20] = 255
    outputs = (images / np.float32(255)).astype(np.float32)
    assert (anomaly.scores(images, outputs)["score"] == 0).all()
    off = outputs.copy()
    off[0, ::2, ::2] += 0.3  # single pixels, here and there
    off[1, 8:20, 8:20] -= 0.3 * np.sqrt(14 * 14 / 144)  # as much in square, but all together
    scores = anomaly.scores(images, off.clip(0, 1))
    assert scores["score"][1] > 3 * scores["score"][0]
    blank = anomaly.scores(images[:1] * 0, off[:1] * 0)
    assert np.isfinite(blank["score"]).all()  # no ink at all
