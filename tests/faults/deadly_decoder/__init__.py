"""Pictures that bring down a process which has the fault of `sitecustomize`; harmless to any other."""

import io
import os
from pathlib import Path

import numpy as np
from PIL import Image


def deadly_picture(deed: str) -> bytes:
    """Make a BMP whose reserved bytes name one of DEEDS in `sitecustomize`."""
    out = io.BytesIO()
    Image.fromarray(np.random.default_rng(0).integers(0, 256, (48, 48, 3), np.uint8)).save(out, "BMP")
    return out.getvalue()[:6] + deed.encode() + out.getvalue()[10:]


def python_path() -> str:
    """Return the PYTHONPATH of a process that is to have the fault."""
    return os.pathsep.join(filter(None, [str(Path(__file__).parent), os.environ.get("PYTHONPATH", "")]))
