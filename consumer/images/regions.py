"""Pictures within a picture: collages, screenshots, a picture upon another, borders.

Where one picture ends and another begins there is a step from one row or column of pixels to the next, straight and
long as hardly anything in a photograph is. Rectangles all of whose sides run along such steps, or along the picture's
own edge, are worth a look of their own: the vector of the whole says little of what fills a quarter of it.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import product
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from consumer.images.decode import detail

MAX_REGIONS = 4  # pictures within one
MAX_EDGES = 6  # of each direction, the longest steps
MIN_SIDE = 0.3  # of a picture within, as a share of the whole
MAX_AREA = 0.65  # a square picture on a telephone is 0.6; what fills more of one is found by the whole of it
MIN_EDGE_COVERAGE = 0.75  # of each side that has to be a step
MIN_LONE_EDGE_COVERAGE = (
    0.85  # of a side, where the picture's own edge makes the other three: a horizon is nearly such a line
)
MIN_STEP = 8  # grey levels, and a quarter more than what changes two pixels further on either side
MIN_EDGE_DISTANCE_PX = 4  # pixels between two lines
SAMPLE_STEP_PX = 4  # of the pixels along a line, those that are looked at
IMAGES_AT_ONCE = 8  # pictures looked at at once: what they take stays in the processor's cache
NMS_IOU = 0.7  # intersection over union of rectangles that are one


class Region(NamedTuple):
    """A rectangle, as shares of width and height."""

    left: float
    top: float
    right: float
    bottom: float

    @property
    def area(self) -> float:
        return (self.right - self.left) * (self.bottom - self.top)

    def crop(self, pixels: NDArray[np.uint8]) -> NDArray[np.uint8]:
        """What is within, of uint8 [S, S, 3], in the same form."""
        size = len(pixels)
        box = (self.left * size, self.top * size, self.right * size, self.bottom * size)
        return np.asarray(Image.fromarray(pixels).resize((size, size), Image.Resampling.BILINEAR, box))


WHOLE_IMAGE = Region(0.0, 0.0, 1.0, 1.0)


@dataclass(frozen=True, slots=True)
class View:
    """What is encoded of a picture, uint8 [S, S, 3]: all of it, or what is within a frame."""

    region: Region
    image: NDArray[np.uint8]

    @property
    def pixels(self) -> NDArray[np.uint8]:
        """uint8 [S, S, 3], cut out anew each time: batches hold many views at once."""
        return self.image if self.region == WHOLE_IMAGE else self.region.crop(self.image)


def make_views(pictures: Sequence[NDArray[np.uint8]], min_detail: float, within: bool = True) -> list[list[View]]:
    """Of each, uint8 [S, S, 3], the whole, then the pictures within it that show enough to be compared.

    Unless `within`, the whole alone.
    """
    seen = [[View(WHOLE_IMAGE, pixels)] for pixels in pictures]
    if within:
        for pixels, inside, of_picture in zip(pictures, find_regions(pictures), seen, strict=True):
            parts = (View(frame, pixels) for frame in inside)
            of_picture += [part for part in parts if detail(part.pixels) >= min_detail]
    return seen


def find_regions(pictures: Sequence[NDArray[np.uint8]]) -> list[list[Region]]:
    """Find rectangles in each picture, uint8 [S, S, 3], that look like pictures of their own; the best first."""
    # Many at once: of one picture, half of the time goes into calling numpy and waiting for the interpreter's lock.
    return [
        _rectangles(across, down, len(pictures[0]))
        for start in range(0, len(pictures), IMAGES_AT_ONCE)
        for across, down in _lines(pictures[start : start + IMAGES_AT_ONCE])
    ]


def _rectangles(across: "_Lines", down: "_Lines", size: int) -> list[Region]:
    found = []
    for left, right in _spans(across.sums, size):
        for top, bottom in _spans(down.sums, size):
            if (right - left) * (bottom - top) <= MAX_AREA * size**2:
                covered = min(
                    across.covered(left, top, bottom),
                    across.covered(right, top, bottom),
                    down.covered(top, left, right),
                    down.covered(bottom, left, right),
                )
                steps = (left > 0) + (right < size) + (top > 0) + (bottom < size)
                if covered >= (MIN_LONE_EDGE_COVERAGE if steps == 1 else MIN_EDGE_COVERAGE):
                    # Four pictures in a square are six rectangles more; what cannot be divided comes first.
                    whole = not across.divide(left, right, top, bottom) and not down.divide(top, bottom, left, right)
                    found.append((whole, covered, Region(left / size, top / size, right / size, bottom / size)))
    chosen: list[Region] = []
    for _, _, frame in sorted(found, reverse=True):
        if all(_overlap(frame, other) < NMS_IOU for other in chosen):
            chosen.append(frame)
        if len(chosen) == MAX_REGIONS:
            break
    return chosen


class _Lines:
    """Where the longest steps from column to column of a picture are, as the column on their right, the longest first.

    `sums` int16 [R + 1] of each are how many of the first rows have a step there.
    """

    def __init__(self, size: int) -> None:
        self._size = size
        self.sums: dict[int, NDArray[np.int16]] = {}

    def add(self, line: int, sums: NDArray[np.int16]) -> None:
        """Unless there are enough, or one is that near."""
        if len(self.sums) < MAX_EDGES and all(abs(line - other) >= MIN_EDGE_DISTANCE_PX for other in self.sums):
            self.sums[line] = sums

    def covered(self, line: int, start: int, end: int) -> float:
        """Share of the rows from `start` to `end` that have a step at a line; the picture's own edge is one."""
        if line in (0, self._size):
            return 1.0
        start, end, sums = -(-start // SAMPLE_STEP_PX), -(-end // SAMPLE_STEP_PX), self.sums[line]
        return float(sums[end] - sums[start]) / (end - start)

    def divide(self, left: int, right: int, start: int, end: int) -> bool:
        """Whether a step runs through a rectangle, so that both sides of it are large enough for pictures."""
        least = MIN_SIDE * self._size
        return any(
            line - left >= least and right - line >= least and self.covered(line, start, end) >= MIN_EDGE_COVERAGE
            for line in self.sums
        )


def _lines(pictures: Sequence[NDArray[np.uint8]]) -> list[tuple[_Lines, _Lines]]:
    """Of each, uint8 [S, S, 3], from column to column and from row to row."""
    size = len(pictures[0])
    rows = -(-size // SAMPLE_STEP_PX)
    # Row upon row in one line, which is fastest. Where one row goes over into the next no lines are looked for.
    planes = np.empty((3, 2 * len(pictures), rows, size), np.uint8)
    for number, pixels in enumerate(pictures):
        planes[:, 2 * number] = pixels[::SAMPLE_STEP_PX].transpose(2, 0, 1)
        planes[:, 2 * number + 1] = pixels[:, ::SAMPLE_STEP_PX].transpose(2, 1, 0)
    flat = planes.reshape(3, -1)
    before, after = flat[:, :-1], flat[:, 1:]
    change = (np.maximum(before, after) - np.minimum(before, after)).max(axis=0)
    around = np.maximum(change[:-4], change[4:])
    more = np.maximum(change[2:-2], around) - around
    around >>= 2
    around += MIN_STEP
    steps = np.zeros((2 * len(pictures), rows, size), np.bool_)
    np.greater(more, around, out=steps.reshape(-1)[2:-3])
    # A step may fall between two pixels, half of it on either side.
    window = round(MIN_SIDE * rows)
    first, last, enough = MIN_EDGE_DISTANCE_PX - 1, size - MIN_EDGE_DISTANCE_PX, MIN_EDGE_COVERAGE * window
    count = steps.sum(axis=1, dtype=np.int16)
    way, column = np.nonzero(count[:, first:last] + count[:, first - 1 : last - 1] >= enough)
    column += first
    sums = np.zeros((len(way), rows + 1), np.int16)
    np.cumsum(steps[way, :, column] | steps[way, :, column - 1], axis=1, out=sums[:, 1:])
    longest = (sums[:, window:] - sums[:, :-window]).max(axis=1)
    long = np.flatnonzero(longest >= enough)
    # Of the columns at one edge, the one that has most of it by itself.
    order = np.argsort(-(2 * longest[long] + count[way[long], column[long]]), kind="stable")
    lines = [_Lines(size) for _ in range(2 * len(pictures))]
    for place in long[order].tolist():
        lines[way[place]].add(int(column[place]) + 1, sums[place])
    return list(zip(lines[::2], lines[1::2], strict=True))


def _spans(lines: Iterable[int], size: int) -> list[tuple[int, int]]:
    places = [0, *lines, size]
    return [(start, end) for start, end in product(places, places) if end - start >= MIN_SIDE * size]


def _overlap(a: Region, b: Region) -> float:
    width, height = min(a.right, b.right) - max(a.left, b.left), min(a.bottom, b.bottom) - max(a.top, b.top)
    both = max(0.0, width) * max(0.0, height)
    return both / (a.area + b.area - both)
