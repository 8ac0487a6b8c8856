"""Register two thumbnails: lay one on the other so that their pixels agree as well as they can.

Local features tell roughly how one picture lies upon the other, and so does the guess that nothing was moved. From
there the method of Lucas and Kanade (An iterative image registration technique with an application to stereo vision,
1981) moves the upload's thumbnail over the candidate's until they differ least, whatever the brightness and contrast
of either, as in ECC (Evangelidis and Psarakis, Parametric image alignment using enhanced correlation coefficient
maximization, 2008): first of blurred thumbnails, from several starts, then of sharp ones, from the best. Pixels that
differ much count little (Geman and McClure, Bayesian image analysis, 1985): what is written upon a copy or covers a
part of it would drag the rest along.
"""

from functools import cache
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from consumer.verification.consensus import areas, signed_areas

Floats = NDArray[np.float32]

SAME_START = 1e-3  # of two starts that differ by no more, in picture's sides, one is enough
MAX_STEP = 0.06  # of each parameter of the transformation in one iteration, in picture's sides
DAMPING = 0.02  # of an iteration's step, as a share of the mean curvature
# Width, in the upload's pixels, of the candidate's edge, where the upload is blurred with its surroundings.
EDGE_PX = 2.0
MIN_OVERLAP = 0.03  # of the upload, that has to lie within the candidate for both to be compared
MIN_WEIGHT = 1e-3  # of all pixels that meet, by which sums are divided
MAX_AREA_CHANGE = 2.0  # of the area that the upload covers: features know it better than that


class _Stage(NamedTuple):
    """How thumbnails are compared in a stage: blurred by so much, at every so many pixels, in so many iterations.

    Pixels that differ by `outlier`, in standard deviations of the picture, weigh half of those that agree.
    """

    blur_sigma_px: float
    sample_step_px: int
    iterations: int
    outlier: float


COARSE, FINE = _Stage(1.6, 4, 3, 0.5), _Stage(0.7, 2, 2, 0.4)


class Registration(NamedTuple):
    """How M uploads lie upon their candidates, and how well.

    `transforms` float32 [M, 2, 3] take places (x, y, 1) in the upload's thumbnail to the candidate's. `correlation`
    [M], -1 to 1, is that of the pixels where both meet, and `contained` [M], 0 to 1, the share of the smaller picture
    that lies within the other.
    """

    transforms: Floats
    correlation: Floats
    contained: Floats


def register(uploads: Floats, candidates: Floats, starts: Floats) -> Registration:
    """Register thumbnails [M, side, side] from `starts` [M, H, 2, 3], transformations to begin with."""
    side = uploads.shape[1]
    pair, number = np.nonzero(_distinct(starts))
    coarse, agreeing, _ = _align(
        blurred(uploads, COARSE.blur_sigma_px),
        blurred(candidates, COARSE.blur_sigma_px),
        pair,
        starts[pair, number],
        COARSE,
    )
    merit = np.full(starts.shape[:2], -np.inf, np.float32)
    merit[pair, number] = agreeing * _contained(coarse, side)
    aligned = starts.copy()
    aligned[pair, number] = coarse
    m = np.arange(len(starts))
    transforms, _, correlation = _align(
        blurred(uploads, FINE.blur_sigma_px),
        blurred(candidates, FINE.blur_sigma_px),
        m,
        aligned[m, merit.argmax(axis=1)],
        FINE,
    )
    return Registration(transforms, correlation, _contained(transforms, side))


def _distinct(starts: Floats) -> NDArray[np.bool_]:
    """Tell which of `starts` [M, H, 2, 3] are no repetitions of one before: [M, H]."""
    distinct = np.ones(starts.shape[:2], np.bool_)
    for number in range(1, starts.shape[1]):
        difference = np.abs(starts[:, :number] - starts[:, number : number + 1]).max(axis=(2, 3))
        distinct[:, number] = difference.min(axis=1) > SAME_START
    return distinct


