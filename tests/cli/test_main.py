"""The command line as a user meets it: processes, exit codes, streams."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from convae.config.loader import load_config
from tests.conftest import ROOT, Command, tiny

MNIST = str(ROOT / "configs/mnist.yaml")
COMMANDS = [
    "train", "eval", "predict", "export", "report", "runs", "compare", "config", "cache",
    "inspect", "size", "explain", "sweep", "launch", "demo", "doctor",
]  # fmt: skip


def test_help_names_every_command(convae: Command) -> None:
    text = convae("--help", code=0).stdout
    assert [command for command in COMMANDS if f"\n  {command} " not in text] == []


@pytest.mark.parametrize("words", [["--help"], ["config", MNIST], ["inspect", MNIST],
                                   ["train", "--help"], ["train", MNIST, "seed=x"],
                                   ["train", MNIST, "data.path=nowhere.npz"]])  # fmt: skip
def test_what_needs_no_tensorflow_does_not_import_it(convae: Command, words: list[str]) -> None:
    done = convae(*words, PYTHONPATH=str(blocked("tensorflow", "keras", "matplotlib")))
    assert done.returncode in {0, 2}
    assert "imported" not in done.stderr


def blocked(*modules: str) -> Path:
    """A folder for PYTHONPATH with modules that fail when they are imported."""
    folder = Path(os.environ["KERAS_HOME"]) / "blocked"
    folder.mkdir(parents=True)
    for module in modules:
        (folder / f"{module}.py").write_text("raise RuntimeError('imported')")
    return folder


WRONG_PATHS = [
    "predict pretrained:denoise nowhere.png",
    "predict pretrained:denoise pic.png --output-dir a_file/x",
    "predict no_weights pic.png",
    "sample pretrained:generate --output-dir a_file",
    "export pretrained:denoise --format weights --output-dir a_file",
    "export no_weights --format weights",
    "eval nothing",
    "eval no_weights",
    "eval pretrained:denoise data.path=nowhere",
    "compare pretrained:denoise no_weights",
    "compare pretrained:denoise pretrained:mnist --output-dir a_file/x",
    "train mnist output.folder=a_file",
    "train mnist --runs-dir a_file/x",
    "train --resume nothing",
    "train --resume pretrained:mnist data.path=nowhere",
    "sweep mnist sweep data.path=nowhere",
    "demo no_weights",
    "report nothing",
    "explain --verify --out a_file/x.png",
    "explain --verify --out x.bmp",
    "explain overlap --run nothing",
    "explain overlap --run no_weights",
    "explain overlap nowhere.yaml --run pretrained:denoise",
    "explain overlap --run pretrained:denoise --out a_file/x.png",
]


def test_wrong_paths_are_found_before_tensorflow_is_imported(tmp_path: Path) -> None:
    for name in ("a_file", "pic.png", "outputs/no_weights/20240101-000000-aaaa/config.yaml"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(load_config("mnist").to_yaml())
    code = (
        "import sys; from convae.cli.main import main\n"
        "for words in sys.argv[1:]:\n"
        "    sys.argv = ['convae', *words.split()]\n"
        "    try: main()\n"
        "    except SystemExit as end: print(end.code)\n"
        "    except RuntimeError as error: print(f'{words}: {error}')\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, *WRONG_PATHS], capture_output=True, text=True, check=True,
        timeout=120, cwd=tmp_path, env={**os.environ, "PYTHONPATH": os.pathsep.join(
            [str(blocked("tensorflow", "keras")), *sys.path])},
    )  # fmt: skip
    assert done.stdout.splitlines() == ["2"] * len(WRONG_PATHS)
    assert len(done.stderr.splitlines()) == len(WRONG_PATHS)


def test_config_prints_all_values(convae: Command) -> None:
    done = convae("config", str(ROOT / "configs/smoke.yaml"), "training.epochs=3", code=0)
    for part in ("name: smoke", "epochs: 3", "subset: 2000"):
        assert part in done.stdout


def test_inspect_prints_the_table_of_the_article(convae: Command) -> None:
    done = convae("inspect", MNIST)
    rows = [line.split()[:3] for line in done.stdout.splitlines()]
    assert ["conv2d_transpose_3", "28x28x32", "4,640"] in rows
    assert "Total: 12,785 parameters" in done.stdout


@pytest.mark.parametrize(
    ("words", "part"),
    [
        (["train"], "which config?"),
        (["train", "missing.yaml"], "missing.yaml: no such file"),
        (["train", MNIST, "training.epoch=1"], "did you mean epochs?"),
        (["train", MNIST, "data.path=nowhere.npz"], "nowhere.npz"),
        (["train", MNIST, "--resume", "latest"], "--resume takes a run"),
        (["train", "--resume", "latest"], "there is no run"),
        (["train", "--resume=nothing", "training.epochs=3"], "no run called 'nothing'"),
        (["eval"], "there is no run"),
        (["eval", "nothing"], "no run called 'nothing'"),
        (["inspect", MNIST, "model.decoder.0.padding=same"], "suggested fix"),
        (["doctor", MNIST, "training.epochs=0"], "training.epochs"),
        (["config"], "which config?"),
        (["inspect"], "Missing argument"),
        (["report"], "there is no run"),
        (["compare", "a", "b"], "there is no run"),
        (["train", MNIST, "output.mlflow=http://x"], "mlflow must be true, a folder or sqlite"),
        (["trian"], "No such command"),
    ],
)
def test_a_users_mistake_is_one_message_and_exit_2(
    convae: Command, tmp_path: Path, words: list[str], part: str
) -> None:
    done = convae(*words, code=2)
    assert part in done.stderr
    assert "Traceback" not in done.stderr
    assert "Layer (type)" not in done.stderr or "suggested fix" in done.stderr
    assert done.stdout == ""
    assert not (tmp_path / "outputs").exists()


@pytest.fixture
def run(convae: Command, digits: Path, tmp_path: Path) -> Path:
    settings = [word for word in tiny(digits, tmp_path) if "output.folder" not in word]
    settings += ["--runs-dir", str(tmp_path / "outputs"), "--json"]
    done = convae("train", MNIST, *settings, code=0)
    (line,) = done.stdout.splitlines()
    row = json.loads(line)
    assert list(row) == ["run", "epoch", "loss", "val_loss", "val_excess", "learning_rate",
                         "seconds", "images_per_second"]  # fmt: skip
    assert row["epoch"] == 2
    assert "epoch 2/2  loss" in done.stderr  # plain lines where there is no terminal
    return Path(row["run"])


def test_eval_of_a_run(convae: Command, run: Path) -> None:
    result = json.loads(convae("eval", "--json", code=0).stdout)
    assert result == json.loads((run / "metrics.json").read_text())
    assert result["data"] == {"name": "digits.npz", "examples": 60, "sample": False}
    assert list(result["test"]) == ["bce", "floor", "excess", "mse", "psnr", "ssim"]
    assert set(result["per_class"]) <= {str(digit) for digit in range(10)}
    assert len(result["per_class"]) > 5
    assert result["baselines"]["mean_image"]["ssim"] < 1
    test = result["test"]
    assert test["excess"] == pytest.approx(test["bce"] - test["floor"])
    figures = {path.name: path.read_bytes() for path in (run / "figures").iterdir()}
    assert sorted(figures) == ["best_and_worst.png", "code.png", "error_by_class.png",
                               "reconstructions.png", "scores.png", "training.png"]  # fmt: skip
    # The same run gives the same files, and JSON is alone on stdout.
    assert (run / "report.html").stat().st_size > 50_000
    assert "wrote" in convae("eval", run.name, code=0).stdout
    for name, content in figures.items():
        assert (run / "figures" / name).read_bytes() == content
    assert "cannot change model" in convae("eval", "model.encoder.0.filters=5", code=2).stderr
    (run / "best.keras").write_bytes(b"no model")
    assert "best.keras: cannot be loaded" in convae("eval", code=2).stderr


def test_doctor(convae: Command) -> None:
    done = convae("doctor", MNIST, code=0)
    for part in ("tensorflow", "processor", "avx2", "threads", "MNIST sample", "outputs"):
        assert part in done.stdout
    assert sys.version.split()[0] in done.stdout
    assert done.stderr == f"next: convae train {MNIST}\n"  # TensorFlow's noise is kept off
    assert "decisions for mnist" in convae("doctor", code=0).stdout


def test_training_and_evaluation_in_one_process(
    digits: Path, tmp_path: Path, convae: Command
) -> None:
    words = tiny(digits, tmp_path / "outputs", "training.epochs=1")
    done = convae("train", str(ROOT / "configs/mnist.yaml"), *words, "--eval", "--json", code=0)
    assert json.loads(done.stdout)["test"]["bce"] > 0
    (report,) = (tmp_path / "outputs").glob("mnist/2*/report.html")
    assert "report.html" in report.name


@pytest.mark.parametrize("backend", ["torch", "tensorfow"])
def test_another_backend_of_keras_is_refused(
    convae: Command, tmp_path: Path, digits: Path, backend: str
) -> None:
    done = convae("train", MNIST, *tiny(digits, tmp_path / "o"), KERAS_BACKEND=backend, code=2)
    assert f"environment variable KERAS_BACKEND '{backend}'" in done.stderr
    assert "Traceback" not in done.stderr
    assert not (tmp_path / "o").exists()


@pytest.mark.slow
def test_a_damaged_keras_json_is_named(convae: Command, tmp_path: Path, digits: Path) -> None:
    home = tmp_path / "home"
    home.mkdir()
    (home / "keras.json").write_text(json.dumps({"floatx": "float99"}))
    done = convae("train", MNIST, *tiny(digits, tmp_path / "o"), KERAS_HOME=str(home), code=2)
    assert "keras.json, in the folder ~/.keras or KERAS_HOME" in done.stderr
    assert "Traceback" not in done.stderr
    assert not (tmp_path / "o").exists()


def test_size_notes_that_dilation_needs_onednn(convae: Command) -> None:
    note = "TF_ENABLE_ONEDNN_OPTS=1 before they import TensorFlow"
    dilated = ["--from", "7", "--to", "11", "--max-kernel", "3"]
    assert note in convae("size", *dilated, code=0).stdout
    assert note not in convae("size", *dilated, "--max-dilation", "1", code=0).stdout


@pytest.mark.slow
def test_the_end_of_tensorflow_at_an_unknown_flag_is_not_silent(
    convae: Command, tmp_path: Path, digits: Path
) -> None:
    words = tiny(digits, tmp_path / "o")
    done = convae("train", MNIST, *words, TF_XLA_FLAGS="--no_such_flag")
    assert done.returncode
    assert "Unknown flag in TF_XLA_FLAGS: --no_such_flag" in done.stderr
    assert not (tmp_path / "o").exists()
