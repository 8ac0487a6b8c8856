"""Which transformation pairs of places agree on: from where something is in one picture to where in the other.

Every two of the best pairs propose some, as in RANSAC (Fischler and Bolles, Random sample consensus, 1981) but without
chance, so that a repeat gives the same answer: a similarity, a mirrored one, and stretched along the axes, also after a
quarter turn. The proposal that most pairs agree with is fitted to these by least squares.
"""

from dataclasses import dataclass
from functools import cache

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float32]
Bools = NDArray[np.bool_]
Indexes = NDArray[np.intp]

MAX_PROPOSERS = 14  # pairs of which every two make proposals
MAX_STRENGTH = 2**15 - 1  # what two pairs of weight one propose, as a whole number
MAX_PROPOSALS = 96  # possible ones that are voted on, those of the best pairs first
# Lengths are fractions of a picture's side. Features stand on a grid, a tenth apart: half of that is no error.
INLIER_TOLERANCE = 0.075  # of a pair, for one to one scale
FINE_TOLERANCE = 0.05  # of the pairs that have the last word on the transformation
FEATURE_RADIUS = (
    0.15  # of a feature: nearer ones see much the same, and two places nearer than this make no good proposal
)
MIN_AREA, MAX_AREA = 0.04, 12.0  # of the upload within the match, as whole pictures
MAX_STRETCH = 3.5  # along one axis over the other; squaring pictures of another aspect stretches too
REGULARISATION = 0.02  # how much the fit clings to the proposal, in pairs


@dataclass(frozen=True, slots=True)
class Correspondences:
    """Voting pairs, the best first: from `start` [M, V, 2] in the upload to `end` in the match, by `weight` [M, V]."""

    start: Floats
    end: Floats
    weight: Floats


def find_consensus(pairs: Correspondences) -> tuple[Floats, Bools]:
    """The transformation [M, 2, 3] that most of the pairs agree on, and which do, [M, V].

    It takes places (x, y, 1) in the upload to places in the match.
    """
    return _fit(pairs, *_propose(pairs))


def areas(transforms: Floats) -> Floats:
    """What M uploads cover of their candidates' plane, in whole pictures: [M] of [M, 2, 3]."""
    return np.abs(signed_areas(transforms))


def signed_areas(transforms: Floats) -> Floats:
    """The same, negative where they are mirrored."""
    covered: Floats = transforms[:, 0, 0] * transforms[:, 1, 1] - transforms[:, 0, 1] * transforms[:, 1, 0]
    return covered


