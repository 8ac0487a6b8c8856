"""Draw what a verification says: boxes around what two pictures share, and lines between their matching features."""

from typing import cast

from PIL import Image, ImageDraw

from consumer.verdicts import Box
from consumer.verification.result import Verification

BOX_COLOUR = "#19c37d"
LINE_COLOURS = ("#ffb000", "#fe6100", "#dc267f", "#785ef0", "#648fff")
MAX_LINES = 12
GAP = 16


def draw_box(picture: Image.Image, box: Box, width: int = 2) -> None:
    """Draw a box, given as fractions of the sides, onto a picture."""
    right, bottom = picture.width - 1, picture.height - 1
    corners = (box.left * right, box.top * bottom, box.right * right, box.bottom * bottom)
    ImageDraw.Draw(picture).rectangle(corners, outline=BOX_COLOUR, width=width)


def side_by_side(match: Image.Image, upload: Image.Image, verification: Verification, height: int = 480) -> Image.Image:
    """Draw both pictures, RGB, at one height, the match on the left: the edit's boxes, and lines for some inliers."""
    left, right = (_resized(picture, height) for picture in (match, upload))
    if verification.edit is not None:
        draw_box(left, verification.edit.box_in_match, 3)
        draw_box(right, verification.edit.box_in_upload, 3)
    canvas = Image.new("RGB", (left.width + GAP + right.width, height), "white")
    canvas.paste(left, (0, 0))
    canvas.paste(right, (left.width + GAP, 0))
    draw = ImageDraw.Draw(canvas)
    for number, link in enumerate(verification.links[:MAX_LINES]):
        upload_x, upload_y, match_x, match_y = cast(list[float], link.tolist())
        start = (match_x * left.width, match_y * height)
        end = (left.width + GAP + upload_x * right.width, upload_y * height)
        colour = LINE_COLOURS[number % len(LINE_COLOURS)]
        draw.line((start, end), fill=colour, width=2)
        for x, y in (start, end):
            draw.ellipse((x - 4, y - 4, x + 4, y + 4), fill=colour)
    return canvas


def _resized(picture: Image.Image, height: int) -> Image.Image:
    """Resize a picture to a height, and to a width of at most twice that."""
    width = min(max(1, round(picture.width * height / picture.height)), 2 * height)
    return picture.convert("RGB").resize((width, height), Image.Resampling.LANCZOS, reducing_gap=2.0)
