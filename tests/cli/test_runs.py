"""The list of runs in a folder."""

import fcntl
import json
from pathlib import Path

from convae.cli import runs
from convae.config.loader import load_config
from convae.runs.run import HISTORY, Run
from tests.conftest import ROOT, Command


def made(folder: Path, name: str, **manifest: object) -> Run:
    """A run as if it had been trained for two epochs."""
    run = Run.create(
        load_config(ROOT / "configs/mnist.yaml", [f"output.folder={folder}", f"name={name}"])
    )
    rows = [dict.fromkeys(HISTORY, 1 / epoch) | {"epoch": epoch} for epoch in (1, 2)]
    run.write_history(rows)
    run.update_manifest(**{"status": "finished", "seconds": 75.4, **manifest})
    return run


def test_rows_of_runs(tmp_path: Path) -> None:
    run = made(tmp_path, "one", data={"name": "MNIST"})
    run.write_json("metrics.json", {"test": {"psnr": 30.5, "excess": 0.002}})
    (row,) = runs.describe_runs(str(tmp_path))
    assert row == {
        "name": "one", "id": run.path.name, "status": "finished", "epochs_done": 2, "epochs": 25,
        "val_loss": 0.5, "metric": {"excess": 0.002, "psnr": 30.5}, "seconds": 75.4,
        "data": "MNIST", "path": str(run.path),
    }  # fmt: skip
    assert "excess 0.00200  1:15 min  MNIST" in runs.format_runs([row], str(tmp_path))


def test_a_damaged_run_does_not_hide_others(tmp_path: Path) -> None:
    bad, good = made(tmp_path, "bad"), made(tmp_path, "good")
    (bad.path / "manifest.json").write_text("{")
    rows = runs.describe_runs(str(tmp_path))
    assert [row["status"] for row in rows] == ["not known", "finished"]
    (bad.path / "config.yaml").unlink()
    rows = runs.describe_runs(str(tmp_path))
    assert [row["status"] for row in rows] == ["damaged", "finished"]
    last = runs.format_runs(rows, str(tmp_path)).splitlines()[-1]
    assert last.startswith(f"{bad.path.name}: {bad.path}/config.yaml: is missing")
    assert runs.next_command([rows[1], rows[0]]) == f"convae eval {good.path.name}"
    (good.path / "config.yaml").write_text("name: [")
    assert [row["status"] for row in runs.describe_runs(str(tmp_path))] == ["damaged"] * 2


def test_a_running_run_without_a_process_was_killed(tmp_path: Path) -> None:
    run = made(tmp_path, "one", status="running")
    assert runs.describe_run(run)["status"] == "running"  # it has no lock
    with (run.path / "lock").open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        assert runs.describe_run(run)["status"] == "running"
    assert runs.describe_run(run)["status"] == "killed"
    assert runs.next_command([runs.describe_run(run)]) == f"convae train --resume {run.path.name}"


def test_next_command(tmp_path: Path) -> None:
    assert runs.next_command([]).startswith("convae train")
    run = made(tmp_path, "one")
    assert runs.next_command(runs.describe_runs(str(tmp_path))) == f"convae eval {run.path.name}"
    run.update_manifest(status="interrupted")
    assert "--resume" in runs.next_command(runs.describe_runs(str(tmp_path)))
    (tmp_path / "my runs").mkdir()
    other = made(tmp_path / "my runs", "two")
    rows = runs.describe_runs(str(tmp_path / "my runs"))
    assert runs.next_command(rows, str(tmp_path / "my runs")) == f"convae eval '{other.path}'"


def test_the_command(convae: Command, tmp_path: Path) -> None:
    assert "no run in outputs/ yet" in convae("runs").stdout
    made(tmp_path / "outputs", "one")
    done = convae("runs", code=0)
    assert done.stdout.startswith("Name  Id")
    assert "next: convae eval" in done.stderr
    (row,) = json.loads(convae("runs", "--json").stdout)
    assert row["epochs_done"] == 2
