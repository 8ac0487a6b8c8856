"""What encoders are tried on: references, copies made of them, and what an encoder makes of both.

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

from consumer.images import regions as frames
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
    """What all encoders are shown: references, and K kinds of copies of N of them, each made from its seed."""

    paths: list[Path]
    originals: NDArray[np.int64]  # [N] among the paths
    edits: dict[str, Edit]
    seed: int

    def draws(self, place: int) -> tuple[Floats, NDArray[np.int64]]:
        """Of the K copies of the original at `place`: their strengths, and which references were mixed into them."""
        rng = np.random.default_rng((self.seed, int(self.originals[place])))
        count = len(self.edits)
        return rng.random(count, np.float32), rng.integers(len(self.paths), size=count)

    def mixed_in(self) -> NDArray[np.int64]:
        """The references that were mixed into copies: [K, N]."""
        return np.stack([self.draws(place)[1] for place in range(len(self.originals))], axis=1)

    def copies(self, place: int) -> list[Image.Image]:
        """The K copies of the original at `place`."""
        original = int(self.originals[place])
        picture = open_picture(self.paths[original])
        made = []
        for kind, (edit, strength, other) in enumerate(zip(self.edits.values(), *self.draws(place), strict=True)):
            rng = np.random.default_rng((self.seed, original, kind))
            made.append(edit.apply(picture, float(strength), rng, open_picture(self.paths[other])))
        return made

    def digest(self, spec: str) -> str:
        """Names what the encoder of `spec` makes of this bench."""
        model = Path(spec.rpartition("=")[2])
        content = hashlib.sha256(model.read_bytes()).hexdigest() if model.is_file() else spec
        seen = Path(frames.__file__).read_bytes(), DecodeSettings().min_detail
        parts = (
            content,
            seen,
            self.seed,
            list(self.edits),
            self.originals.tolist(),
            [path.name for path in self.paths],
        )
        return hashlib.sha256(repr(parts).encode()).hexdigest()[:20]


def make_bench(folder: Path, pictures: int, own_edits_only: bool, seed: int) -> Bench:
    """The pictures of a folder; copies of `pictures` of those held out, or of all of these when 0."""
    paths = list_pictures(folder)
    held_out = np.array([index for index, path in enumerate(paths) if is_validation(path.name)])
    if pictures:
        rng = np.random.default_rng(seed)
        held_out = np.sort(rng.choice(held_out, min(pictures, len(held_out)), replace=False))
    return Bench(paths, held_out, dict(EDITS) | ({} if own_edits_only else library_edits()), seed)


class Vectors(NamedTuple):
    """What one encoder makes of the bench: `references` [R, D] and `copies` [K, N, D], and their local features.

    `reference_patches` [R, P, C] and `copy_patches` [K, N, P, C] are int8, or None from an encoder without any. So are
    vectors and local features of the pictures that seem to be within copies, `parts` [T, D] and `part_patches`
    [T, P, C]; `part_of` [T] tells the copy, its place among K * N.
    """

    references: Floats
    copies: Floats
    reference_patches: Patches | None = None
    copy_patches: Patches | None = None
    parts: Floats | None = None
    part_patches: Patches | None = None
    part_of: NDArray[np.int64] | None = None


def open_picture(path: Path) -> Image.Image:
    with Image.open(path) as image:
        return image.convert("RGB")


class _Copies(NamedTuple):
    """What an encoder makes of the copies of one picture, and of what seems to be within them: see `Vectors`."""

    vectors: Floats
    patches: Patches
    kinds: NDArray[np.int64]  # which copy each part is in
    parts: Floats
    part_patches: Patches


def encode_all(bench: Bench, encoders: list[Encoder]) -> dict[str, Vectors]:
    """Vectors by encoder. Each picture is read and edited once for all of them."""
    references: dict[str, list[tuple[Floats, Patches | None]]] = {encoder.name: [] for encoder in encoders}
    copies: dict[str, list[_Copies | Floats]] = {encoder.name: [] for encoder in encoders}
    for start in tqdm(range(0, len(bench.paths), BATCH), desc="references", mininterval=30):
        pictures = [open_picture(path) for path in bench.paths[start : start + BATCH]]
        for encoder in encoders:
            references[encoder.name].append(
                encoder.features(pictures) if isinstance(encoder, OnnxEncoder) else (encoder(pictures), None)
            )
    for place in tqdm(range(len(bench.originals)), desc="copies", mininterval=30):
        made = bench.copies(place)
        for encoder in encoders:
            local = references[encoder.name][0][1] is not None
            copies[encoder.name].append(
                _within(encoder, made) if local and isinstance(encoder, OnnxEncoder) else encoder(made)
            )
    found = {}
    for name, parts in references.items():
        vectors, patches = zip(*parts, strict=True)
        whole = [each for each in copies[name] if not isinstance(each, _Copies)]
        within = [each for each in copies[name] if isinstance(each, _Copies)]
        if whole:
            found[name] = Vectors(np.concatenate(vectors), np.stack(whole, axis=1))
        else:
            found[name] = Vectors(
                np.concatenate(vectors),
                np.stack([each.vectors for each in within], axis=1),
                np.concatenate(patches),
                np.stack([each.patches for each in within], axis=1),
                np.concatenate([each.parts for each in within]),
                np.concatenate([each.part_patches for each in within]),
                np.concatenate([each.kinds * len(within) + place for place, each in enumerate(within)]),
            )
    return found


def _within(encoder: OnnxEncoder, pictures: list[Image.Image]) -> _Copies:
    """What is encoded of pictures by the service: all of each, and what seems to be within it."""
    least = DecodeSettings().min_detail
    within = make_views(list(squares(pictures, encoder.size)), least)
    seen = [(kind, view) for kind, of_copy in enumerate(within) for view in of_copy]
    vectors, patches = encoder.features([Image.fromarray(view.pixels) for _, view in seen])
    assert patches is not None  # noqa: S101 (only such encoders come here)
    part = np.array([view.region != WHOLE_IMAGE for _, view in seen])
    kinds = np.array([kind for kind, _ in seen])
    return _Copies(vectors[~part], patches[~part], kinds[part], vectors[part], patches[part])


def vectors_of(bench: Bench, encoders: dict[str, Encoder], folder: Path) -> dict[str, Vectors]:
    """Vectors by the encoders' names, from `folder` where they are known already. `encoders` go by their specs."""
    files = {encoder.name: folder / f"{bench.digest(spec)}.npz" for spec, encoder in encoders.items()}
    missing = [encoder for encoder in encoders.values() if not files[encoder.name].exists()]
    for name, vectors in (encode_all(bench, missing) if missing else {}).items():
        np.savez(files[name], **{key: value for key, value in vectors._asdict().items() if value is not None})
    found = {}
    for name, file in files.items():
        with np.load(file) as kept:
            found[name] = Vectors(**kept)
    return found


def duplicates(hashes: Floats, among: NDArray[np.int64]) -> Iterator[tuple[int, int]]:
    """Pairs of an `among` and any other reference whose PDQ vectors differ in at most `PDQ_SAME` bits."""
    for original in among:
        same = hashes @ hashes[original] >= 1 - 2 * PDQ_SAME / hashes.shape[1]
        yield from ((int(original), int(other)) for other in np.flatnonzero(same) if other != original)
