"""One picture through one run: what went in, what came out, the code between, how unlike they are.

This is what `convae demo` shows. A digit that was drawn or photographed is first made to look as
MNIST's do, if that is asked for.
"""

from __future__ import annotations

import io
import math
import warnings
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from functools import lru_cache
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from convae.console import format_shape
from convae.data import transforms as images
from convae.errors import RunError
from convae.evaluation.html import Picture, data_uri
from convae.runs import pretrained
from convae.runs.run import Run
from convae.tasks import build_task
from convae.tasks.task import EVALUATION, example_generator, to_bytes

if TYPE_CHECKING:
    from convae.config.schema import Config
    from convae.inference.autoencoder import Autoencoder

Pixels = NDArray[np.uint8]  # (H, W, C)

LARGEST = 1000  # pixels of the longer side; a larger photograph is made smaller first
CHANNELS = 64  # of a code that are shown, at most
KEPT = 8  # models in memory, at most


@dataclass(frozen=True)
class Choice:
    """A run, or shipped weights, of which nothing but the name was read yet."""

    title: str
    name: str  # as Run.find takes it
    outputs: str


@dataclass(frozen=True)
class View:
    """All that there is to see of one picture through one run."""

    pictures: list[Picture]
    words: list[str]
    alarm: bool | None = None  # whether the anomaly score is above the run's threshold

    def record(self) -> dict[str, Any]:
        """As JSON holds it."""
        return asdict(self)


def choices(names: Sequence[str], outputs: str = "outputs") -> list[Choice]:
    """The runs called `names`; without names, every run with weights and what is shipped.

    Raises RunError for a name of nothing, a run without weights, and if there is no choice at all.
    """
    if names:
        runs = [Run.find(name, outputs) for name in names]
        for run in runs:
            _ = run.best
        return [_choice(run, outputs) for run in runs]
    runs = [run for run in reversed(Run.all(outputs)) if (run.path / "best.keras").is_file()]
    shipped = [
        Choice(f"{name} (comes with convae)", f"{pretrained.PREFIX}{name}", outputs)
        for name in pretrained.names()
    ]
    found = [*(_choice(run, outputs) for run in runs), *shipped]
    if not found:
        raise RunError(f"no run in {outputs}/ has weights yet; convae train configs/mnist.yaml")
    return found


def _choice(run: Run, outputs: str) -> Choice:
    path = run.path.resolve()
    return Choice(f"{path.parent.name} ({path.name})", str(run.path), outputs)


@lru_cache(KEPT)
def viewer(choice: Choice) -> Viewer:
    """The viewer of a choice, its model loaded, traced and kept. Raises RunError."""
    from convae.inference.autoencoder import load

    run = Run.find(choice.name, choice.outputs)
    threshold = run.known_metrics.get("threshold", {}).get("score")
    made = Viewer(load(run.path), run.config, threshold)
    made.see(np.zeros(made.shape, np.uint8))  # traces, so that the first stroke does not wait
    return made


