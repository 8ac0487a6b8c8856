"""Thumbnails show what is within the margins of a picture, and margins are found whatever they look like."""

import io

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from numpy.typing import NDArray
from PIL import Image, ImageDraw

from consumer.images.decode import Picture, decode
from consumer.images.region import WHOLE_IMAGE, Region
from consumer.images.thumbnail import (
    MAX_LEVEL,
    SIDE,
    THUMBNAIL_BYTES,
    Thumbnail,
    find_content,
    shrink,
)
from consumer.local.pictures import photographs
from consumer.settings import DecodeSettings

Pixels = NDArray[np.uint8]
PHOTOGRAPHS = {name: Image.open(io.BytesIO(data)).convert("RGB") for name, data in photographs()}
PHOTO = PHOTOGRAPHS["chelsea.png"]
COLOURS = ["white", "black", "#e8e4d8", "#2060c0", "#808080"]


def on_page(
    photo: Image.Image = PHOTO,
    size: tuple[int, int] = (800, 600),
    place: tuple[int, int, int, int] = (200, 150, 600, 450),
    colour: str = "white",
) -> Image.Image:
    """Put a photograph upon a plain page, in a box of pixels."""
    page = Image.new("RGB", size, colour)
    page.paste(photo.resize((place[2] - place[0], place[3] - place[1])), place[:2])
    return page


def noisy(image: Image.Image, sigma: float, seed: int = 0) -> Image.Image:
    """Add the noise of a sensor in the dark, in grey levels."""
    noise = np.random.default_rng(seed).normal(0, sigma, (image.height, image.width, 3))
    return Image.fromarray((np.asarray(image) + noise).clip(0, 255).astype(np.uint8))


def shrunk(image: Image.Image) -> Pixels:
    """Average an image of any sides as `shrink` does a square."""
    return np.asarray(image.resize((SIDE, SIDE), Image.Resampling.BOX))


def content(image: Image.Image) -> Region:
    return find_content(shrunk(image))


def assert_around(found: Region, place: tuple[float, float, float, float], cells: float = 2.01) -> None:
    """Check that a region is at least the place, and at most so many cells more on any side."""
    for edge, expected, outwards in zip(found, place, (-1, -1, 1, 1), strict=True):
        assert -0.01 / SIDE <= (edge - expected) * outwards <= cells / SIDE, (found, place)


def decoded(image: Image.Image, form: str = "PNG", **options: object) -> Picture:
    out = io.BytesIO()
    image.save(out, form, **options)
    return decode(out.getvalue(), 192, DecodeSettings())


def levels_apart(one: Thumbnail, other: Thumbnail) -> float:
    """Return the mean difference of two thumbnails, in levels."""
    return float(np.abs(one.levels.astype(int) - other.levels).mean())


@pytest.mark.parametrize("colour", COLOURS)
def test_margins_of_any_colour_are_found(colour: str) -> None:
    assert_around(content(on_page(colour=colour)), (0.25, 0.25, 0.75, 0.75))


@pytest.mark.parametrize(
    ("place", "expected"),
    [
        ((0, 100, 800, 500), (0, 1 / 6, 1, 5 / 6)),  # a film between bars
        ((150, 0, 650, 600), (3 / 16, 0, 13 / 16, 1)),  # an upright film on a wide screen
        ((0, 0, 500, 400), (0, 0, 0.625, 2 / 3)),  # blank along two sides only
        ((100, 50, 800, 600), (0.125, 1 / 12, 1, 1)),
        ((120, 60, 320, 160), (0.15, 0.1, 0.4, 0.26)),
    ],
)
def test_margins_may_be_on_some_sides_only_and_of_any_width(
    place: tuple[int, int, int, int], expected: tuple[float, float, float, float]
) -> None:
    for colour in ("black", "white"):
        assert_around(content(on_page(place=place, colour=colour)), expected)


def test_margins_of_two_colours_are_found_where_two_sides_have_one() -> None:
    """A page on a table of another colour: what is found is the page, or more."""
    table = Image.new("RGB", (800, 600), "#402010")
    table.paste(on_page(size=(400, 500), place=(100, 100, 300, 400)), (200, 50))
    assert_around(content(table), (0.25, 1 / 12, 0.75, 11 / 12))


