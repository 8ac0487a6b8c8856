"""Two pictures laid upon each other: do their pixels agree where the features say that they show the same?

Features tell roughly how one picture lies upon the other. From there the method of Lucas and Kanade (An iterative image
registration technique with an application to stereo vision, 1981) moves the upload's thumbnail over the candidate's
until they differ least, whatever the brightness and contrast of either, as in ECC (Evangelidis and Psarakis, Parametric
image alignment using enhanced correlation coefficient maximization, 2008). A copy with noise, a frame or other colours
then agrees nearly everywhere; two things that are built alike do not.
"""

from functools import cache
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from consumer.verification.consensus import areas, signed_areas

Floats = NDArray[np.float32]

MAX_ITERATIONS = 3
SAMPLE_STEP_PX = 2  # pixel of a thumbnail, along and across, takes part in the steps
MAX_STEP = 0.06  # of the picture's side, at a time
DAMPING = 0.02  # of a step, as a share of the mean curvature
BLUR_SIGMA_PX = 0.7  # pixels of a thumbnail: what is finer moves with every resampling
COARSE_SIGMA_PX = 2.0  # pixels: what is coarser is shared by many pictures
NOISE_LEVELS = 0.3  # levels of a thumbnail: so much of a difference says nothing
EDGE_PX = 1.0  # pixels of the upload about the candidate's edge, in which it is blurred with what lies around it
MIN_OVERLAP = 0.03  # of the upload, that has to lie within the candidate for both to be compared
MAX_AREA_CHANGE = 2.0  # of the area that the upload covers: the features know it better than that


class Registration(NamedTuple):
    """How M uploads lie upon their candidates.

    `transforms` float32 [M, 2, 3] as in `result.Look`, refined; `correlation` [M], -1 to 1, of what both show
    where they meet; `contained` [M], 0 to 1, which share of the smaller one lies within the other.
    """

    transforms: Floats
    correlation: Floats
    contained: Floats


def register(uploads: Floats, candidates: Floats, transforms: Floats) -> Registration:
    """Lay thumbnails [M, side, side] upon each other, from the `transforms` [M, 2, 3] that features gave."""
    count, side, _ = uploads.shape
    shown, there = _blurred(uploads, BLUR_SIGMA_PX), _blurred(candidates, BLUR_SIGMA_PX)
    down, across = np.gradient(there, 1 / side, axis=(1, 2))
    field = np.stack([there, across, down], axis=-1, dtype=np.float32).reshape(-1, 3)
    centres = _centres(side, SAMPLE_STEP_PX)
    ours: Floats = shown[:, ::SAMPLE_STEP_PX, ::SAMPLE_STEP_PX].reshape(count, -1)
    first = signed_areas(transforms)
    area = np.abs(first)
    start = best = transforms
    highest = np.full(count, -1.0, np.float32)
    for step in range(MAX_ITERATIONS + 1):
        places, inside = _laid(centres, start, side)
        met = inside.sum(axis=1)
        enough = np.maximum(met, MIN_OVERLAP * len(centres))
        values = _sampled(field, places, side)
        upload, _ = _normalised(ours, inside, enough)
        candidate, contrast = _normalised(values[..., 0], inside, enough)
        agreement = np.einsum("mk,mk->m", upload, candidate) / enough
        now = signed_areas(start) * np.sign(first)
        better = (
            (agreement > highest) & (met == enough) & (now > area / MAX_AREA_CHANGE) & (now < area * MAX_AREA_CHANGE)
        )
        highest, best = np.where(better, agreement, highest), np.where(better[:, None, None], start, best)
        if step < MAX_ITERATIONS:
            slopes = values[..., 1:] * (inside / contrast[:, None])[..., None]
            start = start + _step(centres, slopes, upload - candidate, inside, enough)
    places, inside = _laid(_centres(side), best, side)
    correlation = _agreement(shown, there, places, inside) * (inside.mean(axis=1) >= MIN_OVERLAP)
    contained = _within(places).mean(axis=1, dtype=np.float32) * np.maximum(1, areas(best))
    return Registration(best, correlation, np.minimum(contained, 1))


def _blurred(pictures: Floats, sigma: float) -> Floats:
    blur = _blur(pictures.shape[1], sigma)
    blurred: Floats = np.matmul(np.matmul(blur, pictures), blur.T)
    return blurred


@cache
def _blur(side: int, sigma: float) -> Floats:
    """The matrix [side, side] that blurs a row by a Gaussian, whose ends go on beyond the edges."""
    reach = int(np.ceil(2.5 * sigma))
    weights = np.exp(-(np.arange(-reach, reach + 1) ** 2) / (2 * sigma**2))
    matrix = np.zeros((side, side), np.float32)
    for offset, weight in zip(range(-reach, reach + 1), weights / weights.sum(), strict=True):
        np.add.at(matrix, (np.arange(side), np.clip(np.arange(side) + offset, 0, side - 1)), weight)
    return matrix


