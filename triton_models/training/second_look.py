"""What the second look adds to the vectors, and the rule that puts it in force.

    python -m triton_models.training.second_look --images FOLDER --encoder model.onnx --output out/evaluation --write

Copies and references are those of `evaluate`, and what it encoded into the same output folder is used again. Of the
references near a copy `verification` looks at the most promising one, as in the service; the rule that finds most
copies at the wanted share of other pairs is printed, and with `--write` put into both Triton configurations of the
model.
"""

import argparse
import time
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from consumer.encoder.contract import VerificationRule
from consumer.events import Box
from consumer.verification.rerank import MAX_CANDIDATES
from consumer.verification.result import Verification
from triton_models.training import errors
from triton_models.training.bench import Bench, Patches, Vectors, duplicates, make_bench, vectors_of
from triton_models.training.edits import Edit
from triton_models.training.encoders import Floats, OnnxEncoder, Pdq
from triton_models.training.measure import distance
from triton_models.training.parameters import MODEL_FOLDER, set_metadata, set_second_look

Bools = NDArray[np.bool_]

CANDIDATE_RATE = 2.5e-4  # share of other pairs that may be worth a look
SHARES = (0.02, 0.1, 0.25, 0.5)  # of the false positives that distance alone may make
NEARLY = 0.001  # of the copies
SLOPES = (0.01, 0.125, 0.25, 0.5, 0.75, 1.0, 1.5, 2.0)  # of the score asked for, by distance
RATES = (1e-5, 1e-6, 1e-7)
MEASURED_EDITS = ("zoom", "strong crop")  # whose boxes are compared with the truth


@dataclass(frozen=True, slots=True)
class Looks:
    """Distances and scores of copies to their own originals, [K, N], and to the other references near them, [T].

    Of the nearest candidates of a copy only the most promising one is looked at. Where that is not the original, the
    score of the copy is -inf; so is that of all other references but the one that would be looked at without it.
    `of` [T] tells the copy (its place among K * N), `to` [T] the reference; `own` the looks at the originals.
    """

    pairs: int
    copies_l2: Floats
    copies_score: Floats
    others_l2: Floats
    others_score: Floats
    of: NDArray[np.int64]
    to: NDArray[np.int64]
    own: list[Verification]
    ms_a_look: float
    parts: "Parts"


@dataclass(frozen=True, slots=True)
class Parts:
    """The same of what seems to be within copies, [U]: at the original of each, and at the most promising other one."""

    of: NDArray[np.int64]
    l2: Floats
    score: Floats
    to: NDArray[np.int64]
    other_l2: Floats
    other_score: Floats


@dataclass(frozen=True, slots=True)
class Rule:
    """A pair is the same up to `threshold_l2`, and farther away when the second look accepts it."""

    threshold_l2: float
    look: VerificationRule

    def accepts(self, l2: Floats, score: Floats) -> Bools:
        return (l2 <= self.threshold_l2) | self.verifies(l2, score)

    def verifies(self, l2: Floats, score: Floats) -> Bools:
        asked = self.look.min_score - self.look.score_per_l2 * (self.look.candidate_l2 - l2)
        return (l2 <= self.look.candidate_l2) & (score >= asked)

    def finds(self, looks: Looks) -> Bools:
        """Which copies are found, [K, N], by the whole of them or by a picture within."""
        l2 = looks.copies_l2.ravel()
        found = self.accepts(l2, looks.copies_score.ravel())
        # Where something is within the threshold, nothing beyond it is looked at.
        taken = looks.of[looks.others_l2 <= self.threshold_l2]
        found[taken] = l2[taken] <= self.threshold_l2
        found[looks.parts.of[self.verifies(looks.parts.l2, looks.parts.score)]] = True
        return found.reshape(looks.copies_l2.shape)


