"""The table, the curve and the sheets of the measure of innocence."""

from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from consumer.encoder.contract import VerificationRule
from consumer.encoder.model_config import STRICTNESSES
from triton_models.training.edits import is_headline
from triton_models.training.growth import FAR_SIZES, Estimate, Windows, estimate_growth, wilson_interval
from triton_models.training.held_out_edits import HELD_OUT_EDITS
from triton_models.training.sheets import PAIRS, accused_sheet, missed_sheet
from triton_models.training.uploads import Floats, Indexes, Set, source_of

CURVE_POINTS = 400
LOWEST_SHARE = 2e-4  # of a logarithmic axis


class Innocence(NamedTuple):
    """What a rule makes of a stream of N different pictures, and of copies of M of them in K kinds.

    `accused_score` [N] is the best score of each picture among those before it, with `accused_of` [N], that picture.
    `found_score` [M, K] is the score of each copy with its original, and `named` [M, K] the picture that is named where
    the strictness is balanced, -1 where none is.
    """

    accused_score: Floats
    accused_of: Indexes
    found_score: Floats
    named: Indexes
    windows: Windows | None = None


class Yardstick(NamedTuple):
    """A simpler way to decide: which of the N pictures it calls duplicates, and which copies [M, K] it finds."""

    name: str
    accused: NDArray[np.bool_]
    found: NDArray[np.bool_]


def table(data: Set, measured: Innocence, rule: VerificationRule, others: Sequence[Yardstick]) -> str:
    """Write all figures as tables in Markdown."""
    accused = {name: measured.accused_score >= rule.min_scores[name] for name in STRICTNESSES}
    found = {name: measured.found_score >= rule.min_scores[name] for name in STRICTNESSES}
    for other in others:
        accused[other.name], found[other.name] = other.accused, other.found  # type: ignore[index]
    head = ["", "| | " + " | ".join(accused) + " |", "|---|" + "---|" * len(accused)]
    lines = [
        f"{len(data.paths)} different pictures; copies of {len(data.originals)} of them in {len(data.kinds)} kinds. "
        "Intervals hold 95%.",
        "",
        "## Different pictures called duplicates",
        *head,
        _row("**all**", [_share_with_interval(each) for each in accused.values()]),
    ]
    sources = np.array([source_of(path) for path in data.paths])
    if 1 < len(set(sources.tolist())) <= len(sources) // 3:
        for source in np.unique(sources):
            of_source = sources == source
            lines.append(
                _row(f"{source} ({of_source.sum()})", [_share_with_interval(a[of_source]) for a in accused.values()])
            )
    lines += _growth_lines(data, measured, rule)
    lines += ["", "## Copies found", *head]
    for name, places in kind_groups(data.kinds).items():
        lines.append(_row(f"**{name}**", [f"{each[:, places].mean():.3f}" for each in found.values()]))
    lines += [_row(kind, [f"{each[:, k].mean():.3f}" for each in found.values()]) for k, kind in enumerate(data.kinds)]
    lines += ["", _naming(data, measured)]
    return "\n".join(lines) + "\n"


def kind_groups(kinds: Sequence[str]) -> dict[str, list[int]]:
    """Group kinds of copies: the headline, all that rules may be fitted to, those held out; no empty groups."""
    held_out = [k for k, kind in enumerate(kinds) if kind in HELD_OUT_EDITS]
    headline = [k for k, kind in enumerate(kinds) if is_headline(kind)]
    rest = [k for k in range(len(kinds)) if k not in held_out]
    groups = {
        f"{len(headline)} kinds": headline,
        f"all {len(rest)} kinds": rest,
        f"{len(held_out)} kinds held out": held_out,
    }
    return {name: places for name, places in groups.items() if places}


def _growth_lines(data: Set, measured: Innocence, rule: VerificationRule) -> list[str]:
    """Tabulate the shares by size of the window."""
    if measured.windows is None:
        return []
    growths = [estimate_growth(measured.windows, rule.min_scores[name], len(data.paths)) for name in STRICTNESSES]
    lines = [
        "",
        "## The same by size of the window",
        "",
        "Measured with random windows, then extrapolated: as the measured growth goes on (a power of the size), and at "
        "most, in proportion to the size. For a window of pictures as these are.",
        "",
        "| pictures in the window | " + " | ".join(STRICTNESSES) + " |",
        "|---|" + "---|" * len(STRICTNESSES),
    ]
    lines += [_row(f"{size:,}", [_text(each.measured[size]) for each in growths]) for size in measured.windows.sizes]
    for size in FAR_SIZES:
        lines.append(_row(f"{size:,}, as it goes on", [_text(each.continued[size]) for each in growths]))
        lines.append(_row(f"{size:,}, at most", [_text(each.at_most[size]) for each in growths]))
    lines.append(_row("power of the size", [_text(each.exponent, 2) for each in growths]))
    return lines


