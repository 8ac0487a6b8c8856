"""The thumbnail that is kept of a picture, and the margins that are cut off before it is made.

A receipt on a white page, a product on a plain ground, a film between black bars: most of such a picture is blank, and
all pages look alike that way. The thumbnail shows what is within the margins, so that as much of it is seen as of a
picture that fills its frame. It tells where it was cut out, since a copy may have other margins.
"""

import struct
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from consumer.images.region import WHOLE_IMAGE, Region

SIDE = 48  # pixels of a thumbnail, along and across
MAX_LEVEL = 15  # of grey
LEVELS_PER_DEVIATION = 3.75  # so that the levels span four standard deviations
MIN_DEVIATION = 1.0  # in grey levels of the picture, so that a blank one stays blank

BLANK_TOLERANCE = 10.0  # grey levels, in any channel, by which a pixel of 48 x 48 may differ from the margin's colour
BLANK_MEAN = 3.5  # the same for the mean of a row or column
SPECK_SHARE = 1 / 24  # of the cells of a row, which may differ all the same: dust, noise of compression
MIN_CONTENT_SIDE = 1 / 6  # of the picture: what is smaller in both directions is a speck itself
MAX_CONTENT_AREA = 0.95  # thinner margins are left on

_FRAME = struct.Struct("<4Bf")
THUMBNAIL_BYTES = SIDE * SIDE // 2 + _FRAME.size


class Thumbnail(NamedTuple):
    """A small picture of what is within the margins of a picture, or of a region of one.

    `levels` is uint8 [48, 48], grey, 0 to 15: 7.5 is the mean and 3.75 levels are one standard deviation. `content` is
    where it was cut out, and `aspect` the width over the height of the whole picture.
    """

    levels: NDArray[np.uint8]
    content: Region
    aspect: float

    @classmethod
    def of(cls, small: NDArray[np.uint8], content: Region, aspect: float) -> "Thumbnail":
        """Make the thumbnail of what is within `content`, shrunk to uint8 [48, 48, 3]."""
        return cls(_to_levels(small), content, aspect)

    def to_bytes(self) -> bytes:
        """Pack to `THUMBNAIL_BYTES`: two pixels a byte, the first in its higher half, then content and aspect."""
        pairs = self.levels.reshape(-1, 2)
        packed = (pairs[:, 0] << 4) | pairs[:, 1]
        return packed.tobytes() + _FRAME.pack(*(round(side * 255) for side in self.content), self.aspect)

    @classmethod
    def from_bytes(cls, data: bytes) -> "Thumbnail":
        """Unpack what `to_bytes` made. Raises ValueError for another length."""
        if len(data) != THUMBNAIL_BYTES:
            raise ValueError(f"A thumbnail has {THUMBNAIL_BYTES} bytes, not {len(data)}")
        packed = np.frombuffer(data, np.uint8, SIDE * SIDE // 2)
        levels = np.stack([packed >> 4, packed & MAX_LEVEL], axis=-1).reshape(SIDE, SIDE)
        *content, aspect = _FRAME.unpack_from(data, len(packed))
        return cls(levels, Region(*(side / 255 for side in content)), aspect)


def shrink(pixels: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Average uint8 [S, S, 3] to uint8 [48, 48, 3]."""
    cell, rest = divmod(len(pixels), SIDE)
    if rest:
        return np.asarray(Image.fromarray(pixels).resize((SIDE, SIDE), Image.Resampling.BOX))
    # The same but for rounding, and several times faster.
    rows = pixels.reshape(SIDE, cell, -1).sum(axis=1, dtype=np.uint16).reshape(-1, cell * 3)
    means = rows @ np.tile(np.eye(3, dtype=np.float32) / cell**2, (cell, 1))
    small: NDArray[np.uint8] = (means + np.float32(0.5)).astype(np.uint8)
    return small.reshape(SIDE, SIDE, 3)


def _to_levels(small: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Reduce a picture uint8 [48, 48, 3] to 16 levels of grey: uint8 [48, 48]."""
    grey = small.reshape(-1, 3) @ np.full(3, 1 / 3, np.float32)
    grey -= grey.mean()
    deviation = np.sqrt(np.mean(grey * grey)) + MIN_DEVIATION
    levels = np.rint(grey * np.float32(LEVELS_PER_DEVIATION / deviation) + MAX_LEVEL / 2)
    clipped: NDArray[np.uint8] = np.clip(levels, 0, MAX_LEVEL).astype(np.uint8)
    return clipped.reshape(SIDE, SIDE)


def find_content(small: NDArray[np.uint8]) -> Region:
    """Find what is within the blank margins of a picture, given as uint8 [48, 48, 3]; the whole where there are none.

    Margins are blank in one colour along at least two sides, so that a plain sky is none.
    """
    colour, count = _margin_colour(small), SIDE
    if colour is None:
        return WHOLE_IMAGE
    difference = np.abs(small - colour).max(axis=2)
    left, top, right, bottom = 0, 0, count, count
    for _ in range(2):  # a row may be blank only between the columns that are left
        top, bottom = _content_span(difference[:, left:right], top, bottom)
        left, right = _content_span(difference[top:bottom].T, left, right)
    if max(right - left, bottom - top) < MIN_CONTENT_SIDE * count:
        return WHOLE_IMAGE
    left, top, right, bottom = max(0, left - 1), max(0, top - 1), min(count, right + 1), min(count, bottom + 1)
    if (right - left) * (bottom - top) > MAX_CONTENT_AREA * count**2:
        return WHOLE_IMAGE
    return Region(left / count, top / count, right / count, bottom / count)


def _margin_colour(cells: NDArray[np.uint8]) -> NDArray[np.float32] | None:
    """Find the colour [3] that at least two sides of a picture, as cells [N, N, 3], have in common along their edge."""
    sides = np.stack([cells[0], cells[-1], cells[:, 0], cells[:, -1]]).astype(np.float32)
    middle = SIDE // 2
    colours = np.sort(sides, axis=1)[:, middle - 1 : middle + 1].mean(axis=1)  # the median, at less cost
    blank = _is_blank(np.abs(sides - colours[:, None]).max(axis=2))
    if np.count_nonzero(blank) < 2:
        return None
    alike = np.abs(colours[:, None] - colours[None]).max(axis=2) <= BLANK_TOLERANCE
    shared = (alike & blank) & blank[:, None]
    best = int(shared.sum(axis=1).argmax())
    if shared[best].sum() < 2:
        return None
    colour: NDArray[np.float32] = np.median(colours[shared[best]], axis=0)
    return colour


def _is_blank(difference: NDArray[np.float32]) -> NDArray[np.bool_]:
    """Tell of which rows [R, N] the cells differ so little from the margin's colour that they belong to the margin."""
    specks = (difference > BLANK_TOLERANCE).sum(axis=1)
    mean = np.minimum(difference, BLANK_TOLERANCE).mean(axis=1)
    blank: NDArray[np.bool_] = (specks <= SPECK_SHARE * difference.shape[1]) & (mean < BLANK_MEAN)
    return blank


def _content_span(difference: NDArray[np.float32], start: int, end: int) -> tuple[int, int]:
    """Return the first row that is not blank and the one behind the last, of those from `start` to `end`."""
    filled = np.flatnonzero(~_is_blank(difference[start:end]))
    return (start + int(filled[0]), start + int(filled[-1]) + 1) if len(filled) else (start, end)
