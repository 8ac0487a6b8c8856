"""Pictures within pages: photographs of sorts, faces, goods, logos, pen strokes and codes.

Those that return a picture take its size in pixels; the others draw on a page, in its own lengths.
"""

import math

import numpy as np
from PIL import Image, ImageDraw, ImageFilter

from .dice import Rng, between, chance, count, pick
from .page import BLACK, WHITE, Colour, Page, Picture, Point, mix, shade


def photo(rng: Rng, size: tuple[int, int]) -> Picture:
    """What may pass for a photograph: a landscape, things on a table, a face, or a blur of colours."""
    make = pick(rng, (_landscape, _landscape, _things, _blur, face))
    return make(rng, size)


def _slope(rng: Rng, size: tuple[int, int], first: Colour, last: Colour) -> Picture:
    """A change from one colour to another, downwards."""
    steps = np.linspace(0, 1, size[1])[:, None, None]
    rows = np.array(first) * (1 - steps) + np.array(last) * steps
    return Image.fromarray(np.broadcast_to(rows, (size[1], size[0], 3)).astype(np.uint8))


def _grain(rng: Rng, picture: Picture, strength: float) -> Picture:
    pixels = np.asarray(picture, np.float32)
    noisy = pixels + rng.standard_normal(pixels.shape, np.float32) * strength
    return Image.fromarray(np.clip(noisy, 0, 255).astype(np.uint8))


def _landscape(rng: Rng, size: tuple[int, int]) -> Picture:
    width, height = size
    hue = pick(rng, (0.55, 0.58, 0.62, 0.05, 0.9))
    sky = shade(hue, between(rng, 0.2, 0.8), between(rng, 0.5, 1))
    picture = _slope(rng, size, sky, mix(sky, WHITE, between(rng, 0.3, 0.8)))
    pen = ImageDraw.Draw(picture)
    if chance(rng, 0.6):
        x, y, radius = between(rng, 0, width), between(rng, 0, height * 0.4), height * between(rng, 0.04, 0.12)
        pen.ellipse((x - radius, y - radius, x + radius, y + radius), shade(0.13, between(rng, 0, 0.6), 1))
    colour = shade(between(rng, 0.05, 0.5), between(rng, 0.2, 0.7), between(rng, 0.4, 0.8))
    top = height * between(rng, 0.3, 0.6)
    for _ in range(count(rng, 1, 4)):
        phases = rng.uniform(0, 6.3, 3)
        waves = [height * between(rng, 0.01, 0.14) / (n + 1) for n in range(3)]
        ridge: list[Point] = []
        for step in range(41):
            swing = sum(w * math.sin(p + step / 41 * 5 * (n + 1)) for n, (p, w) in enumerate(zip(phases, waves)))  # noqa: B905
            ridge.append((step * width / 40, top + swing))
        pen.polygon([*ridge, (width, height), (0, height)], colour)
        colour, top = mix(colour, BLACK, 0.3), top + height * between(rng, 0.08, 0.2)
    for _ in range(count(rng, 0, 7)):
        x, base, tall = between(rng, 0, width), height * between(rng, 0.6, 1), height * between(rng, 0.1, 0.4)
        pen.polygon([(x, base - tall), (x - tall / 4, base), (x + tall / 4, base)], mix(colour, BLACK, 0.3))
    return _grain(rng, picture.filter(ImageFilter.GaussianBlur(0.6)), 5)


def _things(rng: Rng, size: tuple[int, int]) -> Picture:
    width, height = size
    wall = shade(between(rng, 0, 1), between(rng, 0.05, 0.5), between(rng, 0.4, 0.95))
    picture = _slope(rng, size, wall, mix(wall, BLACK, 0.2))
    pen = ImageDraw.Draw(picture)
    table = height * between(rng, 0.55, 0.8)
    pen.rectangle((0, table, width, height), shade(between(rng, 0.02, 0.12), between(rng, 0.2, 0.7), 0.6))
    for _ in range(count(rng, 2, 6)):
        x, wide, tall = between(rng, 0, width), width * between(rng, 0.06, 0.2), height * between(rng, 0.1, 0.5)
        foot = table + (height - table) * between(rng, 0.1, 0.7)
        colour = shade(between(rng, 0, 1), between(rng, 0.3, 0.9), between(rng, 0.3, 0.95))
        if chance(rng, 0.5):
            pen.ellipse((x - wide, foot - wide * 2, x + wide, foot), colour)
            pen.ellipse((x - wide / 2, foot - wide * 1.7, x, foot - wide * 1.2), mix(colour, WHITE, 0.4))
        else:
            pen.rectangle((x - wide / 2, foot - tall, x + wide / 2, foot), colour)
            pen.rectangle((x - wide / 2, foot - tall, x - wide / 4, foot), mix(colour, BLACK, 0.25))
    return _grain(rng, picture.filter(ImageFilter.GaussianBlur(max(size) / 250)), 6)