def _naming(data: Set, measured: Innocence) -> str:
    """Tell how often the original is named, where copies are called duplicates."""
    called = measured.named >= 0
    right = measured.named == data.originals[:, None]
    return (
        f"With `balanced`, {called.mean():.3f} of the copies are called duplicates; {right[called].mean():.4f} of "
        "these name the true original."
    )


def _share_with_interval(values: NDArray[np.bool_]) -> str:
    low, high = wilson_interval(int(values.sum()), len(values))
    return f"{values.mean():.4f} ({low:.4f}-{high:.4f})"


def _text(estimate: Estimate, decimals: int = 4) -> str:
    return f"{estimate.share:.{decimals}f} ({estimate.low:.{decimals}f}-{estimate.high:.{decimals}f})"


def _row(name: str, cells: Sequence[str]) -> str:
    return f"| {name} | " + " | ".join(cells) + " |"


def curve(
    measured: Innocence, places: Sequence[int]
) -> tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.float64]]:
    """Compute the share of different pictures called duplicates, and that of copies found, by least score: [P] each."""
    falling = np.sort(measured.accused_score)[::-1].astype(float)
    ranks = np.unique(np.geomspace(1, len(falling), CURVE_POINTS).astype(int)) - 1
    # Just above one of the scores, where the next picture fewer is called a duplicate.
    least = np.unique(np.maximum(falling[ranks] + 1e-6, 1e-6))[::-1]
    called = (measured.accused_score[:, None] >= least).mean(axis=0)
    scores = np.sort(measured.found_score[:, list(places)].ravel())
    return least, called, 1 - np.searchsorted(scores, least) / len(scores)


def save_curve(data: Set, measured: Innocence, rule: VerificationRule, others: Sequence[Yardstick], file: Path) -> None:
    """Plot the share of different pictures called duplicates against that of copies found. Needs matplotlib."""
    import matplotlib  # noqa: PLC0415 (an optional dependency)

    matplotlib.use("Agg")
    from matplotlib import pyplot  # noqa: PLC0415

    figure, axis = pyplot.subplots(figsize=(8, 5))
    for name, places in kind_groups(data.kinds).items():
        _, called, found = curve(measured, places)
        axis.plot(found, np.maximum(called, LOWEST_SHARE), label=name)
    places = next(iter(kind_groups(data.kinds).values()))
    for strictness in STRICTNESSES:
        least = rule.min_scores[strictness]
        point = (measured.found_score[:, places] >= least).mean(), (measured.accused_score >= least).mean()
        axis.plot(point[0], max(point[1], LOWEST_SHARE), "ko", markersize=5)
        axis.annotate(
            strictness, (point[0], max(point[1], LOWEST_SHARE)), (-8, 6), textcoords="offset points", ha="right"
        )
    for other in others:
        axis.plot(other.found[:, places].mean(), max(other.accused.mean(), LOWEST_SHARE), "x", label=other.name)
    axis.set_yscale("log")
    axis.set_ylim(LOWEST_SHARE, 1)
    axis.set_xlim(0.5, 1)
    axis.set_xlabel("share of the copies that are found")
    axis.set_ylabel("share of different pictures called duplicates")
    axis.grid(alpha=0.3)
    axis.legend()
    figure.tight_layout()
    figure.savefig(file, dpi=90)
    pyplot.close(figure)


def save_sheets(data: Set, measured: Innocence, rule: VerificationRule, output: Path) -> None:
    """Save the different pictures that look most like duplicates to the rule, and copies that it misses."""
    accused = [
        upload for upload in np.argsort(-measured.accused_score, kind="stable") if measured.accused_of[upload] >= 0
    ]
    pairs = [
        (data.paths[upload], data.paths[measured.accused_of[upload]], float(measured.accused_score[upload]))
        for upload in accused[:PAIRS]
    ]
    accused_sheet(pairs).save(output / "accused.png")
    found = measured.found_score >= rule.min_scores["balanced"]
    missed_sheet(data, found).save(output / "missed.png")
