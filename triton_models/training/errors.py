"""Contact sheets of an encoder's worst errors: other pictures taken for copies, and copies not detected."""

from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from triton_models.training.bench import Bench
from triton_models.training.sheets import PAIRS, sheet
from triton_models.training.uploads import open_picture


def false_positives(bench: Bench, copies: NDArray[np.int64], references: NDArray[np.int64]) -> Image.Image:
    """Show originals beside other pictures that copies of them were taken for, the most frequent pairs first.

    `copies` [T] are places of copies among K * N, `references` [T] the pictures that they were taken for.
    """
    pairs: dict[tuple[int, int], list[int]] = {}
    for copy, other in zip(copies.tolist(), references.tolist(), strict=True):
        kind, place = divmod(copy, len(bench.originals))
        pairs.setdefault((place, other), []).append(kind)
    names = list(bench.edits)
    cells = []
    for (place, other), kinds in sorted(pairs.items(), key=lambda pair: -len(pair[1]))[:PAIRS]:
        pictures = [open_picture(bench.paths[index]) for index in (int(bench.originals[place]), other)]
        cells.append((pictures, f"{len(kinds)}: {', '.join(names[kind] for kind in kinds)}"))
    return sheet(cells)


def misses(bench: Bench, detected: NDArray[np.bool_]) -> Image.Image:
    """Show copies not `detected` [K, N], those of the easiest kinds first."""
    cells: list[tuple[list[Image.Image], str]] = []
    for kind in np.argsort(-detected.mean(axis=1), kind="stable").tolist():
        for place in np.flatnonzero(~detected[kind]).tolist()[: PAIRS - len(cells)]:
            original = open_picture(bench.paths[int(bench.originals[place])])
            cells.append(([original, bench.copy(kind, place)], list(bench.edits)[kind]))
    return sheet(cells)


def save(
    bench: Bench,
    copies: NDArray[np.int64],
    references: NDArray[np.int64],
    detected: NDArray[np.bool_],
    folder: Path,
    name: str,
) -> None:
    """Write both sheets of the encoder `name`.

    They show the pictures of the evaluation: mind their licence before you pass them on.
    """
    false_positives(bench, copies, references).save(folder / f"false-positives-{name}.png")
    misses(bench, detected).save(folder / f"misses-{name}.png")
