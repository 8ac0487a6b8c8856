"""The pictures that encoders are compared on: references, copies made of them, and the vectors of both.

Copies are made of held-out pictures; all pictures of the folder are references, those of the training as mere
distractors. Pairs of references that PDQ calls the same at its recommended distance are duplicates, no errors.
"""

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from tqdm import tqdm

from consumer.images import regions
from consumer.images.regions import WHOLE_IMAGE, make_views
from consumer.settings import DecodeSettings
from triton_models.training.data import is_validation, list_pictures
from triton_models.training.edits import EDITS, Edit, library_edits
from triton_models.training.encoders import Encoder, Floats, OnnxEncoder, squares

PDQ_SAME = 31  # bits of 256 that may differ in the same picture, by the recommendation of PDQ's authors
BATCH = 32

Patches = NDArray[np.int8]


@dataclass(frozen=True, slots=True)
class Bench:
    """References, and K kinds of copies of N of them, each made from its seed: the same for all encoders."""

    paths: list[Path]
    originals: NDArray[np.int64]  # [N] among the paths
    edits: dict[str, Edit]
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
        original = int(self.originals[place])
        picture = open_picture(self.paths[original])
        copies = []
        for kind, (edit, strength, other) in enumerate(zip(self.edits.values(), *self.draws(place), strict=True)):
            rng = np.random.default_rng((self.seed, original, kind))
            copies.append(edit.apply(picture, float(strength), rng, open_picture(self.paths[other])))
        return copies

    def digest(self, spec: str) -> str:
        """Name the vectors that the encoder of `spec` makes of this bench."""
        model = Path(spec.rpartition("=")[2])
        content = hashlib.sha256(model.read_bytes()).hexdigest() if model.is_file() else spec
        region_search = Path(regions.__file__).read_bytes(), DecodeSettings().min_detail
        parts = (
            content,
            region_search,
            self.seed,
            list(self.edits),
            self.originals.tolist(),
            [path.name for path in self.paths],
        )
        return hashlib.sha256(repr(parts).encode()).hexdigest()[:20]


def make_bench(folder: Path, pictures: int, own_edits_only: bool, seed: int) -> Bench:
    """Take the pictures of a folder as references, and make copies of `pictures` held-out ones, or of all when 0."""
    paths = list_pictures(folder)
    held_out = np.array([index for index, path in enumerate(paths) if is_validation(path.name)])
    if pictures:
        rng = np.random.default_rng(seed)
        held_out = np.sort(rng.choice(held_out, min(pictures, len(held_out)), replace=False))
    return Bench(paths, held_out, dict(EDITS) | ({} if own_edits_only else library_edits()), seed)


class Vectors(NamedTuple):
    """The vectors that one encoder makes of `references` [R, D] and `copies` [K, N, D], and their local features.

    `reference_patches` [R, P, C] and `copy_patches` [K, N, P, C] are int8, or None from an encoder without any. The
    same encoders give `region_vectors` [T, D] and `region_patches` [T, P, C], of the regions that seem to be pictures
    within copies; `region_copy` [T] names the copy, by its place among K * N.
    """

    references: Floats
    copies: Floats
    reference_patches: Patches | None = None
    copy_patches: Patches | None = None
    region_vectors: Floats | None = None
    region_patches: Patches | None = None
    region_copy: NDArray[np.int64] | None = None


def open_picture(path: Path) -> Image.Image:
    with Image.open(path) as image:
        return image.convert("RGB")


class _EncodedCopies(NamedTuple):
    """The vectors and local features of the copies of one picture, and of the regions in them: see `Vectors`."""

    vectors: Floats
    patches: Patches
    region_kinds: NDArray[np.int64]  # which copy each region is in
    region_vectors: Floats
    region_patches: Patches


