"""The commands `explain`, `size` and `inspect`: output, JSON, and errors."""

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from convae.cli.main import main
from convae.config.loader import load_config
from convae.explain.worked_example import EXAMPLES
from tests.conftest import tiny

MNIST = str(Path(__file__).parents[2] / "configs" / "mnist.yaml")
STRIDED = ["model.encoder.0.strides=2", "model.decoder.2.strides=2"]
Run = Callable[..., tuple[int, str, str]]


@pytest.fixture
def run(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Run:
    """`run("size", "--from", "13")` gives the exit code, stdout and stderr."""

    def call(*arguments: str) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", ["convae", *arguments])
        code: Any = 0
        try:
            main()
        except SystemExit as stop:
            code = stop.code
        out, err = capsys.readouterr()
        return int(code or 0), out, err

    return call


def test_explain_typed_numbers(run: Run) -> None:
    given = ["explain", "--input", "1 2; 3 4", "--kernel", "0 1; 2 3", "--stride", "2"]
    given += ["--padding", "same", "--output-padding", "1"]
    code, out, _ = run(*given, "--json")
    facts = json.loads(out)
    assert code == 0
    assert facts["output"] == [[0, 1, 0], [2, 3, 4], [0, 3, 0]]
    assert facts["output_shape"] == [3, 3]
    assert facts["crop"] == [[0, 1], [0, 1]]
    code, out, _ = run(*given)
    assert "(i−1)·s + k mod 2 + op = 1·2 + 0 + 1 = 3" in out
    assert "4: 4 × kernel" in out
    assert "cropped: 1 at the bottom, 1 at the right" in out


@pytest.mark.parametrize("name", EXAMPLES)
def test_examples(run: Run, name: str) -> None:
    code, out, _ = run("explain", "--example", name, "--json")
    assert (code, json.loads(out)["output"]) == (0, EXAMPLES[name][1].result().tolist())


def test_the_basic_operation_is_the_default_and_an_example_takes_a_stride(run: Run) -> None:
    assert "The basic operation" in run("explain")[1]
    out = run("explain", "--example", "basic", "--stride", "2", "--json")[1]
    assert json.loads(out)["output"] == [[0, 0, 0, 1], [0, 0, 2, 3], [0, 2, 0, 3], [4, 6, 6, 9]]


def test_pictures(run: Run, tmp_path: Path) -> None:
    names = [str(tmp_path / f"a{suffix}") for suffix in (".png", ".svg", ".gif")]
    code, _, err = run("explain", *(word for name in names for word in ("--out", name)))
    assert (code, err.split()[: len(names)]) == (0, names)  # then what one would do next
    for command in ("inverse", "checkerboard", "upscale"):
        assert run("explain", command, "--out", str(tmp_path / f"{command}.png"))[0] == 0
    assert run("explain", "overlap", MNIST, "--out", str(tmp_path / "overlap.png"))[0] == 0
    assert run("explain", "page", "--out", str(tmp_path / "page.html"))[0] == 0
    assert len(list(tmp_path.iterdir())) == 8


def test_effects_in_json(run: Run) -> None:
    found = json.loads(run("explain", "inverse", "--json")[1])
    assert found["cx"] == [[12, 18], [30, 36]]
    assert found["products"] == [282, 282]
    kernels = json.loads(run("explain", "overlap", MNIST, "--json")[1])
    assert kernels["layers"][0] == {"name": "conv2d_transpose_1", "overlap": [9, 9], "even": True}
    assert len(json.loads(run("explain", "checkerboard", "--json")[1])) == 12
    assert json.loads(run("explain", "upscale", "--json")[1])["difference"] < 1e-12


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        (["--input", "1 2; 3", "--kernel", "1"], "input: every row needs as many numbers"),
        (["--input", "1 two", "--kernel", "1"], "row 1, column 2 must be a number"),
        (["--input", "1 nan", "--kernel", "1"], "must be a number up to a million"),
        (["--input", "", "--kernel", "1"], "must be a number"),
        (["--input", " ".join(["1"] * 65), "--kernel", "1"], "at most 64x64"),
        (["--input", "1"], "--kernel is missing"),
        (["--conv", "--input", "1 2", "--kernel", "1 2 3; 4 5 6"], "larger than its padded input"),
        (["--input", "1", "--kernel", "1", "--padding", "1"], "leaves nothing of a canvas of 1"),
        (["--padding", "full"], "padding must be valid, same, or a number"),
        (["--stride", "2", "--output-padding", "2"], "smaller than strides 2"),
        (["--stride", "2", "--dilation", "2"], "cannot both be above 1"),
        (["--stride", "2,1", "--dilation", "1,2"], "cannot both be above 1"),
        (["--stride", "1.5"], "strides must be an integer"),
        (["--stride", "0"], "strides must be 1 or more"),
        (["--padding", "same", "--output-padding", "0"], "an even kernel"),
        (["--conv", "--output-padding", "0"], "belongs to a transposed convolution"),
        (["--example", "5"], "--example must be one of"),
        (["--view", "side"], "--view must be"),
        (["--out", "picture.bmp"], "must end in"),
        (["--stride", "2", "inverse"], "must come after inverse"),
        (["overlap", "missing.yaml"], "no such file"),
        (["overlap"], "which config?"),
        (["inverse", "--input", "; ".join(["1 " * 21] * 20)], "at most 400 numbers"),
        (["inverse", "--kernel", "1 2 3 4"], "larger than its padded input"),
    ],
)
def test_wrong_input_gets_one_message(run: Run, arguments: list[str], text: str) -> None:
    code, _, err = run("explain", *arguments)
    assert code == 2
    assert text in err
    assert err.count("\n") == 1


