"""Files in, pictures out: what a trained model makes of images from anywhere.

Images are fitted to the model's size. With `as_digit`, a photograph or scan of a digit is made to
look as MNIST's do: light on dark, in a box of 20 pixels, its center of mass in the middle (LeCun,
Bottou, Bengio and Haffner, "Gradient-based learning applied to document recognition", 1998).
"""

from __future__ import annotations

import csv
import glob
import io
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from tqdm import tqdm

from convae import files as atomic
from convae.console import no_bar
from convae.data.transforms import SUFFIXES, decode, png
from convae.errors import RunError
from convae.evaluation.evaluate import load_model
from convae.plots import image_grids as plots
from convae.plots import style
from convae.runtime.start import start_in_float32
from convae.tasks import build_task
from convae.training.engine import Engine

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from convae.runs.run import Run

Images = NDArray[np.uint8]  # (N, H, W, C) or (H, W, C)

BATCH = 500  # images decoded, predicted and written at once
SHOWN = 20  # in the overview
BOX = 20  # pixels of the longer side of a digit in MNIST's 28


@dataclass(frozen=True)
class Prediction:
    """What came of one file."""

    file: str
    output: str  # the picture that was written
    score: float | None = None  # how badly it comes out: the task's score, or the MSE
    anomaly: bool | None = None  # whether the score is above the run's threshold


def predict(
    run: Run,
    names: Sequence[str],
    output: Path | None = None,
    *,
    as_digit: bool = False,
) -> list[Prediction]:
    """Predict every image that `names` lead to, and write the results into `output`.

    `names` are files, folders (with all images below them) and patterns such as "*.png". `output`
    is by default the folder `predictions` of the run: a PNG for each image under the name that it
    has below its folder, `scores.csv` where the model reconstructs what goes in, and
    `overview.png` of the first ones. Raises RunError for what is no image, or for nothing at all.
    """
    files = list(find_files(names))
    if not files:
        raise RunError(f"no images ({', '.join(SUFFIXES)}) in: {', '.join(names) or 'nothing'}")
    config = run.config
    shape = config.model.input_shape
    if as_digit and shape[2] != 1:
        raise RunError(f"--as-digit is for gray images; this model takes {list(shape)}")
    engine = Engine(load_model(run), config, start_in_float32(config))
    folder = output or run.path / "predictions"
    threshold = run.known_metrics.get("threshold", {}).get("score")
    task = build_task(config)
    found: list[Prediction] = []
    shown: list[tuple[Images, Images]] = []
    with tqdm(total=len(files), desc="images", disable=no_bar()) as bar:
        for start in range(0, len(files), BATCH):
            part = files[start : start + BATCH]
            inputs = np.stack([read(path, shape, as_digit) for path, _ in part])
            outputs = engine.predict(inputs)
            pictures = task.to_images(outputs)
            scores: Sequence[float | None] = [None] * len(part)
            if task.reconstruction_score:
                values = task.scores(inputs, outputs)[task.reconstruction_score]
                scores = [float(value) for value in values]
            shown += list(zip(inputs, pictures, strict=True))[: SHOWN - len(shown)]
            for (path, name), picture, score in zip(part, pictures, scores, strict=True):
                target = folder / f"{name}.png"
                _write(target, picture)
                alarm = None if threshold is None or score is None else score > threshold
                found.append(Prediction(str(path), str(target), score, alarm))
            bar.update(len(part))
    if any(prediction.score is not None for prediction in found):
        atomic.write_atomic(folder / "scores.csv", scores_csv(found).encode())
    style.save(overview(shown, f"{config.name}: {len(files):,} files"), folder / "overview.png")
    return found


def find_files(names: Sequence[str]) -> Iterator[tuple[Path, str]]:
    """Each file with the name of its result: below a folder, its path from there.

    Of several with one name all but the first get a number. Raises RunError for a name that leads
    to nothing.
    """
    taken: set[str] = set()
    for name in names:
        path = Path(name).expanduser()
        pairs: list[tuple[Path, str]]
        if path.is_dir():
            images = sorted(p for p in path.rglob("*") if p.suffix.lower() in SUFFIXES)
            pairs = [(p, str(p.relative_to(path).with_suffix(""))) for p in images]
        elif path.is_file():
            pairs = [(path, path.stem)]
        else:
            matches = sorted(glob.glob(str(path), recursive=True))  # noqa: PTH207 - absolute ones, too
            if not matches:
                raise RunError(f"{name}: no such file or folder, and no file matches it")
            pairs = [(Path(m), Path(m).stem) for m in matches if Path(m).is_file()]
        for file, result in pairs:
            unique, number = result, 2
            while unique in taken:
                unique, number = f"{result}-{number}", number + 1
            taken.add(unique)
            yield file, unique


