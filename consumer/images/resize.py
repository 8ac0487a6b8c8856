"""Resizing a picture to the square that the encoder takes.

Pillow resizes a pixel at a time: that took a quarter of the time of `decode`. `cykooz_resizer` (fast_image_resize, in
Rust) has the same filter for the processor's vector unit, at a third of the cost with all copies; one value in nine
differs, by a grey level, seldom two. It has no wheels for some processors.
"""

import numpy as np
from numpy.typing import NDArray
from PIL import Image

try:
    from cykooz_resizer import FilterType, ImageData, PixelType, ResizeAlg, ResizeOptions, Resizer
except ImportError:
    Resizer = None
else:
    BILINEAR = ResizeOptions(ResizeAlg.convolution(FilterType.bilinear))

# How many times larger than asked for a picture is after Pillow first averaged whole pixels, which costs little.
REDUCING_GAP = 2.0


def squash(image: Image.Image, side: int, box: tuple[float, float, float, float] | None = None) -> Image.Image:
    """Resize a picture of any mode, or what is within edges of it in pixels, to `side` x `side` pixels.

    Bilinear (a triangle as wide as the reduction asks for) is the cheapest of the filters but for the box, and the one
    under which two versions of a picture, full and half size or recompressed, differ least.
    """
    return image.resize((side, side), Image.Resampling.BILINEAR, box, reducing_gap=REDUCING_GAP)


def squash_rgb(image: Image.Image, side: int) -> NDArray[np.uint8]:
    """Resize an RGB picture to uint8 [side, side, 3]."""
    reduces = max(image.size) >= 2 * REDUCING_GAP * side
    if Resizer is None or reduces:
        return np.asarray(squash(image, side))
    source, square = ImageData(*image.size, PixelType.U8x3, image.tobytes()), ImageData(side, side, PixelType.U8x3)
    Resizer().resize(source, square, BILINEAR)
    return np.frombuffer(square.get_buffer(), np.uint8).reshape(side, side, 3)