def test_size_finds_settings(run: Run) -> None:
    ways = json.loads(run("size", "--from", "13", "--to", "25", "--json")[1])
    keys = {"kernel_size", "strides", "padding", "output_padding", "dilation_rate", "crop", "even"}
    assert all(keys <= set(way) for way in ways)
    wanted = {"kernel_size": 3, "strides": 2, "padding": "same", "output_padding": 0}
    assert any(wanted.items() <= way.items() and way["crop"] == [1, 1] for way in ways)
    code, out, _ = run("size", "--from", "13", "--to", "25")
    assert (code, "24 settings" in out, "and 12 more" in out) == (0, True, True)
    lines = run("size", "--from", "13", "--to", "25", "--all")[1].splitlines()
    assert (len(lines), "TF_ENABLE_ONEDNN_OPTS=1" in lines[-1]) == (29, True)
    assert "no single layer does it" in run("size", "--from", "3", "--to", "1000")[1]
    assert "of Conv2D (a transposed" in run("size", "--from", "28", "--to", "14")[1]


def test_size_through_an_autoencoder(run: Run) -> None:
    same = [f"model.{part}.{i}.padding=same" for part in ("encoder", "decoder") for i in range(3)]
    code, out, _ = run("size", "--through", MNIST, "--sizes", "27-28", *same, *STRIDED)
    assert code == 0
    assert "the decoder restores 1 of 2 sizes" in out
    assert "conv2d_transpose_3: output_padding: 0; or resize to 26 or 28" in out
    words = ["--through", MNIST, "--sizes", "27", "--json"]
    found = json.loads(run("size", *words, *same, *STRIDED)[1])
    assert found[0]["sizes"] == [27, 14, 14, 14, 14, 14, 28, 28]


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        ([], "which sizes?"),
        (["--from", "13"], "which sizes?"),
        (["--from", "0", "--to", "3"], "--from must be from 1"),
        (["--from", "one", "--to", "3"], "valid integer"),
        (["--through", MNIST, "--sizes", "9-2"], "--sizes must be A-B"),
        (["--from", "1", "--to", "2", "a=b"], "overrides belong to --through"),
    ],
)
def test_wrong_sizes(run: Run, arguments: list[str], text: str) -> None:
    code, _, err = run("size", *arguments)
    assert (code, text in err) == (2, True)


def test_inspect(run: Run) -> None:
    facts = json.loads(run("inspect", MNIST, "--json")[1])
    assert {"layers", "parameters", "code_size", "code_ratio", "warnings"} <= set(facts)
    assert {"name", "type", "output_shape", "parameters", "macs"} <= set(facts["layers"][0])
    assert facts["parameters"] == 12_785
    code, out, _ = run("inspect", MNIST, "model.encoder.0.filters=16")
    assert (code, "conv2d_transpose_3" in out, "160" in out) == (0, True, True)


def test_spectrum_of_a_run(run: Run, digits: Path, tmp_path: Path) -> None:
    from convae.training import trainer

    found = trainer.train(load_config(MNIST, tiny(digits, tmp_path / "runs", "training.epochs=1")))
    maps = tmp_path / "maps.png"
    code, out, _ = run("explain", "overlap", "--run", str(found.path), "--out", str(maps))
    assert code == 0
    assert "power at period 2 over its neighbors'" in out
    assert maps.exists()
    assert maps.with_stem("maps-spectrum").exists()
    facts = json.loads(run("explain", "overlap", "--run", str(found.path), "--json")[1])
    assert 0.5 < facts["peak"]["originals"] < 2
    assert run("explain", "overlap", "--run", "no-such-run")[0] == 2


def test_spectrum_of_a_run_that_upscales(
    run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    code, out, err = run("explain", "overlap", "--run", "pretrained:upscale", "--json")
    assert code == 0, err
    assert 0.5 < json.loads(out)["peak"]["originals"] < 2
    code, _, err = run("explain", "overlap", "--run", "pretrained:segment")
    assert code == 2
    assert "its outputs are classes" in err


def test_explain_needs_no_tensorflow_and_inspect_no_numpy() -> None:
    code = (
        "import sys; from convae.cli import explain, inspect\n"
        "from convae.layers import search, summary\n"
        "from convae.explain import explorer, charts, step_figures\n"
        "assert not {'tensorflow', 'keras', 'matplotlib.pyplot'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
    code = (
        f"import sys; from convae.cli import inspect; inspect.inspect({MNIST!r})\n"
        "assert not {'tensorflow', 'numpy', 'matplotlib'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True, stdout=subprocess.DEVNULL)
