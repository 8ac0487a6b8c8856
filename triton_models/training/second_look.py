"""What the second look adds to the vectors, and the rule that puts it in force.

    python -m triton_models.training.second_look --images FOLDER --encoder model.onnx --output out/evaluation --write

Copies and references are those of `evaluate`, and what it encoded into the same output folder is used again. The rule
that detects most copies at the wanted share of other pairs is printed, and with `--write` put into both Triton
configurations of the model.
"""

import argparse
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from consumer.encoder.contract import VerificationRule
from consumer.events import Box
from consumer.verification.result import Verification
from triton_models.training import errors
from triton_models.training.bench import Bench, duplicates, make_bench, vectors_of
from triton_models.training.edits import Edit
from triton_models.training.encoders import Floats, OnnxEncoder, Pdq
from triton_models.training.parameters import MODEL_FOLDER, set_metadata, set_second_look
from triton_models.training.scores import PairScores, score_pairs

Bools = NDArray[np.bool_]

SHARES = (0.02, 0.1, 0.25, 0.5)  # of the false positives that distance alone may make
NEARLY = 0.001  # of the copies: rules that detect so few less are as good
SLOPES = (0.01, 0.125, 0.25, 0.5, 0.75, 1.0, 1.5, 2.0)  # of the required score, by distance
RATES = (1e-5, 1e-6, 1e-7)
MEASURED_EDITS = ("zoom", "strong crop")  # whose boxes are compared with the true ones


@dataclass(frozen=True, slots=True)
class DecisionRule:
    """Calls a pair the same up to `threshold_l2`, and a farther one when the second look verifies it."""

    threshold_l2: float
    verification: VerificationRule

    def accepts(self, l2: Floats, score: Floats) -> Bools:
        """Tell of each pair whether it is called the same."""
        return (l2 <= self.threshold_l2) | self.verification.accepts(l2, score)

    def detects(self, scores: PairScores) -> Bools:
        """Tell which copies are detected, [K, N], by the whole of them or by one of their regions."""
        l2 = scores.copies_l2.ravel()
        detected = self.accepts(l2, scores.copies_score.ravel())
        # Where a reference is within the threshold, nothing beyond it is verified.
        settled = scores.others_copy[scores.others_l2 <= self.threshold_l2]
        detected[settled] = l2[settled] <= self.threshold_l2
        regions = scores.regions
        detected[regions.copy[self.verification.accepts(regions.original_l2, regions.original_score)]] = True
        return detected.reshape(scores.copies_l2.shape)


def vector_threshold(scores: PairScores, rate: float) -> float:
    """Return the distance up to which a share `rate` of the other pairs lies: the threshold of the vector alone."""
    return float(np.sort(scores.others_l2)[_allowed(scores, rate) - 1])


def fit_rule(scores: PairScores, rate: float) -> DecisionRule:
    """Fit the rule that detects most copies while accepting at most a share `rate` of the other pairs.

    Of rules that detect nearly as many, choose the one that leaves most to distance alone: lawns and gravel, of which
    local features say little, are few among the pictures that a rule is fitted on.
    """
    allowed, nearest = _allowed(scores, rate), np.sort(scores.others_l2)
    candidate_l2 = _below(nearest[-1])
    region_candidates = scores.regions.other_l2 <= candidate_l2
    rules: list[tuple[float, DecisionRule]] = []
    for share in SHARES:
        threshold_l2 = _below(nearest[int(share * allowed)])
        beyond = (scores.others_l2 > threshold_l2) & (scores.others_l2 <= candidate_l2)
        remaining = allowed - int((scores.others_l2 <= threshold_l2).sum())
        # Strangers that are near a copy, or near a region of it.
        l2 = np.concatenate([scores.others_l2[beyond], scores.regions.other_l2[region_candidates]])
        score = np.concatenate([scores.others_score[beyond], scores.regions.other_score[region_candidates]])
        for slope in SLOPES:
            comparable = score + slope * (candidate_l2 - l2)
            one_too_many = np.sort(comparable)[::-1][remaining : remaining + 1]  # the first that may not pass any more
            min_score = 1e-4 + max(0.0, float(np.ceil(one_too_many.sum() * 1e4)) / 1e4)
            rule = DecisionRule(threshold_l2, VerificationRule(candidate_l2, min_score, slope))
            rules.append((float(rule.detects(scores).mean()), rule))
    highest_recall = max(recall for recall, _ in rules)
    _, best = max(
        (each for each in rules if each[0] >= highest_recall - NEARLY),
        key=lambda each: (each[1].threshold_l2, each[0]),
    )
    return best


def _below(l2: float) -> float:
    """Round down to four decimals, to a distance that is less."""
    return float(np.floor((l2 - 1e-6) * 1e4) / 1e4)


def _allowed(scores: PairScores, rate: float) -> int:
    """Return how many other pairs a rate allows. Raises ValueError when these are too few to tell."""
    allowed = int(rate * scores.pair_count)
    if allowed < 5:
        raise ValueError(f"A rate of {rate:g} cannot be read from {scores.pair_count:.2g} pairs: take more pictures")
    return allowed


def ideal_verification(edit: Edit, size: tuple[int, int], strength: float, rng: np.random.Generator) -> Verification:
    """Read the true geometry of a cropped copy: a picture whose colours are its places goes through the edit."""
    width, height = size
    places = np.zeros((height, width, 3), np.uint8)
    places[..., 0] = (np.arange(width) + 0.5) / width * 255
    places[..., 1] = ((np.arange(height) + 0.5) / height * 255)[:, None]
    copy = edit.apply(Image.fromarray(places), strength, rng, Image.new("RGB", size)).resize((64, 64))
    centres = np.stack([*np.meshgrid(np.arange(64), np.arange(64)), np.full((64, 64), 63.5)], -1).reshape(-1, 3)
    solved = np.linalg.lstsq((centres + 0.5) / 64, np.asarray(copy, float)[..., :2].reshape(-1, 2) / 255, rcond=None)
    return Verification(1.0, 1, solved[0].T.astype(np.float32), np.zeros((0, 4), np.float32))


