"""Pictures within a picture are found by their straight edges, and photographs have hardly any."""

import io
from itertools import permutations, product

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from numpy.typing import NDArray
from PIL import Image

from consumer.images.decode import decode, detail
from consumer.images.region import WHOLE_IMAGE, Region
from consumer.images.regions import MAX_REGIONS, find_regions, make_views
from consumer.images.thumbnail import Thumbnail, shrink
from consumer.local.pictures import photographs
from consumer.settings import DecodeSettings

SIZE = 192
PHOTOGRAPHS = [
    np.asarray(Image.open(io.BytesIO(data)).convert("RGB").resize((SIZE, SIZE))) for _, data in photographs()
]


def paste(place: tuple[int, int, int, int], small: int, ground: int) -> NDArray[np.uint8]:
    """Paste one photograph upon another, in a box (left, top, right, bottom) of pixels."""
    left, top, right, bottom = place
    canvas = Image.fromarray(PHOTOGRAPHS[ground])
    canvas.paste(Image.fromarray(PHOTOGRAPHS[small]).resize((right - left, bottom - top)), (left, top))
    return np.asarray(canvas)


def deviation_px(regions: list[Region], place: tuple[int, int, int, int]) -> float:
    """Return how far the sides of the region nearest to a box are from the box, at most."""
    return min(
        (max(abs(side * SIZE - edge) for side, edge in zip(region, place, strict=True)) for region in regions),
        default=SIZE,
    )


@pytest.mark.parametrize("place", [(0, 0, 96, 96), (96, 0, 192, 192), (0, 96, 192, 192), (40, 31, 131, 150)])
def test_most_pictures_within_others_are_found_where_they_are(place: tuple[int, int, int, int]) -> None:
    pairs = permutations(range(len(PHOTOGRAPHS)), 2)
    assert (
        np.mean([deviation_px(each, place) <= 3 for each in find_regions([paste(place, *pair) for pair in pairs])])
        >= 0.6
    )


def test_most_quarters_of_collages_are_found() -> None:
    random, hits = np.random.default_rng(0), []
    for _ in range(100):
        a, b, c, d = (PHOTOGRAPHS[place][::2, ::2] for place in random.permutation(len(PHOTOGRAPHS))[:4])
        [within] = find_regions([np.concatenate([np.concatenate([a, b], axis=1), np.concatenate([c, d], axis=1)])])
        assert len(within) <= MAX_REGIONS
        hits += [
            deviation_px(within, (left, top, left + 96, top + 96)) <= 2 for left, top in product((0, 96), repeat=2)
        ]
    assert np.mean(hits) >= 0.6


def test_photographs_do_not_seem_framed() -> None:
    assert not any(find_regions(PHOTOGRAPHS))


@pytest.mark.parametrize(("side", "within"), [(148, True), (172, False)])  # 0.6 and 0.8 of the area
def test_what_fills_most_of_a_picture_is_no_picture_within(side: int, within: bool) -> None:
    ground, left = np.full((SIZE, SIZE, 3), 255, np.uint8), (SIZE - side) // 2
    place = (left, left, left + side, left + side)
    hits = []
    for photograph in PHOTOGRAPHS:
        canvas = Image.fromarray(ground)
        canvas.paste(Image.fromarray(photograph).resize((side, side)), (left, left))
        hits.append(deviation_px(find_regions([np.asarray(canvas)])[0], place) <= 3)
    assert np.mean(hits) >= 0.6 if within else not any(hits)


@pytest.mark.parametrize(("covered", "within"), [(0.8, 0), (1.0, 2)])
def test_one_line_across_a_picture_has_to_be_nearly_whole(covered: float, within: int) -> None:
    """The line's other part is no step: the grey fades out there."""
    pixels, sharp = np.full((SIZE, SIZE, 3), 120, np.uint8), round(covered * SIZE)
    pixels[SIZE // 2 :, :sharp] = 100
    pixels[:, sharp:] = np.linspace(120, 100, SIZE)[:, np.newaxis, np.newaxis]
    assert len(find_regions([pixels])[0]) == within


def test_pictures_searched_together_give_what_each_gives_by_itself() -> None:
    pictures = [paste((40, 31, 131, 150), small, (small + 7) % len(PHOTOGRAPHS)) for small in range(len(PHOTOGRAPHS))]
    regions = find_regions(pictures)
    assert any(regions)
    assert regions == [find_regions([picture])[0] for picture in pictures]
    assert find_regions([]) == []


def test_what_is_cut_out_is_what_is_there() -> None:
    place = (96, 0, 192, 96)
    cut = Region(0.5, 0, 1, 0.5).crop(paste(place, 3, 9))
    assert cut.shape == (SIZE, SIZE, 3)
    assert cut.dtype == np.uint8
    again = np.asarray(Image.fromarray(PHOTOGRAPHS[3]).resize((96, 96)).resize((SIZE, SIZE), Image.Resampling.BILINEAR))
    assert np.abs(cut.astype(int) - again).mean() < 2


def photographs_in_a_row() -> bytes:
    """Make a wide picture of two photographs beside each other."""
    canvas = Image.new("RGB", (900, 300))
    for left, number in ((0, 4), (450, 1)):
        canvas.paste(Image.fromarray(PHOTOGRAPHS[number]).resize((450, 300)), (left, 0))
    out = io.BytesIO()
    canvas.save(out, "PNG")
    return out.getvalue()


def test_views_are_the_whole_and_the_pictures_within_it_with_their_thumbnails() -> None:
    picture = decode(photographs_in_a_row(), SIZE, DecodeSettings())
    [[whole, *parts]] = make_views([picture], 0.7)
    assert (whole.region, whole.thumbnail, whole.pixels) == (WHOLE_IMAGE, picture.thumbnail, picture.pixels)
    assert whole.thumbnail.aspect == 3
    assert deviation_px([each.region for each in parts], (0, 0, 96, 192)) <= 2
    for part in parts:
        np.testing.assert_array_equal(part.pixels, part.region.crop(picture.pixels))
        assert part.thumbnail.content == WHOLE_IMAGE  # as in a region no margins are looked for
        left, top, right, bottom = part.region
        assert part.thumbnail.aspect == pytest.approx(3 * (right - left) / (bottom - top))
        expected = Thumbnail.of(shrink(part.pixels), WHOLE_IMAGE, 1.0)
        np.testing.assert_array_equal(part.thumbnail.levels, expected.levels)


def test_of_pictures_within_only_those_with_enough_detail_are_viewed() -> None:
    picture = decode(photographs_in_a_row(), SIZE, DecodeSettings())
    [[_, *parts]] = make_views([picture], 0.7)
    least, most = sorted(detail(part.pixels) for part in parts)[:: len(parts) - 1]
    [views] = make_views([picture], (least + most) / 2)
    assert 1 < len(views) < 1 + len(parts)
    assert [len(each) for each in make_views([picture, picture], 0.7, within=False)] == [1, 1]
    assert make_views([], 0.7) == []


@settings(deadline=None)
@given(hnp.arrays(np.uint8, (48, 48, 3), elements=st.sampled_from([0, 90, 255])))
def test_no_pixels_are_too_odd(pixels: NDArray[np.uint8]) -> None:
    [regions] = find_regions([pixels])
    assert len(regions) <= MAX_REGIONS
    for region in regions:
        assert 0 <= region.left < region.right <= 1
        assert 0 <= region.top < region.bottom <= 1
        assert region.crop(pixels).shape == pixels.shape
