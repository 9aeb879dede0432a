"""Run a trained model on image files, and write the outputs as pictures.

Images are prepared as those that the run was trained on. With `as_digit`, a photograph or scan of a
digit is first made to look like those of MNIST: light on dark, in a box of 20 pixels, its center of
mass in the middle (LeCun, Bottou, Bengio and Haffner, "Gradient-based learning applied to document
recognition", 1998).
"""

from __future__ import annotations

import csv
import glob
import io
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from PIL import Image

from convae.arrays import Images
from convae.console import logger, printable, progress_bar
from convae.data.image_file import SUFFIXES, explained
from convae.data.image_folder import find_images
from convae.data.transforms import png
from convae.errors import DataError, FileError, UnsupportedError
from convae.files import check_folder, write_atomic
from convae.plots import style
from convae.plots.image_grids import COLUMNS, GAP, LEFT, NARROWEST, TILE, draw_rows
from convae.tasks import Task, build_task

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from convae.runs.run import Run

BATCH = 500  # images decoded, predicted and written at once
OVERVIEW = 20  # images in overview.png
OVERVIEW_NAME = "overview"
DIGIT_BOX = 20  # pixels of the longer side of a digit in MNIST's 28


@dataclass(frozen=True)
class Prediction:
    """The result for one file."""

    file: str
    output: str  # the picture that was written
    score: float | None = None  # the task's reconstruction score, 0 is perfect
    anomaly: bool | None = None  # whether the score is above the run's threshold


def predict(
    run: Run, names: Sequence[str], output: Path | None = None, *, as_digit: bool = False
) -> list[Prediction]:
    """Run a model on image files and write the results.

    Args:
        run: A run with weights.
        names: Files, folders (with all images below them) and patterns such as "*.png".
        output: The folder to write to, by default `predictions` in the run's folder: a PNG for
            each image under the name that it has below its folder, `scores.csv` if the model
            reconstructs its inputs, and `overview.png` of the first images.
        as_digit: Prepare photographs of digits as MNIST's images were.

    Returns:
        A prediction for each file.

    Raises:
        DataError: A file is not an image, or there are none.
        RunError: The run has no weights.
        UnsupportedError: `as_digit` for a model of color images.
        FileError: The folder cannot be written.
    """
    files = list(find_files(names))
    if not files:
        raise DataError(f"no images ({', '.join(SUFFIXES)}) in: {', '.join(names) or 'nothing'}")
    config = run.config
    shape = config.model.input_shape
    if as_digit and shape[2] != 1:
        raise UnsupportedError(f"--as-digit is for gray images; this model takes {list(shape)}")
    folder = output or run.path / "predictions"
    _keep_inputs(files, folder)
    check_folder(folder)
    _ = run.best  # raises before TensorFlow's seconds of import
    from convae.inference.autoencoder import load

    autoencoder, task = load(run.path), build_task(config)
    threshold = run.known_metrics.get("threshold", {}).get("score")
    predictions: list[Prediction] = []
    shown: list[tuple[Images, Images]] = []
    with progress_bar(total=len(files), desc="predicting", unit=" images") as bar:
        for start in range(0, len(files), BATCH):
            batch = files[start : start + BATCH]
            inputs = np.stack([read_input(task, path, as_digit) for path, _ in batch])
            outputs = autoencoder.reconstruct(inputs)
            pictures = task.to_images(outputs)
            scores: Sequence[float | None] = [None] * len(batch)
            if task.reconstruction_score:
                scores = task.scores(inputs, outputs)[task.reconstruction_score].tolist()
            shown += list(zip(inputs, pictures, strict=True))[: OVERVIEW - len(shown)]
            for (path, name), picture, score in zip(batch, pictures, scores, strict=True):
                target = folder / f"{name}.png"
                write_picture(target, picture)
                anomaly = None if threshold is None or score is None else score > threshold
                predictions.append(Prediction(str(path), str(target), score, anomaly))
            bar.update(len(batch))
    task.reader.log_losses(len(files))
    if task.reconstruction_score:
        write_atomic(folder / "scores.csv", _format_csv(predictions).encode())
    overview = _overview(shown, f"{config.name}: {len(files):,} files")
    style.save(overview, folder / f"{OVERVIEW_NAME}.png")
    return predictions


def _keep_inputs(files: Sequence[tuple[Path, str]], folder: Path) -> None:
    """Raise FileError if a result would replace one of the images, under whatever name."""
    inputs = {(state.st_dev, state.st_ino) for state in (path.stat() for path, _ in files)}
    for target in (folder / f"{name}.png" for _, name in files):
        if target.is_file() and (target.stat().st_dev, target.stat().st_ino) in inputs:
            raise FileError(
                f"{printable(target)}: is an input, which its result would replace; "
                "--output-dir names another folder"
            )