@pytest.mark.parametrize("seed", range(4))
def test_specks_and_noise_leave_margins_blank(seed: int) -> None:
    rng, page = np.random.default_rng(seed), on_page()
    for _ in range(4):
        x, y = (int(value) for value in (rng.integers(0, 800), rng.integers(0, 600)))
        ImageDraw.Draw(page).rectangle((x, y, x + 5, y + 5), "black")
    assert_around(content(page), (0.25, 0.25, 0.75, 0.75))
    for colour in COLOURS:
        assert_around(content(noisy(on_page(colour=colour), 20, seed)), (0.25, 0.25, 0.75, 0.75))


def test_margins_survive_a_jpeg_of_low_quality() -> None:
    for quality in (10, 40, 90):
        assert_around(decoded(on_page(), "JPEG", quality=quality).thumbnail.content, (0.25, 0.25, 0.75, 0.75))


def test_a_plain_sky_on_one_side_is_no_margin() -> None:
    for colour in COLOURS:
        assert content(on_page(place=(0, 250, 800, 600), colour=colour)) == WHOLE_IMAGE


def test_photographs_are_shown_whole() -> None:
    whole = [content(photo) == WHOLE_IMAGE for photo in PHOTOGRAPHS.values()]
    # Some show one thing on a plain ground.
    assert np.mean(whole) >= 0.75


@pytest.mark.parametrize("colour", COLOURS)
def test_a_blank_picture_is_whole_and_stays_blank(colour: str) -> None:
    blank = Image.new("RGB", (800, 600), colour)
    assert content(blank) == content(noisy(blank, 20)) == WHOLE_IMAGE
    [level] = np.unique(decoded(blank).thumbnail.levels).tolist()
    assert level in {7, 8}


def test_one_speck_on_a_blank_page_is_no_content() -> None:
    assert content(on_page(place=(400, 300, 450, 340))) == WHOLE_IMAGE


def test_thin_margins_are_left_on() -> None:
    assert content(on_page(place=(8, 6, 792, 594))) == WHOLE_IMAGE
    assert content(on_page(place=(60, 45, 740, 555))) != WHOLE_IMAGE


@pytest.mark.parametrize("factor", [0.5, 0.25])
@pytest.mark.parametrize("name", ["chelsea.png", "china.jpg", "coffee.png"])
def test_a_smaller_copy_shows_the_same_content(name: str, factor: float) -> None:
    for place in ((200, 150, 600, 450), (100, 30, 350, 500)):
        page = on_page(PHOTOGRAPHS[name], (1000, 750), place)
        small = page.resize((round(1000 * factor), round(750 * factor)), Image.Resampling.LANCZOS)
        one, other = decoded(page).thumbnail, decoded(small, "JPEG", quality=70).thumbnail
        # An edge may fall on that of a cell.
        assert np.abs(np.subtract(one.content, other.content)).max() <= 1.01 / SIDE
        assert one.aspect == pytest.approx(other.aspect, rel=0.01)
        if one.content == other.content:
            assert levels_apart(one, other) < 0.35


def test_a_thumbnail_shows_its_content_as_the_content_alone_would() -> None:
    """What is cut out of a page is as sharp as what fills its frame."""
    page = on_page(size=(1600, 1200), place=(400, 300, 800, 600))
    thumbnail = decoded(page).thumbnail
    alone = Thumbnail.of(shrunk(page.resize((SIDE, SIDE), box=thumbnail.content.box(page.size))), WHOLE_IMAGE, 1.0)
    from_square = Thumbnail.of(thumbnail.content.crop(shrunk(page)), WHOLE_IMAGE, 1.0)
    assert levels_apart(thumbnail, alone) < 0.3
    assert levels_apart(from_square, alone) > 3 * levels_apart(thumbnail, alone)


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("form", ["JPEG", "TIFF", "PNG"])
def test_a_picture_that_exif_turns_has_the_thumbnail_of_the_upright_one(orientation: int, form: str) -> None:
    stored_as = {2: 0, 3: 3, 4: 1, 5: 5, 6: 2, 7: 6, 8: 4}  # what takes the upright picture to the stored one
    options = {"quality": 95} if form == "JPEG" else {}
    for upright in (PHOTO, on_page(place=(100, 50, 300, 450))):
        exif = Image.Exif()
        exif[0x0112] = orientation
        stored = upright.transpose(Image.Transpose(stored_as[orientation])) if orientation > 1 else upright
        turned, plain = (
            decoded(stored, form, exif=exif, **options).thumbnail,
            decoded(upright, form, **options).thumbnail,
        )
        assert turned.aspect == pytest.approx(plain.aspect)
        assert turned.content == plain.content
        assert levels_apart(turned, plain) < 0.2


