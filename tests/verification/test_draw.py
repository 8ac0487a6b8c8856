"""Drawings of a verification: boxes and lines stand where it says."""

import numpy as np
from PIL import Image, ImageColor

from consumer.verdicts import Box
from consumer.verification.draw import BOX_COLOUR, GAP, LINE_COLOURS, draw_box, side_by_side
from consumer.verification.result import Verification

GREEN = ImageColor.getrgb(BOX_COLOUR)


def test_an_outline_stands_on_its_box() -> None:
    picture = Image.new("RGB", (201, 101))
    draw_box(picture, Box(left=0.25, top=0.1, right=1.0, bottom=0.5))
    rows, columns = np.nonzero((np.asarray(picture) == GREEN).all(axis=2))
    assert (columns.min(), rows.min(), columns.max(), rows.max()) == (50, 10, 200, 50)


def test_boxes_and_lines_link_two_pictures_of_any_shape() -> None:
    # The upload is the lower right quarter of the match.
    transform = np.array([[0.5, 0, 0.5], [0, 0.5, 0.5]], np.float32)
    verification = Verification(0.9, 1, transform, np.array([[0.5, 0.25, 0.75, 0.625]], np.float32), {})
    match, upload = Image.new("L", (100, 200)), Image.new("RGBA", (900, 30), "white")
    drawn = side_by_side(match, upload, verification, height=400)
    assert drawn.size == (200 + GAP + 800, 400)
    pixels = np.asarray(drawn)
    _, columns = np.nonzero((pixels[:, :200] == GREEN).all(axis=2))
    assert columns.min() == 99
    line = ImageColor.getrgb(LINE_COLOURS[0])
    assert tuple(pixels[250, 150]) == line
    assert tuple(pixels[100, 200 + GAP + 400]) == line


def test_a_verification_without_inliers_draws_nothing() -> None:
    verification = Verification(0.0, 0, np.eye(2, 3, dtype=np.float32), np.zeros((0, 4), np.float32), {})
    drawn = side_by_side(Image.new("RGB", (50, 50)), Image.new("RGB", (50, 50)), verification, height=50)
    assert not (np.asarray(drawn) == GREEN).all(axis=2).any()
