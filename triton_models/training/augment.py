"""Make two views of a picture for contrastive training: varied, cheap, and with known geometry.

All geometry of a view (crop, zoom, aspect, rotation, flips, perspective, its place on a larger canvas) is one
homography, so that a view costs one resampling, at the size of training; then colours, noise, blur, compression and
overlays follow on the small result. The homography goes with the view, for the loss on local features.
"""

import math
from collections.abc import Callable
from typing import NamedTuple

import cv2
import numpy as np
from numpy.typing import NDArray

Pixels = NDArray[np.uint8]
Matrix = NDArray[np.float64]
Rng = np.random.Generator
Other = Callable[[Rng], Pixels]  # another picture, for backgrounds and blends

COMBINED_SHARE = 0.4  # of the strong views, those with lighting, zoom and noise at once

cv2.setNumThreads(0)  # the loader's processes are the parallelism


class View(NamedTuple):
    """`pixels` uint8 [S, S, 3]; `to_source` float64 [3, 3], from the view's unit square to that of the picture."""

    pixels: Pixels
    to_source: Matrix


def strong_view(rng: Rng, picture: Pixels, aspect: float, other: Other, size: int) -> View:
    """Make an edited copy: one of the kinds of geometry, then up to four other edits."""
    if rng.random() < COMBINED_SHARE:
        matrix = _crop(rng, 1 / 1.7)
        edits = [_lighting, _colour, _noise]
        background, box = None, _FULL
    else:
        matrix, background, box = _geometry(rng, picture, aspect, other, size)
        weights = np.array([weight for _, weight in EDITS])
        count = int(rng.choice(5, p=(0.18, 0.4, 0.28, 0.1, 0.04)))
        edits = [EDITS[i][0] for i in rng.choice(len(EDITS), count, replace=False, p=weights / weights.sum())]
    pixels = _render(rng, picture, matrix, _Canvas(background, box), size)
    for edit in edits:
        pixels = edit(rng, pixels, other)
    return View(pixels, matrix @ np.linalg.inv(_box_matrix(box)))


def light_view(rng: Rng, picture: Pixels, aspect: float, other: Other, size: int) -> View:
    """Make a picture as first uploaded: mostly untouched, else lightly edited, sometimes as strongly as a copy."""
    kind = rng.random()
    if kind < 0.15:
        return strong_view(rng, picture, aspect, other, size)
    matrix = _crop(rng, 0.8) if kind < 0.4 else np.eye(3)
    pixels = _render(rng, picture, matrix, _Canvas(None, _FULL), size)
    if kind < 0.5:
        edit = (_lighting, _colour, _jpeg, _noise, _blur)[rng.integers(5)]
        pixels = edit(rng, pixels, other)
    return View(pixels, matrix)


# Geometry. Matrices act on column vectors (x, y, 1) in unit squares.

Box = tuple[float, float, float, float]  # left, top, width, height in the view
_FULL: Box = (0.0, 0.0, 1.0, 1.0)


def _shift_scale(x: float, y: float, scale_x: float, scale_y: float) -> Matrix:
    return np.array([[scale_x, 0, x], [0, scale_y, y], [0, 0, 1]])


def _box_matrix(box: Box) -> Matrix:
    return _shift_scale(*box)


def _about_centre(matrix: Matrix) -> Matrix:
    return _shift_scale(0.5, 0.5, 1, 1) @ matrix @ _shift_scale(-0.5, -0.5, 1, 1)


def _crop(rng: Rng, min_side: float) -> Matrix:
    """Draw a crop whose sides are at least `min_side` of the picture's, anywhere in it."""
    side = math.exp(rng.uniform(math.log(min_side), 0))
    stretch = math.exp(rng.normal(0, 0.12))
    width, height = min(side * stretch, 1.0), min(side / stretch, 1.0)
    return _shift_scale(rng.uniform(0, 1 - width), rng.uniform(0, 1 - height), width, height)


