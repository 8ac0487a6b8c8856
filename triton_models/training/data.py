"""Load pictures for training: decoded once into one memory-mapped array, and split by the hash of their names."""

import hashlib
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from rich.progress import track

CACHE_SIDE = 256
SUFFIXES = frozenset({".jpg", ".jpeg", ".png", ".webp", ".bmp", ".gif", ".tif", ".tiff"})


@dataclass(frozen=True, slots=True)
class Pictures:
    """Decoded pictures.

    `pixels` is uint8 [N, 256, 256, 3] RGB, each picture squashed to a square as the service does; `aspects` float32
    [N] is the width over the height that it had; `names` are file names.
    """

    pixels: NDArray[np.uint8]
    aspects: NDArray[np.float32]
    names: list[str]

    def __len__(self) -> int:
        return len(self.names)


def list_pictures(folder: Path) -> list[Path]:
    """List all picture files below `folder`, sorted, so that a run can be repeated."""
    return sorted(path for path in folder.rglob("*") if path.suffix.lower() in SUFFIXES)


def is_validation(name: str) -> bool:
    """Tell whether a picture is held out: one in ten, by the hash of its name, the same on every machine."""
    return int.from_bytes(hashlib.sha256(name.encode()).digest()[:8], "big") % 10 == 0


def load(folder: Path, cache: Path) -> Pictures:
    """Load the pictures below `folder`, from decoded pixels in the folder `cache`, which are made on the first call.

    Raises ValueError when the folder holds no pictures.
    """
    paths = list_pictures(folder)
    if not paths:
        raise ValueError(f"{folder} holds no pictures")
    names = [path.name for path in paths]
    cache.mkdir(parents=True, exist_ok=True)
    digest = hashlib.sha256("\n".join(names).encode()).hexdigest()[:16]
    pixels_file, aspects_file = cache / f"{digest}-pixels.npy", cache / f"{digest}-aspects.npy"
    if not aspects_file.exists():  # written last
        _decode_all(paths, pixels_file, aspects_file)
    return Pictures(np.load(pixels_file, mmap_mode="r"), np.load(aspects_file), names)


def _decode_all(paths: Iterable[Path], pixels_file: Path, aspects_file: Path) -> None:
    paths = list(paths)
    shape = (len(paths), CACHE_SIDE, CACHE_SIDE, 3)
    pixels = np.lib.format.open_memmap(pixels_file, mode="w+", dtype=np.uint8, shape=shape)
    aspects = np.ones(len(paths), np.float32)

    def decode(index: int) -> None:
        with Image.open(paths[index]) as image:
            aspects[index] = image.width / image.height
            squashed = image.convert("RGB").resize((CACHE_SIDE, CACHE_SIDE), Image.Resampling.BICUBIC)
        pixels[index] = np.asarray(squashed)

    with ThreadPoolExecutor() as pool:
        for _ in track(pool.map(decode, range(len(paths))), "decoding", len(paths)):
            pass
    pixels.flush()
    np.save(aspects_file, aspects)