def look_at(
    vectors: Vectors,
    originals: NDArray[np.int64],
    same: Mapping[int, set[int]],
    mixed_in: NDArray[np.int64],
    encoder: OnnxEncoder,
) -> Looks:
    """Look twice at every copy and its original, and at every copy and the most promising other one near it.

    `originals` [N] are places among the references, `same` the duplicates of each, `mixed_in` [K, N] the references put
    into copies, `encoder` the one that made the vectors. Raises ValueError for vectors without local features.
    """
    if vectors.copy_patches is None or vectors.reference_patches is None:
        raise ValueError("The encoder gives no local features, so there is nothing to look at twice")
    kinds, count, dim = vectors.copies.shape
    copies, patches = vectors.copies.reshape(-1, dim), vectors.copy_patches.reshape(-1, *vectors.copy_patches.shape[2:])
    owners, inside = np.tile(originals, kinds), mixed_in.ravel()
    near = _nearest(vectors.references, copies, owners, inside, same)
    worth_a_look = min(int(CANDIDATE_RATE * near.pairs), near.l2.size - 1)
    loose = float(np.partition(near.l2.ravel(), worth_a_look)[worth_a_look])
    started_s = time.process_time()
    seen = _choose(encoder, patches, vectors.reference_patches, owners, near, loose)
    spent_ms = (time.process_time() - started_s) * 1e3 / (len(seen.own) + len(seen.other_score))
    scores = np.full(near.l2.shape, -np.inf, np.float32)
    scores[np.arange(len(copies)), seen.other] = seen.other_score
    of, place = np.nonzero(near.l2 <= loose)
    assert vectors.parts is not None and vectors.part_of is not None and vectors.part_patches is not None  # noqa: S101, PT018 (they come with local features)
    owners, inside = owners[vectors.part_of], inside[vectors.part_of]
    near_parts = _nearest(vectors.references, vectors.parts, owners, inside, same)
    within = _choose(encoder, vectors.part_patches, vectors.reference_patches, owners, near_parts, loose)
    chosen = np.arange(len(owners)), within.other
    return Looks(
        near.pairs,
        near.own_l2.reshape(kinds, count),
        seen.own_score.reshape(kinds, count),
        near.l2[of, place],
        scores[of, place],
        of,
        near.to[of, place],
        seen.own,
        spent_ms,
        Parts(
            vectors.part_of,
            near_parts.own_l2,
            within.own_score,
            near_parts.to[chosen],
            near_parts.l2[chosen],
            within.other_score,
        ),
    )


class _Near(NamedTuple):
    """Of Q vectors: the distance of each to its original, how many others are nearer, and the nearest others.

    `to` and `l2` are [Q, LOOKS]; `pairs` are all that were compared.
    """

    own_l2: Floats
    rank: NDArray[np.int64]
    to: NDArray[np.int64]
    l2: Floats
    pairs: int


def _nearest(
    references: Floats,
    queries: Floats,
    owners: NDArray[np.int64],
    inside: NDArray[np.int64],
    same: Mapping[int, set[int]],
) -> _Near:
    """Without what is `inside` a copy besides its original, and without the duplicates of either."""
    own, rank, pairs = np.empty(len(queries), np.float32), np.empty(len(queries), np.int64), 0
    to, l2 = np.empty((len(queries), MAX_CANDIDATES), np.int64), np.empty((len(queries), MAX_CANDIDATES), np.float32)
    for row, (owner, other) in enumerate(zip(owners.tolist(), inside.tolist(), strict=True)):
        cosines = references @ queries[row]
        own_cosine = cosines[owner]
        gone = [owner, other, *same.get(owner, ()), *same.get(other, ())]
        cosines[gone] = -2.0
        pairs += len(cosines) - len(set(gone))
        rank[row] = (cosines > own_cosine).sum()
        nearest = np.argpartition(-cosines, MAX_CANDIDATES)[:MAX_CANDIDATES]
        to[row] = nearest[np.argsort(-cosines[nearest], kind="stable")]
        own[row], l2[row] = distance(own_cosine), distance(cosines[to[row]])
    return _Near(own, rank, to, l2, pairs)