def find_files(names: Sequence[str]) -> Iterator[tuple[Path, str]]:
    """Yield each file with the name of its result: its path below a folder, else its own name.

    Equal names get a number. The images of a folder are those that training would find; what else
    is there is logged. Raises DataError for a name that leads to nothing.
    """
    taken = {OVERVIEW_NAME}
    for name in names:
        path = Path(name).expanduser()
        pairs: list[tuple[Path, str]]
        if path.is_dir():
            found = find_images(path)
            if found.others:
                first = min(found.others)
                logger.warning(
                    f"warning: {printable(path)}: {len(found.others):,} files are not used, such "
                    f"as {printable(first)}: {printable(found.others[first])}"
                )
            images = sorted(map(Path, found.images))
            pairs = [(path / image, str(image.with_suffix(""))) for image in images]
        elif path.is_file():
            pairs = [(path, path.stem)]
        else:
            matches = sorted(glob.glob(str(path), recursive=True))  # noqa: PTH207 - absolute ones, too
            if not matches:
                raise DataError(f"{name}: no such file or folder, and no file matches it")
            pairs = [(Path(m), Path(m).stem) for m in matches if Path(m).is_file()]
        for file, result in pairs:
            unique, number = result, 2
            while unique in taken:
                unique, number = f"{result}-{number}", number + 1
            taken.add(unique)
            yield file, unique


def read_input(task: Task, path: Path, as_digit: bool = False) -> Images:
    """Return an image file as an input of the model; DataError if it is no image."""
    with explained(path):
        if not as_digit:
            return task.read_input(path)
        gray = task.reader.decode(path, resize=False)[:, :, 0]
        return crop_digit(gray, task.config.model.input_shape[:2])[..., None]


def crop_digit(gray: Images, size: tuple[int, int]) -> Images:
    """Return a photograph of one digit, uint8 (H, W), as an image of MNIST at `size` (h, w).

    The border shows the color of the paper. Ink is what differs from it by more than half of the
    largest difference.

    Raises:
        ValueError: Nothing stands out from the background.
    """
    values = gray.astype(np.float32)
    border = np.concatenate([values[0], values[-1], values[:, 0], values[:, -1]])
    ink = np.abs(values - np.median(border))
    strongest = ink.max()
    if strongest < 32:
        raise ValueError("nothing stands out from its background")
    rows, columns = (np.flatnonzero((ink > strongest / 2).any(axis=axis)) for axis in (1, 0))
    cut = ink[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1] / strongest
    cut = np.clip((cut - 0.2) / 0.6, 0, 1)  # without shadows of the paper
    scale = DIGIT_BOX * min(size) / 28 / max(cut.shape)
    small = Image.fromarray((cut * 255).astype(np.uint8)).resize(
        (max(1, round(cut.shape[1] * scale)), max(1, round(cut.shape[0] * scale))),
        Image.Resampling.BOX if scale < 1 else Image.Resampling.BILINEAR,
    )
    digit = np.asarray(small)
    places = []
    for axis in (0, 1):
        profile = digit.sum(axis=1 - axis)
        center = float((profile * np.arange(len(profile))).sum() / digit.sum())
        places.append(int(np.clip(round(size[axis] / 2 - center), 0, size[axis] - len(profile))))
    result = np.zeros(size, np.uint8)
    top, left = places
    result[top : top + digit.shape[0], left : left + digit.shape[1]] = digit
    return result


@style.applied()
def _overview(pairs: Sequence[tuple[Images, Images]], data: str) -> Figure:
    """Draw inputs above outputs, ten in a row."""
    step = TILE + GAP
    bands = [pairs[at : at + COLUMNS] for at in range(0, len(pairs), COLUMNS)]
    height = 2 * step + 18
    width = max(LEFT + len(bands[0]) * step + style.MARGIN, NARROWEST)
    paper = style.sheet(width, len(bands) * height, "Inputs and outputs", data)
    for number, band in enumerate(bands):
        inputs, outputs = (np.stack(images) / np.float32(255) for images in zip(*band, strict=True))
        draw_rows(paper, {"input": inputs, "output": outputs}, number * height + 8, TILE)
    return paper.figure


def _by_score(predictions: Sequence[Prediction]) -> list[Prediction]:
    return sorted((p for p in predictions if p.score is not None), key=lambda p: -(p.score or 0))


def format_predictions(predictions: Sequence[Prediction], folder: Path) -> str:
    """Return the number of images, the folder, and the images with the highest scores."""
    lines = [f"{len(predictions):,} images, written to {printable(folder)}"]
    if scored := _by_score(predictions):
        lines.append("highest scores:")
        for one in scored[:5]:
            anomaly = "  anomaly" * bool(one.anomaly)
            lines.append(f"  {one.score:.5f}  {printable(one.file)}{anomaly}")
        if scored[0].anomaly is not None:
            count = sum(bool(p.anomaly) for p in scored)
            lines.append(f"{count:,} above the threshold in metrics.json")
    return "\n".join(lines)


def describe(prediction: Prediction) -> dict[str, Any]:
    """Return what `--json` prints of a prediction, with names that every program can read."""
    names = {"file": printable(prediction.file), "output": printable(prediction.output)}
    return {**vars(prediction), **names}


def _format_csv(predictions: Sequence[Prediction]) -> str:
    """Return `file,score,anomaly`, the highest score first; no anomaly without a threshold."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(["file", "score", "anomaly"])
    for one in _by_score(predictions):
        anomaly = "" if one.anomaly is None else int(one.anomaly)
        writer.writerow([printable(one.file), f"{one.score:.6g}", anomaly])
    return text.getvalue()


def write_picture(path: Path, picture: Images) -> None:
    """Write an image, uint8 (H, W, C), as a PNG; FileError if that is not possible."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(png(picture))  # not synced: that takes longer than everything else
    except OSError as error:
        raise FileError(f"{path}: cannot be written: {error}") from None
