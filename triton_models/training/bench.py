"""The pictures that encoders are compared on: references, copies made of them, and what encoders make of both.

Copies are made of held-out pictures; all pictures of the folders are references, those of the training as mere
distractors. Pairs of references that PDQ calls the same at its recommended distance are duplicates, no errors.
"""

import hashlib
import inspect
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from rich.progress import track

from consumer.images import decode, regions, thumbnail
from consumer.images.region import WHOLE_IMAGE
from consumer.images.regions import make_views
from consumer.settings import DecodeSettings
from triton_models.training.data import is_validation, list_pictures
from triton_models.training.edits import EDITS, Edit, library_edits
from triton_models.training.encoders import Encoder, Floats, OnnxEncoder, prepared
from triton_models.training.uploads import open_picture

PDQ_SAME = 31  # bits of 256 that may differ in the same picture, by the recommendation of PDQ's authors
BATCH = 32

Patches = NDArray[np.int8]
Packed = NDArray[np.uint8]
_Encoded = TypeVar("_Encoded", "References", "Copies")


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


class References(NamedTuple):
    """The vectors [R, D] that one encoder makes of references and, from one with local features, their features.

    `features` [R, B] are packed as the window stores them; see `Features.to_bytes`.
    """

    vectors: Floats
    features: Packed | None = None


class Copies(NamedTuple):
    """The vectors [K, N, D] that one encoder makes of copies and, from one with local features, their features.

    The same encoders give those of the regions that seem to be pictures within copies: `region_vectors` [T, D] and
    `region_features` [T, B]; `region_copy` [T] names the copy, by its place among K * N.
    """

    vectors: Floats
    features: Packed | None = None
    region_vectors: Floats | None = None
    region_features: Packed | None = None
    region_copy: NDArray[np.int64] | None = None


class Vectors(NamedTuple):
    """What one encoder makes of a bench."""

    references: References
    copies: Copies


def _encode(encoder: Encoder, pictures: list[Image.Image], within: bool) -> Copies:
    """Encode pictures as if they were one kind of copies, [1, N, D], with the pictures `within` them if wanted."""
    if not isinstance(encoder, OnnxEncoder) or encoder.patches_shape is None:
        return Copies(encoder(pictures)[None])
    whole = [prepared(picture, encoder.size) for picture in pictures]
    views = [
        (place, view)
        for place, of_picture in enumerate(make_views(whole, DecodeSettings().min_detail, within))
        for view in of_picture
    ]
    encoded = encoder.encode_views([view for _, view in views])
    assert encoded.features is not None  # noqa: S101 (the model has patches)
    packed = np.stack([np.frombuffer(features.to_bytes(), np.uint8) for features in encoded.features])
    is_region = np.array([region != WHOLE_IMAGE for region in encoded.regions])
    place = np.array([place for place, _ in views])
    vectors = encoded.embeddings
    return Copies(
        vectors[~is_region][None],
        packed[~is_region][None],
        vectors[is_region],
        packed[is_region],
        place[is_region],
    )


def _encode_references(paths: list[Path], encoders: list[Encoder]) -> list[References]:
    """Encode the pictures of a folder by each encoder."""
    batches: list[list[References]] = [[] for _ in encoders]
    for start in track(range(0, len(paths), BATCH), "references"):
        pictures = [open_picture(path) for path in paths[start : start + BATCH]]
        for encoder, of_encoder in zip(encoders, batches, strict=True):
            encoded = _encode(encoder, pictures, within=False)
            features = None if encoded.features is None else encoded.features[0]
            of_encoder.append(References(encoded.vectors[0], features))
    return [_concatenated(of_encoder) for of_encoder in batches]


