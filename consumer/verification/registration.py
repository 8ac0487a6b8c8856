"""Register two thumbnails: lay one on the other, and tell whether their pixels agree.

Local features tell roughly how one picture lies upon the other. From there the method of Lucas and Kanade (An iterative
image registration technique with an application to stereo vision, 1981) moves the upload's thumbnail over the
candidate's until they differ least, whatever the brightness and contrast of either, as in ECC (Evangelidis and
Psarakis, Parametric image alignment using enhanced correlation coefficient maximization, 2008). A copy with noise, a
frame or other colours then agrees nearly everywhere; two different things of similar build do not.
"""

from functools import cache
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from consumer.verification.consensus import areas, signed_areas

Floats = NDArray[np.float32]

MAX_ITERATIONS = 3
SAMPLE_STEP_PX = 2  # every second pixel, along and across, takes part in the iterations
MAX_STEP = 0.06  # of each parameter of the transformation in one iteration, in picture's sides
DAMPING = 0.02  # of an iteration's step, as a share of the mean curvature
BLUR_SIGMA_PX = 0.7  # finer structure moves with every resampling
COARSE_SIGMA_PX = 2.0  # coarser structure is shared by many pictures
NOISE_LEVELS = 0.3  # differences of so few levels of grey say nothing
EDGE_PX = (
    1.0  # width, in the upload's pixels, of the candidate's edge, where the upload is blurred with its surroundings
)
MIN_OVERLAP = 0.03  # of the upload, that has to lie within the candidate for both to be compared
MAX_AREA_CHANGE = 2.0  # of the area that the upload covers: features know it better than that


class Registration(NamedTuple):
    """Tells how M uploads lie upon their candidates.

    `transforms` float32 [M, 2, 3] are refined, in the form of `Verification.transform`. `correlation` [M], -1 to 1, is
    that of the pixels where both meet. `contained` [M], 0 to 1, is the share of the smaller picture that lies within
    the other.
    """

    transforms: Floats
    correlation: Floats
    contained: Floats


def register(uploads: Floats, candidates: Floats, transforms: Floats) -> Registration:
    """Register thumbnails [M, side, side], starting from the `transforms` [M, 2, 3] that local features gave."""
    count, side, _ = uploads.shape
    uploads, candidates = _blurred(uploads, BLUR_SIGMA_PX), _blurred(candidates, BLUR_SIGMA_PX)
    down, across = np.gradient(candidates, 1 / side, axis=(1, 2))
    field = np.stack([candidates, across, down], axis=-1, dtype=np.float32).reshape(-1, 3)
    centres = _pixel_centres(side, SAMPLE_STEP_PX)
    samples: Floats = uploads[:, ::SAMPLE_STEP_PX, ::SAMPLE_STEP_PX].reshape(count, -1)
    first_area = signed_areas(transforms)
    area = np.abs(first_area)
    current = best = transforms
    highest = np.full(count, -1.0, np.float32)
    for iteration in range(MAX_ITERATIONS + 1):
        places, inside = _project(centres, current, side)
        overlap = inside.sum(axis=1)
        pixel_count = np.maximum(overlap, MIN_OVERLAP * len(centres))
        values = _sample(field, places, side)
        upload, _ = _normalise(samples, inside, pixel_count)
        candidate, contrast = _normalise(values[..., 0], inside, pixel_count)
        correlation = np.einsum("mk,mk->m", upload, candidate) / pixel_count
        current_area = signed_areas(current) * np.sign(first_area)  # negative where it has changed sides
        better = (
            (correlation > highest)
            & (overlap == pixel_count)
            & (current_area > area / MAX_AREA_CHANGE)
            & (current_area < area * MAX_AREA_CHANGE)
        )
        highest, best = np.where(better, correlation, highest), np.where(better[:, None, None], current, best)
        if iteration < MAX_ITERATIONS:
            slopes = values[..., 1:] * (inside / contrast[:, None])[..., None]
            current = current + _gauss_newton_step(centres, slopes, upload - candidate, inside, pixel_count)
    places, inside = _project(_pixel_centres(side), best, side)
    fine_correlation = _fine_correlation(uploads, candidates, places, inside) * (inside.mean(axis=1) >= MIN_OVERLAP)
    contained = _in_unit_square(places).mean(axis=1, dtype=np.float32) * np.maximum(1, areas(best))
    return Registration(best, fine_correlation, np.minimum(contained, 1))


