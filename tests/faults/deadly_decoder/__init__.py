"""Pictures that bring down whoever decodes them with the fault of `sitecustomize`, and are harmless elsewhere."""

import io
import os
from pathlib import Path

import numpy as np
from PIL import Image


def deadly_picture(deed: str) -> bytes:
    """A BMP; `deed` names a deed of `sitecustomize`."""
    out = io.BytesIO()
    Image.fromarray(np.random.default_rng(0).integers(0, 256, (48, 48, 3), np.uint8)).save(out, "BMP")
    return out.getvalue()[:6] + deed.encode() + out.getvalue()[10:]


def python_path() -> str:
    """The PYTHONPATH of a process that is to have the fault."""
    return os.pathsep.join(filter(None, [str(Path(__file__).parent), os.environ.get("PYTHONPATH", "")]))
