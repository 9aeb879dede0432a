"""Types of arrays. Shapes and value ranges are in the docstrings that use them."""

from typing import Any

import numpy as np
from numpy.typing import NDArray

Array = NDArray[Any]
Images = NDArray[np.uint8]  # (N, H, W, C), 0 to 255
Floats = NDArray[np.float32]
Labels = NDArray[np.int64]  # (N,), each an index into the classes
Shape = tuple[int, int, int]  # height, width, channels