def _propose(pairs: Correspondences) -> tuple[Floats, Bools]:
    """The best transformation [M, 2, 3] that two pairs propose, and which pairs agree with it [M, V]."""
    count, proposers = len(pairs.weight), min(MAX_PROPOSERS, pairs.weight.shape[1])
    first, second = _every_two(proposers)
    sides = [ends[..., axis] for ends in (pairs.start, pairs.end) for axis in (0, 1)]
    x, y, u, v = (side[:, second] - side[:, first] for side in sides)
    square = np.maximum(x * x + y * y, 1e-6)
    safe_x, safe_y = np.where(np.abs(x) < 1e-3, 1e-3, x), np.where(np.abs(y) < 1e-3, 1e-3, y)
    # Places (x, y) go to (a x + b y + e, c x + d y + f): of each two pairs four ways, [M, 4, H]. As complex numbers, a
    # similarity is the quotient of goal and step, a mirrored one that of goal and conjugate.
    a, b, c, d = np.zeros((4, count, 4, len(first)), np.float32)
    a[:, 0], c[:, 0] = (x * u + y * v) / square, (x * v - y * u) / square
    b[:, 0], d[:, 0] = -c[:, 0], a[:, 0]
    a[:, 1], c[:, 1] = (x * u - y * v) / square, (x * v + y * u) / square
    b[:, 1], d[:, 1] = c[:, 1], -a[:, 1]
    a[:, 2], d[:, 2] = u / safe_x, v / safe_y
    b[:, 3], c[:, 3] = u / safe_y, v / safe_x
    apart, aslant = square > FEATURE_RADIUS**2, np.minimum(np.abs(x), np.abs(y)) > FEATURE_RADIUS * 0.8
    area = np.abs(a * d - b * c)
    largest = np.maximum(np.maximum(np.abs(a), np.abs(b)), np.maximum(np.abs(c), np.abs(d)))
    possible = np.stack([apart, apart, aslant, aslant], axis=1)
    possible &= (area > MIN_AREA) & (area < MAX_AREA) & (largest * largest < MAX_STRETCH * area)
    strength = possible * (pairs.weight[:, first] * pairs.weight[:, second])[:, None]
    # In whole numbers, which are sorted fast and in one order on every processor.
    ranked = (strength.reshape(count, -1) * -MAX_STRENGTH).astype(np.int16).argsort(axis=1, kind="stable")
    chosen = ranked[:, :MAX_PROPOSALS]
    m, (way, two) = np.arange(count), np.divmod(chosen, len(first))
    a, b, c, d, area, strength = (each[m[:, None], way, two] for each in (a, b, c, d, area, strength))
    middle_x, middle_y, middle_u, middle_v = (
        (side[m[:, None], second[two]] + side[m[:, None], first[two]]) / 2 for side in sides
    )
    across = np.stack([a, b, middle_u - a * middle_x - b * middle_y], axis=1)
    down = np.stack([c, d, middle_v - c * middle_x - d * middle_y], axis=1)
    agree: Bools = _misses(across, down, pairs) < squared_tolerance(INLIER_TOLERANCE, area)[:, None]
    votes = np.einsum("mvh,mv->mh", agree, pairs.weight) * (strength > 0)
    best = votes.argmax(axis=1)
    transforms = np.stack([across[m, :, best], down[m, :, best]], axis=1)
    return transforms, agree[m, :, best] & (pairs.weight > 0) & (strength[m, best] > 0)[:, None]


@cache
def _every_two(count: int) -> tuple[Indexes, Indexes]:
    return np.triu_indices(count, 1)


def _misses(across: Floats, down: Floats, pairs: Correspondences) -> Floats:
    """Squared distances [M, V, H] at which transformations miss the ends of pairs: their rows are [M, 3, H] each."""
    start = np.concatenate([pairs.start, np.ones_like(pairs.start[..., :1])], axis=-1)
    x: Floats = start @ across
    x -= pairs.end[..., :1]
    x *= x
    y = start @ down
    y -= pairs.end[..., 1:]
    y *= y
    x += y
    return x


def _fit(pairs: Correspondences, transforms: Floats, inliers: Bools) -> tuple[Floats, Bools]:
    """Least squares on the inliers, held near the proposal where those are few; and who agrees then."""
    start = np.concatenate([pairs.start, np.ones_like(pairs.start[..., :1])], axis=-1)
    hold = np.diag([REGULARISATION, REGULARISATION, 1e-6]).astype(np.float32)
    found = np.max(inliers, axis=1, keepdims=True)
    for length in (INLIER_TOLERANCE, FINE_TOLERANCE, INLIER_TOLERANCE):
        weighted = (start * (pairs.weight * inliers)[..., None]).transpose(0, 2, 1)
        left, right = weighted @ start + hold, weighted @ pairs.end + hold @ transforms.transpose(0, 2, 1)
        transforms = np.where(found[..., None], np.linalg.solve(left, right).transpose(0, 2, 1), transforms)
        inliers = found & (pairs.weight > 0)
        misses = _misses(transforms[:, 0, :, None], transforms[:, 1, :, None], pairs)[..., 0]
        inliers &= misses < squared_tolerance(length, areas(transforms))[:, None]
    return transforms, inliers


def squared_tolerance(length: float, area: Floats) -> Floats:
    """Of squared distances in the match: a cell's error there, and that of one in the upload at its scale there."""
    return length**2 / 2 * (1 + area)
