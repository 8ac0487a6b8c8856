"""Drawings and pages of text, and their thumbnails under exactly known transformations."""

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

from consumer.images.region import WHOLE_IMAGE
from consumer.images.thumbnail import SIDE, Thumbnail

SUPERSAMPLES = 10  # along and across each pixel of a thumbnail
SIDE_PX = SIDE * SUPERSAMPLES  # of a drawing
IDENTITY = np.eye(2, 3, dtype=np.float32)
LETTERS = "abcdefghijklmnopqrstuvwxyz"


def drawing(seed: int) -> Image.Image:
    """Draw some forty shapes one upon another, in greys."""
    rng = np.random.default_rng(seed)
    image = Image.new("L", (SIDE_PX, SIDE_PX), 200)
    draw = ImageDraw.Draw(image)
    for number in range(40):
        x, y, across, down = (int(value) for value in (*rng.uniform(0, SIDE_PX, 2), *rng.uniform(20, 110, 2)))
        box, grey = (x - across // 2, y - down // 2, x + across // 2, y + down // 2), int(rng.integers(0, 256))
        if number % 3 == 0:
            draw.ellipse(box, grey)
        elif number % 3 == 1:
            draw.rectangle(box, grey)
        else:
            draw.line(box, grey, width=int(rng.integers(8, 30)))
    return image


def page(seed: int, lines: int = 12) -> Image.Image:
    """Write lines of words that `seed` chooses below a heading that all pages have, in one layout."""
    rng = np.random.default_rng(seed)
    image = Image.new("L", (SIDE_PX, SIDE_PX), 250)
    draw, font = ImageDraw.Draw(image), ImageFont.load_default(26)
    draw.rectangle((30, 20, 450, 70), 60)
    for number in range(lines):
        words = ["".join(rng.choice(list(LETTERS), rng.integers(2, 9))) for _ in range(8)]
        draw.text((30, 85 + 32 * number), " ".join(words), 20, font)
    draw.rectangle((460, 0, SIDE_PX, SIDE_PX), 250)
    return image


def edited(image: Image.Image, transform: object, fill: int = 0) -> Image.Image:
    """Move a drawing: `transform` [2, 3] takes places of the result to places of the drawing, both in 0..1."""
    (a, b, c), (d, e, f) = np.asarray(transform, np.float64).tolist()
    size = (SIDE_PX, SIDE_PX)
    coefficients = (a, b, c * SIDE_PX, d, e, f * SIDE_PX)
    return image.transform(size, Image.Transform.AFFINE, coefficients, Image.Resampling.BICUBIC, fillcolor=fill)


def thumbnail(image: Image.Image) -> NDArray[np.float32]:
    """Make the thumbnail of a drawing, as float32 [SIDE, SIDE]."""
    small = np.asarray(image.convert("RGB").reduce(SUPERSAMPLES))
    return Thumbnail.of(small, WHOLE_IMAGE, 1.0).levels.astype(np.float32)
