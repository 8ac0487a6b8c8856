"""The second look: do two pictures show the same, part upon part, and which edit leads from one to the other?

Local features of both, from the encoder's forward pass, are paired off by mutual nearest neighbours. Every two of the
best pairs propose a transformation, as in RANSAC (Fischler and Bolles, 1981) but without chance, so that a repeat gives
the same answer: a similarity, a mirrored one, and stretched along the axes, also after a quarter turn. The proposal
that most pairs agree with is fitted to these by least squares and then put to the test on all features: where it lays
one upon another, they have to look alike. Features without detail never vote.

A network sees a picture and the same picture turned by a quarter with other features, that a linear map takes to each
other (Lenc and Vedaldi, Understanding image representations by measuring their equivariance and equivalence, 2015).
"""

from dataclasses import dataclass, replace
from functools import cached_property
from math import atan2, degrees, sqrt

import numpy as np
from numpy.typing import NDArray

from consumer.events import Box, Edit, Evidence
from consumer.frames import WHOLE, Frame

Floats = NDArray[np.float32]
Bools = NDArray[np.bool_]

CHUNK = 32  # pairs of pictures looked at together: what they take stays in the processor's cache

MIN_COSINE = 0.45  # of two features that may be a pair
VOTERS = 32  # pairs that vote on proposals, the best first
PROPOSERS = 14  # pairs of which every two make proposals
# Lengths are fractions of a picture's side. Features stand on a grid, a tenth apart: half of that is no error.
TOLERANCE = 0.075  # of a pair, for one to one scale
FINE = 0.05  # of the pairs that have the last word on the transformation
NEIGHBOURHOOD = 0.1  # in which a feature laid upon the other picture looks for its like, for one to one scale
REACH = 0.15  # of a feature: nearer ones see much the same, and two places nearer than this make no good proposal
MIN_AREA, MAX_AREA = 0.04, 12.0  # of the upload within the match, as whole pictures
MAX_STRETCH = 3.5  # along one axis over the other; squaring pictures of another aspect stretches too
STIFFNESS = 0.02  # how much the fit clings to the proposal, in pairs
UNALIKE = 0.3  # cosine at which two features speak neither for nor against a copy, unless such are usual
ENOUGH = 16.0  # inliers that give half of the trust which very many give, where the whole pictures meet
SURE = 0.5  # score with which nobody asks whether a picture was turned besides

Point = tuple[float, float]


@dataclass(frozen=True)
class Look:
    """What a second look at an upload and a candidate found.

    `score` is 0 for nothing in common, towards 1 for the same picture: how alike the features are where the pictures
    overlap, times `inliers / (inliers + 16 * sqrt(size))`, where `size` is that of the smaller picture as a share of
    the other: where little can meet, less is enough. `transform` float32 [2, 3] takes places (x, y, 1) in the upload to
    places in the match, both as fractions of width and height; `links` float32 [inliers, 4] are x, y in the upload and
    x, y in the match of the pairs that agree with it. Of the upload only what is within `frame` was looked at.
    """

    score: float
    inliers: int
    transform: Floats
    links: Floats
    frame: Frame = WHOLE

    @cached_property
    def edit(self) -> Edit | None:
        """The edit that leads from the match to the upload; None when there is no such thing.

        Encoders see pictures squeezed into squares, so a rotation by other than right angles is only about right for
        pictures that are far from square.
        """
        (a, b, c), (d, e, f) = self.transform.tolist()
        area = a * e - b * d
        if self.inliers == 0 or area == 0:
            return None
        left, top, right, bottom = self.frame
        corners = (left, top), (right, top), (right, bottom), (left, bottom)
        in_match = _within_unit([(a * x + b * y + c, d * x + e * y + f) for x, y in corners])
        if len(in_match) < 3:
            return None
        in_upload = [((e * (x - c) - b * (y - f)) / area, (a * (y - f) - d * (x - c)) / area) for x, y in in_match]
        common, looked_at = _area(in_match), abs(area) * self.frame.area
        mirrored = area < 0
        # From the match to the upload is the inverse, which turns by the same angle the other way.
        angle = atan2(b - d, a + e) if not mirrored else atan2(-(b + d), e - a)
        return Edit(
            zoom=round(1 / sqrt(abs(area)), 3),
            rotation_deg=round(degrees(angle), 1) + 0.0,
            mirrored=mirrored,
            box_in_match=_box(in_match),
            box_in_upload=_box(in_upload),
            overlap=round(common / (1 + looked_at - common), 3),
        )

    def of_whole(self, frame: Frame) -> "Look":
        """The same in places of the whole upload, of a look at what is within a frame of it."""
        size = np.array([frame.right - frame.left, frame.bottom - frame.top], np.float32)
        corner = np.array([frame.left, frame.top], np.float32)
        linear = self.transform[:, :2] / size
        transform = np.column_stack([linear, self.transform[:, 2] - linear @ corner])
        links = np.hstack([corner + self.links[:, :2] * size, self.links[:, 2:]])
        return replace(self, transform=transform, links=links, frame=frame)

    def evidence(self, verified: bool) -> Evidence:
        return Evidence(verified=verified, score=round(self.score, 4), inliers=self.inliers, edit=self.edit)


