"""Kinds of edits that neither the encoder nor the rule of the second look was fitted to: whole kinds held out.

They are applied as those of `edits` are, and only ever measured.
"""

from collections.abc import Mapping
from itertools import pairwise

import numpy as np
from PIL import Image, ImageDraw, ImageFilter, ImageOps

from triton_models.training.edits import Edit, Picture, Rng, between

FAMILY = "held out"


def one_sided_crop(picture: Picture, strength: float, rng: Rng, other: Picture) -> Picture:
    """Cut 5 to 35% off along one side only, so that the shape changes."""
    share, (width, height) = between(0.05, 0.35, strength), picture.size
    side = int(rng.integers(4))
    across, down = (round(width * share), 0) if side < 2 else (0, round(height * share))
    left, top = (across, down) if side % 2 else (0, 0)
    return picture.crop((left, top, left + width - across, top + height - down))


def dithered(picture: Picture, strength: float, rng: Rng, other: Picture) -> Picture:
    """Few colours, dithered: 64 down to 6, as in a GIF."""
    return picture.quantize(round(64 * (6 / 64) ** strength), dither=Image.Dither.FLOYDSTEINBERG).convert("RGB")


def photocopy(picture: Picture, strength: float, rng: Rng, other: Picture) -> Picture:
    """Grey, hard contrast, specks, laid slightly askew on white."""
    grey = np.asarray(ImageOps.autocontrast(ImageOps.grayscale(picture), cutoff=2), np.float32)
    steep = between(1.2, 3.5, strength)
    hard = np.clip((grey - 128) * steep + 128 + rng.uniform(-10, 25), 0, 255)
    hard[rng.random(hard.shape) < between(0.0, 0.01, strength)] = 0
    copy = Image.fromarray(hard.astype(np.uint8))
    angle = rng.uniform(-1, 1) * between(0.3, 2.0, strength)
    return copy.rotate(angle, Image.Resampling.BICUBIC, fillcolor=255).convert("RGB")


def old_photograph(picture: Picture, strength: float, rng: Rng, other: Picture) -> Picture:
    """A filter of photo apps: faded blacks, a colour cast, dark corners, grain."""
    pixels = np.asarray(picture, np.float32)
    height, width = pixels.shape[:2]
    y, x = np.mgrid[-1 : 1 : height * 1j, -1 : 1 : width * 1j]
    corners = 1 - between(0.2, 0.7, strength) * np.clip((x * x + y * y) / 2, 0, 1)
    cast = rng.uniform(1 - 0.3 * strength, 1, 3)
    faded = between(0, 60, strength) + pixels * (1 - between(0, 60, strength) / 255)
    grain = rng.standard_normal((height, width, 1)) * between(2, 14, strength)
    return Image.fromarray(np.clip(faded * corners[..., None] * cast + grain, 0, 255).astype(np.uint8))


def lens(picture: Picture, strength: float, rng: Rng, other: Picture) -> Picture:
    """Barrel or pincushion distortion, on a mesh."""
    width, height = picture.size
    bend = between(0.03, 0.18, strength) * (1 if rng.random() < 0.5 else -1)
    steps = np.linspace(0, 1, 13)

    def source(x: float, y: float) -> tuple[float, float]:
        u, v = 2 * x - 1, 2 * y - 1
        scale = (1 + bend * (u * u + v * v)) / (1 + max(bend, 0) * 2)
        return (u * scale + 1) / 2 * width, (v * scale + 1) / 2 * height

    mesh = []
    for top, bottom in pairwise(steps):
        for left, right in pairwise(steps):
            box = (round(left * width), round(top * height), round(right * width), round(bottom * height))
            corners = ((left, top), (left, bottom), (right, bottom), (right, top))
            mesh.append((box, tuple(value for corner in corners for value in source(*corner))))
    return picture.transform(picture.size, Image.Transform.MESH, mesh, Image.Resampling.BICUBIC)


def sharpened(picture: Picture, strength: float, rng: Rng, other: Picture) -> Picture:
    return picture.filter(ImageFilter.UnsharpMask(between(1, 5, strength), round(between(100, 500, strength)), 0))


def photo_of_a_screen(picture: Picture, strength: float, rng: Rng, other: Picture) -> Picture:
    """Taken off a screen with a telephone: pixel rows that beat with the sensor's, a reflection, a slant."""
    width, height = picture.size
    slant = between(0.01, 0.06, strength)
    moved = rng.uniform(-slant, slant, 8) * np.tile((width, height), 4)
    corners = np.array((0, 0, 0, height, width, height, width, 0)) + moved
    slanted = picture.transform(picture.size, Image.Transform.QUAD, tuple(corners), Image.Resampling.BICUBIC)
    pixels = np.asarray(slanted, np.float32)
    y, x = np.mgrid[0:height, 0:width]
    period, angle = rng.uniform(3, 9), rng.uniform(0, np.pi)
    beat = np.sin((x * np.cos(angle) + y * np.sin(angle)) * 2 * np.pi / period) * between(4, 22, strength)
    glare_x, glare_y = rng.uniform(0, width), rng.uniform(0, height)
    distance = ((x - glare_x) / width) ** 2 + ((y - glare_y) / height) ** 2
    glare = np.exp(-distance / 0.05) * between(20, 120, strength)
    return Image.fromarray(np.clip(pixels + (beat + glare)[..., None], 0, 255).astype(np.uint8))


def framed(picture: Picture, strength: float, rng: Rng, other: Picture) -> Picture:
    """A frame in one colour over the edge, with rounded corners within."""
    width, height = picture.size
    border = max(2, round(min(width, height) * between(0.01, 0.08, strength)))
    mask = Image.new("L", picture.size, 0)
    inner = (border, border, width - border, height - border)
    ImageDraw.Draw(mask).rounded_rectangle(inner, radius=4 * border, fill=255)
    colour = tuple(int(value) for value in rng.integers(0, 256, 3))
    return Image.composite(picture, Image.new("RGB", picture.size, colour), mask)


HELD_OUT_EDITS: Mapping[str, Edit] = {
    "one-sided crop": Edit(FAMILY, one_sided_crop),
    "dithered": Edit(FAMILY, dithered),
    "photocopy": Edit(FAMILY, photocopy),
    "old photograph": Edit(FAMILY, old_photograph),
    "lens": Edit(FAMILY, lens),
    "sharpened": Edit(FAMILY, sharpened),
    "photo of a screen": Edit(FAMILY, photo_of_a_screen),
    "framed": Edit(FAMILY, framed),
}