def read(path: Path, shape: tuple[int, int, int], as_digit: bool = False) -> Images:
    """One file as the model takes it: uint8 `shape`. Raises RunError if it is no image."""
    height, width, channels = shape
    try:
        if as_digit:
            return digit(decode(path, 1, None, "crop")[:, :, 0], (height, width))[..., None]
        return decode(path, channels, (height, width), "crop")
    except Exception as error:  # Pillow's decoders raise nearly anything at damaged bytes
        raise RunError(f"{path}: is no image that can be read: {error}") from None


def digit(gray: Images, size: tuple[int, int]) -> Images:
    """A gray photograph of one digit (H, W) as MNIST would hold it, at `size` (height, width).

    Its border tells the paper from the ink; ink is what differs from the paper by more than half
    as much as anything does. Raises ValueError if there is nothing.
    """
    values = gray.astype(np.float32)
    border = np.concatenate([values[0], values[-1], values[:, 0], values[:, -1]])
    ink = np.abs(values - np.median(border))
    strongest = ink.max()
    if strongest < 32:
        raise ValueError("nothing stands out from its background")
    rows, columns = (np.flatnonzero((ink > strongest / 2).any(axis=axis)) for axis in (1, 0))
    cut = ink[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1] / strongest
    cut = np.clip((cut - 0.2) / 0.6, 0, 1)  # shadows of the paper are no ink
    box = BOX * min(size) / 28
    scale = box / max(cut.shape)
    small = Image.fromarray((cut * 255).astype(np.uint8)).resize(
        (max(1, round(cut.shape[1] * scale)), max(1, round(cut.shape[0] * scale))),
        Image.Resampling.BOX if scale < 1 else Image.Resampling.BILINEAR,
    )
    drawn = np.asarray(small)
    center = [
        float((drawn.sum(axis=1 - axis) * np.arange(drawn.shape[axis])).sum() / drawn.sum())
        for axis in (0, 1)
    ]
    result = np.zeros(size, np.uint8)
    place = [
        int(np.clip(round(size[axis] / 2 - center[axis]), 0, size[axis] - drawn.shape[axis]))
        for axis in (0, 1)
    ]
    result[place[0] : place[0] + drawn.shape[0], place[1] : place[1] + drawn.shape[1]] = drawn
    return result


@style.applied()
def overview(pairs: Sequence[tuple[Images, Images]], data: str) -> Figure:
    """What went in above what came out, ten in a row."""
    row, step = plots.COLUMNS, plots.TILE + plots.GAP
    bands = [pairs[at : at + row] for at in range(0, len(pairs), row)]
    band = 2 * step + 18
    width = max(plots.LEFT + len(bands[0]) * step + style.MARGIN, plots.NARROWEST)
    paper = style.sheet(width, len(bands) * band, "What went in, and what came out", data)
    for number, part in enumerate(bands):
        rows = {word: np.stack([pair[i] for pair in part]) for i, word in enumerate(("in", "out"))}
        shown = {word: images / np.float32(255) for word, images in rows.items()}
        plots.draw_rows(paper, shown, number * band + 8, plots.TILE)
    return paper.figure


def told(predictions: Sequence[Prediction], folder: Path) -> str:
    """How many, where, and which images stand out, as text."""
    lines = [f"{len(predictions):,} images, written to {folder}"]
    scored = sorted((p for p in predictions if p.score is not None), key=lambda p: -(p.score or 0))
    if scored:
        alarms = [p for p in scored if p.anomaly]
        lines.append("highest scores:")
        lines += [f"  {p.score:.5f}  {p.file}{'  anomaly' * bool(p.anomaly)}" for p in scored[:5]]
        if scored[0].anomaly is not None:
            lines.append(f"{len(alarms):,} above the threshold that eval chose")
    return "\n".join(lines)


def scores_csv(predictions: Sequence[Prediction]) -> str:
    """`file,score,anomaly`, the highest score first; `anomaly` is empty without a threshold."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(["file", "score", "anomaly"])
    for one in sorted(predictions, key=lambda p: -(p.score or 0)):
        writer.writerow(
            [one.file, f"{one.score:.6g}", "" if one.anomaly is None else int(one.anomaly)]
        )
    return text.getvalue()


def _write(path: Path, picture: Images) -> None:
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(png(picture))  # not synced: that takes longer than all else together
    except OSError as error:
        raise RunError(f"{path}: cannot be written: {error}") from None
