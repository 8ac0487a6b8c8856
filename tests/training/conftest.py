"""Pictures for the tests of the training, drawn here. Where torch is not installed, these tests are not collected."""

from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageDraw, ImageFilter

collect_ignore_glob = [] if find_spec("torch") else ["test_*.py"]


def draw_picture(seed: int, side: int = 96) -> Image.Image:
    """A picture with edges, colours and texture, different for each seed."""
    rng = np.random.default_rng(seed)
    ground = Image.fromarray(rng.integers(0, 256, (6, 6, 3), dtype=np.uint8)).resize((side + 16, side))
    draw = ImageDraw.Draw(ground)
    for _ in range(8):
        box = np.sort(rng.integers(0, side, (2, 2)), axis=0).ravel().tolist()
        shape = (draw.ellipse, draw.rectangle)[rng.integers(2)]
        shape(box, tuple(int(v) for v in rng.integers(0, 256, 3)))
    return ground.filter(ImageFilter.GaussianBlur(0.7))


@pytest.fixture(scope="session")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of 60 pictures."""
    path = tmp_path_factory.mktemp("pictures")
    for seed in range(60):
        draw_picture(seed).save(path / f"drawn-{seed:03d}.png")
    return path
