"""Contact sheets: pictures side by side over captions. They show the pictures: mind their licence."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw

from triton_models.training.uploads import Set, open_picture

SIDE, CAPTION, COLUMNS, PAIRS = 150, 20, 6, 36


def sheet(cells: Sequence[tuple[list[Image.Image], str]]) -> Image.Image:
    """Lay out cells, each some pictures side by side over a caption."""
    rows = max(1, -(-len(cells) // COLUMNS))
    sheet = Image.new("RGB", (COLUMNS * (2 * SIDE + 10), rows * (SIDE + CAPTION)), "white")
    draw = ImageDraw.Draw(sheet)
    for index, (pictures, caption) in enumerate(cells):
        left, top = index % COLUMNS * (2 * SIDE + 10), index // COLUMNS * (SIDE + CAPTION)
        for number, picture in enumerate(pictures):
            sheet.paste(picture.resize((SIDE, SIDE)), (left + number * SIDE, top))
        draw.text((left, top + SIDE + 4), caption[:48], "black")
    return sheet


def accused_sheet(pairs: Sequence[tuple[Path, Path, float]]) -> Image.Image:
    """Show different pictures that were taken for each other: an upload, the match, and the score of both."""
    return sheet([([open_picture(a), open_picture(b)], f"{score:.3f}: {a.stem}") for a, b, score in pairs[:PAIRS]])


def missed_sheet(data: Set, found: NDArray[np.bool_]) -> Image.Image:
    """Show copies not `found` [M, K] beside their originals, one of each kind, those of the easiest kinds first."""
    cells: list[tuple[list[Image.Image], str]] = []
    for kind in np.argsort(-found.mean(axis=0), kind="stable").tolist():
        for place in np.flatnonzero(~found[:, kind]).tolist()[:1]:
            job = data.made_of[place]
            cells.append(([open_picture(job.path), job.pictures()[kind]], data.kinds[kind]))
    return sheet(cells[:PAIRS])