class _Chosen(NamedTuple):
    """Looks at the originals of Q copies, with their scores, and which `other` of the nearest promises most, with its.

    The score of an original is -inf where it is not the candidate that is looked at.
    """

    own: list[Verification]
    own_score: Floats
    other: NDArray[np.int64]
    other_score: Floats


def _choose(
    encoder: OnnxEncoder,
    patches: Patches,
    references: Patches,
    owners: NDArray[np.int64],
    near: _Near,
    radius_l2: float,
) -> _Chosen:
    """As the service does where all candidates are beyond the threshold: of those within a radius the most promising.

    The other is looked at as if the original were not in the window.
    """
    promised = encoder.candidate_scores(patches, references[owners], near.own_l2)
    promises = [
        encoder.candidate_scores(patches, references[near.to[:, k]], near.l2[:, k]) for k in range(MAX_CANDIDATES)
    ]
    others = np.where(near.l2 <= radius_l2, np.stack(promises, axis=1), -np.inf)
    own, other = encoder.verify(patches, references[owners]), others.argmax(axis=1)
    strangers = encoder.verify(patches, references[near.to[np.arange(len(patches)), other]])
    own_score, other_score = (np.array([look.score for look in looks], np.float32) for looks in (own, strangers))
    # An original among the nearest takes the place of the farthest of the others.
    own_score[(near.rank >= MAX_CANDIDATES) | (others[:, :-1].max(axis=1) >= promised)] = -np.inf
    return _Chosen(own, own_score, other, other_score)


def alone(looks: Looks, rate: float) -> float:
    """The distance up to which a share `rate` of the other pairs lies."""
    return float(np.sort(looks.others_l2)[_allowed(looks, rate) - 1])


def fit(looks: Looks, rate: float) -> Rule:
    """The rule that finds most copies while accepting at most a share `rate` of the other pairs.

    Of those that find nearly as many, the one that leaves most to distance alone: lawns and gravel, of which local
    features say little, are few among the pictures that a rule is fitted on.
    """
    allowed, nearest = _allowed(looks, rate), np.sort(looks.others_l2)
    candidate_l2 = _below(nearest[-1])
    parts_near = looks.parts.other_l2 <= candidate_l2
    rules: list[tuple[float, Rule]] = []
    for share in SHARES:
        threshold_l2 = _below(nearest[int(share * allowed)])
        farther = (looks.others_l2 > threshold_l2) & (looks.others_l2 <= candidate_l2)
        left = allowed - int((looks.others_l2 <= threshold_l2).sum())
        # Strangers that are near a copy, or a picture within it.
        l2 = np.concatenate([looks.others_l2[farther], looks.parts.other_l2[parts_near]])
        score = np.concatenate([looks.others_score[farther], looks.parts.other_score[parts_near]])
        for slope in SLOPES:
            reached = score + slope * (candidate_l2 - l2)
            too_many = np.sort(reached)[::-1][left : left + 1]  # the first that may not pass any more
            min_score = 1e-4 + max(0.0, float(np.ceil(too_many.sum() * 1e4)) / 1e4)
            rule = Rule(threshold_l2, VerificationRule(candidate_l2, min_score, slope))
            rules.append((float(rule.finds(looks).mean()), rule))
    most = max(found for found, _ in rules)
    _, best = max(
        (each for each in rules if each[0] >= most - NEARLY), key=lambda each: (each[1].threshold_l2, each[0])
    )
    return best


def _below(l2: float) -> float:
    """A distance of four decimals that is less."""
    return float(np.floor((l2 - 1e-6) * 1e4) / 1e4)


