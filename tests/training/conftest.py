"""Pictures for the tests of the training. Where torch is not installed, these tests are not collected."""

import os
from importlib.util import find_spec
from pathlib import Path

import pytest

from tests.training.drawings import draw_picture
from triton_models.training.data import Pictures, load

# Where other work takes the cores, the threads of one small step wait for each other: ten times as slow.
os.environ.setdefault("OMP_NUM_THREADS", "1")
collect_ignore_glob = [] if find_spec("torch") else ["test_*.py"]


@pytest.fixture(scope="session")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of 60 drawn pictures."""
    path = tmp_path_factory.mktemp("pictures")
    for seed in range(60):
        draw_picture(seed).save(path / f"drawn-{seed:03d}.png")
    return path


@pytest.fixture(scope="session")
def pictures(folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Pictures:
    """The drawn pictures, decoded."""
    return load([folder], tmp_path_factory.mktemp("cache"))