def _blur(rng: Rng, size: tuple[int, int]) -> Picture:
    base = np.array(shade(between(rng, 0, 1), between(rng, 0.1, 0.7), between(rng, 0.3, 0.9)))
    cells = np.clip(base + rng.normal(0, 45, (count(rng, 3, 9), count(rng, 3, 9), 3)), 0, 255).astype(np.uint8)
    return _grain(rng, Image.fromarray(cells).resize(size, Image.Resampling.BICUBIC), 7)


def face(rng: Rng, size: tuple[int, int]) -> Picture:
    """Head and shoulders."""
    scale = 200 / min(size)
    wide, tall = max(200, round(size[0] * scale)), max(200, round(size[1] * scale))
    wall = shade(between(rng, 0, 1), between(rng, 0, 0.5), between(rng, 0.45, 0.98))
    picture = _slope(rng, (wide, tall), mix(wall, WHITE, 0.2), mix(wall, BLACK, 0.15))
    pen = ImageDraw.Draw(picture)
    x, y = wide / 2 + between(rng, -8, 8), tall * 0.45 + between(rng, -8, 8)
    across, along = between(rng, 36, 50), between(rng, 48, 62)
    skin = shade(between(rng, 0.03, 0.09), between(rng, 0.25, 0.6), between(rng, 0.35, 0.98))
    hair = shade(between(rng, 0, 0.13), between(rng, 0, 0.8), between(rng, 0.05, 0.8))
    shirt = shade(between(rng, 0, 1), between(rng, 0, 0.9), between(rng, 0.15, 0.95))
    if chance(rng, 0.5):  # long hair, behind
        pen.rounded_rectangle((x - across - 12, y - along - 8, x + across + 12, y + along * 1.2), 40, hair)
    pen.ellipse((x - 85, y + along + 8, x + 85, y + along + 200), shirt)
    pen.rectangle((x - 16, y + along - 20, x + 16, y + along + 22), mix(skin, BLACK, 0.15))
    pen.ellipse((x - across - 5, y - along - 12, x + across + 5, y + along * 0.4), hair)
    pen.ellipse((x - across, y - along * between(rng, 0.6, 0.95), x + across, y + along), skin)
    _features(rng, pen, x, y, across, along, hair, skin)
    return _grain(rng, picture.resize(size, Image.Resampling.BICUBIC), 3)


def _features(
    rng: Rng, pen: ImageDraw.ImageDraw, x: float, y: float, across: float, along: float, hair: Colour, skin: Colour
) -> None:
    glasses, beard = chance(rng, 0.3), chance(rng, 0.25)
    if beard:
        pen.chord((x - across, y - along * 0.6, x + across, y + along + 4), 20, 160, hair)
    for side in (-1, 1):
        eye = x + side * across * 0.42
        pen.ellipse((eye - 7, y - 8, eye + 7, y + 2), WHITE)
        pen.ellipse((eye - 4, y - 7, eye + 4, y + 1), shade(between(rng, 0, 0.6), 0.6, 0.3))
        brow = y - between(rng, 14, 20)
        pen.line((eye - 9, brow, eye + 9, brow - side * between(rng, -3, 3)), hair, count(rng, 2, 5))
        if glasses:
            pen.ellipse((eye - 14, y - 16, eye + 14, y + 10), None, BLACK, 3)
    pen.line([(x, y), (x + between(rng, -6, 6), y + 16), (x + 1, y + 18)], mix(skin, BLACK, 0.3), 3)
    wide, smile = between(rng, 10, 20), between(rng, 2, 12)
    pen.chord((x - wide, y + 24, x + wide, y + 28 + smile), 0, 180, shade(0.98, 0.6, between(rng, 0.4, 0.8)))


def goods(rng: Rng, size: tuple[int, int]) -> Picture:
    """A thing for sale before a light ground."""
    picture = Image.new("RGB", (200, 200), shade(between(rng, 0, 1), between(rng, 0, 0.15), between(rng, 0.85, 1)))
    pen = ImageDraw.Draw(picture)
    colour = shade(between(rng, 0, 1), between(rng, 0.2, 0.95), between(rng, 0.25, 0.95))
    other = shade(between(rng, 0, 1), between(rng, 0.2, 0.95), between(rng, 0.3, 0.98))
    wide, tall = between(rng, 25, 70), between(rng, 40, 80)
    left, top, right, foot = 100 - wide, 100 - tall, 100 + wide, 100 + tall
    form = count(rng, 0, 5)
    if form == 0:  # a bottle
        pen.rounded_rectangle((100 - wide / 2, 70, 100 + wide / 2, 185), 12, colour)
        pen.rectangle((92, 20, 108, 75), mix(colour, BLACK, 0.2))
        pen.rectangle((100 - wide / 2, 110, 100 + wide / 2, 150), other)
    elif form == 1:  # a box
        pen.rectangle((left, top, right, foot), colour)
        pen.polygon(
            [(right, top), (right + 18, top - 12), (right + 18, foot - 12), (right, foot)], mix(colour, BLACK, 0.3)
        )
        pen.rectangle((left + 8, 100, right - 8, 100 + tall / 3), other)
    elif form == 2:  # a shirt
        pen.polygon(
            [
                (60, 50),
                (140, 50),
                (185, 90),
                (160, 110),
                (140, 95),
                (140, 175),
                (60, 175),
                (60, 95),
                (40, 110),
                (15, 90),
            ],
            colour,
        )
        pen.ellipse((82, 40, 118, 62), picture.getpixel((1, 1)))
        pen.ellipse((100 - wide / 3, 90, 100 + wide / 3, 90 + wide / 1.5), other)
    elif form == 3:  # a cup
        pen.ellipse((120, 80, 175, 140), None, colour, 10)
        pen.rounded_rectangle((50, 60, 145, 165), 18, colour)
        pen.rectangle((50, 95, 145, 95 + tall / 3), other)
    elif form == 4:  # a lamp
        pen.polygon([(70, 40), (130, 40), (100 + wide + 20, 110), (80 - wide, 110)], colour)
        pen.rectangle((95, 110, 105, 180), other)
        pen.ellipse((60, 172, 140, 190), other)
    else:  # a ball or a fruit
        pen.ellipse((100 - tall, 100 - tall, 100 + tall, 100 + tall), colour)
        pen.arc((100 - wide, 100 - tall, 100 + wide, 100 + tall), 90, 270, other, 8)
    return _grain(rng, picture.resize(size, Image.Resampling.LANCZOS), 2)


