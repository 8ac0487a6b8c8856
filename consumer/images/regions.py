"""Finding pictures within a picture: collages, screenshots, a picture upon another, borders.

Where one picture ends and another begins there is a step from one row or column of pixels to the next, straight and
long as hardly anything in a photograph is. Rectangles all of whose sides run along such steps, or along the picture's
own edge, are encoded by themselves as well: the vector of the whole says little of what fills a quarter of it.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import product

import numpy as np
from numpy.typing import NDArray

from consumer.images.decode import Picture, detail
from consumer.images.region import WHOLE_IMAGE, Region
from consumer.images.thumbnail import Thumbnail, shrink

MAX_REGIONS = 4  # pictures within one
MAX_EDGES = 6  # in each direction; the longest count
MIN_SIDE = 0.3  # of a picture within, as a share of the whole
MAX_AREA = 0.65  # a square picture on a telephone is 0.6; what fills more of one is found by the whole of it
MIN_EDGE_COVERAGE = 0.75  # share of each side that has to be a step
# Of a side, where the picture's own edge makes the other three: a horizon is nearly such a line.
MIN_LONE_EDGE_COVERAGE = 0.85
MIN_STEP = 8  # grey levels, and a quarter more than what changes two pixels further on either side
MIN_EDGE_DISTANCE_PX = 4  # between two edges
SAMPLE_STEP_PX = 4  # every fourth row (or column) is searched for steps
IMAGES_AT_ONCE = 8  # pictures searched at once: their arrays stay in the processor's cache
NMS_IOU = 0.7  # intersection over union from which two rectangles count as one


@dataclass(frozen=True, slots=True)
class View:
    """What is encoded of a picture: all of it, or a region."""

    region: Region
    picture: Picture

    @property
    def pixels(self) -> NDArray[np.uint8]:
        """The pixels of the region, uint8 [S, S, 3], cut out anew each time: batches hold many views at once."""
        pixels = self.picture.pixels
        return pixels if self.region == WHOLE_IMAGE else self.region.crop(pixels)

    @property
    def thumbnail(self) -> Thumbnail:
        """The thumbnail of the region, made anew each time but for the whole picture."""
        whole = self.picture.thumbnail
        if self.region == WHOLE_IMAGE:
            return whole
        width, height = self.region.right - self.region.left, self.region.bottom - self.region.top
        return Thumbnail.of(shrink(self.pixels), WHOLE_IMAGE, whole.aspect * width / height)


def make_views(pictures: Sequence[Picture], min_detail: float, within: bool = True) -> list[list[View]]:
    """List the views of each picture: the whole, then the pictures within it.

    A picture within another counts when its `detail()` is at least `min_detail`. Unless `within`, there is only the
    whole.
    """
    views = [[View(WHOLE_IMAGE, picture)] for picture in pictures]
    if within and pictures:
        found = find_regions([picture.pixels for picture in pictures])
        for picture, regions, of_picture in zip(pictures, found, views, strict=True):
            parts = (View(region, picture) for region in regions)
            of_picture += [part for part in parts if detail(part.pixels) >= min_detail]
    return views


def find_regions(pictures: Sequence[NDArray[np.uint8]]) -> list[list[Region]]:
    """Find rectangles in each picture, uint8 [S, S, 3], that look like pictures of their own; the best first."""
    # Many at once: of one picture, half of the time goes into calling numpy and waiting for the interpreter's lock.
    return [
        _rectangles(vertical, horizontal, len(pictures[0]))
        for start in range(0, len(pictures), IMAGES_AT_ONCE)
        for vertical, horizontal in _find_edges(pictures[start : start + IMAGES_AT_ONCE])
    ]


def _rectangles(vertical: "_Edges", horizontal: "_Edges", size: int) -> list[Region]:
    """Choose up to MAX_REGIONS rectangles between the edges of one picture, the best first."""
    candidates = []
    for left, right in _spans(vertical.step_counts, size):
        for top, bottom in _spans(horizontal.step_counts, size):
            if (right - left) * (bottom - top) <= MAX_AREA * size**2:
                coverage = min(
                    vertical.coverage(left, top, bottom),
                    vertical.coverage(right, top, bottom),
                    horizontal.coverage(top, left, right),
                    horizontal.coverage(bottom, left, right),
                )
                edges = (left > 0) + (right < size) + (top > 0) + (bottom < size)
                if coverage >= (MIN_LONE_EDGE_COVERAGE if edges == 1 else MIN_EDGE_COVERAGE):
                    # Four pictures in a square are six rectangles more; what cannot be divided comes first.
                    undivided = not vertical.divide(left, right, top, bottom) and not horizontal.divide(
                        top, bottom, left, right
                    )
                    region = Region(left / size, top / size, right / size, bottom / size)
                    candidates.append((undivided, coverage, region))
    chosen: list[Region] = []
    for _, _, region in sorted(candidates, reverse=True):
        if all(_iou(region, other) < NMS_IOU for other in chosen):
            chosen.append(region)
        if len(chosen) == MAX_REGIONS:
            break
    return chosen


class _Edges:
    """The longest edges in one direction of a picture [S, S, 3], the longest first.

    A vertical edge at column x is a step from column x - 1 to column x, in many rows. Of the R searched rows,
    `step_counts[x][r]`, int16 [R + 1], are those with that step among the first r. For horizontal edges, rows and
    columns change places.
    """

    def __init__(self, size: int) -> None:
        self._size = size
        self.step_counts: dict[int, NDArray[np.int16]] = {}

    def add(self, column: int, step_counts: NDArray[np.int16]) -> None:
        """Add an edge, unless there are MAX_EDGES or it is too near another."""
        if len(self.step_counts) < MAX_EDGES and all(
            abs(column - other) >= MIN_EDGE_DISTANCE_PX for other in self.step_counts
        ):
            self.step_counts[column] = step_counts

    def coverage(self, column: int, start: int, end: int) -> float:
        """Return the share of the rows from `start` to `end` with a step at an edge; 1 at the picture's own edge."""
        if column in (0, self._size):
            return 1.0
        start, end, step_counts = -(-start // SAMPLE_STEP_PX), -(-end // SAMPLE_STEP_PX), self.step_counts[column]
        return float(step_counts[end] - step_counts[start]) / (end - start)

    def divide(self, left: int, right: int, start: int, end: int) -> bool:
        """Tell whether an edge divides a rectangle into two that are both large enough for pictures."""
        min_side_px = MIN_SIDE * self._size
        return any(
            column - left >= min_side_px
            and right - column >= min_side_px
            and self.coverage(column, start, end) >= MIN_EDGE_COVERAGE
            for column in self.step_counts
        )


def _find_edges(pictures: Sequence[NDArray[np.uint8]]) -> list[tuple[_Edges, _Edges]]:
    """Find the vertical and the horizontal edges of each picture, uint8 [S, S, 3]."""
    size = len(pictures[0])
    rows = -(-size // SAMPLE_STEP_PX)
    # All rows one after the other in one line, which is fastest. No edges are searched for near the seams.
    planes = np.empty((3, 2 * len(pictures), rows, size), np.uint8)
    for number, pixels in enumerate(pictures):
        planes[:, 2 * number] = pixels[::SAMPLE_STEP_PX].transpose(2, 0, 1)
        planes[:, 2 * number + 1] = pixels[:, ::SAMPLE_STEP_PX].transpose(2, 1, 0)
    flat = planes.reshape(3, -1)
    before, after = flat[:, :-1], flat[:, 1:]
    change = (np.maximum(before, after) - np.minimum(before, after)).max(axis=0)
    nearby = np.maximum(change[:-4], change[4:])
    excess = np.maximum(change[2:-2], nearby) - nearby
    nearby >>= 2
    nearby += MIN_STEP
    steps = np.zeros((2 * len(pictures), rows, size), np.bool_)
    np.greater(excess, nearby, out=steps.reshape(-1)[2:-3])
    # A step may fall between two pixels, half of it on either side.
    window = round(MIN_SIDE * rows)
    first, last, min_steps = MIN_EDGE_DISTANCE_PX - 1, size - MIN_EDGE_DISTANCE_PX, MIN_EDGE_COVERAGE * window
    count = steps.sum(axis=1, dtype=np.int16)
    plane, column = np.nonzero(count[:, first:last] + count[:, first - 1 : last - 1] >= min_steps)
    column += first
    step_counts = np.zeros((len(plane), rows + 1), np.int16)
    np.cumsum(steps[plane, :, column] | steps[plane, :, column - 1], axis=1, out=step_counts[:, 1:])
    longest = (step_counts[:, window:] - step_counts[:, :-window]).max(axis=1)
    long = np.flatnonzero(longest >= min_steps)
    # Of the columns at one edge, first the one that has the most steps by itself.
    order = np.argsort(-(2 * longest[long] + count[plane[long], column[long]]), kind="stable")
    edges = [_Edges(size) for _ in range(2 * len(pictures))]
    for index in long[order].tolist():
        edges[plane[index]].add(int(column[index]) + 1, step_counts[index])
    return list(zip(edges[::2], edges[1::2], strict=True))


def _spans(columns: Iterable[int], size: int) -> list[tuple[int, int]]:
    """List the pairs of columns, the picture's own edges among them, that are far enough apart for a picture."""
    ends = [0, *columns, size]
    return [(start, end) for start, end in product(ends, ends) if end - start >= MIN_SIDE * size]


def _iou(a: Region, b: Region) -> float:
    """Return the intersection of two rectangles over their union."""
    width, height = min(a.right, b.right) - max(a.left, b.left), min(a.bottom, b.bottom) - max(a.top, b.top)
    intersection = max(0.0, width) * max(0.0, height)
    return intersection / (a.area + b.area - intersection)