def _align(
    uploads: Floats,
    candidates: Floats,
    pairs: NDArray[np.intp],
    starts: Floats,
    stage: _Stage,
) -> tuple[Floats, Floats, Floats]:
    """Move the pictures `pairs` [L] of M uploads over their candidates, [M, side, side], from `starts` [L, 2, 3].

    Returns the transformations under which most pixels agree, how many do [L], as a share of those that meet, and the
    correlation [L] of all that meet; -1 both where the pictures do not meet.
    """
    side = uploads.shape[1]
    down, across = np.gradient(candidates, 1 / side, axis=(1, 2))
    field = np.stack([candidates, across, down], axis=-1, dtype=np.float32).reshape(-1, 3)
    centres = pixel_centres(side, stage.sample_step_px)
    samples = uploads[:, :: stage.sample_step_px, :: stage.sample_step_px].reshape(len(uploads), -1)[pairs]
    first_area = signed_areas(starts)
    area = np.abs(first_area)
    current = best = starts
    most, correlation = np.full((2, len(starts)), -1.0, np.float32)
    for iteration in range(stage.iterations + 1):
        places, inside = project(centres, current, side)
        overlap = np.einsum("mk->m", inside)
        pixel_count = np.maximum(overlap, MIN_OVERLAP * len(centres))
        values = sample(field, places, side, pairs)
        upload, _ = _normalise(samples, inside, inside)
        candidate, _ = _normalise(values[..., 0], inside, inside)
        product = np.einsum("mk,mk->m", upload, candidate) / pixel_count
        weights = _weights(upload - candidate, inside, stage)
        # Once more by what agrees: a sticker changes the mean and the contrast of all.
        upload, _ = _normalise(samples, inside, weights)
        candidate, contrast = _normalise(values[..., 0], inside, weights)
        error = upload - candidate
        weights = _weights(error, inside, stage)
        agreeing = np.einsum("mk->m", weights) / pixel_count
        current_area = signed_areas(current) * np.sign(first_area)  # negative where it has changed sides
        better = (
            (agreeing > most)
            & (overlap == pixel_count)
            & (current_area > area / MAX_AREA_CHANGE)
            & (current_area < area * MAX_AREA_CHANGE)
        )
        most, correlation = np.where(better, agreeing, most), np.where(better, product, correlation)
        best = np.where(better[:, None, None], current, best)
        if iteration < stage.iterations:
            slopes = values[..., 1:].transpose(0, 2, 1) / contrast[:, None, None]
            current = current + _gauss_newton_step(centres, slopes, error, weights)
    return best, most, correlation


def _weights(error: Floats, inside: Floats, stage: _Stage) -> Floats:
    """Weigh pixels [M, K] that are `inside` by how well they agree, as Geman and McClure do: 1 to nearly 0."""
    scaled = error / np.float32(stage.outlier)
    weights: Floats = inside / (1 + scaled * scaled)
    return weights


def blurred(thumbnails: Floats, sigma_px: float) -> Floats:
    """Blur thumbnails [M, side, side] by a Gaussian."""
    blur = _blur_matrix(thumbnails.shape[1], sigma_px)
    result: Floats = np.matmul(np.matmul(blur, thumbnails), blur.T)
    return result


@cache
def _blur_matrix(side: int, sigma_px: float) -> Floats:
    """Make the matrix [side, side] that blurs a row by a Gaussian, as if the pixels at its ends went on for ever."""
    reach = int(np.ceil(2.5 * sigma_px))
    weights = np.exp(-(np.arange(-reach, reach + 1) ** 2) / (2 * sigma_px**2))
    matrix = np.zeros((side, side), np.float32)
    for offset, weight in zip(range(-reach, reach + 1), weights / weights.sum(), strict=True):
        np.add.at(matrix, (np.arange(side), np.clip(np.arange(side) + offset, 0, side - 1)), weight)
    return matrix


@cache
def pixel_centres(side: int, step: int = 1) -> Floats:
    """List the places (x, y, 1) of every `step`th pixel of a thumbnail: [K, 3]."""
    x, y = np.meshgrid(*[(np.arange(0, side, step, dtype=np.float32) + 0.5) / side] * 2)
    return np.stack([x, y, np.ones_like(x)], axis=-1).reshape(-1, 3)


def project(centres: Floats, transforms: Floats, side: int) -> tuple[Floats, Floats]:
    """Project the upload's pixels [K, 3] into the candidate: their places [M, K, 2] and a mask [M, K].

    The mask is 1 for pixels well within the candidate, else 0.
    """
    places: Floats = np.matmul(centres, transforms.transpose(0, 2, 1))
    edge: Floats = np.sqrt(areas(transforms)) * np.float32(EDGE_PX / side)
    return places, _in_unit_square(places, edge[:, None]).astype(np.float32)


