"""One image through one run, as `convae demo` shows it: input, output, code and absolute error."""

from __future__ import annotations

import io
import json
import math
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from math import prod
from typing import TYPE_CHECKING, Any

import numpy as np
from PIL import Image

from convae.arrays import Floats, Images
from convae.console import format_shape
from convae.data.datasets import SAMPLE_PATH
from convae.data.readers import read
from convae.data.transforms import png
from convae.errors import DataError, RunError
from convae.evaluation.html import Picture, data_uri
from convae.runs import pretrained
from convae.runs.run import Run
from convae.tasks import build_task
from convae.tasks.task import EVALUATION, example_generator, to_bytes

if TYPE_CHECKING:
    from convae.config.schema import Config
    from convae.inference.autoencoder import Autoencoder

MAX_SIDE = 1000  # pixels of the longer side; a larger photograph is made smaller first
MAX_CHANNELS = 64  # of a code that are shown
MAX_SESSIONS = 8  # models in memory
EXAMPLES = {3: 61, 5: 199, 8: 31, 0: 22}  # digit to index in the test split of the sample


@dataclass(frozen=True)
class Choice:
    """A run, or shipped weights, before anything is loaded."""

    title: str
    name: str  # as Run.find takes it
    runs_dir: str


@dataclass(frozen=True)
class View:
    """The pictures and lines of text for one image."""

    pictures: list[Picture]
    lines: list[str]
    alarm: bool | None = None  # whether the anomaly score is above the run's threshold
    code: list[float] | None = None  # of a model that generates: the numbers to change


def choices(names: Sequence[str], runs_dir: str = "outputs") -> list[Choice]:
    """Return the runs called `names`; without names, all runs with weights and shipped weights.

    Raises:
        RunError: A run does not exist or has no weights, or there is no choice at all.
    """
    if names:
        runs = [Run.find(name, runs_dir) for name in names]
        for run in runs:
            _ = run.best
        return [_choice(run, runs_dir) for run in runs]
    runs = [run for run in reversed(Run.all(runs_dir)) if (run.path / "best.keras").is_file()]
    shipped = [
        Choice(f"{name} (comes with convae)", f"{pretrained.PREFIX}{name}", runs_dir)
        for name in pretrained.names()
    ]
    found = [*(_choice(run, runs_dir) for run in runs), *shipped]
    if not found:
        raise RunError(f"no run in {runs_dir}/ has weights yet; convae train mnist")
    return found


def examples() -> list[Picture]:
    """Return digits of the bundled sample's test split, to click instead of drawing one."""
    images = read(SAMPLE_PATH, "test").images
    return [
        Picture(f"A handwritten {digit}", data_uri(png(images[index], 1)))
        for digit, index in EXAMPLES.items()
    ]


def _choice(run: Run, runs_dir: str) -> Choice:
    path = run.path.resolve()
    return Choice(f"{path.parent.name} ({path.name})", str(run.path), runs_dir)


@lru_cache(MAX_SESSIONS)
def open_session(choice: Choice) -> Session:
    """Return the session of a choice, its model loaded and traced. Raises RunError."""
    from convae.inference.autoencoder import load

    run = Run.find(choice.name, choice.runs_dir)
    threshold = run.known_metrics.get("threshold", {}).get("score")
    session = Session(load(run.path), run.config, threshold)
    session.view(np.zeros(session.shape, np.uint8))  # traces, so that the first stroke is fast
    return session