@dataclass(frozen=True, slots=True)
class _Features:
    """`descriptors` [M, P, C - 2] of unit length, `places` [M, P, 2] in 0..1, and whether they are `seen` [M, P].

    `rarity` [M, P] is one for a feature like no other in its picture, less for one of many: grass, bricks, letters.
    """

    descriptors: Floats
    places: Floats
    seen: Bools
    rarity: Floats

    def of(self, pictures: list[int]) -> "_Features":
        return _Features(self.descriptors[pictures], self.places[pictures], self.seen[pictures], self.rarity[pictures])


@dataclass(frozen=True, slots=True)
class _Pairs:
    """Voting pairs, the best first: from `start` [M, V, 2] in the upload to `end` in the match, by `weight` [M, V]."""

    start: Floats
    end: Floats
    weight: Floats


def verify(uploads: NDArray[np.int8], candidates: NDArray[np.int8], turns: Floats | None = None) -> list[Look]:
    """Look twice at each upload and the candidate beside it, both int8 [M, P, C] as the encoder's `patches`.

    Of the C channels the last two are the place (x, y) in 1/128 of half the side from the middle, the others a
    descriptor of any scale, all zero for features that show too little. With `turns` float32 [T, C - 2, C - 2], each of
    which takes descriptors of a turned picture to those of the picture as it was, uploads may have been turned.
    """
    looks: list[Look] = []
    for start in range(0, len(uploads), CHUNK):
        upload, candidate = (_features(patches[start : start + CHUNK]) for patches in (uploads, candidates))
        found = _looks(upload, candidate)
        unsure = [m for m, look in enumerate(found) if look.score < SURE]
        if turns is not None and unsure:
            upload, candidate = upload.of(unsure), candidate.of(unsure)
            turned = _looks(_turned(upload, candidate, turns), candidate)
            for m, look in zip(unsure, turned, strict=True):
                found[m] = max(found[m], look, key=lambda look: look.score)
        looks += found
    return looks


def _looks(upload: _Features, candidate: _Features) -> list[Look]:
    alike = _compare(upload, candidate)
    pairs = _pair_off(upload, candidate, alike)
    transforms, inliers = _fit(pairs, *_propose(pairs))
    likeness = _likeness(upload, candidate, alike, transforms)
    count, areas = inliers.sum(axis=1), _areas(transforms)
    size = np.minimum(areas, 1 / np.maximum(areas, 1e-6))
    scores = likeness * count / np.maximum(count + ENOUGH * np.sqrt(size), 1)
    return [
        Look(float(scores[m]), int(count[m]), transforms[m], np.hstack((pairs.start[m], pairs.end[m]))[inliers[m]])
        for m in range(len(scores))
    ]


def _features(patches: NDArray[np.int8]) -> _Features:
    descriptors = patches[..., :-2].astype(np.float32)
    length = np.sqrt(np.einsum("mpc,mpc->mp", descriptors, descriptors))
    descriptors /= np.maximum(length, 1.0)[..., None]
    places = patches[..., -2:].astype(np.float32)
    places += 128
    places /= 256
    seen = length > 0
    return _Features(descriptors, places, seen, _rarity(descriptors, places, seen))


def _compare(upload: _Features, candidate: _Features) -> Floats:
    """Cosines [M, P, P] of the features of both; -1 where one shows nothing."""
    alike = upload.descriptors @ candidate.descriptors.transpose(0, 2, 1)
    alike[~(upload.seen[:, :, None] & candidate.seen[:, None, :])] = -1.0
    return alike