def _in_unit_square(places: Floats, edge: Floats | float = 0.0) -> NDArray[np.bool_]:
    """Tell which places [M, K, 2] are in the unit square and at least `edge` away from its sides: [M, K]."""
    x, y = places[..., 0], places[..., 1]
    inside: NDArray[np.bool_] = (np.minimum(x, y) > edge) & (np.maximum(x, y) < 1 - edge)
    return inside


def _contained(transforms: Floats, side: int) -> Floats:
    """Compute the share of the smaller of two pictures that lies within the other: [M]."""
    places: Floats = np.matmul(pixel_centres(side, COARSE.sample_step_px), transforms.transpose(0, 2, 1))
    within: Floats = _in_unit_square(places).mean(axis=1, dtype=np.float32)
    return np.minimum(within * np.maximum(1, areas(transforms)), 1)


def sample(field: Floats, places: Floats, side: int, pictures: NDArray[np.intp]) -> Floats:
    """Sample V values of pictures, `field` [M * side * side, V], at `places` [L, K, 2], bilinearly: [L, K, V].

    `pictures` [L] tells which of the M pictures is sampled.
    """
    pixels = np.clip(places * side - 0.5, 0, side - 1.001)
    corner = pixels.astype(np.int32)
    fraction = pixels - corner.astype(np.float32)
    x, y = fraction[..., :1], fraction[..., 1:]
    first = corner[..., 1] * side + corner[..., 0] + pictures.astype(np.int32)[:, None] * side**2
    above, right, below, diagonal = (field.take(first + step, axis=0) for step in (0, 1, side, side + 1))
    above += (right - above) * x
    below += (diagonal - below) * x
    above += (below - above) * y
    sampled: Floats = above
    return sampled


def _normalise(values: Floats, inside: Floats, weights: Floats) -> tuple[Floats, Floats]:
    """Normalise values [M, K] to mean 0 and deviation 1 by their `weights` [M, K]; 0 where they are not `inside`.

    Returns the deviations [M] as well.
    """
    total = np.maximum(np.einsum("mk->m", weights), MIN_WEIGHT)
    centred: Floats = (values - (np.einsum("mk,mk->m", values, weights) / total)[:, None]) * inside
    variance: Floats = np.einsum("mk,mk,mk->m", centred, centred, weights) / total
    deviation: Floats = np.sqrt(np.maximum(variance, 1e-6))
    normalised: Floats = centred / deviation[:, None]
    return normalised, deviation


def _gauss_newton_step(centres: Floats, slopes: Floats, error: Floats, weights: Floats) -> Floats:
    """Compute the change of the transformations [M, 2, 3] that reduces the `error` [M, K], by `weights` [M, K], most.

    `slopes` [M, 2, K] are the candidate's gradients at the projected pixels. The six derivatives of a pixel are the
    products of its two slopes and its three coordinates, so that their sums are products with what all pairs share.
    """
    weighted = slopes * weights[:, None]
    total = np.maximum(np.einsum("mk->m", weights), MIN_WEIGHT)
    mean = (weighted @ centres).reshape(-1, 6)
    x, y = weighted[:, 0], weighted[:, 1]
    squares = np.stack([x * slopes[:, 0], x * slopes[:, 1], y * slopes[:, 1]], axis=1) @ _coordinate_products(centres)
    curvature = squares[:, [[0, 1], [1, 2]]].reshape(-1, 2, 2, 3, 3).transpose(0, 1, 3, 2, 4).reshape(-1, 6, 6)
    curvature = curvature - mean[:, :, None] * (mean / total[:, None])[:, None]  # brightness is free
    damping = DAMPING * np.trace(curvature, axis1=1, axis2=2) / 6 + 1e-3
    curvature += np.eye(6, dtype=np.float32) * damping[:, None, None]
    mean_error = np.einsum("mk,mk->m", error, weights) / total
    slope = ((weighted * error[:, None]) @ centres).reshape(-1, 6) - mean * mean_error[:, None]
    change: Floats = np.linalg.solve(curvature, slope[..., None])
    return np.clip(change.reshape(-1, 2, 3), -MAX_STEP, MAX_STEP)


def _coordinate_products(centres: Floats) -> Floats:
    """Multiply the three coordinates of places [K, 3] with each other: [K, 9]."""
    products: Floats = (centres[:, :, None] * centres[:, None]).reshape(-1, 9)
    return products
