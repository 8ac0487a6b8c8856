"""The least scores of the three strictnesses, for a wanted share of one's own different pictures called duplicates.

What `calibrate` does for models whose second look decides. The pictures of a folder are judged as a stream of uploads,
each against all before it, and edited copies of some of them against all. Any share of different pictures that may be
called duplicates has its price in copies that are not found: both are tabulated and plotted against each other. A share
is chosen for `balanced`; `strict` is to call a third as many, `eager` three times as many.
"""

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from math import ceil
from pathlib import Path
from typing import NamedTuple

import numpy as np

from consumer.encoder.contract import ModelInfo, Strictness, VerificationRule
from consumer.encoder.model_config import STRICTNESSES
from triton_models.training import innocence_report
from triton_models.training.edits import EDITS, is_headline
from triton_models.training.growth import wilson_interval
from triton_models.training.innocence import evaluate
from triton_models.training.innocence_report import Innocence
from triton_models.training.looks import find_near
from triton_models.training.parameters import MODEL_FOLDER, min_score_parameters, set_parameters
from triton_models.training.uploads import Floats, PixelEncoder, Set
from triton_models.training.verdicts import Judge

SAME_L2 = 0.05  # up to which two files are one picture saved twice, whatever else is in them
FACTORS: Mapping[Strictness, float] = {"strict": 1 / 3, "balanced": 1.0, "eager": 3.0}
LEAST_SCORE = 0.02  # below which nothing counts as a copy, however few strangers score higher
TABULATED_SHARES = (0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1)


@dataclass(frozen=True, slots=True)
class Point:
    """A least score, with the shares of different pictures called duplicates (in 95% intervals) and of copies found.

    `found` is the mean over kinds of copies that leave most of a picture, `found_all` that over all.
    """

    min_score: float
    called: float
    called_interval: tuple[float, float]
    found: float
    found_all: float


@dataclass(frozen=True, slots=True)
class RuleCalibration:
    """The point of each strictness, with what it rests on, and points all along the curve."""

    points: dict[Strictness, Point]
    curve: list[Point]
    pictures: int
    left_out: int  # pictures that were there already
    copies: int
    found_by_kind: dict[str, float]

    @property
    def min_scores(self) -> dict[Strictness, float]:
        return {name: point.min_score for name, point in self.points.items()}


class Measured(NamedTuple):
    """What a calibration was read from."""

    data: Set
    innocence: Innocence
    rule: VerificationRule


def calibrate_rule(
    paths: list[Path],
    encoder: PixelEncoder | Path,
    model: ModelInfo,
    accused_share: float,
    copied: int = 200,
    seed: int = 0,
    workers: int = 1,
) -> tuple[RuleCalibration, Measured]:
    """Find the least scores at which `accused_share` of the different pictures at `paths` are called duplicates.

    Copies are made of at most `copied` of them. Raises ValueError when the pictures are too few to tell.
    """
    rule = model.verification_rule
    if rule is None:
        raise ValueError(f"Model {model.name!r} has no rule for a second look: it decides by distance alone")
    needed = ceil(1 / (accused_share * FACTORS["strict"]) - 1e-9)
    if len(paths) < needed:
        raise ValueError(
            f"A share of {accused_share:g} cannot be read from {len(paths)} pictures; that takes {needed}: more "
            f"pictures, or a share of at least {3 / max(len(paths), 1):.2g}."
        )
    judge = Judge(rule, model.threshold_l2, workers)
    data, innocence = evaluate(paths, encoder, judge, copied, tuple(EDITS), windows=False, seed=seed)
    vectors = data.stream.wholes.vectors
    near = find_near(vectors, vectors, model.threshold_l2, before=np.arange(len(vectors)))
    same = near.l2[:, 0] <= SAME_L2
    scores = np.where(same, -1, innocence.accused_score).astype(np.float32)
    innocence = innocence._replace(accused_score=scores)
    falling = np.sort(scores[~same])[::-1]
    least = {name: min_score_for(falling, accused_share * factor) for name, factor in FACTORS.items()}
    found = innocence.found_score >= least["balanced"]
    calibration = RuleCalibration(
        points={name: _point(data, innocence, falling, least[name]) for name in STRICTNESSES},
        curve=[
            _point(data, innocence, falling, min_score_for(falling, share))
            for share in TABULATED_SHARES
            if share * len(falling) >= 1
        ],
        pictures=len(falling),
        left_out=int(same.sum()),
        copies=found.size,
        found_by_kind={kind: float(found[:, number].mean()) for number, kind in enumerate(data.kinds)},
    )
    return calibration, Measured(data, innocence, replace(rule, min_scores=calibration.min_scores))


def min_score_for(falling: Floats, share: float) -> float:
    """Return the least score, to four decimals, which at most a `share` of pictures reaches; their scores fall."""
    first_below = falling[min(int(share * len(falling) + 1e-9), len(falling) - 1)]
    return max(LEAST_SCORE, min(int(float(first_below) * 1e4) + 1, 10_000) / 1e4)


def _point(data: Set, innocence: Innocence, falling: Floats, min_score: float) -> Point:
    called, found = int((falling >= min_score).sum()), innocence.found_score >= min_score
    headline = [number for number, kind in enumerate(data.kinds) if is_headline(kind)]
    return Point(
        min_score,
        called / len(falling),
        wilson_interval(called, len(falling)),
        float(found[:, headline].mean()),
        float(found.mean()),
    )


def write_rule(
    calibration: RuleCalibration, measured: Measured, output: Path, model: Path = MODEL_FOLDER
) -> list[Path]:
    """Write figures, table, sheets and configurations with the least scores; a curve when matplotlib is there.

    Returns the files.
    """
    output.mkdir(parents=True, exist_ok=True)
    figures, text = output / "calibration.json", output / "calibration.md"
    figures.write_text(json.dumps(asdict(calibration), indent=2) + "\n")
    text.write_text(table(calibration))
    set_parameters(model, output, min_score_parameters(calibration.min_scores))
    innocence_report.save_sheets(measured.data, measured.innocence, measured.rule, output)
    written = [figures, text, output / "config.pbtxt", output / "configs" / "cpu.pbtxt"]
    written += [output / "accused.png", output / "missed.png"]
    try:
        innocence_report.save_curve(measured.data, measured.innocence, measured.rule, (), output / "calibration.png")
    except ImportError:  # matplotlib is an optional dependency
        return written
    return [*written, output / "calibration.png"]


def table(calibration: RuleCalibration) -> str:
    """Write the chosen points and the curve as tables in Markdown."""
    head = "least score | different pictures called duplicates | copies found, alone | copies found, all kinds |"
    lines = [
        f"{calibration.pictures} different pictures, each against all before it, and {calibration.copies} copies. "
        f"{calibration.left_out} pictures were there already and are left out. Copies *alone* are those of which most "
        "is left, in no other picture. In a larger window more different pictures are called duplicates; where the "
        "share of copies found hardly rises, a smaller share of these costs nothing.",
        "",
        f"| strictness | {head}",
        "|---|---|---|---|---|",
        *(f"| {name} | {_cells(point)} |" for name, point in calibration.points.items()),
        "",
        "The curve:",
        "",
        f"| {head}",
        "|---|---|---|---|",
        *(f"| {_cells(point)} |" for point in calibration.curve),
    ]
    return "\n".join(lines) + "\n"


def _cells(point: Point) -> str:
    low, high = point.called_interval
    return (
        f"{point.min_score:.4f} | {point.called:.4f} ({low:.4f}-{high:.4f}) | {point.found:.3f} | {point.found_all:.3f}"
    )