def logo(rng: Rng, page: Page, x: float, y: float, size: float, first: Colour, second: Colour) -> None:
    """A mark in a square."""
    half, form = size / 2, count(rng, 0, 6)
    if form == 0:
        page.disc(x + half, y + half, half, first)
        page.disc(x + size * 0.65, y + size * 0.4, size * 0.3, second)
    elif form == 1:
        page.shape([(x, y + size), (x + half, y), (x + size, y + size)], first)
        page.shape([(x + size * 0.3, y + size), (x + size * 0.7, y + size * 0.4), (x + size, y + size)], second)
    elif form == 2:
        for bar in range(3):
            page.box(
                x + bar * size * 0.36, y + size * (0.5 - bar * 0.25), size * 0.28, size * (0.5 + bar * 0.25), first
            )
    elif form == 3:
        page.box(x, y, size, size, first, radius=size * 0.2)
        page.disc(x + half, y + half, size * 0.28, None, second, size * 0.12)
    elif form == 4:
        page.disc(x + half, y + half, half, None, first, size * 0.14)
        page.shape([(x + half, y + size * 0.1), (x + size * 0.75, y + half), (x + size * 0.25, y + half)], second)
    elif form == 5:
        page.shape([(x + half, y), (x + size, y + half), (x + half, y + size), (x, y + half)], first)
        page.box(x + size * 0.38, y + size * 0.38, size * 0.24, size * 0.24, second)
    else:
        page.box(x, y, size, size, first, radius=size * 0.5)
        page.write(x + half, y + half, pick(rng, "ABEGKMRSTX"), size * 0.6, second, "title", "mm")


def scribble(rng: Rng, page: Page, x: float, y: float, width: float, height: float, ink: Colour, stroke: float) -> None:
    """A word as if by hand: loops of uneven heights along a line."""
    points: list[Point] = []
    step, letters = height * 0.7, max(1, round(width / (height * 0.7)))
    slant = 0.3
    for letter in range(letters):
        tall = height * pick(rng, (0.45, 0.45, 0.5, 0.6, 1, 1.1))
        deep = height * pick(rng, (0, 0, 0, 0, 0.5))
        loop, turn = step * between(rng, 0.15, 0.7), between(rng, 0.8, 1.4)
        for part in range(10):
            angle = part / 10 * 2 * math.pi
            rise = (1 - math.cos(angle * turn)) / 2 * tall - deep * math.sin(angle) * 0.7
            points.append((x + step * (letter + part / 10) + loop * math.sin(angle) + slant * rise, y - rise))
    page.line(points, ink, stroke)


def barcode(rng: Rng, page: Page, x: float, y: float, width: float, height: float, bars: int = 50) -> None:
    units = rng.choice([1, 1, 1, 2, 2, 3, 4], bars * 2 + 1)
    step, place = width / float(units.sum()), x
    for number, wide in enumerate(units):
        if number % 2 == 0:
            page.box(place, y, step * float(wide) - 0.03, height, BLACK)
        place += step * float(wide)


def matrix(rng: Rng, page: Page, x: float, y: float, size: float, cells: int, ink: Colour, ground: Colour) -> None:
    """A square code of dark and light cells, with marks in three corners."""
    dark = rng.random((cells, cells)) < 0.5
    for row, column in ((0, 0), (0, cells - 7), (cells - 7, 0)):
        dark[max(0, row - 1) : row + 8, max(0, column - 1) : column + 8] = False
        dark[row : row + 7, column : column + 7] = True
        dark[row + 1 : row + 6, column + 1 : column + 6] = False
        dark[row + 2 : row + 5, column + 2 : column + 5] = True
    colours = np.where(dark[..., None], np.array(ink), np.array(ground)).astype(np.uint8)
    page.paste(Image.fromarray(colours).resize(page.pixels(size, size), Image.Resampling.NEAREST), x, y)
