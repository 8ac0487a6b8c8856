"""The numbers that the rule of the second look is given: each under its name, and right for known transformations."""

import numpy as np
import pytest
from numpy.typing import NDArray

from consumer.errors import Misconfigured
from consumer.images.region import Region
from consumer.images.thumbnail import MAX_LEVEL, SIDE, Thumbnail
from consumer.verification.agreement import Agreement
from consumer.verification.features import Geometry
from consumer.verification.measures import (
    FEATURE_MEASURES,
    MEASURES,
    Thumbnails,
    columns_of,
    feature_measures,
    pixel_measures,
)
from consumer.verification.registration import Registration

Floats = NDArray[np.float32]
WHOLE = (0.0, 0.0, 1.0, 1.0)


def number(value: float) -> Floats:
    return np.array([value], np.float32)


def pictures(aspect: float, content: tuple[float, ...] = WHOLE) -> Thumbnails:
    """Make a picture in two shades: a quarter of it is light."""
    levels = np.zeros((SIDE, SIDE), np.uint8)
    levels[: SIDE // 2, : SIDE // 2] = MAX_LEVEL
    return Thumbnails([Thumbnail(levels, Region(*content), aspect)])


def measured(transform: object, upload: Thumbnails, candidate: Thumbnails) -> dict[str, float]:
    """Measure a pair under a transformation; each other number is its name's place, so that none stands for another."""
    geometry = Geometry(np.zeros((1, 2, 3), np.float32), [], *map(number, (1, 2, 3, 4, 5, 6, 7)))
    registration = Registration(np.asarray(transform, np.float32)[None], number(8), number(9))
    blocks = np.array([[13, 14, 15, 16, 17]], np.float32)
    agreement = Agreement(number(10), number(11), blocks, blocks + 5, blocks + 10)
    features = feature_measures(number(0.5), geometry)[0].tolist()
    pixels = pixel_measures(number(0.25), registration, agreement, upload, candidate)[0].tolist()
    assert len(features) == len(FEATURE_MEASURES)
    return dict(zip(MEASURES, features + pixels, strict=True))


def test_each_measure_stands_under_its_name() -> None:
    wide = pictures(2.0, (0.0, 0.25, 0.5, 0.75))
    found = measured([[1, 0, 0], [0, 1, 0]], pictures(1.0), wide)
    expected = {
        "l2": 0.5,
        "inliers": 1,
        "trust": 2,
        "similarity": 3,
        "match_weight": 4,
        "inlier_weight": 5,
        "upload_rarity": 6,
        "match_rarity": 7,
        "correlation": 8,
        "contained": 9,
        "overlap": 10,
        "moved": 0.25,
        "fine": 11,
        "small_blocks_mean": 13,
        "small_blocks_q10": 14,
        "small_blocks_q25": 15,
        "small_blocks_q50": 16,
        "small_blocks_q75": 17,
        "large_blocks_mean": 18,
        "large_blocks_q10": 19,
        "large_blocks_q25": 20,
        "large_blocks_q50": 21,
        "large_blocks_q75": 22,
        "shared_blocks_mean": 23,
        "shared_blocks_q10": 24,
        "shared_blocks_q25": 25,
        "shared_blocks_q50": 26,
        "shared_blocks_q75": 27,
        "stretch": np.log(2),
        "stretch_in_frame": 0,
        "rotation_deg": 0,
        "log_area": 0,
        "aspect_change": np.log(2),
        "upload_structure": wide.structure[0],
        "match_structure": wide.structure[0],
        "upload_blankness": 0.75,
        "match_blankness": 0.75,
        "upload_content": 1,
        "match_content": 0.25,
    }
    assert list(found) == list(expected)
    assert found == pytest.approx(expected, abs=1e-5)


def turned(degrees: float, zoom: float = 1.0, mirrored: bool = False) -> Floats:
    """Make the map of a square picture turned by an angle."""
    cosine, sine = np.cos(np.radians(degrees)) * zoom, np.sin(np.radians(degrees)) * zoom
    sign = -1 if mirrored else 1
    return np.array([[sign * cosine, -sine, 0], [sign * sine, cosine, 0]], np.float32)


@pytest.mark.parametrize("mirrored", [False, True])
@pytest.mark.parametrize(
    ("degrees", "off"), [(0, 0), (7, 7), (-7, 7), (45, 45), (83, 7), (90, 0), (180, 0), (200, 20), (270, 0)]
)
def test_the_rotation_is_that_to_the_nearest_quarter_turn(degrees: float, off: float, mirrored: bool) -> None:
    found = measured(turned(degrees, 0.5, mirrored), pictures(1.0), pictures(1.0))
    assert found["rotation_deg"] == pytest.approx(off, abs=0.01)
    assert found["stretch"] == pytest.approx(0, abs=2e-3)
    assert found["log_area"] == pytest.approx(np.log(0.25), abs=1e-4)


@pytest.mark.parametrize("squeeze", [(0.5, 1.0), (1.0, 0.5), (-0.5, 1.0)])
def test_a_stretch_is_the_log_of_the_ratio_of_the_axes(squeeze: tuple[float, float]) -> None:
    found = measured(turned(30) * np.array([[squeeze[0]], [squeeze[1]]]), pictures(1.0), pictures(1.0))
    assert found["stretch"] == pytest.approx(np.log(2), abs=1e-3)
    assert found["stretch_in_frame"] == pytest.approx(np.log(2), abs=1e-3)


@pytest.mark.parametrize(
    ("transform", "upload_aspect", "match_aspect", "aspect_change"),
    [
        ([[0.5, 0, 0.2], [0, 1, 0]], 0.75, 1.5, np.log(2)),  # the middle of a wide picture
        ([[0, 1, 0], [-1, 0, 1]], 0.5, 2.0, 0.0),  # a wide picture turned upright
        ([[1, 0, 0], [0, 1, 0]], 1.7, 1.7, 0.0),
    ],
)
def test_what_keeps_its_true_proportions_is_not_stretched(
    transform: object, upload_aspect: float, match_aspect: float, aspect_change: float
) -> None:
    found = measured(transform, pictures(upload_aspect), pictures(match_aspect))
    assert found["stretch"] == pytest.approx(0, abs=1e-3)
    assert found["rotation_deg"] == pytest.approx(0, abs=1e-3)
    assert found["aspect_change"] == pytest.approx(aspect_change, abs=1e-5)


def test_proportions_are_those_of_what_the_thumbnails_show() -> None:
    """A page of 1 to 2 whose upper half is cut out is square there."""
    half = pictures(0.5, (0.0, 0.0, 1.0, 0.5))
    assert measured([[1, 0, 0], [0, 1, 0]], half, pictures(1.0))["stretch"] == pytest.approx(0, abs=1e-3)


def test_transformations_that_collapse_give_finite_numbers() -> None:
    for transform in (np.zeros((2, 3)), [[1, 1, 0], [1, 1, 0]], [[1e-9, 0, 0], [0, 1e9, 0]]):
        assert np.isfinite([*measured(transform, pictures(0.01), pictures(100.0)).values()]).all()


def test_names_are_found_in_their_columns() -> None:
    assert columns_of(MEASURES) == list(range(len(MEASURES)))
    assert len(set(MEASURES)) == len(MEASURES)
    assert columns_of(["stretch", "l2"]) == [MEASURES.index("stretch"), 0]


def test_an_unknown_name_is_refused_in_a_sentence() -> None:
    with pytest.raises(Misconfigured) as refusal:
        columns_of(["l2", "sharpness", "age"])
    assert str(refusal.value) == "The model's rule asks for age, sharpness, which this version does not measure"