def _rotation(rng: Rng, aspect: float) -> Matrix:
    """Draw a rotation in the picture's true proportions, between cut off and shown whole with corners to fill."""
    angle = math.radians(rng.uniform(4, 45) * rng.choice((-1, 1)))
    cos, sin = math.cos(angle), math.sin(angle)
    proportions = np.diag((aspect, 1.0, 1.0))
    turn = np.linalg.inv(proportions) @ np.array([[cos, -sin, 0], [sin, cos, 0], [0, 0, 1]]) @ proportions
    whole = abs(cos) + abs(sin) * max(aspect, 1 / aspect)
    return _about_centre(np.diag((1.0, 1.0, rng.uniform(min(1.0, whole), whole) ** -1)) @ turn)


def _perspective(rng: Rng) -> Matrix:
    corners = np.array([[0, 0], [1, 0], [1, 1], [0, 1]], np.float32)
    moved = corners + rng.uniform(-0.16, 0.16, (4, 2)).astype(np.float32)
    return cv2.getPerspectiveTransform(corners, moved)


def _mirror(rng: Rng) -> Matrix:
    return _about_centre(np.diag((-1.0, 1.0, 1.0) if rng.random() < 0.6 else (1.0, -1.0, 1.0)))


def _quarter_turn(rng: Rng) -> Matrix:
    turn = np.array([[0.0, -1, 0], [1, 0, 0], [0, 0, 1]])
    return _about_centre(np.linalg.matrix_power(turn, int(rng.integers(1, 4))))


def _geometry(rng: Rng, picture: Pixels, aspect: float, other: Other, size: int) -> tuple[Matrix, Pixels | None, Box]:
    """Draw a view's map into the picture, the background around the picture, and the box that the picture takes."""
    matrix = np.eye(3)
    if rng.random() < 0.45:
        matrix = _crop(rng, 0.38)
    if rng.random() < 0.2:
        matrix = matrix @ _mirror(rng)
    distortion = rng.random()
    if distortion < 0.16:
        matrix = matrix @ _quarter_turn(rng)
    elif distortion < 0.28:
        matrix = matrix @ _rotation(rng, aspect)
    elif distortion < 0.35:
        matrix = matrix @ _perspective(rng)
    surroundings = rng.random()
    if surroundings < 0.13:
        return matrix, *_padding(rng, picture, size)
    if surroundings < 0.22:
        return matrix, *_collage(rng, other, size)
    if surroundings < 0.31:
        return matrix, *_inset(rng, other, size)
    if surroundings < 0.37:
        return matrix, *_screenshot(rng, size)
    return matrix, _flat(rng, size), _FULL


def _fit(picture: Pixels, width: int, height: int) -> Pixels:
    return cv2.resize(picture, (width, height), interpolation=cv2.INTER_AREA)


def _any_colour(rng: Rng) -> NDArray[np.uint8]:
    kind = rng.random()
    if kind < 0.35:
        return np.zeros(3, np.uint8)
    if kind < 0.6:
        return np.full(3, 255, np.uint8)
    return rng.integers(0, 256, 3, dtype=np.uint8)


def _flat(rng: Rng, size: int) -> Pixels:
    return np.full((size, size, 3), _any_colour(rng), np.uint8)


def _padding(rng: Rng, picture: Pixels, size: int) -> tuple[Pixels, Box]:
    """Make bars on two sides or all round, of one colour or of the blurred picture."""
    canvas = _flat(rng, size)
    if rng.random() < 0.25:
        canvas = cv2.GaussianBlur(_fit(picture, size, size), (0, 0), size / 16)
    width, height = rng.uniform(0.45, 1, 2)
    kind = rng.random()
    if kind < 0.3:
        width = 1.0
    elif kind < 0.6:
        height = 1.0
    centred = rng.random() < 0.6
    x, y = (0.5, 0.5) if centred else rng.random(2)
    return canvas, ((1 - width) * x, (1 - height) * y, width, height)


