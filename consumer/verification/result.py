"""The result of comparing two pictures: how sure it is that they show the same, and the edit between them."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from math import atan2, degrees, expm1, sqrt

import numpy as np
from numpy.typing import NDArray

from consumer.images.region import WHOLE_IMAGE, Region
from consumer.verdicts import Box, Edit, Evidence

Floats = NDArray[np.float32]
Point = tuple[float, float]

MIN_WRITING_BLANKNESS = 0.5  # of both pictures, from which they are writing or line art


@dataclass(frozen=True)
class Verification:
    """The result of a second look at an upload and a candidate, the match.

    `score` goes from 0 for strangers to 1 for copies. `transform` float32 [2, 3] takes places (x, y, 1) in the upload
    to places in the match, both as fractions of width and height. `links` float32 [inliers, 4] are the inliers: x, y in
    the upload and x, y in the match. `measures` are the numbers that decided, by name. Only the part of the upload
    within `region` was compared.
    """

    score: float
    inliers: int
    transform: Floats
    links: Floats
    measures: Mapping[str, float]
    region: Region = WHOLE_IMAGE

    @cached_property
    def edit(self) -> Edit | None:
        """The edit that leads from the match to the upload; None without inliers or without an overlap.

        Encoders see pictures squeezed into squares, so a rotation by other than right angles is only approximate for
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
        common, compared = _area(in_match), abs(area) * self.region.area
        mirrored = area < 0
        # The edit leads from the match to the upload: the inverse, which rotates by the same angle the other way.
        angle = atan2(b - d, a + e) if not mirrored else atan2(-(b + d), e - a)
        return Edit(
            zoom=round(1 / sqrt(abs(area)), 3),
            rotation_deg=round(degrees(angle), 1) + 0.0,
            mirrored=mirrored,
            box_in_match=_box(in_match),
            box_in_upload=_box(in_upload),
            overlap=round(common / (1 + compared - common), 3),
        )

    def in_whole_image(self, region: Region) -> "Verification":
        """Take the verification of a region of the upload to coordinates of the whole upload."""
        size = np.array([region.right - region.left, region.bottom - region.top], np.float32)
        corner = np.array([region.left, region.top], np.float32)
        linear = self.transform[:, :2] / size
        transform = np.column_stack([linear, self.transform[:, 2] - linear @ corner])
        links = np.hstack([corner + self.links[:, :2] * size, self.links[:, 2:]])
        return replace(self, transform=transform, links=links, region=region)

    def to_evidence(self, verified: bool) -> Evidence:
        """Make the evidence that a verdict carries; between pictures that are no copies there is no edit."""
        measures = self.measures
        blankness = min(measures["upload_blankness"], measures["match_blankness"])
        return Evidence(
            verified=verified,
            score=round(self.score, 4),
            inliers=self.inliers,
            agreement=round(measures["small_blocks_mean"], 3),
            least_agreement=round(measures["small_blocks_q10"], 3),
            stretch=round(min(expm1(measures["stretch"]), 99.0), 3),
            writing=blankness >= MIN_WRITING_BLANKNESS,
            edit=self.edit if verified else None,
        )


def _within_unit(polygon: list[Point]) -> list[Point]:
    """Clip a convex polygon to the unit square (Sutherland and Hodgman, 1974)."""
    for axis, bound, sign in ((0, 0.0, 1), (0, 1.0, -1), (1, 0.0, 1), (1, 1.0, -1)):
        clipped: list[Point] = []
        for before, point in zip([*polygon[-1:], *polygon[:-1]], polygon, strict=True):
            outside, was_outside = ((p[axis] - bound) * sign < 0 for p in (point, before))
            if outside != was_outside:
                share = (bound - before[axis]) / (point[axis] - before[axis])
                clipped.append((before[0] + share * (point[0] - before[0]), before[1] + share * (point[1] - before[1])))
            if not outside:
                clipped.append(point)
        polygon = clipped
    return polygon


def _area(polygon: list[Point]) -> float:
    """Compute the area of a polygon by the shoelace formula."""
    edges = zip(polygon, [*polygon[1:], *polygon[:1]], strict=True)
    return abs(sum(a[0] * b[1] - b[0] * a[1] for a, b in edges)) / 2


def _box(polygon: list[Point]) -> Box:
    """Bound a polygon by a box."""
    (left, right), (top, bottom) = ((min(side), max(side)) for side in zip(*polygon, strict=True))
    return Box(left=_unit(left), top=_unit(top), right=_unit(right), bottom=_unit(bottom))


def _unit(value: float) -> float:
    return round(min(max(value, 0.0), 1.0), 4)
