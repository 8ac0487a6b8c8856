"""Pictures that several tests upload."""

import io

import numpy as np
from PIL import Image


def noise(random: np.random.Generator) -> bytes:
    """Make a small picture of coarse random colours, unlike all others."""
    out = io.BytesIO()
    coarse = Image.fromarray(random.integers(0, 256, (6, 6, 3), np.uint8))
    coarse.resize((96, 96), Image.Resampling.BICUBIC).save(out, "JPEG", quality=90)
    return out.getvalue()