def _blurred(thumbnails: Floats, sigma_px: float) -> Floats:
    """Blur thumbnails [M, side, side] by a Gaussian."""
    blur = _blur_matrix(thumbnails.shape[1], sigma_px)
    blurred: Floats = np.matmul(np.matmul(blur, thumbnails), blur.T)
    return blurred


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
def _pixel_centres(side: int, step: int = 1) -> Floats:
    """List the places (x, y, 1) of every `step`th pixel of a thumbnail: [K, 3]."""
    x, y = np.meshgrid(*[(np.arange(0, side, step, dtype=np.float32) + 0.5) / side] * 2)
    return np.stack([x, y, np.ones_like(x)], axis=-1).reshape(-1, 3)


def _project(centres: Floats, transforms: Floats, side: int) -> tuple[Floats, Floats]:
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


def _sample(field: Floats, places: Floats, side: int) -> Floats:
    """Sample V values of M pictures, `field` [M * side * side, V], at `places` [M, K, 2], bilinearly: [M, K, V]."""
    pixels = np.clip(places * side - 0.5, 0, side - 1.001)
    corner = pixels.astype(np.int32)
    fraction = pixels - corner.astype(np.float32)
    x, y = fraction[..., :1], fraction[..., 1:]
    first = corner[..., 1] * side + corner[..., 0] + np.arange(len(places), dtype=np.int32)[:, None] * side**2
    above, right, below, diagonal = (field.take(first + step, axis=0) for step in (0, 1, side, side + 1))
    above += (right - above) * x
    below += (diagonal - below) * x
    above += (below - above) * y
    sampled: Floats = above
    return sampled


def _normalise(values: Floats, inside: Floats, count: Floats) -> tuple[Floats, Floats]:
    """Normalise values [M, K] to mean 0 and deviation 1 over the `count` [M] that are `inside` [M, K]; 0 elsewhere.

    Returns the deviations [M] as well.
    """
    centred: Floats = (values - (np.einsum("mk,mk->m", values, inside) / count)[:, None]) * inside
    variance: Floats = np.einsum("mk,mk->m", centred, centred) / count
    deviation: Floats = np.sqrt(np.maximum(variance, 1e-6))
    normalised: Floats = centred / deviation[:, None]
    return normalised, deviation


def _gauss_newton_step(centres: Floats, slopes: Floats, error: Floats, inside: Floats, count: Floats) -> Floats:
    """Compute the change of the transformations [M, 2, 3] that reduces the `error` [M, K] most.

    `slopes` [M, K, 2] are the candidate's gradients at the projected pixels.
    """
    jacobian = (slopes[..., None] * centres[:, None]).reshape(*slopes.shape[:2], 6)
    jacobian -= (jacobian.sum(axis=1) / count[:, None])[:, None] * inside[..., None]  # brightness is free
    curvature = jacobian.transpose(0, 2, 1) @ jacobian
    damping = DAMPING * np.trace(curvature, axis1=1, axis2=2) / 6 + 1e-3
    curvature += np.eye(6, dtype=np.float32) * damping[:, None, None]
    change: Floats = np.linalg.solve(curvature, jacobian.transpose(0, 2, 1) @ error[..., None])
    return np.clip(change.reshape(-1, 2, 3), -MAX_STEP, MAX_STEP)


def _fine_correlation(uploads: Floats, candidates: Floats, places: Floats, inside: Floats) -> Floats:
    """Correlate the finer structure of registered thumbnails, `inside` [M, K]: [M].

    Strong edges count little more than faint ones: else a ball on one lawn would agree with a ball on another.
    """
    side = uploads.shape[1]
    mask = inside.reshape(-1, side, side)
    projected = _sample(candidates.reshape(-1, 1), places, side).reshape(-1, side, side)
    weight = np.maximum(_blurred(mask, COARSE_SIGMA_PX), 1e-3)
    fine = [(each - _blurred(each * mask, COARSE_SIGMA_PX) / weight) * mask for each in (uploads, projected)]
    area = np.maximum(mask.sum(axis=(1, 2), keepdims=True), 1)
    a, b = (each / (np.abs(each) + np.abs(each).sum(axis=(1, 2), keepdims=True) / area + NOISE_LEVELS) for each in fine)
    squared_norms = np.einsum("mxy,mxy->m", a, a) * np.einsum("mxy,mxy->m", b, b)
    correlation: Floats = np.einsum("mxy,mxy->m", a, b) / np.sqrt(np.maximum(squared_norms, 1e-6))
    return correlation