def _turned(upload: _Features, candidate: _Features, turns: Floats) -> _Features:
    """The upload as if it had been turned, for each by the turn after which most features find their like."""
    ways, found = [], []
    for turn in turns:
        descriptors = upload.descriptors @ turn
        descriptors /= np.maximum(np.sqrt(np.einsum("mpc,mpc->mp", descriptors, descriptors)), 1e-6)[..., None]
        ways.append(replace(upload, descriptors=descriptors))
        found.append(np.maximum(_compare(ways[-1], candidate).max(axis=1) - MIN_COSINE, 0).sum(axis=1))
    best = np.argmax(found, axis=0)
    descriptors = np.stack([way.descriptors for way in ways])[best, np.arange(len(best))]
    return replace(upload, descriptors=descriptors)


def _pair_off(upload: _Features, candidate: _Features, alike: Floats) -> _Pairs:
    """Mutual nearest neighbours; each counts the more the more alike they are and the fewer others look like them."""
    m, rows = np.arange(len(alike))[:, None], np.arange(alike.shape[1])
    nearest = alike.argmax(axis=2)
    cosine = np.take_along_axis(alike, nearest[..., None], 2)[..., 0]
    mutual = (alike.argmax(axis=1)[m, nearest] == rows) & (cosine > MIN_COSINE)
    rare = np.sqrt(upload.rarity * candidate.rarity[m, nearest])
    weight = mutual * (cosine - MIN_COSINE / 2) * rare
    best = np.argsort(-weight, axis=1, kind="stable")[:, :VOTERS]
    there = nearest[m, best]
    return _Pairs(
        _between_cells(alike[m, :, there], upload.places, best),
        _between_cells(alike[m, best], candidate.places, there),
        weight[m, best],
    )


def _rarity(descriptors: Floats, places: Floats, seen: Bools) -> Floats:
    alike = descriptors @ descriptors.transpose(0, 2, 1)
    alike -= 0.4
    np.maximum(alike, 0, out=alike)
    alike *= _far(places, places)
    rarity: Floats = seen / (1 + alike.sum(axis=2) / 0.6)
    return rarity


def _far(some: Floats, others: Floats) -> Bools:
    far: Bools = _squared(some, others) > REACH**2
    return far


def _squared(some: Floats, others: Floats) -> Floats:
    """Squared distances [M, A, B] of places [M, A, 2] and [M, B, 2]."""
    x = some[:, :, None, 0] - others[:, None, :, 0]
    y = some[:, :, None, 1] - others[:, None, :, 1]
    x *= x
    y *= y
    x += y
    return x


def _between_cells(alike: Floats, places: Floats, chosen: NDArray[np.int64]) -> Floats:
    """Where between the cells of the grid the like of a feature is: the middle of those around the `chosen` [M, V].

    `alike` [M, V, P] are the cosines with all features of the picture, whose `places` are [M, P, 2].
    """
    m = np.arange(len(places))[:, None]
    best = np.take_along_axis(alike, chosen[..., None], 2)
    weight = np.maximum(alike - (best - 0.35), 0)
    weight *= weight
    weight[_far(places[m, chosen], places)] = 0
    middle: Floats = weight @ places / weight.sum(axis=2, keepdims=True)
    return middle


def _propose(pairs: _Pairs) -> tuple[Floats, Bools]:
    """The best transformation [M, 2, 3] that two pairs propose, and which pairs agree with it [M, V]."""
    count, proposers = len(pairs.weight), min(PROPOSERS, pairs.weight.shape[1])
    first, second = np.triu_indices(proposers, 1)
    sides = [ends[..., axis] for ends in (pairs.start, pairs.end) for axis in (0, 1)]
    x, y, u, v = (side[:, second] - side[:, first] for side in sides)
    middle_x, middle_y, middle_u, middle_v = ((side[:, second] + side[:, first])[:, None] / 2 for side in sides)
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
    voting = pairs.weight[:, :proposers] > 0
    voting = voting[:, first] & voting[:, second]
    apart = voting & (square > REACH**2)
    aslant = voting & (np.minimum(np.abs(x), np.abs(y)) > REACH * 0.8)
    area = np.abs(a * d - b * c)
    largest = np.maximum(np.maximum(np.abs(a), np.abs(b)), np.maximum(np.abs(c), np.abs(d)))
    possible = np.stack([apart, apart, aslant, aslant], axis=1)
    possible &= (area > MIN_AREA) & (area < MAX_AREA) & (largest * largest < MAX_STRETCH * area)
    across = np.stack([a, b, middle_u - a * middle_x - b * middle_y], axis=1).reshape(count, 3, -1)
    down = np.stack([c, d, middle_v - c * middle_x - d * middle_y], axis=1).reshape(count, 3, -1)
    agree: Bools = _misses(across, down, pairs) < _tolerance(TOLERANCE, area).reshape(count, 1, -1)
    possible = possible.reshape(count, -1)
    votes = np.einsum("mvh,mv->mh", agree, pairs.weight) * possible
    m, best = np.arange(count), votes.argmax(axis=1)
    transforms = np.stack([across[m, :, best], down[m, :, best]], axis=1)
    return transforms, agree[m, :, best] & (pairs.weight > 0) & possible[m, best][:, None]


