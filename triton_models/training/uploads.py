"""Pictures and copies of them, encoded as the service encodes uploads: whole, and the pictures within them.

What is kept of each is what the window stores: the vector, the local features, the thumbnail in packed bytes.
"""

import hashlib
import inspect
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from multiprocessing import get_context
from pathlib import Path
from typing import NamedTuple, Protocol, TypeVar

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageOps
from rich.console import Console
from rich.progress import track

from consumer.encoder.contract import Encoded
from consumer.encoder.views import Features
from consumer.images import decode, regions, thumbnail
from consumer.images.region import WHOLE_IMAGE
from consumer.images.regions import make_views
from consumer.images.thumbnail import Thumbnail
from consumer.settings import DecodeSettings
from triton_models.training.data import list_pictures
from triton_models.training.edits import EDITS, Edit, library_edits
from triton_models.training.encoders import OnnxEncoder, prepared
from triton_models.training.held_out_edits import HELD_OUT_EDITS

Floats = NDArray[np.float32]
Indexes = NDArray[np.int64]

BATCH = 32
MIN_SIDE_PX = 64  # of a picture that is given its true shape again


_Result = TypeVar("_Result")


class PixelEncoder(Protocol):
    """Encodes uint8 [N, S, S, 3]; `size` is S."""

    size: int

    def encode(self, pixels: NDArray[np.uint8]) -> Encoded: ...


class Stored(NamedTuple):
    """What the window stores of N pictures.

    `vectors` float32 [N, D], `patches` int8 [N, P, C], and `thumbnails` uint8 [N, THUMBNAIL_BYTES]. Of an encoder
    without local features the latter two hold nothing of each picture.
    """

    vectors: Floats
    patches: NDArray[np.int8]
    thumbnails: NDArray[np.uint8]

    def take(self, rows: Indexes) -> "Stored":
        return Stored(self.vectors[rows], self.patches[rows], self.thumbnails[rows])

    def features(self, rows: Sequence[int] | Indexes) -> list[Features]:
        """Unpack what a second look compares of some of the pictures."""
        return [Features(self.patches[row], Thumbnail.from_bytes(self.thumbnails[row].tobytes())) for row in rows]

    @staticmethod
    def concatenate(parts: Sequence["Stored"]) -> "Stored":
        return Stored(*(np.concatenate(arrays) for arrays in zip(*parts, strict=True)))


class Uploads(NamedTuple):
    """N pictures, and T regions that seem to be pictures within them; `region_of` [T] tells within which."""

    wholes: Stored
    regions: Stored
    region_of: Indexes

    def take(self, rows: Indexes) -> "Uploads":
        """Take some of the pictures, with their regions. `rows` are ascending."""
        place = np.full(len(self.wholes.vectors), -1)
        place[rows] = np.arange(len(rows))
        chosen = np.flatnonzero(place[self.region_of] >= 0)
        return Uploads(self.wholes.take(rows), self.regions.take(chosen), place[self.region_of[chosen]])

    def save(self, file: Path) -> None:
        np.savez(file, *self.wholes, *self.regions, self.region_of)

    @staticmethod
    def load(file: Path) -> "Uploads":
        with np.load(file) as saved:
            arrays = [saved[key] for key in saved.files]
        return Uploads(Stored(*arrays[:3]), Stored(*arrays[3:6]), arrays[6])

    @staticmethod
    def concatenate(parts: Sequence["Uploads"]) -> "Uploads":
        starts = np.cumsum([0, *(len(part.wholes.vectors) for part in parts)])
        return Uploads(
            Stored.concatenate([part.wholes for part in parts]),
            Stored.concatenate([part.regions for part in parts]),
            np.concatenate([part.region_of + start for part, start in zip(parts, starts[:-1], strict=True)]),
        )


@dataclass(frozen=True, slots=True)
class Originals:
    """Some picture files, as they are."""

    paths: tuple[Path, ...]
    aspects: Mapping[str, float]

    def pictures(self) -> list[Image.Image]:
        return [open_picture(path, self.aspects) for path in self.paths]


