"""What the second look adds to the vectors on a bench: the recall by kind of copies, at rates of false pairs.

The rule is the model's, so a rate is reached by the least score that is asked for.
"""

from collections.abc import Mapping
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from consumer.encoder.contract import VerificationRule
from consumer.verdicts import Box
from consumer.verification.result import Verification
from triton_models.training.bench import Bench
from triton_models.training.edits import Edit
from triton_models.training.scores import PairScores
from triton_models.training.uploads import open_picture

RATES = (1e-5, 1e-6, 1e-7)
MEASURED_EDITS = ("zoom", "strong crop")  # whose boxes are compared with the true ones


class Scored(NamedTuple):
    """A bench and what one encoder made of it."""

    bench: Bench
    scores: PairScores


def report(scored: Scored, held_out: Scored | None, rule: VerificationRule, bytes_a_picture: int) -> str:
    """Write a table in Markdown: what the vector finds alone, and with the second look.

    `held_out` are kinds of copies apart: thresholds are read from the others alone, and the mean is theirs.
    """
    bench, scores = scored
    rates = [rate for rate in RATES if scores.can_tell(rate)]
    head = [f"{what} at {rate:g}" for rate in rates for what in ("vector", "both looks")] + list(rule.min_scores)
    within = (scores.copies_l2 <= rule.candidate_l2).mean()
    lines = [
        f"{len(bench.originals)} pictures of {len(bench.paths)}, {len(bench.edits)} kinds of copies, "
        f"{scores.pair_count:.2g} other pairs; {len(scores.others_score)} of them looked at. Within candidate_l2 "
        f"{rule.candidate_l2:.3f} are {within:.4f} of the whole copies.",
        "",
        "| | " + " | ".join(head) + " |",
        "|---|" + "---|" * len(head),
        *_recall_rows(scored, _found(scores, scores, rates, rule), "mean"),
        _row(
            "false pairs in a million",
            [*(f"{rate * 1e6:g}" for rate in rates for _ in range(2)), *_false_pairs_in_a_million(scores, rule)],
        ),
    ]
    if held_out is not None:
        found = _found(held_out.scores, scores, rates, rule)
        lines += _recall_rows(held_out, found, "mean of kinds held out")
    lines.append("")
    if rates:
        min_score = scores.min_score(rates[min(1, len(rates) - 1)])
        for name, (zoom_error, overlap) in geometry_accuracy(bench, scores, min_score).items():
            lines.append(
                f"{name}: median error of the zoom {zoom_error:.3f}, median IoU of the box in the match {overlap:.3f}."
            )
    lines.append(
        f"{scores.ms_per_look:.2f} ms of CPU a look, with the choice of its candidate, "
        f"{bytes_a_picture} bytes a picture."
    )
    asked = [f"{scores.min_score(rate):.5f} at {rate:g}" for rate in rates]
    asked += [f"{score:g} {strictness}" for strictness, score in rule.min_scores.items()]
    lines.append(f"Least scores: {', '.join(asked)}.")
    return "\n".join(lines) + "\n"


def _found(
    scores: PairScores, calibration: PairScores, rates: list[float], rule: VerificationRule
) -> list[NDArray[np.bool_]]:
    """Tell which copies are found, [K, N] by column of the table, at thresholds read from `calibration`."""
    found = []
    for rate in rates:
        found += [scores.copies_l2 <= calibration.max_l2(rate), scores.detected(calibration.min_score(rate))]
    return found + [scores.detected(score) for score in rule.min_scores.values()]


def _recall_rows(scored: Scored, found: list[NDArray[np.bool_]], mean: str) -> list[str]:
    """Write a row for each kind of copies and one for their mean."""
    by_kind = [each.mean(axis=1) for each in found]
    rows = [
        _row(f"{edit.family}: {label}", [f"{recall[kind]:.3f}" for recall in by_kind])
        for kind, (label, edit) in enumerate(scored.bench.edits.items())
    ]
    return [*rows, _row(f"**{mean}**", [f"**{recall.mean():.3f}**" for recall in by_kind])]


def _false_pairs_in_a_million(scores: PairScores, rule: VerificationRule) -> list[str]:
    """Count the false pairs at the model's own least scores."""
    return [f"{scores.false_pairs(score).sum() / scores.pair_count * 1e6:.3g}" for score in rule.min_scores.values()]


def _row(label: str, cells: list[str]) -> str:
    return f"| {label} | " + " | ".join(cells) + " |"


def ideal_verification(edit: Edit, size: tuple[int, int], strength: float, rng: np.random.Generator) -> Verification:
    """Read the true geometry of a cropped copy: a picture whose colours are its places goes through the edit."""
    width, height = size
    places = np.zeros((height, width, 3), np.uint8)
    places[..., 0] = (np.arange(width) + 0.5) / width * 255
    places[..., 1] = ((np.arange(height) + 0.5) / height * 255)[:, None]
    copy = edit.apply(Image.fromarray(places), strength, rng, Image.new("RGB", size)).resize((64, 64))
    centres = np.stack([*np.meshgrid(np.arange(64), np.arange(64)), np.full((64, 64), 63.5)], -1).reshape(-1, 3)
    solved = np.linalg.lstsq((centres + 0.5) / 64, np.asarray(copy, float)[..., :2].reshape(-1, 2) / 255, rcond=None)
    return Verification(1.0, 1, solved[0].T.astype(np.float32), np.zeros((0, 4), np.float32), {})


def geometry_accuracy(bench: Bench, scores: PairScores, min_score: float) -> Mapping[str, tuple[float, float]]:
    """Measure by edit the median error of the zoom, as a share, and the median IoU of the boxes in the match.

    Measured are whole copies whose score is at least `min_score`.
    """
    result = {}
    for name in MEASURED_EDITS:
        kind, measured = list(bench.edits).index(name), []
        for place in np.flatnonzero(scores.whole_score[kind] >= min_score).tolist():
            original = int(bench.originals[place])
            reported = scores.verifications[kind * len(bench.originals) + place].edit
            rng = np.random.default_rng((bench.seed, original, kind))
            strength = float(bench.draws(place)[0][kind])
            size = open_picture(bench.paths[original]).size
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
    """Compute the area that two boxes have in common over that of both together; 0 for empty ones."""
    width = max(0.0, min(a.right, b.right) - max(a.left, b.left))
    height = max(0.0, min(a.bottom, b.bottom) - max(a.top, b.top))
    both = sum((box.right - box.left) * (box.bottom - box.top) for box in (a, b))
    return width * height / (both - width * height) if both else 0.0
