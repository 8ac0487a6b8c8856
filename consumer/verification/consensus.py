"""Find the affine transformation that most matched keypoints of two pictures agree on.

Every two of the best matches propose some transformations, as in RANSAC (Fischler and Bolles, Random sample consensus,
1981) but without chance, so that a repeat gives the same answer: a similarity, a mirrored similarity, and a stretch
along the axes with and without a quarter turn. The proposal with most votes is fitted to its inliers by least squares.
"""

from dataclasses import dataclass
from functools import cache

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float32]
Bools = NDArray[np.bool_]
Indexes = NDArray[np.intp]

MAX_PROPOSERS = 14  # matches of which every two make proposals
MAX_STRENGTH = 2**15 - 1  # strength, as a whole number, of a proposal by two matches of weight one
MAX_PROPOSALS = 96  # plausible proposals that are voted on, the strongest first
# Lengths are fractions of a picture's side. Keypoints stand on a grid, a tenth apart: half of that is no error.
INLIER_TOLERANCE = 0.075  # distance of an inlier from its target, at a scale of one to one
FINE_TOLERANCE = 0.05  # the same for the matches that the last fit rests on
# Features closer than this see much the same, and two matches closer than this make no good proposal.
FEATURE_RADIUS = 0.15
MIN_AREA, MAX_AREA = 0.04, 12.0  # area that the upload covers in the candidate, in whole pictures
MAX_STRETCH = 3.5  # along one axis over the other; squaring pictures of another aspect stretches too
REGULARISATION = 0.02  # pull of the fit towards the proposal, in matches


@dataclass(frozen=True, slots=True)
class Correspondences:
    """V matches of keypoints for each of M pairs of pictures, the best first.

    They lead from `source` [M, V, 2] in the upload to `target` [M, V, 2] in the candidate, with votes of `weight`
    [M, V].
    """

    source: Floats
    target: Floats
    weight: Floats


def find_consensus(matches: Correspondences) -> tuple[Floats, Bools]:
    """Find the transformation [M, 2, 3] with most votes and the mask [M, V] of its inliers.

    It takes places (x, y, 1) in the upload to places in the candidate.
    """
    return _fit(matches, *_propose(matches))


def areas(transforms: Floats) -> Floats:
    """Compute the area [M] that each upload covers in its candidate's plane by `transforms` [M, 2, 3], in pictures."""
    return np.abs(signed_areas(transforms))


def signed_areas(transforms: Floats) -> Floats:
    """Compute the covered areas [M] of `transforms` [M, 2, 3], negative for those that mirror."""
    covered: Floats = transforms[:, 0, 0] * transforms[:, 1, 1] - transforms[:, 0, 1] * transforms[:, 1, 0]
    return covered


def _propose(matches: Correspondences) -> tuple[Floats, Bools]:
    """Find the proposal [M, 2, 3] with most votes and the mask [M, V] of its inliers."""
    count, proposers = len(matches.weight), min(MAX_PROPOSERS, matches.weight.shape[1])
    first, second = _index_pairs(proposers)
    coordinates = [points[..., axis] for points in (matches.source, matches.target) for axis in (0, 1)]
    x, y, u, v = (values[:, second] - values[:, first] for values in coordinates)
    square: Floats = np.maximum(x * x + y * y, 1e-6)
    a, b, c, d = _linear_parts(x, y, u, v, square)
    area = np.abs(a * d - b * c)
    largest = np.maximum(np.maximum(np.abs(a), np.abs(b)), np.maximum(np.abs(c), np.abs(d)))
    long_enough, oblique = square > FEATURE_RADIUS**2, np.minimum(np.abs(x), np.abs(y)) > FEATURE_RADIUS * 0.8
    plausible = np.stack([long_enough, long_enough, oblique, oblique], axis=1)
    plausible &= (area > MIN_AREA) & (area < MAX_AREA) & (largest * largest < MAX_STRETCH * area)
    strength = plausible * (matches.weight[:, first] * matches.weight[:, second])[:, None]
    # In whole numbers, which are sorted fast and in one order on every processor.
    ranked = (strength.reshape(count, -1) * -MAX_STRENGTH).astype(np.int16).argsort(axis=1, kind="stable")
    m, (kind, pair) = np.arange(count), np.divmod(ranked[:, :MAX_PROPOSALS], len(first))
    a, b, c, d, area, strength = (values[m[:, None], kind, pair] for values in (a, b, c, d, area, strength))
    middle_x, middle_y, middle_u, middle_v = (
        (values[m[:, None], second[pair]] + values[m[:, None], first[pair]]) / 2 for values in coordinates
    )
    x_rows = np.stack([a, b, middle_u - a * middle_x - b * middle_y], axis=1)
    y_rows = np.stack([c, d, middle_v - c * middle_x - d * middle_y], axis=1)
    agree: Bools = _squared_residuals(x_rows, y_rows, matches) < squared_tolerance(INLIER_TOLERANCE, area)[:, None]
    votes = np.einsum("mvh,mv->mh", agree, matches.weight) * (strength > 0)
    best = votes.argmax(axis=1)
    transforms = np.stack([x_rows[m, :, best], y_rows[m, :, best]], axis=1)
    return transforms, agree[m, :, best] & (matches.weight > 0) & (strength[m, best] > 0)[:, None]


