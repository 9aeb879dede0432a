"""Exported files, read in their runtimes; runtimes that are not installed are skipped."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any, get_args

import numpy as np
import pytest

from convae.errors import ConvaeError
from convae.inference import export as exporting
from convae.inference import export_formats
from convae.inference.export_formats import FORMATS
from convae.layers.spec import Activation
from convae.runs.run import Run
from tests.conftest import Command
from tests.inference.test_autoencoder import TASKS, unet, untrained
from tests.models.test_builder import STACKS

PARTS = ["model", "encoder", "decoder"]


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(exporting, "SECONDS", 0.001)
    monkeypatch.setattr(exporting, "CALIBRATION", 20)


@pytest.fixture
def run(tmp_path: Path, digits: Path) -> Run:
    return untrained(tmp_path / "outputs", f"data.path={digits}", *STACKS["strided"])


def files_of(result: dict[str, Any]) -> list[str]:
    return [file["path"] for file in result["files"]]


def leftovers(folder: Path) -> list[str]:
    return sorted(p.name for p in folder.rglob("*")) if folder.exists() else []


def test_onnx_equals_keras(run: Run) -> None:
    onnxruntime = pytest.importorskip("onnxruntime")
    pytest.importorskip("tf2onnx")
    result = exporting.export(run, ["onnx"])
    assert files_of(result) == [f"{part}.onnx" for part in PARTS]
    assert leftovers(run.path / "export") == sorted(files_of(result))
    assert result["images"] == {"name": "digits.npz", "count": 60}
    for file in result["files"]:
        assert file["difference"] < 1e-5
        assert file["bytes"] == (run.path / "export" / file["path"]).stat().st_size
        assert set(file["latency_ms"]) == set(file["keras_latency_ms"]) == {"one", "batch"}
    from convae import load

    autoencoder = load(run.path)
    images = np.random.default_rng(0).integers(0, 256, (3, 28, 28, 1), np.uint8)
    scaled = images / np.float32(255)
    sessions = {
        part: onnxruntime.InferenceSession(run.path / "export" / f"{part}.onnx") for part in PARTS
    }
    (made,) = sessions["model"].run(None, {"image": scaled})
    np.testing.assert_allclose(made, autoencoder.reconstruct(images), atol=1e-5)
    (codes,) = sessions["encoder"].run(None, {"image": scaled})
    np.testing.assert_allclose(codes, autoencoder.encode(images), atol=1e-5)
    (made,) = sessions["decoder"].run(None, {"code": codes})
    np.testing.assert_allclose(made, autoencoder.decode(codes), atol=1e-5)


@pytest.mark.slow
def test_litert_in_float32_and_in_8_bits(run: Run, tmp_path: Path) -> None:
    pytest.importorskip("ai_edge_litert")
    result = exporting.export(run, ["litert"], str(tmp_path / "there"))
    endings = [".tflite", ".int8-weights.tflite", ".int8.tflite"]
    assert files_of(result) == [part + ending for part in PARTS for ending in endings]
    assert leftovers(tmp_path / "there") == sorted(files_of(result))
    assert not (run.path / "export").exists()
    for file in result["files"]:
        assert file["difference"] < (1e-5 if file["precision"] == "float32" else 0.2)
        lossy = file["precision"] != "float32" and file["part"] == "model"
        assert ("quality" in file) == lossy
        if lossy:
            assert file["quality"]["metric"] == "mse"
            assert file["quality"]["value"] == pytest.approx(file["quality"]["keras"], rel=0.05)
    (exact, *_, int8) = result["files"][:3]
    assert int8["difference"] > exact["difference"]
    assert int8["bytes"] < exact["bytes"]
    text = exporting.format_export(result)
    assert "quality in int8: mse 0." in text
    assert f"wrote {tmp_path / 'there'}" in text


def test_a_saved_model_is_replaced_by_the_next(run: Run) -> None:
    from convae.runtime.backend import tf

    for _ in range(2):
        result = exporting.export(run, ["saved_model"])
        assert [file["difference"] for file in result["files"]] == [0, 0, 0]
    assert sorted(p.name for p in (run.path / "export").iterdir()) == sorted(files_of(result))
    loaded = tf.saved_model.load(str(run.path / "export/encoder.saved_model"))
    assert loaded.serve(tf.zeros((2, 28, 28, 1))).shape == (2, 7, 7, 6)


def test_weights_can_be_read_with_numpy_only(run: Run) -> None:
    result = exporting.export(run, ["weights"])
    assert result["files"][0]["difference"] == 0
    assert leftovers(run.path / "export") == ["architecture.json", "weights.npz"]
    with np.load(run.path / "export/weights.npz", allow_pickle=False) as file:
        arrays = dict(file)
    assert list(arrays) == [
        f"{part}/{layer}_{i}/{role}"
        for part, layer in (("encoder", "conv2d"), ("decoder", "conv2d_transpose"))
        for i in (1, 2)
        for role in ("kernel", "bias")
    ]
    # The first layer, computed from these two files: stride 2, same, no activation.
    architecture = json.loads((run.path / "export/architecture.json").read_text(encoding="utf-8"))
    encoder = next(x for x in architecture["config"]["layers"] if x["config"]["name"] == "encoder")
    first = encoder["config"]["layers"][1]["config"]
    assert (first["strides"], first["padding"], first["activation"]) == ([2, 2], "same", "linear")
    image = np.random.default_rng(0).random((28, 28), np.float32)
    padded = np.pad(image, ((0, 1), (0, 1)))
    windows = np.lib.stride_tricks.sliding_window_view(padded, (3, 3))[::2, ::2]
    kernel, bias = arrays["encoder/conv2d_1/kernel"], arrays["encoder/conv2d_1/bias"]
    made = np.einsum("hwij,ijf->hwf", windows, kernel[:, :, 0]) + bias
    from convae.models.builder import read_model
    from convae.runtime.backend import keras

    model = read_model(run.best).get_layer("encoder")
    expected = keras.Model(model.inputs[0], model.layers[1].output)(image[None, ..., None])
    np.testing.assert_allclose(made, expected[0], atol=1e-5)


@pytest.mark.slow
@pytest.mark.parametrize("form", ["onnx", "litert", "saved_model", "weights"])
def test_a_model_with_skip_connections(run: Run, form: str) -> None:
    for package in FORMATS[form].packages:
        pytest.importorskip(package)
    run.save_model("best.keras", lambda path: unet().save(path))
    result = exporting.export(run, [form])
    exact = [file for file in result["files"] if file["precision"] == "float32"]
    assert all(file["difference"] < 1e-5 for file in exact)
    assert len(result["files"]) == {"onnx": 3, "litert": 9, "saved_model": 3, "weights": 1}[form]
    assert not result["notes"]


@pytest.mark.slow
@pytest.mark.parametrize(("task", "metric"), [("upscale", "psnr"), ("segment", None)])
def test_models_of_other_tasks(
    tmp_path: Path, task: str, metric: str | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    for package in ("onnxruntime", "tf2onnx", "ai_edge_litert"):
        pytest.importorskip(package)
    monkeypatch.setattr(exporting, "IMAGES", 30)
    run = untrained(tmp_path, "data.path=gone", *TASKS[task])  # the sample stands in
    result = exporting.export(run, ["onnx", "litert", "weights"])
    assert not result["notes"]
    exact = [file for file in result["files"] if file["precision"] == "float32"]
    assert max(file["difference"] for file in exact) < 1e-5
    qualities = [file["quality"] for file in result["files"] if "quality" in file]
    assert len(qualities) == 2
    if metric:
        assert {quality["metric"] for quality in qualities} == {metric}


@pytest.mark.slow
@pytest.mark.parametrize("form", FORMATS)
def test_every_activation(
    tmp_path: Path, digits: Path, form: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    for package in FORMATS[form].packages:
        pytest.importorskip(package)
    monkeypatch.setattr(exporting, "IMAGES", 20)
    # The skips make the output of every layer an output of the encoder.
    names = get_args(Activation)
    encoder = [
        f"{{type: conv, name: {name}, filters: 3, kernel_size: 3, padding: same, "
        f"activation: {name}}}"
        for name in names
    ]
    decoder = [
        f"{{type: conv, filters: 1, kernel_size: 1, activation: {name}, skip: {name}}}"
        for name in names
        if name != "softmax"
    ]
    run = untrained(
        tmp_path, f"data.path={digits}", f"model.encoder=[{','.join(encoder)}]",
        f"model.decoder=[{','.join(decoder)}]", "training.loss=mean_squared_error",
    )  # fmt: skip
    result = exporting.export(run, [form])
    exact = [file for file in result["files"] if file["precision"] == "float32"]
    assert [file["part"] for file in exact] == list(FORMATS[form].parts)
    assert max(file["difference"] for file in exact) < 2e-6


def test_the_cause_of_a_failed_conversion_is_not_cut_off() -> None:
    with (
        pytest.raises(export_formats.NotConvertibleError, match="^Load model .*: Error X$"),
        export_formats.conversion_errors(),
    ):
        raise ValueError(f"Load model {'from a long path ' * 40}failed: Error X")
    with (
        pytest.raises(export_formats.NotConvertibleError, match="^it has no Erfc$"),
        export_formats.conversion_errors(),
    ):
        raise ValueError("In Node, (...), Error No Op registered for Erfc with domain_version 15")


def test_a_format_that_cannot_represent_the_model_writes_nothing(
    tmp_path: Path, digits: Path
) -> None:
    pytest.importorskip("ai_edge_litert")
    run = untrained(tmp_path / "outputs", f"data.path={digits}", *STACKS["dilated"])
    with pytest.raises(
        ConvaeError, match="litert cannot represent the model: it has no Conv2DBackprop"
    ):
        exporting.export(run, ["weights", "litert"])
    assert not (run.path / "export").exists()
    result = exporting.export(run, ["weights"])
    assert files_of(result) == ["weights.npz"]
    assert "TF_ENABLE_ONEDNN_OPTS=1 before they import TensorFlow" in result["notes"][0]


def test_a_difference_above_the_limit_is_refused(
    run: Run, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    saved_model = FORMATS["saved_model"]

    def read_wrong(path: Path) -> Any:
        right = saved_model.read(path)
        return lambda inputs: [right(inputs)[0] + np.float32(1e-3)]

    before = exporting.export(run, ["saved_model"])
    monkeypatch.setitem(FORMATS, "saved_model", replace(saved_model, read=read_wrong))
    with pytest.raises(
        ConvaeError, match="the model differs from Keras by 0.001, and at most 0.0001"
    ):
        exporting.export(run, ["saved_model"], str(tmp_path / "wrong"))
    assert not (tmp_path / "wrong").exists()
    with pytest.raises(ConvaeError, match="differs from Keras"):
        exporting.export(run, ["saved_model"])  # and what was there stays
    assert sorted(p.name for p in (run.path / "export").iterdir()) == sorted(files_of(before))


def test_the_sample_replaces_missing_data(tmp_path: Path) -> None:
    rgb = untrained(tmp_path, "data.path=gone", *STACKS["RGB and not square"])
    found = exporting.comparison_data(rgb.config)
    assert found.inputs.shape == (1000, 20, 14, 3)
    assert found.calibration.shape == (20, 20, 14, 3)
    assert found.name == "MNIST sample"
    assert 0 < found.metric((found.inputs[:, ::-1] / 255).astype(np.float32)) < 1


def test_a_folder_that_cannot_be_written(run: Run, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(
        ConvaeError, match="file/x: cannot be written: .*--output-dir names another"
    ):
        exporting.export(run, ["weights"], str(tmp_path / "file/x"))
    assert (tmp_path / "file").read_text() == "in the way"


def test_a_missing_package_is_named_with_its_install_command(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(exporting, "find_spec", lambda name: None)
    line = r"pip install 'convae\[export\]'"
    with pytest.raises(ConvaeError, match=f"onnx needs onnx, tf2onnx, onnxruntime: {line}"):
        exporting.check_formats(["onnx"])
    with pytest.raises(ConvaeError, match=f"litert needs ai-edge-litert: {line}"):
        exporting.check_formats(["saved_model", "litert"])
    assert exporting.check_formats(["weights", "saved_model", "weights"]) == [
        "weights",
        "saved_model",
    ]


@pytest.mark.parametrize(
    ("words", "part"),
    [
        (["export", "--format", "weights"], "there is no run"),
        (["export", "nothing", "--format", "weights"], "no run called 'nothing'"),
        (["export", "--format", "tensorrt"], "must be onnx, litert, saved_model, weights or all"),
        (["export"], "which format?"),
    ],
)
def test_wrong_arguments(convae: Command, run: Run, words: list[str], part: str) -> None:
    folder = "empty" if "there is no run" in part else str(run.path.parents[1])
    done = convae(*words, "--runs-dir", folder)
    assert done.returncode == 2
    assert part in done.stderr
    assert "Traceback" not in done.stderr
    assert done.stdout == ""


def test_the_command_prints_json(convae: Command, run: Run) -> None:
    done = convae("export", run.path.name, "--format", "weights", "--json")
    assert done.returncode == 0, done.stderr
    result = json.loads(done.stdout)
    assert result["files"][0]["path"] == "weights.npz"
    assert (Path(result["run"]) / "export").name in result["folder"]
    assert done.stderr == ""
