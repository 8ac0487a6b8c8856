"""Pictures within a picture: collages, screenshots, a picture upon another, borders.

Where one picture ends and another begins there is a step from one row or column of pixels to the next, straight and
long as hardly anything in a photograph is. Rectangles all of whose sides run along such steps, or along the picture's
own edge, are worth a look of their own: the vector of the whole says little of what fills a quarter of it.
"""

from dataclasses import dataclass
from itertools import product
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from consumer.decode import detail

MOST = 4  # pictures within one
LINES = 6  # of each direction, the longest steps
MIN_SIDE = 0.3  # of a picture within, as a share of the whole
MAX_AREA = 0.9
COVERED = 0.7  # of each side that has to be a step
MIN_STEP = 8  # grey levels, and a quarter more than what changes two pixels further on either side
APART = 4  # pixels between two lines
EVERY = 3  # of the pixels along a line, those that are looked at
SAME = 0.7  # intersection over union of rectangles that are one


class Frame(NamedTuple):
    """A rectangle, as shares of width and height."""

    left: float
    top: float
    right: float
    bottom: float

    @property
    def area(self) -> float:
        return (self.right - self.left) * (self.bottom - self.top)

    def cut(self, pixels: NDArray[np.uint8]) -> NDArray[np.uint8]:
        """What is within, of uint8 [S, S, 3], in the same form."""
        size = len(pixels)
        box = (self.left * size, self.top * size, self.right * size, self.bottom * size)
        return np.asarray(Image.fromarray(pixels).resize((size, size), Image.Resampling.BILINEAR, box))


WHOLE = Frame(0.0, 0.0, 1.0, 1.0)


@dataclass(frozen=True, slots=True)
class View:
    """What is encoded of a picture, uint8 [S, S, 3]: all of it, or what is within a frame."""

    frame: Frame
    picture: NDArray[np.uint8]

    @property
    def pixels(self) -> NDArray[np.uint8]:
        """uint8 [S, S, 3], cut out anew each time: batches hold many views at once."""
        return self.picture if self.frame == WHOLE else self.frame.cut(self.picture)


def views(pixels: NDArray[np.uint8], min_detail: float, within: bool = True) -> list[View]:
    """The whole of uint8 [S, S, 3], then the pictures within it, less those in which there is too little to see.

    Unless `within`, the whole alone.
    """
    parts = (View(frame, pixels) for frame in (frames(pixels) if within else ()))
    return [View(WHOLE, pixels), *(part for part in parts if detail(part.pixels) >= min_detail)]


def frames(pixels: NDArray[np.uint8]) -> list[Frame]:
    """Rectangles in uint8 [S, S, 3] that look like pictures of their own, the best first, at most `MOST`."""
    size = len(pixels)
    across, down = _Steps(pixels[::EVERY]), _Steps(pixels[:, ::EVERY].swapaxes(0, 1))
    if not across.lines and not down.lines:
        return []
    found = []
    for left, right in _spans(across.lines, size):
        for top, bottom in _spans(down.lines, size):
            if (right - left) * (bottom - top) <= MAX_AREA * size**2:
                covered = min(
                    across.covered(left, top, bottom),
                    across.covered(right, top, bottom),
                    down.covered(top, left, right),
                    down.covered(bottom, left, right),
                )
                if covered >= COVERED:
                    # Four pictures in a square are six rectangles more; what cannot be divided comes first.
                    whole = not across.divide(left, right, top, bottom) and not down.divide(top, bottom, left, right)
                    found.append((whole, covered, Frame(left / size, top / size, right / size, bottom / size)))
    chosen: list[Frame] = []
    for _, _, frame in sorted(found, reverse=True):
        if len(chosen) < MOST and all(_overlap(frame, other) < SAME for other in chosen):
            chosen.append(frame)
    return chosen


class _Steps:
    """Steps from column to column of a picture: `lines` are where the longest are, as the column on their right."""

    def __init__(self, pixels: NDArray[np.uint8]) -> None:
        """`pixels` is [R, S, 3], some rows of the picture."""
        rows, self._size = pixels.shape[:2]
        # Row upon row in one line, which is fastest. Where one row goes over into the next no lines are looked for.
        flat = np.ascontiguousarray(pixels.transpose(2, 0, 1)).reshape(3, -1)
        change = np.zeros(rows * self._size, np.uint8)
        before, after = flat[:, :-1], flat[:, 1:]
        (np.maximum(before, after) - np.minimum(before, after)).max(axis=0, out=change[:-1])
        around = np.zeros_like(change)
        np.maximum(change[:-4], change[4:], out=around[2:-2])
        np.minimum(around, 190, out=around)  # a quarter more has to fit in eight bits
        around += around >> 2
        around += MIN_STEP
        steps = change > around
        # A step may fall between two pixels, half of it on either side.
        either = steps.copy()
        either[1:] |= steps[:-1]
        steps, either = steps.reshape(rows, -1), either.reshape(rows, -1)
        window = round(MIN_SIDE * rows)
        columns = APART - 1 + np.flatnonzero(either[:, APART - 1 : self._size - APART].sum(axis=0) >= COVERED * window)
        sums = np.zeros((rows + 1, len(columns)), np.int16)
        np.cumsum(either[:, columns], axis=0, out=sums[1:])
        longest = (sums[window:] - sums[:-window]).max(axis=0)
        # Of the columns at one edge, the one that has most of it by itself.
        order = np.argsort(-(2 * longest + steps[:, columns].sum(axis=0)), kind="stable")
        self.lines: list[int] = []
        self._sums: dict[int, NDArray[np.int16]] = {}
        for place in order.tolist():
            line = int(columns[place]) + 1
            enough = longest[place] >= COVERED * window
            if enough and len(self.lines) < LINES and all(abs(line - other) >= APART for other in self.lines):
                self.lines.append(line)
                self._sums[line] = sums[:, place]

    def covered(self, line: int, start: int, end: int) -> float:
        """Share of the rows from `start` to `end` that have a step at a line; the picture's own edge is one."""
        if line in (0, self._size):
            return 1.0
        start, end = -(-start // EVERY), -(-end // EVERY)
        return float(self._sums[line][end] - self._sums[line][start]) / (end - start)

    def divide(self, left: int, right: int, start: int, end: int) -> bool:
        """Whether a step runs through a rectangle, so that both sides of it are large enough for pictures."""
        least = MIN_SIDE * self._size
        return any(
            line - left >= least and right - line >= least and self.covered(line, start, end) >= COVERED
            for line in self.lines
        )


def _spans(lines: list[int], size: int) -> list[tuple[int, int]]:
    places = [0, *lines, size]
    return [(start, end) for start, end in product(places, places) if end - start >= MIN_SIDE * size]


def _overlap(a: Frame, b: Frame) -> float:
    width, height = min(a.right, b.right) - max(a.left, b.left), min(a.bottom, b.bottom) - max(a.top, b.top)
    both = max(0.0, width) * max(0.0, height)
    return both / (a.area + b.area - both)
