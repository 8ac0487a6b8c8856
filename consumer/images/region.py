"""A rectangle within a picture."""

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from PIL import Image


class Region(NamedTuple):
    """A rectangle, as shares of width and height."""

    left: float
    top: float
    right: float
    bottom: float

    @property
    def area(self) -> float:
        return (self.right - self.left) * (self.bottom - self.top)

    def box(self, size: tuple[int, int]) -> tuple[float, float, float, float]:
        """Return the edges left, top, right, bottom in pixels of a picture of this width and height."""
        width, height = size
        return self.left * width, self.top * height, self.right * width, self.bottom * height

    def crop(self, pixels: NDArray[np.uint8]) -> NDArray[np.uint8]:
        """Cut the rectangle out of uint8 [S, S, 3] and resize it to [S, S, 3]."""
        size = (len(pixels), len(pixels))
        return np.asarray(Image.fromarray(pixels).resize(size, Image.Resampling.BILINEAR, self.box(size)))


WHOLE_IMAGE = Region(0.0, 0.0, 1.0, 1.0)
