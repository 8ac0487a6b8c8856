"""Load pictures for training: decoded once into one memory-mapped array, and split by the hash of their names."""

import hashlib
from collections.abc import Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

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


class Split(NamedTuple):
    """Indices of pictures. One in ten is held out whatever its source, so that `validation` stays the same set."""

    training: NDArray[np.intp]
    validation: NDArray[np.intp]
    held_out_sources: NDArray[np.intp]  # all pictures of these


def split(names: Sequence[str], held_out_sources: Sequence[str] = ()) -> Split:
    """Split pictures by the hash of their names, and leave whole sources out of the training.

    The pictures of a source are named `<source>-<number>`. Raises ValueError for a source of which there are none.
    """
    validation = np.array([is_validation(name) for name in names])
    of_sources = np.zeros(len(names), bool)
    for source in held_out_sources:
        of_source = np.array([name.startswith(f"{source}-") for name in names])
        if not of_source.any():
            raise ValueError(f"no picture is of the source {source}")
        of_sources |= of_source
    return Split(*(np.flatnonzero(each) for each in (~validation & ~of_sources, validation, of_sources)))


def load(folders: Sequence[Path], cache: Path, aspects: Mapping[str, float] | None = None) -> Pictures:
    """Load the pictures below `folders`, from decoded pixels in the folder `cache`, which are made on the first call.

    `aspects` gives, by file name, the width over the height that pictures had which are files of another shape by now.
    Raises ValueError when a folder holds no pictures.
    """
    paths: list[Path] = []
    for folder in folders:
        found = list_pictures(folder)
        if not found:
            raise ValueError(f"{folder} holds no pictures")
        paths += found
    names = [path.name for path in paths]
    cache.mkdir(parents=True, exist_ok=True)
    digest = hashlib.sha256("\n".join(names).encode()).hexdigest()[:16]
    pixels_file, aspects_file = cache / f"{digest}-pixels.npy", cache / f"{digest}-aspects.npy"
    if not aspects_file.exists():  # written last
        _decode_all(paths, pixels_file, aspects_file)
    given, of_files = aspects or {}, np.load(aspects_file)
    true_aspects = np.array([given.get(*each) for each in zip(names, of_files, strict=True)], np.float32)
    return Pictures(np.load(pixels_file, mmap_mode="r"), true_aspects, names)


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