def geometry_accuracy(bench: Bench, scores: PairScores, rule: DecisionRule) -> dict[str, tuple[float, float]]:
    """Measure by edit the median error of the zoom, as a share, and the median IoU of the boxes in the match."""
    detected = rule.accepts(scores.copies_l2, scores.copies_score)
    result = {}
    for name in MEASURED_EDITS:
        kind, measured = list(bench.edits).index(name), []
        for place, original in enumerate(bench.originals.tolist()):
            if not detected[kind, place]:
                continue
            reported = scores.original_verifications[kind * len(bench.originals) + place].edit
            with Image.open(bench.paths[original]) as picture:
                size = picture.size
            rng = np.random.default_rng((bench.seed, original, kind))
            strength = float(bench.draws(place)[0][kind])
            true = ideal_verification(bench.edits[name], size, strength, rng).edit
            if reported is None or true is None:
                measured.append((1.0, 0.0))
            else:
                overlap = intersection_over_union(reported.box_in_match, true.box_in_match)
                measured.append((abs(reported.zoom / true.zoom - 1), overlap))
        if measured:
            zoom_error, overlap = np.median(measured, axis=0)
            result[name] = (float(zoom_error), float(overlap))
    return result


def intersection_over_union(a: Box, b: Box) -> float:
    width = max(0.0, min(a.right, b.right) - max(a.left, b.left))
    height = max(0.0, min(a.bottom, b.bottom) - max(a.top, b.top))
    both = sum((box.right - box.left) * (box.bottom - box.top) for box in (a, b))
    return width * height / (both - width * height) if both else 0.0


def report(bench: Bench, scores: PairScores, bytes_a_picture: int) -> str:
    """Write a table in Markdown: what the vector detects alone, and with the second look."""
    rates = [rate for rate in RATES if rate * scores.pair_count >= 5]
    rules = {rate: fit_rule(scores, rate) for rate in rates}
    by_vector = {rate: scores.copies_l2 <= vector_threshold(scores, rate) for rate in rates}
    by_both = {rate: rules[rate].detects(scores) for rate in rates}
    head = [f"{what} at {rate:g}" for rate in rates for what in ("vector", "+ second look")]
    candidate_l2 = rules[rates[0]].verification.candidate_l2
    lines = [
        f"{scores.copies_l2.shape[1]} pictures, {len(bench.edits)} kinds of copies, {scores.pair_count:.2g} other "
        f"pairs; {len(scores.others_l2)} of them within candidate_l2 {candidate_l2:.3f}, "
        f"as {(scores.copies_l2 <= candidate_l2).mean():.3f} of the copies.",
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
    for name, (zoom_error, overlap) in geometry_accuracy(bench, scores, rules[middle]).items():
        lines.append(
            f"{name}: median error of the zoom {zoom_error:.3f}, median IoU of the box in the match {overlap:.3f}."
        )
    lines.append(
        f"{scores.ms_per_verification:.2f} ms of CPU a look, with the choice of its candidate, "
        f"{bytes_a_picture} bytes a picture."
    )
    lines += [f"At {rate:g}: {rule_parameters(rule)}" for rate, rule in rules.items()]
    return "\n".join(lines) + "\n"


def rule_parameters(rule: DecisionRule) -> dict[str, str]:
    """Express the rule as parameters of the served model."""
    return {
        "threshold_l2": f"{rule.threshold_l2:.4f}",
        "candidate_l2": f"{rule.verification.candidate_l2:.4f}",
        "min_score": f"{rule.verification.min_score:.4f}",
        "score_per_l2": f"{rule.verification.score_per_l2:.4f}",
    }


def by_member(pairs: Iterable[tuple[int, int]]) -> dict[int, set[int]]:
    """List for each member of any of the pairs the members that it is paired with."""
    partners: dict[int, set[int]] = {}
    for a, b in pairs:
        partners.setdefault(a, set()).add(b)
        partners.setdefault(b, set()).add(a)
    return partners


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
    same = by_member(duplicates(vectors[Pdq.name].references, bench.originals))
    scores = score_pairs(vectors[encoder.name], bench.originals, same, bench.mixed_in(), encoder)
    patches = vectors[encoder.name].reference_patches
    assert patches is not None  # noqa: S101 (`score_pairs` refuses)
    text = report(bench, scores, patches[0].nbytes)
    (arguments.output / f"second-look-{encoder.name}.md").write_text(text)
    print(text)
    rule = fit_rule(scores, arguments.fpr)
    _save_errors(bench, scores, rule, arguments.output)
    if arguments.write:
        set_second_look(MODEL_FOLDER, MODEL_FOLDER, (patches.shape[1], patches.shape[2]), rule_parameters(rule))
        set_metadata(MODEL_FOLDER / "1", rule_parameters(rule))


def _save_errors(bench: Bench, scores: PairScores, rule: DecisionRule, output: Path) -> None:
    """Write the sheets of the pairs that the rule gets wrong."""
    regions = scores.regions
    wrong = rule.accepts(scores.others_l2, scores.others_score)
    wrong_regions = rule.verification.accepts(regions.other_l2, regions.other_score)
    copies = np.concatenate([scores.others_copy[wrong], regions.copy[wrong_regions]])
    references = np.concatenate([scores.others_reference[wrong], regions.other_reference[wrong_regions]])
    errors.save(bench, copies, references, rule.detects(scores), output)


if __name__ == "__main__":
    main()
