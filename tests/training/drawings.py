"""Drawn pictures, in place of photographs."""

import numpy as np
from PIL import Image, ImageDraw, ImageFilter


def draw_picture(seed: int, side: int = 96) -> Image.Image:
    """Draw a picture with edges, colours and texture, different for each seed."""
    rng = np.random.default_rng(seed)
    ground = Image.fromarray(rng.integers(0, 256, (6, 6, 3), dtype=np.uint8)).resize((side + 16, side))
    draw = ImageDraw.Draw(ground)
    for _ in range(8):
        box = np.sort(rng.integers(0, side, (2, 2)), axis=0).ravel().tolist()
        shape = (draw.ellipse, draw.rectangle)[rng.integers(2)]
        shape(box, tuple(int(v) for v in rng.integers(0, 256, 3)))
    return ground.filter(ImageFilter.GaussianBlur(0.7))