def _collage(rng: Rng, other: Other, size: int) -> tuple[Pixels, Box]:
    """Make a grid of up to 3 x 2 pictures, one of them ours."""
    columns, rows = ((1, 2), (2, 1), (2, 2), (2, 2), (3, 1), (3, 2))[rng.integers(6)]
    canvas = _flat(rng, size)
    xs, ys = np.linspace(0, size, columns + 1).astype(int), np.linspace(0, size, rows + 1).astype(int)
    gap = int(rng.integers(0, 4))
    for column in range(columns):
        for row in range(rows):
            left, right, top, bottom = xs[column] + gap, xs[column + 1] - gap, ys[row] + gap, ys[row + 1] - gap
            canvas[top:bottom, left:right] = _fit(other(rng), right - left, bottom - top)
    column, row = int(rng.integers(columns)), int(rng.integers(rows))
    inset = gap / size
    return canvas, (column / columns + inset, row / rows + inset, 1 / columns - 2 * inset, 1 / rows - 2 * inset)


def _inset(rng: Rng, other: Other, size: int) -> tuple[Pixels, Box]:
    """Put ours upon another picture."""
    width, height = rng.uniform(0.4, 0.8) * np.exp(rng.normal(0, 0.1, 2))
    x, y = rng.random(2)
    width, height = min(width, 1.0), min(height, 1.0)
    return _fit(other(rng), size, size), ((1 - width) * x, (1 - height) * y, width, height)


def _screenshot(rng: Rng, size: int) -> tuple[Pixels, Box]:
    """Put ours into the window of an application: bars and lines of text about it."""
    dark = rng.random() < 0.4
    canvas = np.full((size, size, 3), rng.integers(0, 50) if dark else rng.integers(225, 256), np.uint8)
    ink = rng.integers(150, 256, 3) if dark else rng.integers(0, 110, 3)
    left, right = rng.uniform(0, 0.15), rng.uniform(0.8, 1)
    top, bottom = rng.uniform(0.03, 0.28), rng.uniform(0.7, 0.97)
    cv2.rectangle(canvas, (0, 0), (size, int(size * rng.uniform(0.02, top))), rng.integers(0, 256, 3).tolist(), -1)
    for _ in range(int(rng.integers(2, 9))):
        y = int(size * (rng.uniform(0, top) if rng.random() < 0.4 else rng.uniform(bottom, 1)))
        _write(rng, canvas, (int(size * rng.uniform(0, 0.5)), y), ink.tolist(), rng.uniform(0.2, 0.45))
    return canvas, (left, top, right - left, bottom - top)


class _Canvas(NamedTuple):
    background: Pixels | None  # None: the picture's own edges go on
    box: Box  # where the picture lies


