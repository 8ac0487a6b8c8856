"""What a second look found: the edit that leads from one picture to the other, and where each shows the other."""

from dataclasses import dataclass, replace
from functools import cached_property
from math import atan2, degrees, sqrt

import numpy as np
from numpy.typing import NDArray

from consumer.events import Box, Edit, Evidence
from consumer.images.regions import WHOLE_IMAGE, Region

Floats = NDArray[np.float32]
Point = tuple[float, float]


@dataclass(frozen=True)
class Verification:
    """What a second look at an upload and a candidate found.

    `score` is 0 for nothing in common, towards 1 for the same picture: how far the inliers are to be trusted, times how
    alike the features are where the pictures overlap. Of pictures that have been laid upon each other it is the trust
    times how well they agree, and times the share of the smaller one that lies within the other. `transform` float32
    [2, 3] takes places (x, y, 1) in the upload to places in the match, both as fractions of width and height; `links`
    float32 [inliers, 4] are x, y in the upload and x, y in the match of the pairs that agree with it. Of the upload
    only what is within `frame` was looked at.
    """

    score: float
    inliers: int
    transform: Floats
    links: Floats
    region: Region = WHOLE_IMAGE

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
        left, top, right, bottom = self.region
        corners = (left, top), (right, top), (right, bottom), (left, bottom)
        in_match = _within_unit([(a * x + b * y + c, d * x + e * y + f) for x, y in corners])
        if len(in_match) < 3:
            return None
        in_upload = [((e * (x - c) - b * (y - f)) / area, (a * (y - f) - d * (x - c)) / area) for x, y in in_match]
        common, looked_at = _area(in_match), abs(area) * self.region.area
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

    def in_whole_image(self, region: Region) -> "Verification":
        """The same in places of the whole upload, of a look at what is within a frame of it."""
        size = np.array([region.right - region.left, region.bottom - region.top], np.float32)
        corner = np.array([region.left, region.top], np.float32)
        linear = self.transform[:, :2] / size
        transform = np.column_stack([linear, self.transform[:, 2] - linear @ corner])
        links = np.hstack([corner + self.links[:, :2] * size, self.links[:, 2:]])
        return replace(self, transform=transform, links=links, region=region)

    def to_evidence(self, verified: bool) -> Evidence:
        return Evidence(verified=verified, score=round(self.score, 4), inliers=self.inliers, edit=self.edit)


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