def _linear_parts(x: Floats, y: Floats, u: Floats, v: Floats, square: Floats) -> tuple[Floats, Floats, Floats, Floats]:
    """Compute four kinds of proposals from each of H pairs of matches: a, b, c, d, each [M, 4, H].

    (x, y) is the step from one match to the other in the upload, of squared length `square`, and (u, v) the step in the
    candidate, each [M, H]. Places (x, y) go to (a x + b y + e, c x + d y + f). As complex numbers, a similarity is
    (u, v) divided by (x, y), and a mirrored one (u, v) divided by the conjugate of (x, y).
    """
    safe_x, safe_y = np.where(np.abs(x) < 1e-3, 1e-3, x), np.where(np.abs(y) < 1e-3, 1e-3, y)
    a, b, c, d = np.zeros((4, len(x), 4, x.shape[1]), np.float32)
    a[:, 0], c[:, 0] = (x * u + y * v) / square, (x * v - y * u) / square
    b[:, 0], d[:, 0] = -c[:, 0], a[:, 0]
    a[:, 1], c[:, 1] = (x * u - y * v) / square, (x * v + y * u) / square
    b[:, 1], d[:, 1] = c[:, 1], -a[:, 1]
    a[:, 2], d[:, 2] = u / safe_x, v / safe_y
    b[:, 3], c[:, 3] = u / safe_y, v / safe_x
    return a, b, c, d


@cache
def _index_pairs(count: int) -> tuple[Indexes, Indexes]:
    """List all pairs of `count` indexes, as the first ones and the second ones."""
    return np.triu_indices(count, 1)


def _squared_residuals(x_rows: Floats, y_rows: Floats, matches: Correspondences) -> Floats:
    """Compute by how much H transformations miss the targets of V matches, squared: [M, V, H].

    `x_rows` and `y_rows` [M, 3, H] are the transformations' rows.
    """
    source = np.concatenate([matches.source, np.ones_like(matches.source[..., :1])], axis=-1)
    x: Floats = source @ x_rows
    x -= matches.target[..., :1]
    x *= x
    y = source @ y_rows
    y -= matches.target[..., 1:]
    y *= y
    x += y
    return x


def _fit(matches: Correspondences, transforms: Floats, inliers: Bools) -> tuple[Floats, Bools]:
    """Fit `transforms` [M, 2, 3] to their inliers [M, V] by least squares, close to the proposal where these are few.

    Returns the fitted transformations and their inliers.
    """
    source = np.concatenate([matches.source, np.ones_like(matches.source[..., :1])], axis=-1)
    ridge = np.diag([REGULARISATION, REGULARISATION, 1e-6]).astype(np.float32)
    has_inliers = np.max(inliers, axis=1, keepdims=True)
    for tolerance in (INLIER_TOLERANCE, FINE_TOLERANCE, INLIER_TOLERANCE):
        weighted = (source * (matches.weight * inliers)[..., None]).transpose(0, 2, 1)
        left, right = weighted @ source + ridge, weighted @ matches.target + ridge @ transforms.transpose(0, 2, 1)
        transforms = np.where(has_inliers[..., None], np.linalg.solve(left, right).transpose(0, 2, 1), transforms)
        inliers = has_inliers & (matches.weight > 0)
        residuals = _squared_residuals(transforms[:, 0, :, None], transforms[:, 1, :, None], matches)[..., 0]
        inliers &= residuals < squared_tolerance(tolerance, areas(transforms))[:, None]
    return transforms, inliers


def squared_tolerance(length: float, area: Floats) -> Floats:
    """Compute the tolerance of squared distances in the candidate, for transformations that cover `area`.

    It adds the error of a place in the candidate and that of a place in the upload, scaled to the candidate.
    """
    return length**2 / 2 * (1 + area)