def _render(rng: Rng, picture: Pixels, matrix: Matrix, canvas: _Canvas, size: int) -> Pixels:
    """Resample the picture once; the canvas shows wherever the picture does not."""
    background, box = canvas
    level = picture
    side = math.sqrt(picture.shape[0] * picture.shape[1])  # halves of pictures are no squares
    shrink = math.sqrt(abs(np.linalg.det(matrix[:2, :2]) / (box[2] * box[3]))) * side / size
    while shrink >= 1.5 and min(level.shape[:2]) > 16:  # a pyramid against aliasing
        level = _fit(level, level.shape[1] // 2, level.shape[0] // 2)
        shrink /= 2
    to_pixels = np.diag((float(level.shape[1]), float(level.shape[0]), 1.0))
    view_to_level = _centres(to_pixels @ matrix @ np.linalg.inv(_box_matrix(box)) @ np.diag((1 / size, 1 / size, 1.0)))
    interpolation = cv2.INTER_LINEAR if rng.random() < 0.7 else cv2.INTER_CUBIC
    flags = interpolation | cv2.WARP_INVERSE_MAP
    warped = cv2.warpPerspective(level, view_to_level, (size, size), flags=flags, borderMode=cv2.BORDER_REPLICATE)
    if background is None:
        return warped
    ones = np.full(level.shape[:2], 255, np.uint8)
    inside = cv2.warpPerspective(ones, view_to_level, (size, size), flags=cv2.INTER_NEAREST | cv2.WARP_INVERSE_MAP)
    left, top = round(box[0] * size), round(box[1] * size)
    right, bottom = round((box[0] + box[2]) * size), round((box[1] + box[3]) * size)
    mask = np.zeros((size, size), bool)
    mask[top:bottom, left:right] = inside[top:bottom, left:right] > 0
    finished = background.copy()
    if box != _FULL and rng.random() < 0.5:  # the corners of a turned picture in a frame
        finished[top:bottom, left:right] = _any_colour(rng)
    finished[mask] = warped[mask]
    return finished


def _centres(matrix: Matrix) -> Matrix:
    """Express a map between coordinates as a map between pixel indices, which name pixel centres."""
    return _shift_scale(-0.5, -0.5, 1, 1) @ matrix @ _shift_scale(0.5, 0.5, 1, 1)


# Edits of the finished view, uint8 [S, S, 3].


def _table(values: NDArray[np.floating]) -> Pixels:
    return np.clip(values, 0, 255).astype(np.uint8)


def _lighting(rng: Rng, pixels: Pixels, other: Other) -> Pixels:
    """Change brightness, contrast, gamma; sometimes as a gradient over the picture, sometimes local contrast."""
    if rng.random() < 0.2:
        light, *rest = cv2.split(cv2.cvtColor(pixels, cv2.COLOR_RGB2Lab))
        cells = int(rng.integers(2, 9))
        equal = cv2.createCLAHE(math.exp(rng.uniform(0.3, 2)), (cells, cells)).apply(light)
        pixels = cv2.cvtColor(cv2.merge((equal, *rest)), cv2.COLOR_Lab2RGB)
    x = np.arange(256) / 255
    curve = x ** math.exp(rng.normal(0, 0.45))
    curve = (curve - 0.5) * math.exp(rng.normal(0, 0.35)) + 0.5 + rng.normal(0, 0.1)
    curve = curve * math.exp(rng.normal(0, 0.25))
    lit = cv2.LUT(pixels, _table(curve * 255))
    if rng.random() < 0.15:
        start, end = rng.uniform(0.35, 1.4, 2)
        ramp = np.linspace(start, end, pixels.shape[0], dtype=np.float32)
        ramp = ramp[:, None, None] if rng.random() < 0.5 else ramp[None, :, None]
        lit = _table(lit * ramp)
    return lit


def _colour(rng: Rng, pixels: Pixels, other: Other) -> Pixels:
    """Change saturation, hue and white balance, as one matrix."""
    grey = np.full((3, 3), 1 / 3)
    saturation = rng.uniform(0, 2.2)
    angle = rng.normal(0, 0.5) if rng.random() < 0.5 else 0.0
    cos, third, root = math.cos(angle), (1 - math.cos(angle)) / 3, math.sin(angle) / math.sqrt(3)
    hue = np.full((3, 3), third) + np.array([[cos, -root, root], [root, cos, -root], [-root, root, cos]])
    matrix = np.diag(np.exp(rng.normal(0, 0.15, 3))) @ (grey + saturation * (np.eye(3) - grey)) @ hue
    return cv2.transform(pixels, matrix)


def _grey(rng: Rng, pixels: Pixels, other: Other) -> Pixels:
    grey = cv2.cvtColor(pixels, cv2.COLOR_RGB2GRAY)
    return cv2.cvtColor(grey, cv2.COLOR_GRAY2RGB)


def _colour_map(rng: Rng, pixels: Pixels, other: Other) -> Pixels:  # noqa: PLR0911 (a return a kind)
    """Apply a tint, posterisation, solarisation, negative, equalisation, false colours, or swapped channels."""
    kind = rng.integers(8)
    if kind == 0:
        shades = np.linspace(rng.integers(0, 90, 3), rng.integers(150, 256, 3), 256)
        return _table(shades)[cv2.cvtColor(pixels, cv2.COLOR_RGB2GRAY)]
    if kind == 1:
        return pixels & np.uint8(0xFF << int(rng.integers(4, 7)) & 0xFF)
    if kind == 2:
        return np.where(pixels < rng.integers(90, 220), pixels, 255 - pixels)
    if kind == 3:
        return 255 - pixels
    if kind == 4:
        return np.stack([cv2.equalizeHist(np.ascontiguousarray(pixels[..., c])) for c in range(3)], axis=-1)
    if kind == 5:
        return cv2.applyColorMap(cv2.cvtColor(pixels, cv2.COLOR_RGB2GRAY), int(rng.integers(0, 21)))
    if kind == 6:
        return np.ascontiguousarray(pixels[..., rng.permutation(3)])
    curves = np.cumsum(rng.gamma(0.4, 1.0, (8, 3)), axis=0)  # a curve of its own for each channel
    table = np.stack([np.interp(np.arange(256), np.linspace(0, 255, 8), c / c[-1] * 255) for c in curves.T], axis=1)
    return cv2.LUT(pixels, _table(table)[None])


def _noise(rng: Rng, pixels: Pixels, other: Other) -> Pixels:
    """Add Gaussian noise, salt and pepper, or both."""
    kind = rng.random()
    if kind < 0.7:
        shape = pixels.shape if rng.random() < 0.7 else (*pixels.shape[:2], 1)
        noise = rng.standard_normal(shape, dtype=np.float32) * rng.uniform(4, 55)
        pixels = _table(pixels + noise)
    if kind > 0.3:
        pixels = pixels.copy()
        per_channel = rng.random() < 0.3
        draws = rng.random(pixels.shape if per_channel else pixels.shape[:2], dtype=np.float32)
        amount = math.exp(rng.uniform(math.log(0.004), math.log(0.16)))
        pixels[draws < amount / 2] = 0
        pixels[draws > 1 - amount / 2] = 255
    return pixels


def _blur(rng: Rng, pixels: Pixels, other: Other) -> Pixels:
    size = pixels.shape[0] / 128
    kind = rng.integers(5)
    if kind == 0:
        return cv2.medianBlur(pixels, int(rng.choice((3, 5, 7))))
    if kind == 1:
        length = int(rng.integers(3, 13) * size) | 1
        line = np.zeros((length, length), np.float32)
        end = (int(rng.integers(length)), 0) if rng.random() < 0.5 else (0, int(rng.integers(length)))
        cv2.line(line, end, (length - 1 - end[0], length - 1 - end[1]), 1.0)
        return cv2.filter2D(pixels, -1, line / line.sum())
    blurred = cv2.GaussianBlur(pixels, (0, 0), rng.uniform(0.5, 3.5) * size)
    if kind == 2:  # sharpened
        return cv2.addWeighted(pixels, 1 + rng.uniform(0.5, 3), blurred, -rng.uniform(0.5, 2), 0)
    return blurred


def _pixelate(rng: Rng, pixels: Pixels, other: Other) -> Pixels:
    size = pixels.shape[0]
    small = _fit(pixels, *(max(12, int(side)) for side in size * np.exp(rng.uniform(-2.1, -0.4)) * np.ones(2)))
    return cv2.resize(small, (size, size), interpolation=cv2.INTER_NEAREST if rng.random() < 0.6 else cv2.INTER_LINEAR)


def _jpeg(rng: Rng, pixels: Pixels, other: Other) -> Pixels:
    webp = rng.random() < 0.12
    options = [cv2.IMWRITE_WEBP_QUALITY if webp else cv2.IMWRITE_JPEG_QUALITY, int(rng.integers(4, 80))]
    data = cv2.imencode(".webp" if webp else ".jpg", pixels, options)[1]
    return cv2.imdecode(data, cv2.IMREAD_COLOR)


def _write(rng: Rng, pixels: Pixels, corner: tuple[int, int], ink: list[int], scale: float) -> None:
    text = "".join(chr(c) for c in rng.integers(33, 123, int(rng.integers(3, 18))))
    scale *= pixels.shape[0] / 128
    cv2.putText(
        pixels, text, corner, int(rng.integers(0, 8)), scale, ink, max(1, round(scale * rng.uniform(1, 4))), cv2.LINE_AA
    )


def _text(rng: Rng, pixels: Pixels, other: Other) -> Pixels:
    """Write words upon the picture, sometimes on a bar as in a captioned joke."""
    pixels = pixels.copy()
    size = pixels.shape[0]
    if rng.random() < 0.3:
        bar = int(size * rng.uniform(0.08, 0.25))
        top = 0 if rng.random() < 0.5 else size - bar
        pixels[top : top + bar] = _any_colour(rng)
    for _ in range(int(rng.integers(1, 5))):
        corner = (int(rng.integers(-size // 4, size // 2)), int(rng.integers(5, size)))
        _write(rng, pixels, corner, _any_colour(rng).tolist(), rng.uniform(0.3, 1.5))
    return pixels


def _shapes(rng: Rng, pixels: Pixels, other: Other) -> Pixels:
    """Draw faces, discs, boxes and strokes, as emoji, stickers and redactions are."""
    size = pixels.shape[0]
    drawn = pixels.copy()
    for _ in range(int(rng.integers(1, 5))):
        x, y = (int(v) for v in rng.integers(0, size, 2))
        radius = int(size * rng.uniform(0.04, 0.2))
        colour = rng.integers(0, 256, 3).tolist()
        kind = rng.integers(4)
        if kind == 0:  # a face
            cv2.circle(drawn, (x, y), radius, (255, 205, 50), -1, cv2.LINE_AA)
            for side in (-1, 1):
                cv2.circle(drawn, (x + side * radius // 3, y - radius // 4), max(1, radius // 7), (60, 40, 10), -1)
            cv2.ellipse(drawn, (x, y), (radius // 2, radius // 2), 0, 20, 160, (60, 40, 10), max(1, radius // 8))
        elif kind == 1:
            cv2.ellipse(
                drawn, (x, y), (radius, int(rng.integers(1, radius + 1))), rng.uniform(0, 180), 0, 360, colour, -1
            )
        elif kind == 2:
            cv2.rectangle(drawn, (x - radius, y - radius), (x + radius, y + radius // 2), colour, -1)
        else:
            points = rng.integers(0, size, (4, 1, 2)).astype(np.int32)
            cv2.polylines(drawn, [points], False, colour, int(rng.integers(1, 5)), cv2.LINE_AA)
    return drawn if rng.random() < 0.6 else cv2.addWeighted(drawn, 0.6, pixels, 0.4, 0)


def _blend(rng: Rng, pixels: Pixels, other: Other) -> Pixels:
    """Let another picture shine through, or cover a part of ours with it."""
    size = pixels.shape[0]
    if rng.random() < 0.6:
        share = rng.uniform(0.1, 0.5)
        return cv2.addWeighted(pixels, 1 - share, _fit(other(rng), size, size), share, 0)
    pixels = pixels.copy()
    width, height = (int(size * side) for side in rng.uniform(0.15, 0.55, 2))
    x, y = int(rng.integers(0, size - width)), int(rng.integers(0, size - height))
    pixels[y : y + height, x : x + width] = _fit(other(rng), width, height)
    return pixels


def _haze(rng: Rng, pixels: Pixels, other: Other) -> Pixels:
    """Add mist: a pale veil, thicker here than there, over a slightly blurred picture."""
    size = pixels.shape[0]
    coarse = rng.random((int(rng.integers(2, 6)), int(rng.integers(2, 6)), 1), dtype=np.float32)
    veil = cv2.resize(coarse, (size, size), interpolation=cv2.INTER_CUBIC)[..., None]
    veil = np.clip(rng.uniform(0.1, 0.6) + (veil - 0.5) * rng.uniform(0, 0.8), 0, 0.85)
    blurred = cv2.GaussianBlur(pixels, (0, 0), rng.uniform(0.3, 1.2) * size / 128)
    return _table(blurred * (1 - veil) + veil * rng.integers(180, 256, 3))


EDITS: tuple[tuple[Callable[[Rng, Pixels, Other], Pixels], float], ...] = (
    (_lighting, 3.0),
    (_colour, 3.0),
    (_grey, 2.0),
    (_colour_map, 2.2),
    (_noise, 3.0),
    (_blur, 2.0),
    (_pixelate, 1.2),
    (_jpeg, 2.0),
    (_text, 1.3),
    (_shapes, 1.2),
    (_blend, 2.4),
    (_haze, 1.6),
)