def test_the_aspect_is_that_of_the_file_however_small_it_is_decoded() -> None:
    for size in ((3001, 1999), (200, 1500), (64, 64)):
        assert decoded(PHOTO.resize(size), "JPEG").thumbnail.aspect == size[0] / size[1]


def test_transparent_margins_are_white() -> None:
    page = Image.new("RGBA", (800, 600), (0, 0, 0, 0))
    page.paste(PHOTO.resize((400, 300)), (200, 150))
    clear, white = decoded(page).thumbnail, decoded(on_page()).thumbnail
    assert clear.content == white.content
    assert levels_apart(clear, white) < 0.1


def test_levels_are_of_one_mean_and_deviation_whatever_the_light() -> None:
    bright, dark = (decoded(PHOTO.point(change)).thumbnail for change in (lambda v: v, lambda v: v * 0.4 + 10))
    assert bright.levels.dtype == np.uint8
    for thumbnail in (bright, dark):
        assert thumbnail.levels.max() <= MAX_LEVEL
        assert thumbnail.levels.mean() == pytest.approx(7.5, abs=0.3)
        assert thumbnail.levels.std() == pytest.approx(3.75, abs=0.4)
    assert levels_apart(bright, dark) < 0.2


sides = st.integers(0, 255).map(lambda side: side / 255)
thumbnails = st.builds(
    Thumbnail,
    hnp.arrays(np.uint8, (SIDE, SIDE), elements=st.integers(0, MAX_LEVEL)),
    st.builds(Region, sides, sides, sides, sides),
    st.floats(0.0078125, 128, width=32),
)


@settings(deadline=None)
@given(thumbnails)
def test_what_is_packed_is_unpacked(thumbnail: Thumbnail) -> None:
    data = thumbnail.to_bytes()
    assert len(data) == THUMBNAIL_BYTES == 1160
    again = Thumbnail.from_bytes(data)
    np.testing.assert_array_equal(again.levels, thumbnail.levels)
    assert (again.content, again.aspect) == (thumbnail.content, thumbnail.aspect)
    assert again.to_bytes() == data


def test_packing_rounds_the_content_a_little_and_once() -> None:
    thumbnail = decoded(on_page()).thumbnail
    again = Thumbnail.from_bytes(thumbnail.to_bytes())
    assert np.abs(np.subtract(again.content, thumbnail.content)).max() <= 0.5 / 255 + 1e-9
    assert again.to_bytes() == thumbnail.to_bytes()


@pytest.mark.parametrize("size", [0, 1, THUMBNAIL_BYTES - 1, THUMBNAIL_BYTES + 1])
def test_bytes_of_another_length_are_refused(size: int) -> None:
    with pytest.raises(ValueError, match=f"has 1160 bytes, not {size}"):
        Thumbnail.from_bytes(bytes(size))


@settings(deadline=None)
@given(hnp.arrays(np.uint8, (SIDE, SIDE, 3), elements=st.sampled_from([0, 90, 255])))
def test_no_pixels_are_too_odd(small: Pixels) -> None:
    found = find_content(small)
    assert 0 <= found.left < found.right <= 1
    assert 0 <= found.top < found.bottom <= 1
    thumbnail = Thumbnail.of(small, found, 1.0)
    assert thumbnail.levels.max() <= MAX_LEVEL


# Few rows are not blank: what is left of the margins may be thin, empty or all.
@settings(deadline=None)
@given(st.sets(st.integers(0, SIDE - 1), max_size=12), st.sets(st.integers(0, SIDE - 1), max_size=12))
def test_lines_across_a_blank_page_are_no_error(rows: set[int], columns: set[int]) -> None:
    small = np.full((SIDE, SIDE, 3), 255, np.uint8)
    small[sorted(rows)] = 0
    small[:, sorted(columns)] = 0
    found = find_content(small)
    assert found.area > 0


@pytest.mark.parametrize("side", [144, 192, 240])
def test_a_picture_is_shrunk_as_by_a_box_filter(side: int) -> None:
    square = PHOTO.resize((side, side))
    assert np.abs(shrink(np.asarray(square)).astype(int) - shrunk(square)).max() <= 1