class Session:
    """A loaded model, for one image at a time.

    `shape` (H, W, C) is that of the images it takes: the task's target images, whose inputs are
    made here, or the inputs of a model that segments.
    """

    def __init__(self, autoencoder: Autoencoder, config: Config, threshold: float | None) -> None:
        self.autoencoder = autoencoder
        self.config = config
        self.threshold = threshold
        self.task = build_task(config)
        self.shape = self.task.reader.shape

    def options(self) -> dict[str, Any]:
        """Return which options the page offers, and what the model does."""
        return {
            "digit": self.shape[2] == 1 and self.task.outputs_images,
            "corrupt": self.task.corrupts_inputs,
            "description": f"{self.task.description.format(**vars(self.task.settings))}.",
        }

    def read_image(self, data: bytes, *, as_digit: bool) -> Images:
        """Return an image file as uint8 (H, W, C) of `shape`; DataError if it is none, or empty."""
        from convae.inference.predict import crop_digit  # imports matplotlib

        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # from Pillow, below the limits of the reader
                if not (as_digit and self.options()["digit"]):
                    return self.task.reader.read(io.BytesIO(data))
                gray = self.task.reader.decode(io.BytesIO(data), resize=False)[:, :, 0]
        except Exception as error:  # Pillow's decoders raise nearly anything for damaged bytes
            reason = str(error).partition("<")[0].strip()
            raise DataError(f"this image cannot be read: {reason:.160}") from None
        if max(gray.shape) > MAX_SIDE:
            small = Image.fromarray(gray)
            small.thumbnail((MAX_SIDE, MAX_SIDE))
            gray = np.asarray(small)
        try:
            return crop_digit(gray, self.shape[:2])[..., None]
        except ValueError as error:
            raise DataError(f"no digit found: {error}") from None

    def view(self, image: Images, *, corrupt: bool = True) -> View:
        """Return the view of an image of `shape`.

        Without `corrupt`, a model that denoises gets the image itself. The noise is equal for all
        images, so that a drawing does not flicker.
        """
        target = image[None]
        generator = example_generator(self.config.seed, EVALUATION, 0)
        clean = self.task.corrupts_inputs and not corrupt
        inputs = target if clean else self.task.make_inputs(target, generator)
        if not self.task.outputs_images:
            return self._class_view(inputs[0], self.autoencoder.reconstruct(inputs)[0])
        if self.config.model.has_skips:
            code, outputs = None, self.autoencoder.reconstruct(inputs)
        else:
            code = self.autoencoder.encode(inputs)
            outputs = self.autoencoder.decode(code)  # without running the encoder again
        output = to_bytes(outputs[0])
        input_label = "input" if clean else self.task.input_label
        labels = input_label, self.task.output_label, self.task.target_label
        images = [inputs[0], output] if inputs is target else [inputs[0], output, image]
        pictures = [
            _picture(label.capitalize(), pixels, format_shape(pixels.shape))
            for label, pixels in zip(labels, images, strict=False)
        ]
        error = np.abs(output.astype(np.int16) - image).astype(np.uint8)
        pictures.append(_picture("Absolute error", error, "white = 1"))
        if code is not None:
            sizes = f"{code[0].size:,} numbers for {inputs[0].size:,}"
            caption = f"{format_shape(code.shape[1:])}: {sizes}"
            pictures.append(_picture("Code", mosaic(code[0]), caption))
        numbers = None
        if code is not None and self.autoencoder.generates:
            numbers = code[0].ravel().tolist()
        lines, alarm = self.task.compare_to_threshold(target, outputs, self.threshold)
        return View(pictures, lines, alarm, numbers)

    def decode_view(self, data: bytes) -> View:
        """Return the view of a code, a JSON list of numbers; DataError if it is none."""
        shape = self.config.model_summary.code_shape
        try:
            code = np.array(json.loads(data), np.float32).reshape(1, *shape)
        except (ValueError, TypeError, RecursionError):
            raise DataError(f"a code of this model is a list of {prod(shape)} numbers") from None
        image = to_bytes(self.autoencoder.decode(code)[0])
        return View([_picture("Image of the code", image, format_shape(image.shape))], [])

    def _class_view(self, scene: Images, outputs: Floats) -> View:
        """Return the view of class probabilities (H, W, classes); the last is the background."""
        count = outputs.shape[2]
        counts = np.bincount(outputs.argmax(axis=2).ravel(), minlength=count)[: count - 1]
        largest = [int(c) for c in np.argsort(-counts, kind="stable") if counts[c] > 0][:5]
        classes = ", ".join(f"class {c}: {counts[c]:,}" for c in largest) or "background only"
        colors = self.task.to_images(outputs[None])[0]
        pictures = [
            _picture("Input", scene, format_shape(scene.shape)),
            _picture("Class of each pixel", colors, "dark: background"),
            _picture("Probability", to_bytes(outputs.max(axis=2))[..., None], "white = 1"),
        ]
        return View(pictures, [f"pixels of {classes}"])


def _picture(title: str, pixels: Images, caption: str) -> Picture:
    return Picture(title, data_uri(png(pixels, 1)), caption)


def mosaic(code: Floats) -> Images:
    """Return the channels of a code (h, w, c) side by side, gray and opacity (H, W, 2).

    The code's lowest value is black and its highest is white, in all channels alike. Channels of
    more than one number are separated by transparent lines, and at most MAX_CHANNELS are shown.
    """
    height, width, channels = code.shape
    gap = 0 if height * width == 1 else 1
    channels = min(channels, MAX_CHANNELS) if gap else channels
    columns = math.ceil(math.sqrt(channels * height / width))
    rows = -(-channels // columns)
    low, high = float(code.min()), float(code.max())
    gray = ((code - low) * (255 / max(high - low, 1e-12))).round().astype(np.uint8)
    result = np.zeros((rows * (height + gap) - gap, columns * (width + gap) - gap, 2), np.uint8)
    for channel in range(channels):
        row, column = divmod(channel, columns)
        top, left = row * (height + gap), column * (width + gap)
        result[top : top + height, left : left + width, 0] = gray[:, :, channel]
        result[top : top + height, left : left + width, 1] = 255
    return result