@dataclass(frozen=True, slots=True)
class Copies:
    """Copies of one picture, one of each of K `kinds`, by `seed`; `others` are mixed into those of several pictures."""

    path: Path
    others: tuple[Path, ...]
    kinds: tuple[str, ...]
    seed: int
    aspects: Mapping[str, float]

    def pictures(self) -> list[Image.Image]:
        original = open_picture(self.path, self.aspects)
        strengths = np.random.default_rng(self.seed).random(len(self.kinds)).tolist()
        copies = []
        for kind, strength, other in zip(self.kinds, strengths, self.others, strict=True):
            edits = EDITS if kind in EDITS else all_edits()
            rng = np.random.default_rng((self.seed, list(edits).index(kind)))
            copies.append(edits[kind].apply(original, strength, rng, open_picture(other, self.aspects)))
        return copies


@cache
def all_edits() -> dict[str, Edit]:
    """Return all kinds of copies: our own, those of a library, and those that nothing is fitted to.

    Needs the `train` extra, which our own, `EDITS`, do without.
    """
    return dict(EDITS) | library_edits() | dict(HELD_OUT_EDITS)


def list_all(folders: Sequence[Path], held_out_sources: Sequence[str] = ()) -> list[Path]:
    """List the pictures of some folders, in order, but those of `held_out_sources`.

    The pictures of a source are named `<source>-<number>`. Raises ValueError for a folder without pictures.
    """
    paths: list[Path] = []
    for folder in folders:
        found = [path for path in list_pictures(folder) if source_of(path) not in held_out_sources]
        if not found:
            raise ValueError(f"{folder} holds no pictures")
        paths += found
    return paths


def source_of(path: Path) -> str:
    """Return the source of a picture: its file's name up to the first dash."""
    return path.stem.partition("-")[0]


def open_picture(path: Path, aspects: Mapping[str, float] | None = None) -> Image.Image:
    """Open a picture as RGB, upright.

    One whose width over height is in `aspects` is a square file, and gets its shape again.
    """
    with Image.open(path) as image:
        picture = ImageOps.exif_transpose(image).convert("RGB")
    aspect = (aspects or {}).get(path.name)
    if aspect is None or picture.width != picture.height:
        return picture
    size = tuple(max(MIN_SIDE_PX, round(picture.width * side)) for side in (aspect**0.5, aspect**-0.5))
    return picture.resize((size[0], size[1]), Image.Resampling.BICUBIC)


def encode_pictures(
    encoder: PixelEncoder, pictures: Sequence[Image.Image], within: bool, encode_at_once: int = 2 * BATCH
) -> Uploads:
    """Encode RGB pictures, and the pictures within them where `within`."""
    decoded = [prepared(picture, encoder.size) for picture in pictures]
    views = [
        (owner, view)
        for owner, of_picture in enumerate(make_views(decoded, DecodeSettings().min_detail, within))
        for view in of_picture
    ]
    pixels = np.stack([view.pixels for _, view in views])
    encoded = Encoded.concatenate(
        [encoder.encode(pixels[start : start + encode_at_once]) for start in range(0, len(pixels), encode_at_once)]
    )
    if encoded.patches is None:
        raise ValueError("The encoder gives no local features, so there is no second look")
    small_bytes = np.stack([np.frombuffer(view.thumbnail.to_bytes(), np.uint8) for _, view in views])
    stored = Stored(encoded.embeddings, encoded.patches, small_bytes)
    is_region = np.array([view.region != WHOLE_IMAGE for _, view in views])
    owners = np.array([owner for owner, _ in views])
    return Uploads(stored.take(np.flatnonzero(~is_region)), stored.take(np.flatnonzero(is_region)), owners[is_region])


def encode_all(
    encoder: PixelEncoder | Path, jobs: Sequence[Originals | Copies], within: bool, workers: int, what: str
) -> Uploads:
    """Encode the pictures of all jobs, in order, with a progress bar.

    An ONNX file is loaded by each of `workers` processes, from two on; an encoder is used as it is.
    """
    with _encoded(encoder, jobs, within, workers) as results:
        return Uploads.concatenate(list(with_progress(results, what, len(jobs))))


def with_progress(results: Iterable[_Result], what: str, total: int) -> Iterator[_Result]:
    """Pass results on, while a bar on standard error shows how many of the `total` there are."""
    yield from track(results, what, total, console=Console(stderr=True), disable=total < 20)


@contextmanager
def _encoded(
    encoder: PixelEncoder | Path, jobs: Sequence[Originals | Copies], within: bool, workers: int
) -> Iterator[Iterator[Uploads]]:
    if not isinstance(encoder, Path) or workers < 2:
        loaded = OnnxEncoder(encoder) if isinstance(encoder, Path) else encoder
        yield (encode_pictures(loaded, job.pictures(), within) for job in jobs)
        return
    with get_context("spawn").Pool(workers, _start, (encoder, within)) as pool:
        yield pool.imap(_run, jobs)