def _encode_copies(bench: Bench, encoders: list[Encoder]) -> list[Copies]:
    """Encode the copies by each encoder. Each picture is read and edited once for all of them."""
    count = len(bench.originals)
    by_original: list[list[Copies]] = [[] for _ in encoders]
    for place in track(range(count), "copies"):
        pictures = bench.copies(place)
        for encoder, of_encoder in zip(encoders, by_original, strict=True):
            encoded = _encode(encoder, pictures, within=True)
            kind = encoded.region_copy
            of_encoder.append(encoded._replace(region_copy=None if kind is None else kind * count + place))
    joined = [_concatenated(of_encoder) for of_encoder in by_original]
    return [
        each._replace(
            vectors=each.vectors.swapaxes(0, 1),
            features=None if each.features is None else each.features.swapaxes(0, 1),
        )
        for each in joined
    ]


def _concatenated(parts: list[_Encoded]) -> _Encoded:
    """Join arrays, field by field, that all of the parts have."""
    joined: list[Any] = [None if fields[0] is None else np.concatenate(fields) for fields in zip(*parts, strict=True)]
    return type(parts[0])(*joined)


def vectors_of(bench: Bench, encoders: Mapping[str, Encoder], folder: Path) -> dict[str, Vectors]:
    """Encode a bench, or read from `folder` what is cached there, by the encoders' names.

    `encoders` go by their specs.
    """
    contents = {spec: _digest(_model_content(spec)) for spec in encoders}
    ends = np.cumsum(bench.folder_sizes).tolist()
    references: dict[str, list[References]] = {encoder.name: [] for encoder in encoders.values()}
    for start, end in zip([0, *ends], ends, strict=False):
        paths = bench.paths[start:end]
        names = [path.name for path in paths]
        files = {spec: folder / f"references-{_digest(content, names)}.npz" for spec, content in contents.items()}

        def encode(missing: list[Encoder], paths: list[Path] = paths) -> list[References]:
            return _encode_references(paths, missing)

        for name, cached in _cached(files, encoders, References, encode).items():
            references[name].append(cached)
    copies_of = (bench.seed, list(bench.edits), bench.originals.tolist(), [path.name for path in bench.paths])
    files = {spec: folder / f"copies-{_digest(content, copies_of)}.npz" for spec, content in contents.items()}
    copies = _cached(files, encoders, Copies, lambda missing: _encode_copies(bench, missing))
    return {name: Vectors(_concatenated(parts), copies[name]) for name, parts in references.items()}


def _cached(
    files: Mapping[str, Path],
    encoders: Mapping[str, Encoder],
    kind: type[_Encoded],
    encode: Callable[[list[Encoder]], list[_Encoded]],
) -> dict[str, _Encoded]:
    """Read `files`, by the encoders' specs, after writing with `encode` those that are missing; by encoders' names."""
    missing = [spec for spec in encoders if not files[spec].exists()]
    if missing:
        for spec, encoded in zip(missing, encode([encoders[spec] for spec in missing]), strict=True):
            np.savez(files[spec], **{key: value for key, value in encoded._asdict().items() if value is not None})
    read = {}
    for spec, file in files.items():
        with np.load(file) as arrays:
            read[encoders[spec].name] = kind(**arrays)
    return read


def _model_content(spec: str) -> bytes:
    """Return what vectors depend on of an encoder: of a model file all but its metadata, which thresholds stand in."""
    path = Path(spec.rpartition("=")[2])
    if not path.is_file():
        return spec.encode()
    import onnx  # noqa: PLC0415 (the hashes do without)

    model = onnx.load(path)
    del model.metadata_props[:]
    content: bytes = model.SerializeToString(deterministic=True)
    return content


def _digest(*parts: object) -> str:
    """Name what is made of `parts` by the code that pictures go through before they are encoded."""
    code = (
        *(Path(str(module.__file__)).read_bytes() for module in (regions, thumbnail)),
        inspect.getsource(decode.prepare),
    )
    return hashlib.sha256(repr((parts, code, DecodeSettings().min_detail)).encode()).hexdigest()[:20]


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
