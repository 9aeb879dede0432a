"""Scenes: digits in random colors, one over the other, on textured backgrounds."""

import numpy as np
from numpy.typing import NDArray

from convae.arrays import Floats, Images, Labels

CANDIDATES = 6  # random places, of which a digit gets the one farthest from those before it
INK = 128  # lowest gray value that belongs to the digit
EDGE = 16  # up to this distance from INK, its color is mixed with that below it
GRAIN = 0.05  # amplitude of the noise of the background
CONTRAST = 0.5  # least distance between the color of a digit and that below it

# The opacity of a digit by its gray value.
_OPACITY = ((np.arange(256, dtype=np.float32) - INK + EDGE) / (2 * EDGE)).clip(0, 1)


def draw_scenes(
    images: Images,
    labels: Labels,
    first: NDArray[np.int64],
    size: tuple[int, int],
    counts: tuple[int, int],
    background: int,
    generator: np.random.Generator,
) -> tuple[Images, Images]:
    """Return scenes (N, H, W, 3) and the class of each pixel (N, H, W, 1), both uint8.

    Later digits cover earlier ones; each is inside the scene. A digit gets the farthest of some
    random places from the digits before it, so that most overlap in part and few are covered
    (Mitchell, "Spectrally optimal sampling", SIGGRAPH 1991).

    Args:
        images: The digits, (M, h, w, 1).
        labels: Their classes, (M,).
        first: The index of the lowest digit of each scene, (N,); the others are random.
        size: Height and width of the scenes.
        counts: The fewest and the most digits in a scene.
        background: The class of pixels without a digit.
        generator: The source of randomness.
    """
    number, most = len(first), counts[1]
    high, wide = images.shape[1:3]
    scenes = _textures(number, size, generator)
    classes = np.full((number, *size), background, np.uint8)
    drawn = generator.integers(counts[0], most + 1, number)
    digits = generator.integers(0, len(images), (number, most))
    digits[:, 0] = first
    places = _places(number, most, (size[0] - high, size[1] - wide), generator)
    colors = generator.random((number, most, 3), np.float32)
    for scene in range(number):
        for layer in range(drawn[scene]):
            digit, (top, left) = digits[scene, layer], places[scene, layer]
            place = (scene, slice(top, top + high), slice(left, left + wide))
            below, gray = scenes[place], images[digit]
            color = _contrast(colors[scene, layer], below.mean(axis=(0, 1)))
            scenes[place] += _OPACITY[gray] * (color - below)
            classes[place][gray[:, :, 0] >= INK] = labels[digit]
    return (scenes * 255).round().astype(np.uint8), classes[..., None]


def _places(
    number: int, most: int, room: tuple[int, int], generator: np.random.Generator
) -> NDArray[np.int64]:
    """Tops and lefts (number, most, 2) within `room`, by Mitchell's best candidates."""
    places = np.empty((number, most, 2), np.int64)
    scenes = np.arange(number)
    for layer in range(most):
        drawn = generator.random((number, CANDIDATES, 2), np.float32)
        candidates = (drawn * (np.array(room) + 1)).astype(np.int64)
        difference = candidates[:, :, None, :] - places[:, None, :layer, :]
        nearest = (difference**2).sum(axis=-1).min(axis=-1, initial=2**30)
        places[:, layer] = candidates[scenes, nearest.argmax(axis=1)]
    return places


def _contrast(color: Floats, below: Floats) -> Floats:
    """Return the color, or one with contrast to `below` where it has too little."""
    difference = color - below
    distance = float(np.sqrt((difference * difference).sum()))
    if distance >= CONTRAST:
        return color
    # towards the corner of the color cube that is farthest from `below`
    return np.asarray(np.where(below < 0.5, below + 0.4, below - 0.4), np.float32)


def _textures(number: int, size: tuple[int, int], generator: np.random.Generator) -> Floats:
    """Return backgrounds (N, H, W, 3) in [0, 1]: a color, clouds of two sizes, stripes, grain."""
    color = generator.uniform(0.15, 0.85, (number, 1, 1, 3)).astype(np.float32)
    picture = np.broadcast_to(color, (number, *size, 3)).copy()
    for cells, strength in ((3, 0.2), (9, 0.1)):
        coarse = generator.uniform(-1, 1, (number, cells, cells, 3)).astype(np.float32)
        rows, columns = (_stretch(cells, side) for side in size)
        clouds = rows @ coarse.transpose(0, 3, 1, 2) @ columns.T
        picture += strength * clouds.transpose(0, 2, 3, 1)
    angle, waves, phase = (
        generator.uniform(low, high, (number, 1, 1)).astype(np.float32)
        for low, high in ((0, np.pi), (2, 8), (0, 2 * np.pi))
    )
    y, x = (np.linspace(0, 1, side, dtype=np.float32) for side in size)
    stripes = np.sin(2 * np.pi * waves * (np.cos(angle) * x + np.sin(angle) * y[:, None]) + phase)
    tint = generator.uniform(-0.1, 0.1, (number, 1, 1, 3)).astype(np.float32)
    picture += tint * stripes[..., None]
    grain = generator.integers(0, 256, picture.shape, np.uint8)
    picture += (GRAIN * np.linspace(-1, 1, 256, dtype=np.float32))[grain]
    return np.asarray(picture.clip(0, 1, out=picture))


def _stretch(cells: int, size: int) -> Floats:
    """Return the weights (size, cells) that interpolate `cells` values linearly."""
    place = np.linspace(0, cells - 1, size, dtype=np.float32)[:, None]
    weights = 1 - np.abs(place - np.arange(cells, dtype=np.float32))
    return np.asarray(weights.clip(0, None), np.float32)