@cache
def _centres(side: int, every: int = 1) -> Floats:
    """Places (x, y, 1) of a thumbnail's pixels, [K, 3]."""
    x, y = np.meshgrid(*[(np.arange(0, side, every, dtype=np.float32) + 0.5) / side] * 2)
    return np.stack([x, y, np.ones_like(x)], axis=-1).reshape(-1, 3)


def _laid(centres: Floats, transforms: Floats, side: int) -> tuple[Floats, Floats]:
    """Where the upload's pixels come to lie, [M, K, 2], and 1 for those well within the candidate, else 0, [M, K]."""
    places: Floats = np.matmul(centres, transforms.transpose(0, 2, 1))
    edge: Floats = np.sqrt(areas(transforms)) * np.float32(EDGE_PX / side)
    return places, _within(places, edge[:, None]).astype(np.float32)


def _within(places: Floats, edge: Floats | float = 0.0) -> NDArray[np.bool_]:
    """Which places [M, K, 2] are in the unit square, and not within `edge` of its sides: [M, K]."""
    x, y = places[..., 0], places[..., 1]
    within: NDArray[np.bool_] = (np.minimum(x, y) > edge) & (np.maximum(x, y) < 1 - edge)
    return within


def _sampled(field: Floats, places: Floats, side: int) -> Floats:
    """Values [M, K, V] at places [M, K, 2] of pictures, [M * side * side, V], between their pixels."""
    pixels = np.clip(places * side - 0.5, 0, side - 1.001)
    corner = pixels.astype(np.int32)
    part = pixels - corner.astype(np.float32)
    x, y = part[..., :1], part[..., 1:]
    first = corner[..., 1] * side + corner[..., 0] + np.arange(len(places), dtype=np.int32)[:, None] * side**2
    above, right, below, diagonal = (field.take(first + step, axis=0) for step in (0, 1, side, side + 1))
    above += (right - above) * x
    below += (diagonal - below) * x
    above += (below - above) * y
    sampled: Floats = above
    return sampled


def _normalised(values: Floats, inside: Floats, count: Floats) -> tuple[Floats, Floats]:
    """Values [M, K] less their mean, by their deviation [M], where they are inside; else 0."""
    centred: Floats = (values - (np.einsum("mk,mk->m", values, inside) / count)[:, None]) * inside
    variance: Floats = np.einsum("mk,mk->m", centred, centred) / count
    deviation: Floats = np.sqrt(np.maximum(variance, 1e-6))
    normalised: Floats = centred / deviation[:, None]
    return normalised, deviation


def _step(centres: Floats, slopes: Floats, error: Floats, inside: Floats, count: Floats) -> Floats:
    """The change of the transformation [M, 2, 3] that takes away most of the `error` [M, K]: Gauss and Newton's."""
    by = (slopes[..., None] * centres[:, None]).reshape(*slopes.shape[:2], 6)
    by -= (by.sum(axis=1) / count[:, None])[:, None] * inside[..., None]  # brightness is free
    curvature = by.transpose(0, 2, 1) @ by
    damping = DAMPING * np.trace(curvature, axis1=1, axis2=2) / 6 + 1e-3
    curvature += np.eye(6, dtype=np.float32) * damping[:, None, None]
    change: Floats = np.linalg.solve(curvature, by.transpose(0, 2, 1) @ error[..., None])
    return np.clip(change.reshape(-1, 2, 3), -MAX_STEP, MAX_STEP)


def _agreement(shown: Floats, there: Floats, places: Floats, inside: Floats) -> Floats:
    """Correlation [M] of the finer structure, in which strong edges count little more than faint ones.

    Else a ball on one lawn would agree with a ball on another.
    """
    side = shown.shape[1]
    mask = inside.reshape(-1, side, side)
    laid = _sampled(there.reshape(-1, 1), places, side).reshape(-1, side, side)
    weight = np.maximum(_blurred(mask, COARSE_SIGMA_PX), 1e-3)
    fine = [(each - _blurred(each * mask, COARSE_SIGMA_PX) / weight) * mask for each in (shown, laid)]
    area = np.maximum(mask.sum(axis=(1, 2), keepdims=True), 1)
    a, b = (each / (np.abs(each) + np.abs(each).sum(axis=(1, 2), keepdims=True) / area + NOISE_LEVELS) for each in fine)
    lengths = np.einsum("mxy,mxy->m", a, a) * np.einsum("mxy,mxy->m", b, b)
    agreement: Floats = np.einsum("mxy,mxy->m", a, b) / np.sqrt(np.maximum(lengths, 1e-6))
    return agreement