_worker: dict[str, tuple[OnnxEncoder, bool]] = {}


def _start(path: Path, within: bool) -> None:
    import cv2  # noqa: PLC0415 (an optional dependency)

    cv2.setNumThreads(1)
    _worker["encoder"] = OnnxEncoder(path), within


def _run(job: Originals | Copies) -> Uploads:
    encoder, within = _worker["encoder"]
    return encode_pictures(encoder, job.pictures(), within)


class Set(NamedTuple):
    """A stream of N different pictures, and copies of M of them, one of each of K kinds, a row for each of M * K.

    `originals` [M] are places in the stream; `mixed_in` [M, K] the pictures that were mixed into copies. `made_of` are
    the files that copies are made of, with all that it takes to make them again: [M].
    """

    paths: list[Path]
    stream: Uploads
    kinds: tuple[str, ...]
    originals: Indexes
    mixed_in: Indexes
    copies: Uploads
    made_of: list[Copies]

    @property
    def owners(self) -> Indexes:
        """The original of each copy: [M * K]."""
        return np.repeat(self.originals, len(self.kinds))


def encode_set(
    encoder: PixelEncoder | Path,
    paths: list[Path],
    originals: Indexes,
    kinds: tuple[str, ...],
    *,
    within: bool = True,
    aspects: Mapping[str, float] | None = None,
    seed: int = 0,
    workers: int = 1,
    cache_folder: Path | None = None,
) -> Set:
    """Encode the pictures at `paths`, and copies of `originals` among them.

    With a `cache_folder`, what an ONNX file made of the same pictures is read from there.
    """
    given = aspects or {}
    mixed_in = np.random.default_rng((seed, 1)).integers(len(paths), size=(len(originals), len(kinds)))
    copies = []
    for original, others in zip(originals.tolist(), mixed_in.tolist(), strict=True):
        used = (paths[original], *(paths[other] for other in others))
        copies.append(Copies(used[0], used[1:], kinds, seed * 1_000_003 + original, _shapes(used, given)))
    graph = graph_bytes(encoder) if isinstance(encoder, Path) else b""
    name = digest(graph, within, paths, originals.tolist(), kinds, seed)
    stream, edited = (
        _cached(cache_folder, f"{name}-{what}", encoder, jobs, within, workers, what)
        for what, jobs in (("stream", in_batches(paths, given)), ("copies", copies))
    )
    return Set(paths, stream, kinds, originals, mixed_in, edited, copies)


def in_batches(paths: Sequence[Path], aspects: Mapping[str, float]) -> list[Originals]:
    """Divide pictures into jobs."""
    batches = (tuple(paths[start : start + BATCH]) for start in range(0, len(paths), BATCH))
    return [Originals(batch, _shapes(batch, aspects)) for batch in batches]


def _shapes(paths: Sequence[Path], aspects: Mapping[str, float]) -> dict[str, float]:
    return {path.name: aspects[path.name] for path in paths if path.name in aspects}


def digest(*parts: object) -> str:
    """Name what is made of `parts` by the code that pictures go through before they are encoded."""
    modules = [Path(str(module.__file__)).read_bytes() for module in (regions, thumbnail)]
    functions = [inspect.getsource(function) for function in (decode.prepare, open_picture, encode_pictures)]
    code = (modules, functions, DecodeSettings().min_detail)
    return hashlib.sha256(repr((parts, code)).encode()).hexdigest()[:20]


def graph_bytes(path: Path) -> bytes:
    """Read what an ONNX file computes, without its metadata, which a rule is written into."""
    import onnx  # noqa: PLC0415 (calibration and the hashes do without)

    model = onnx.load(path)
    del model.metadata_props[:]
    return bytes(model.SerializeToString(deterministic=True))


def _cached(
    folder: Path | None,
    name: str,
    encoder: PixelEncoder | Path,
    jobs: Sequence[Originals | Copies],
    within: bool,
    workers: int,
    what: str,
) -> Uploads:
    file = None if folder is None or not isinstance(encoder, Path) else folder / f"{name}.npz"
    if file is not None and file.exists():
        return Uploads.load(file)
    made = encode_all(encoder, jobs, within, workers, what)
    if file is not None:
        file.parent.mkdir(parents=True, exist_ok=True)
        made.save(file)
    return made