class Viewer:
    """A loaded model, for one picture at a time.

    `shape` (H, W, C) is that of the pictures it takes: of what should come out, since those of a
    task that damages its inputs are damaged here; of a segmentation, what goes in.
    """

    def __init__(self, autoencoder: Autoencoder, config: Config, threshold: float | None) -> None:
        self.autoencoder = autoencoder
        self.config = config
        self.threshold = threshold
        self.task = build_task(config)
        images = self.task.outputs_images
        self.shape = config.output_shape if images else config.model.input_shape
        self._skips = config.model.has_skips

    def traits(self) -> dict[str, Any]:
        """What the page should offer: `digit`, `damage`, and what the model does."""
        return {
            "digit": self.shape[2] == 1 and self.task.outputs_images,
            "damage": self.task.corrupts_inputs,
            "words": f"{self.task.description.format(**vars(self.task.settings))}.",
        }

    def read(self, data: bytes, *, as_digit: bool) -> Pixels:
        """An image file as a picture of `shape`. Raises RunError if it is none, or empty."""
        height, width, channels = self.shape
        as_digit = as_digit and bool(self.traits()["digit"])
        from convae.inference.predict import digit  # imports TensorFlow

        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # of Pillow, below the limit of decode
                if not as_digit:
                    return images.decode(io.BytesIO(data), channels, (height, width), "crop")
                gray = images.decode(io.BytesIO(data), 1, None, "crop")[:, :, 0]
        except Exception as error:  # Pillow's decoders raise nearly anything at damaged bytes
            reason = str(error).partition("<")[0].strip()
            raise RunError(f"this is no image that can be read: {reason:.160}") from None
        if max(gray.shape) > LARGEST:
            small = Image.fromarray(gray)
            small.thumbnail((LARGEST, LARGEST))
            gray = np.asarray(small)
        try:
            return digit(gray, (height, width))[..., None]
        except ValueError as error:
            raise RunError(f"no digit is to be seen: {error}") from None

    def see(self, picture: Pixels, *, damage: bool = True) -> View:
        """What the model makes of a picture of `shape`.

        Without `damage`, a model that denoises gets the picture as it is. The noise of one picture
        is that of every picture, so that a drawing does not flicker.
        """
        wanted = picture[None]
        generator = example_generator(self.config.seed, EVALUATION, 0)
        clean = self.task.corrupts_inputs and not damage
        inputs = wanted if clean else self.task.make_inputs(wanted, generator)
        if not self.task.outputs_images:
            return self._classes(inputs[0], self.autoencoder.reconstruct(inputs)[0])
        code = None if self._skips else self.autoencoder.encode(inputs)
        # From the code, so that the encoder is run once.
        outputs = (
            self.autoencoder.reconstruct(inputs) if code is None else self.autoencoder.decode(code)
        )
        made = to_bytes(outputs[0])
        error = np.abs(made.astype(np.int16) - picture).astype(np.uint8)
        labels = self.task.input_label, self.task.output_label, self.task.target_label
        images = [inputs[0], made] if inputs is wanted else [inputs[0], made, picture]
        pictures = [
            Picture(label.capitalize(), png(image), format_shape(image.shape))
            for label, image in zip(labels, images, strict=False)
        ]
        pictures.append(Picture("Absolute error", png(error), "white = 1"))
        if code is not None:
            words = (
                f"{format_shape(code.shape[1:])}: {code[0].size:,} numbers for {inputs[0].size:,}"
            )
            pictures.append(Picture("Code", png(mosaic(code[0])), words))
        return View(pictures, *self.task.compare_to_threshold(wanted, outputs, self.threshold))

    def _classes(self, scene: Pixels, outputs: NDArray[np.float32]) -> View:
        """Each pixel in the color of its likeliest class; the last class is the background."""
        count = outputs.shape[2]
        found = outputs.argmax(axis=2)
        shares = np.bincount(found.ravel(), minlength=count)[: count - 1]
        ranked = [int(c) for c in np.argsort(-shares, kind="stable") if shares[c] > 0][:5]
        seen = ", ".join(f"class {c}: {shares[c]:,}" for c in ranked) or "background alone"
        sure = outputs.max(axis=2)
        return View(
            [
                Picture("Input", png(scene), format_shape(scene.shape)),
                Picture(
                    "Class of each pixel",
                    png(self.task.to_images(outputs[None])[0]),
                    "dark: background",
                ),
                Picture("Probability", png((sure * 255).astype(np.uint8)[..., None]), "white = 1"),
            ],
            [f"pixels of {seen}"],
        )


def png(pixels: Pixels) -> str:
    """A picture (H, W, C), C 1 to 4, as a data URI; its second or fourth channel is opacity."""
    return data_uri(images.png(pixels, 1))


def mosaic(code: NDArray[np.float32]) -> Pixels:
    """The channels of a code (h, w, c) side by side, gray and opacity (H, W, 2).

    Black is the code's lowest value and white its highest, in all channels alike; between them is a
    line of nothing, unless they are single numbers. At most `CHANNELS` channels of more than one.
    """
    height, width, channels = code.shape
    gap = 0 if height * width == 1 else 1
    channels = channels if not gap else min(channels, CHANNELS)
    columns = math.ceil(math.sqrt(channels * height / width))
    rows = -(-channels // columns)
    low, high = float(code.min()), float(code.max())
    gray = ((code - low) * (255 / max(high - low, 1e-12))).round().astype(np.uint8)
    result = np.zeros((rows * (height + gap) - gap, columns * (width + gap) - gap, 2), np.uint8)
    for channel in range(channels):
        top, left = (
            n * (s + gap) for n, s in zip(divmod(channel, columns), (height, width), strict=True)
        )
        place = result[top : top + height, left : left + width]
        place[..., 0], place[..., 1] = gray[:, :, channel], 255
    return result