def encode_all(bench: Bench, encoders: list[Encoder]) -> dict[str, Vectors]:
    """Make vectors, by the encoders' names. Each picture is read and edited once for all of them."""
    references: dict[str, list[tuple[Floats, Patches | None]]] = {encoder.name: [] for encoder in encoders}
    copies: dict[str, list[_EncodedCopies | Floats]] = {encoder.name: [] for encoder in encoders}
    for start in tqdm(range(0, len(bench.paths), BATCH), desc="references", mininterval=30):
        pictures = [open_picture(path) for path in bench.paths[start : start + BATCH]]
        for encoder in encoders:
            references[encoder.name].append(
                encoder.features(pictures) if isinstance(encoder, OnnxEncoder) else (encoder(pictures), None)
            )
    for place in tqdm(range(len(bench.originals)), desc="copies", mininterval=30):
        pictures = bench.copies(place)
        for encoder in encoders:
            has_patches = references[encoder.name][0][1] is not None
            copies[encoder.name].append(
                _encode_with_regions(encoder, pictures)
                if has_patches and isinstance(encoder, OnnxEncoder)
                else encoder(pictures)
            )
    return {name: _joined(batches, copies[name]) for name, batches in references.items()}


def _joined(references: list[tuple[Floats, Patches | None]], copies: list[_EncodedCopies | Floats]) -> Vectors:
    """Join what one encoder made of batches of references, and of the copies of each picture."""
    vectors, patches = zip(*references, strict=True)
    plain = [each for each in copies if not isinstance(each, _EncodedCopies)]
    if plain:
        return Vectors(np.concatenate(vectors), np.stack(plain, axis=1))
    encoded = [each for each in copies if isinstance(each, _EncodedCopies)]
    return Vectors(
        np.concatenate(vectors),
        np.stack([each.vectors for each in encoded], axis=1),
        np.concatenate(patches),
        np.stack([each.patches for each in encoded], axis=1),
        np.concatenate([each.region_vectors for each in encoded]),
        np.concatenate([each.region_patches for each in encoded]),
        np.concatenate([each.region_kinds * len(encoded) + place for place, each in enumerate(encoded)]),
    )


def _encode_with_regions(encoder: OnnxEncoder, pictures: list[Image.Image]) -> _EncodedCopies:
    """Encode pictures as the service does: the whole of each, and the regions that seem to be pictures within it."""
    views_of_each = make_views(list(squares(pictures, encoder.size)), DecodeSettings().min_detail)
    views = [(kind, view) for kind, of_copy in enumerate(views_of_each) for view in of_copy]
    vectors, patches = encoder.features([Image.fromarray(view.pixels) for _, view in views])
    assert patches is not None  # noqa: S101 (only such encoders come here)
    is_region = np.array([view.region != WHOLE_IMAGE for _, view in views])
    kinds = np.array([kind for kind, _ in views])
    return _EncodedCopies(
        vectors[~is_region], patches[~is_region], kinds[is_region], vectors[is_region], patches[is_region]
    )


def vectors_of(bench: Bench, encoders: dict[str, Encoder], folder: Path) -> dict[str, Vectors]:
    """Make vectors, or read them from `folder` where they are cached, by the encoders' names.

    `encoders` go by their specs.
    """
    files = {encoder.name: folder / f"{bench.digest(spec)}.npz" for spec, encoder in encoders.items()}
    missing = [encoder for encoder in encoders.values() if not files[encoder.name].exists()]
    for name, vectors in (encode_all(bench, missing) if missing else {}).items():
        np.savez(files[name], **{key: value for key, value in vectors._asdict().items() if value is not None})
    by_name = {}
    for name, file in files.items():
        with np.load(file) as cached:
            by_name[name] = Vectors(**cached)
    return by_name


def duplicates(hashes: Floats, originals: NDArray[np.int64]) -> Iterator[tuple[int, int]]:
    """Find pairs of an original and another reference whose PDQ vectors differ in at most `PDQ_SAME` bits."""
    for original in originals:
        same = hashes @ hashes[original] >= 1 - 2 * PDQ_SAME / hashes.shape[1]
        yield from ((int(original), int(other)) for other in np.flatnonzero(same) if other != original)