def _allowed(looks: Looks, rate: float) -> int:
    allowed = int(rate * looks.pairs)
    if allowed < 5:
        raise ValueError(f"A rate of {rate:g} cannot be read from {looks.pairs:.2g} pairs: take more pictures")
    return allowed


def truth(edit: Edit, size: tuple[int, int], strength: float, rng: np.random.Generator) -> Verification:
    """What an ideal look at a cropped copy finds: a picture whose colours are its places goes through the edit."""
    width, height = size
    places = np.zeros((height, width, 3), np.uint8)
    places[..., 0] = (np.arange(width) + 0.5) / width * 255
    places[..., 1] = ((np.arange(height) + 0.5) / height * 255)[:, None]
    made = edit.apply(Image.fromarray(places), strength, rng, Image.new("RGB", size)).resize((64, 64))
    centres = np.stack([*np.meshgrid(np.arange(64), np.arange(64)), np.full((64, 64), 63.5)], -1).reshape(-1, 3)
    solved = np.linalg.lstsq((centres + 0.5) / 64, np.asarray(made, float)[..., :2].reshape(-1, 2) / 255, rcond=None)
    return Verification(1.0, 1, solved[0].T.astype(np.float32), np.zeros((0, 4), np.float32))


def accuracy(bench: Bench, looks: Looks, rule: Rule) -> dict[str, tuple[float, float]]:
    """Median error of the zoom, as a share, and median intersection over union of the boxes in the match, by edit."""
    found = rule.accepts(looks.copies_l2, looks.copies_score)
    result = {}
    for name in MEASURED_EDITS:
        kind, errors = list(bench.edits).index(name), []
        for place, original in enumerate(bench.originals.tolist()):
            if not found[kind, place]:
                continue
            said = looks.own[kind * len(bench.originals) + place].edit
            with Image.open(bench.paths[original]) as picture:
                size = picture.size
            rng = np.random.default_rng((bench.seed, original, kind))
            true = truth(bench.edits[name], size, float(bench.draws(place)[0][kind]), rng).edit
            if said is None or true is None:
                errors.append((1.0, 0.0))
            else:
                errors.append((abs(said.zoom / true.zoom - 1), intersection(said.box_in_match, true.box_in_match)))
        if errors:
            zoom, boxes = np.median(errors, axis=0)
            result[name] = (float(zoom), float(boxes))
    return result


def intersection(a: Box, b: Box) -> float:
    """Intersection over union."""
    width = max(0.0, min(a.right, b.right) - max(a.left, b.left))
    height = max(0.0, min(a.bottom, b.bottom) - max(a.top, b.top))
    both = sum((box.right - box.left) * (box.bottom - box.top) for box in (a, b))
    return width * height / (both - width * height) if both else 0.0


def report(bench: Bench, looks: Looks, bytes_a_picture: int) -> str:
    """Vector alone and with the second look, in Markdown."""
    rates = [rate for rate in RATES if rate * looks.pairs >= 5]
    rules = {rate: fit(looks, rate) for rate in rates}
    by_vector = {rate: looks.copies_l2 <= alone(looks, rate) for rate in rates}
    by_both = {rate: rules[rate].finds(looks) for rate in rates}
    head = [f"{what} at {rate:g}" for rate in rates for what in ("vector", "+ second look")]
    lines = [
        f"{looks.copies_l2.shape[1]} pictures, {len(bench.edits)} kinds of copies, {looks.pairs:.2g} other pairs; "
        f"{len(looks.others_l2)} of them within candidate_l2 {rules[rates[0]].look.candidate_l2:.3f}, "
        f"as {(looks.copies_l2 <= rules[rates[0]].look.candidate_l2).mean():.3f} of the copies.",
        "",
        "| | " + " | ".join(head) + " |",
        "|---|" + "---|" * len(head),
    ]
    cells = [each for rate in rates for each in (by_vector[rate].mean(axis=1), by_both[rate].mean(axis=1))]
    for kind, (label, edit) in enumerate(bench.edits.items()):
        lines.append(f"| {edit.family}: {label} | " + " | ".join(f"{cell[kind]:.3f}" for cell in cells) + " |")
    lines.append("| **mean** | " + " | ".join(f"**{cell.mean():.3f}**" for cell in cells) + " |")
    lines.append("")
    middle = rates[min(1, len(rates) - 1)]
    for name, (zoom, boxes) in accuracy(bench, looks, rules[middle]).items():
        lines.append(f"{name}: median error of the zoom {zoom:.3f}, median IoU of the box in the match {boxes:.3f}.")
    lines.append(
        f"{looks.ms_a_look:.2f} ms of CPU a look, with the choice of its candidate, {bytes_a_picture} bytes a picture."
    )
    lines += [f"At {rate:g}: {parameters(rule)}" for rate, rule in rules.items()]
    return "\n".join(lines) + "\n"


