"""The pictures that encoders are compared on: references, copies made of them, and what encoders make of both.

Copies are made of held-out pictures; all pictures of the folders are references, those of the training as mere
distractors. Pairs of references that PDQ calls the same at its recommended distance are duplicates, no errors.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from rich.progress import track

from triton_models.training.data import is_validation, list_pictures
from triton_models.training.edits import EDITS, Edit, library_edits
from triton_models.training.encoders import Encoder, Floats, OnnxEncoder
from triton_models.training.uploads import BATCH, Stored, Uploads, digest, encode_pictures, graph_bytes, open_picture

PDQ_SAME = 31  # bits of 256 that may differ in the same picture, by the recommendation of PDQ's authors


@dataclass(frozen=True, slots=True)
class Bench:
    """References, and K kinds of copies of N of them, each made from its seed: the same for all encoders."""

    paths: list[Path]
    folder_sizes: list[int]  # how many of the paths are of each folder, one folder after the other
    originals: NDArray[np.int64]  # [N] among the paths
    edits: Mapping[str, Edit]
    seed: int

    def draws(self, place: int) -> tuple[Floats, NDArray[np.int64]]:
        """Draw for the K copies of the original at `place` their strengths and the references to mix into them."""
        rng = np.random.default_rng((self.seed, int(self.originals[place])))
        count = len(self.edits)
        return rng.random(count, np.float32), rng.integers(len(self.paths), size=count)

    def mixed_in(self) -> NDArray[np.int64]:
        """List the references that are mixed into copies: [K, N]."""
        return np.stack([self.draws(place)[1] for place in range(len(self.originals))], axis=1)

    def copies(self, place: int) -> list[Image.Image]:
        """Make the K copies of the original at `place`."""
        return [self.copy(kind, place) for kind in range(len(self.edits))]

    def copy(self, kind: int, place: int) -> Image.Image:
        """Make the copy of a kind, by its place among the edits, of the original at `place`."""
        original, (strengths, others) = int(self.originals[place]), self.draws(place)
        rng = np.random.default_rng((self.seed, original, kind))
        edit = list(self.edits.values())[kind]
        other = open_picture(self.paths[int(others[kind])])
        return edit.apply(open_picture(self.paths[original]), float(strengths[kind]), rng, other)


def make_bench(
    folder: Path, pictures: int, own_edits_only: bool, seed: int, originals_from: Path | None = None
) -> Bench:
    """Take the pictures of a folder as references, and make copies of `pictures` held-out ones, or of all when 0.

    With `originals_from` the pictures of that folder are references too, and copies are made of those alone; none of
    them is taken to have been in the training.
    """
    paths = list_pictures(folder)
    sizes = [len(paths)]
    if originals_from is None:
        originals = np.array([index for index, path in enumerate(paths) if is_validation(path.name)])
    else:
        further = list_pictures(originals_from)
        originals = np.arange(len(paths), len(paths) + len(further))
        paths, sizes = paths + further, [*sizes, len(further)]
    if pictures:
        rng = np.random.default_rng(seed)
        originals = np.sort(rng.choice(originals, min(pictures, len(originals)), replace=False))
    return Bench(paths, sizes, originals, dict(EDITS) | ({} if own_edits_only else library_edits()), seed)


class Vectors(NamedTuple):
    """What one encoder makes of a bench: of R references, and of K * N copies, those of one kind after the other."""

    references: Stored
    copies: Uploads


def _encode(encoder: Encoder, pictures: list[Image.Image], within: bool) -> Uploads:
    """Encode pictures, and by an encoder with local features the pictures `within` them if wanted."""
    if isinstance(encoder, OnnxEncoder) and encoder.patches_shape is not None:
        return encode_pictures(encoder, pictures, within)
    count, vectors = len(pictures), encoder(pictures)
    wholes = Stored(vectors, np.zeros((count, 0, 0), np.int8), np.zeros((count, 0), np.uint8))
    none = np.zeros(0, np.int64)
    return Uploads(wholes, wholes.take(none), none)


def _encode_references(paths: list[Path], encoders: list[Encoder]) -> list[Uploads]:
    """Encode the pictures of a folder by each encoder."""
    batches: list[list[Uploads]] = [[] for _ in encoders]
    for start in track(range(0, len(paths), BATCH), "references"):
        pictures = [open_picture(path) for path in paths[start : start + BATCH]]
        for encoder, of_encoder in zip(encoders, batches, strict=True):
            of_encoder.append(_encode(encoder, pictures, within=False))
    return [Uploads.concatenate(of_encoder) for of_encoder in batches]


def _encode_copies(bench: Bench, encoders: list[Encoder]) -> list[Uploads]:
    """Encode the copies by each encoder. Each picture is read and edited once for all of them."""
    count, kinds = len(bench.originals), len(bench.edits)
    by_original: list[list[Uploads]] = [[] for _ in encoders]
    for place in track(range(count), "copies"):
        pictures = bench.copies(place)
        for encoder, of_encoder in zip(encoders, by_original, strict=True):
            of_encoder.append(_encode(encoder, pictures, within=True))
    by_kind = np.arange(count * kinds).reshape(count, kinds).T.ravel()
    return [
        Uploads(each.wholes.take(by_kind), each.regions, np.argsort(by_kind)[each.region_of])
        for each in map(Uploads.concatenate, by_original)
    ]


def vectors_of(bench: Bench, encoders: Mapping[str, Encoder], folder: Path) -> dict[str, Vectors]:
    """Encode a bench, or read from `folder` what is cached there, by the encoders' names.

    `encoders` go by their specs.
    """
    contents = {spec: digest(_model_content(spec)) for spec in encoders}
    ends = np.cumsum(bench.folder_sizes).tolist()
    references: dict[str, list[Stored]] = {encoder.name: [] for encoder in encoders.values()}
    for start, end in zip([0, *ends], ends, strict=False):
        paths = bench.paths[start:end]
        names = [path.name for path in paths]
        files = {spec: folder / f"references-{digest(content, names)}.npz" for spec, content in contents.items()}

        def encode(missing: list[Encoder], paths: list[Path] = paths) -> list[Uploads]:
            return _encode_references(paths, missing)

        for name, cached in _cached(files, encoders, encode).items():
            references[name].append(cached.wholes)
    copies_of = (bench.seed, list(bench.edits), bench.originals.tolist(), [path.name for path in bench.paths])
    files = {spec: folder / f"copies-{digest(content, copies_of)}.npz" for spec, content in contents.items()}
    copies = _cached(files, encoders, lambda missing: _encode_copies(bench, missing))
    return {name: Vectors(Stored.concatenate(parts), copies[name]) for name, parts in references.items()}


def _cached(
    files: Mapping[str, Path], encoders: Mapping[str, Encoder], encode: Callable[[list[Encoder]], list[Uploads]]
) -> dict[str, Uploads]:
    """Read `files`, by the encoders' specs, after writing with `encode` those that are missing; by encoders' names."""
    missing = [spec for spec in encoders if not files[spec].exists()]
    if missing:
        for spec, encoded in zip(missing, encode([encoders[spec] for spec in missing]), strict=True):
            encoded.save(files[spec])
    return {encoders[spec].name: Uploads.load(file) for spec, file in files.items()}


def _model_content(spec: str) -> bytes:
    """Return what vectors depend on of an encoder: of a model file all but its metadata, which thresholds stand in."""
    path = Path(spec.rpartition("=")[2])
    return graph_bytes(path) if path.is_file() else spec.encode()


def duplicates(hashes: Floats, originals: NDArray[np.int64]) -> dict[int, set[int]]:
    """List for references those that are duplicates of them, by the PDQ vectors of all references.

    These are the pairs of an original and another reference whose hashes differ in at most `PDQ_SAME` bits.
    """
    partners: dict[int, set[int]] = {}
    for original in originals.tolist():
        same = hashes @ hashes[original] >= 1 - 2 * PDQ_SAME / hashes.shape[1]
        for other in np.flatnonzero(same).tolist():
            if other != original:
                partners.setdefault(original, set()).add(other)
                partners.setdefault(other, set()).add(original)
    return partners