def _misses(across: Floats, down: Floats, pairs: _Pairs) -> Floats:
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


def _fit(pairs: _Pairs, transforms: Floats, inliers: Bools) -> tuple[Floats, Bools]:
    """Least squares on the inliers, held near the proposal where those are few; and who agrees then."""
    start = np.concatenate([pairs.start, np.ones_like(pairs.start[..., :1])], axis=-1)
    hold = np.diag([STIFFNESS, STIFFNESS, 1e-6]).astype(np.float32)
    found = np.max(inliers, axis=1, keepdims=True)
    for tolerance in (TOLERANCE, FINE, TOLERANCE):
        weighted = (start * (pairs.weight * inliers)[..., None]).transpose(0, 2, 1)
        left, right = weighted @ start + hold, weighted @ pairs.end + hold @ transforms.transpose(0, 2, 1)
        transforms = np.where(found[..., None], np.linalg.solve(left, right).transpose(0, 2, 1), transforms)
        inliers = found & (pairs.weight > 0)
        misses = _misses(transforms[:, 0, :, None], transforms[:, 1, :, None], pairs)[..., 0]
        inliers &= misses < _tolerance(tolerance, _areas(transforms))[:, None]
    return transforms, inliers


def _areas(transforms: Floats) -> Floats:
    areas: Floats = np.abs(transforms[:, 0, 0] * transforms[:, 1, 1] - transforms[:, 0, 1] * transforms[:, 1, 0])
    return areas


def _tolerance(length: float, areas: Floats) -> Floats:
    """Of squared distances in the match: a cell's error there, and that of one in the upload at its scale there."""
    return length**2 / 2 * (1 + areas)


def _likeness(upload: _Features, candidate: _Features, alike: Floats, transforms: Floats) -> Floats:
    """How alike the features are that come to lie on each other, 0 to 1: [M].

    Of two lawns every feature of one is like every feature of the other: what counts is how much more alike a feature
    is to those in its place than to all.
    """
    laid = upload.places @ transforms[:, :, :2].transpose(0, 2, 1) + transforms[:, None, :, 2]
    inside = ((laid > 0) & (laid < 1)).all(axis=2)
    near = _squared(laid, candidate.places) < _tolerance(NEIGHBOURHOOD, _areas(transforms))[:, None, None]
    best = np.where(near, alike, -1).max(axis=2)
    met = inside & (best > -1)
    usual = np.where(alike > -1, alike, 0).sum(axis=2) / np.maximum((alike > -1).sum(axis=2), 1)
    usual = np.clip(usual, UNALIKE, 0.95)
    total = np.where(met, (best - usual) / (1 - usual), 0).sum(axis=1)
    likeness: Floats = np.clip(total / np.maximum(met.sum(axis=1), 4), 0, 1)
    return likeness


def _within_unit(polygon: list[Point]) -> list[Point]:
    """The part of a convex polygon that lies in the unit square (Sutherland and Hodgman, 1974)."""
    for axis, bound, sign in ((0, 0.0, 1), (0, 1.0, -1), (1, 0.0, 1), (1, 1.0, -1)):
        kept: list[Point] = []
        for before, point in zip([*polygon[-1:], *polygon[:-1]], polygon, strict=True):
            outside, was_outside = ((p[axis] - bound) * sign < 0 for p in (point, before))
            if outside != was_outside:
                share = (bound - before[axis]) / (point[axis] - before[axis])
                kept.append((before[0] + share * (point[0] - before[0]), before[1] + share * (point[1] - before[1])))
            if not outside:
                kept.append(point)
        polygon = kept
    return polygon


def _area(polygon: list[Point]) -> float:
    edges = zip(polygon, [*polygon[1:], *polygon[:1]], strict=True)
    return abs(sum(a[0] * b[1] - b[0] * a[1] for a, b in edges)) / 2


def _box(polygon: list[Point]) -> Box:
    (left, right), (top, bottom) = ((min(side), max(side)) for side in zip(*polygon, strict=True))
    return Box(left=_unit(left), top=_unit(top), right=_unit(right), bottom=_unit(bottom))


def _unit(value: float) -> float:
    return round(min(max(value, 0.0), 1.0), 4)