def parameters(rule: Rule) -> dict[str, str]:
    """The rule as the served model's parameters."""
    look = rule.look
    return {
        "threshold_l2": f"{rule.threshold_l2:.4f}",
        "candidate_l2": f"{look.candidate_l2:.4f}",
        "min_score": f"{look.min_score:.4f}",
        "score_per_l2": f"{look.score_per_l2:.4f}",
    }


def mates_of(pairs: Iterable[tuple[int, int]]) -> dict[int, set[int]]:
    """The other ones of each, from pairs."""
    mates: dict[int, set[int]] = {}
    for a, b in pairs:
        mates.setdefault(a, set()).add(b)
        mates.setdefault(b, set()).add(a)
    return mates


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--images", type=Path, required=True, help="folder of pictures")
    parser.add_argument("--encoder", default=str(MODEL_FOLDER / "1" / "model.onnx"), help="[NAME=]FILE.onnx")
    parser.add_argument("--output", type=Path, required=True, help="where vectors are kept and tables go")
    parser.add_argument("--pictures", type=int, default=200, help="held-out pictures that copies are made of; 0: all")
    parser.add_argument("--own-edits-only", action="store_true", help="leave the kinds of albumentations out")
    parser.add_argument("--fpr", type=float, default=1e-6, help="share of other pairs that may count as the same")
    parser.add_argument("--write", action="store_true", help="put the rule into the model's configurations")
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    bench = make_bench(arguments.images, arguments.pictures, arguments.own_edits_only, arguments.seed)
    name, _, path = arguments.encoder.rpartition("=")
    encoder = OnnxEncoder(Path(path), name)
    arguments.output.mkdir(parents=True, exist_ok=True)
    vectors = vectors_of(bench, {arguments.encoder: encoder, "pdq": Pdq()}, arguments.output)
    same = mates_of(duplicates(vectors[Pdq.name].references, bench.originals))
    looks = look_at(vectors[encoder.name], bench.originals, same, bench.mixed_in(), encoder)
    patches = vectors[encoder.name].reference_patches
    assert patches is not None  # noqa: S101 (`look_at` refuses)
    text = report(bench, looks, patches[0].nbytes)
    (arguments.output / f"second-look-{encoder.name}.md").write_text(text)
    print(text)
    rule = fit(looks, arguments.fpr)
    wrong = rule.accepts(looks.others_l2, looks.others_score)
    found = rule.finds(looks)
    wrong_parts = rule.verifies(looks.parts.other_l2, looks.parts.other_score)
    of, to = (
        np.concatenate([whole[wrong], part[wrong_parts]])
        for whole, part in ((looks.of, looks.parts.of), (looks.to, looks.parts.to))
    )
    errors.save(bench, of, to, found, arguments.output)
    if arguments.write:
        set_second_look(MODEL_FOLDER, MODEL_FOLDER, (patches.shape[1], patches.shape[2]), parameters(rule))
        set_metadata(MODEL_FOLDER / "1", parameters(rule))


if __name__ == "__main__":
    main()
