"""Tell whether two thumbnails agree that were laid upon each other, block by block.

Registration makes anything agree with anything as well as it can. What it cannot make agree is fine structure, and that
all over: in a copy each block agrees, or is covered by something; of two pages of one layout some lines fall upon each
other, and what is written does not. Therefore rows and columns of each block are taken to a mean of zero: lines of text
and edges of tables go, letters, words and grains stay.
"""

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from consumer.images.thumbnail import MAX_LEVEL
from consumer.verification.registration import FINE, blurred, pixel_centres, project, sample

Floats = NDArray[np.float32]

COARSE_SIGMA_PX = 2.0  # coarser structure is shared by many pictures
NOISE_LEVELS = 1.0  # differences of so few levels of grey say nothing: that is where levels are rounded
SMALL_BLOCK_PX, LARGE_BLOCK_PX = 8, 16
MIN_BLOCK_COVERAGE = 0.5  # of a block, in which both pictures have to meet for it to count
QUANTILES = (0.1, 0.25, 0.5, 0.75)


class Agreement(NamedTuple):
    """How well M uploads agree with the candidates on which they were laid, all float32 [M].

    `overlap` is the share of the upload that was compared. `fine` is the correlation, -1 to 1, of its finer structure.
    `small_blocks` and `large_blocks` [M, 1 + QUANTILES] are the mean correlation of the blocks of two sizes, and the
    quantiles over them, each block counted by how much there is to see in it. For `shared_blocks`, small ones, that is
    what is to be seen in both pictures: what covers a part of a copy is seen in one, other content in either.
    """

    overlap: Floats
    fine: Floats
    small_blocks: Floats
    large_blocks: Floats
    shared_blocks: Floats


def agreement(uploads: Floats, candidates: Floats, transforms: Floats) -> Agreement:
    """Compare thumbnails [M, side, side] under the `transforms` [M, 2, 3] that lay each upload on its candidate."""
    count, side, _ = uploads.shape
    uploads, candidates = (blurred(each, FINE.blur_sigma_px) for each in (uploads, candidates))
    places, inside = project(pixel_centres(side), transforms, side)
    projected = sample(candidates.reshape(-1, 1), places, side, np.arange(count)).reshape(uploads.shape)
    mask = inside.reshape(uploads.shape)
    a, b = (_fine_structure(each, mask) for each in (uploads, projected))
    small, upload_energy, candidate_energy = _correlate_blocks(a, b, mask, SMALL_BLOCK_PX)
    large, *large_energies = _correlate_blocks(a, b, mask, LARGE_BLOCK_PX)
    return Agreement(
        mask.mean(axis=(1, 2)),
        _correlation(a, b),
        _mean_and_quantiles(small, np.maximum(upload_energy, candidate_energy)),
        _mean_and_quantiles(large, np.maximum(*large_energies)),
        _mean_and_quantiles(small, np.minimum(upload_energy, candidate_energy)),
    )


def structure(thumbnails: Floats) -> Floats:
    """Measure how much fine structure thumbnails [M, side, side] have, in levels of grey: [M]."""
    coarse = blurred(thumbnails, COARSE_SIGMA_PX)
    mean: Floats = np.abs(thumbnails - coarse).mean(axis=(1, 2))
    return mean


def blankness(levels: NDArray[np.uint8]) -> Floats:
    """Measure which share of thumbnails uint8 [M, side, side] is of about the most usual grey, as paper is: [M]."""
    counts = np.stack([(levels == level).sum(axis=(1, 2)) for level in range(MAX_LEVEL + 1)], axis=1)
    padded = np.pad(counts, ((0, 0), (1, 1)))
    share: Floats = (counts + padded[:, :-2] + padded[:, 2:]).max(axis=1) / np.float32(levels[0].size)
    return share


def _fine_structure(pictures: Floats, mask: Floats) -> Floats:
    """Take coarse structure out of pictures [M, side, side], within the `mask`.

    Strong edges count little more than faint ones: else a ball on one lawn would agree with a ball on another.
    """
    mean = blurred(pictures * mask, COARSE_SIGMA_PX) / np.maximum(blurred(mask, COARSE_SIGMA_PX), 1e-3)
    fine = (pictures - mean) * mask
    strength = np.abs(fine)
    area = np.maximum(mask.sum(axis=(1, 2), keepdims=True), 1)
    compressed: Floats = fine / (strength + strength.sum(axis=(1, 2), keepdims=True) / area + NOISE_LEVELS)
    return compressed


def _correlation(a: Floats, b: Floats) -> Floats:
    """Correlate pictures [M, side, side] of mean zero: [M]."""
    squared_norms = np.einsum("mxy,mxy->m", a, a) * np.einsum("mxy,mxy->m", b, b)
    correlation: Floats = np.einsum("mxy,mxy->m", a, b) / np.sqrt(np.maximum(squared_norms, 1e-6))
    return correlation


def _correlate_blocks(a: Floats, b: Floats, mask: Floats, block_px: int) -> tuple[Floats, Floats, Floats]:
    """Correlate pictures block by block, and tell how much there is to see in each block of both: [M, G] each.

    The mean of each row and each column of a block, within the `mask`, is taken out of it.
    """
    weight = _blocks(mask, block_px)
    ones = np.ones((block_px, 1), np.float32)
    rows, columns = 1 / np.maximum(weight @ ones, 1), 1 / np.maximum(ones.T @ weight, 1)  # products beat sums here
    centred = []
    for picture in (a, b):
        blocks = _blocks(picture, block_px)
        blocks = (blocks - (blocks @ ones) * rows) * weight
        centred.append((blocks - (ones.T @ blocks) * columns) * weight)
    a, b = centred
    squares_a, squares_b, product = (np.einsum("mgij,mgij->mg", *each) for each in ((a, a), (b, b), (a, b)))
    correlation = product / np.sqrt(np.maximum(squares_a * squares_b, 1e-6))
    counted = (ones.T @ weight @ ones)[..., 0, 0] > MIN_BLOCK_COVERAGE * block_px**2
    return correlation, np.sqrt(squares_a) * counted, np.sqrt(squares_b) * counted


def _mean_and_quantiles(correlation: Floats, importance: Floats) -> Floats:
    """Average the correlation of blocks [M, G], each counted by its importance, and find quantiles: [M, 1 + QUANTILES].

    Both are 0 where no block counts.
    """
    total = importance.sum(axis=1, keepdims=True)
    importance = importance / np.maximum(total, 1e-6)
    order = np.argsort(correlation, axis=1, kind="stable")
    ranked = np.take_along_axis(correlation, order, 1)
    below = np.cumsum(np.take_along_axis(importance, order, 1), axis=1)
    parts = [np.einsum("mg,mg->m", correlation, importance)]
    for quantile in QUANTILES:
        place = np.minimum((below < quantile).sum(axis=1, keepdims=True), ranked.shape[1] - 1)
        parts.append(np.take_along_axis(ranked, place, 1)[:, 0])
    found: Floats = np.stack(parts, axis=1) * (total > 0)
    return found


def _blocks(pictures: Floats, block_px: int) -> Floats:
    """Cut pictures [M, side, side] into G blocks: [M, G, block_px, block_px]."""
    count, side, _ = pictures.shape
    number = side // block_px
    cut = pictures.reshape(count, number, block_px, number, block_px).transpose(0, 1, 3, 2, 4)
    return cut.reshape(count, number**2, block_px, block_px)
