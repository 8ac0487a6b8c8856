"""Search for an upload in a candidate by its pixels alone, where local features are of no help.

Coins, grains, tiles: where everything looks like everything else, features match at random. Of two pictures whose
vectors are very near all the same, the upload's thumbnail is laid upon the candidate's at each place and some sizes,
and correlated (Lewis, Fast normalized cross-correlation, 1995).

A lamp, a bottle, a tree look much like themselves in a mirror, and features take the mirrored one for the upright. So
each upload is also tried turned and mirrored as a whole, which costs little.
"""

from functools import cache

import numpy as np
from numpy.typing import NDArray

from consumer.verification.registration import blurred

Floats = NDArray[np.float32]

SIZES = (
    1.0,
    0.91,
    0.83,
    0.75,
    0.69,
    0.64,
)  # of the upload within the candidate, as a share of its side: 1 to 1.6 times
CELL_PX = 4  # of what is compared of whole pictures
# All ways to turn and mirror a picture but for leaving it as it is: linear maps of places from its middle.
TURNS = np.array(
    [
        [[-1, 0], [0, 1]],
        [[1, 0], [0, -1]],
        [[-1, 0], [0, -1]],
        [[0, 1], [1, 0]],
        [[0, -1], [1, 0]],
        [[0, 1], [-1, 0]],
        [[0, -1], [-1, 0]],
    ],
    np.float32,
)
STRUCTURE_SIGMA_PX = (0.7, 4.0)  # structure between these two is compared


def search(uploads: Floats, candidates: Floats) -> Floats:
    """Find where uploads lie within candidates, both thumbnails [M, side, side]: transformations [M, 2, 3]."""
    count, side, _ = uploads.shape
    upload, candidate = (_structure(each) for each in (uploads, candidates))
    spectrum, energy_spectrum = (
        np.fft.rfft2(each, (2 * side, 2 * side)) for each in (candidate, candidate * candidate)
    )
    best, transforms = np.full(count, -np.inf, np.float32), np.zeros((count, 2, 3), np.float32)
    for size in SIZES:
        small_side = round(size * side)
        shrink = _shrink_matrix(side, small_side)
        small = shrink @ upload @ shrink.T
        window = np.fft.rfft2(np.ones((small_side, small_side), np.float32), (2 * side, 2 * side))
        free = side - small_side + 1  # places along each axis
        product, energy = (
            np.fft.irfft2(one * np.conj(other), (2 * side, 2 * side))[:, :free, :free].reshape(count, -1)
            for one, other in (
                (spectrum, np.fft.rfft2(small, (2 * side, 2 * side))),
                (energy_spectrum, window),
            )
        )
        norm = np.sqrt(np.maximum(energy, 1e-3) * np.square(small).sum(axis=(1, 2))[:, None] + 1e-3)
        correlation = product / norm
        place = correlation.argmax(axis=1)
        highest = correlation[np.arange(count), place]
        better = highest > best
        down, across = np.divmod(place, free)
        found = np.zeros_like(transforms)
        found[:, 0, 0] = found[:, 1, 1] = small_side / side
        found[:, 0, 2], found[:, 1, 2] = across / side, down / side
        best, transforms = np.where(better, highest, best), np.where(better[:, None, None], found, transforms)
    return transforms


def turned(uploads: Floats, candidates: Floats) -> Floats:
    """Find which way of turning or mirroring an upload as a whole makes it most like its candidate.

    Both are thumbnails [M, side, side]; transformations [M, 2, 3].
    """
    upload, candidate = (_cells(each) for each in (uploads, candidates))
    upload -= upload.mean(axis=(1, 2), keepdims=True)
    mirrored, flipped = candidate[:, :, ::-1], candidate[:, ::-1]
    upright = [mirrored, flipped, flipped[:, :, ::-1]]
    lying = [each.transpose(0, 2, 1) for each in (candidate, mirrored, flipped, flipped[:, :, ::-1])]
    ways = np.stack([*upright, *lying], axis=1).reshape(len(uploads), len(TURNS), -1)
    best = (ways @ upload.reshape(len(uploads), -1, 1))[..., 0].argmax(axis=1)
    linear = TURNS[best]
    return np.concatenate([linear, 0.5 - linear.sum(axis=2, keepdims=True) / 2], axis=2)


def _cells(pictures: Floats) -> Floats:
    """Average pictures [M, side, side] over cells: [M, cells, cells]."""
    count, side, _ = pictures.shape
    cells: Floats = pictures.reshape(count, side // CELL_PX, CELL_PX, side // CELL_PX, CELL_PX).mean(axis=(2, 4))
    return cells


def _structure(pictures: Floats) -> Floats:
    """Keep the structure of pictures [M, side, side] that a search goes by."""
    fine, coarse = STRUCTURE_SIGMA_PX
    structure: Floats = blurred(pictures, fine) - blurred(pictures, coarse)
    return structure


@cache
def _shrink_matrix(side: int, small_side: int) -> Floats:
    """Make the matrix [small_side, side] that shrinks a row, each pixel the mean of those that it covers."""
    edges = np.linspace(0, side, small_side + 1)
    pixels = np.arange(side)
    covered = np.minimum(edges[1:, None], pixels + 1) - np.maximum(edges[:-1, None], pixels)
    matrix = np.maximum(covered, 0)
    shares: Floats = (matrix / matrix.sum(axis=1, keepdims=True)).astype(np.float32)
    return shares
