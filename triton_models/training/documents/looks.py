"""Looks of paper: clean, scanned, photographed on a table, stamped."""

import numpy as np
from PIL import Image, ImageDraw, ImageFilter

from .dice import Rng, between, chance, count, pick
from .page import WHITE, Page, Picture, mix, shade
from .words import digits


def worn(page: Page, content: Rng, clean: float = 0.4) -> Picture:
    """The look of paper that the page's template draws; noise, turn and stains are those of each copy."""
    looks = page.looks
    if chance(looks, clean):
        return page.finished()
    look = pick(looks, (tinted, tinted, scanned, photographed))
    return look(page.finished(), looks, content)


def tinted(picture: Picture, looks: Rng, content: Rng) -> Picture:
    """Coloured paper with some grain."""
    paper = np.array(shade(between(looks, 0.08, 0.16), between(looks, 0.03, 0.2), between(looks, 0.9, 0.99))) / 255
    return _noisy(picture, content, between(looks, 1, 5), paper)


def scanned(picture: Picture, looks: Rng, content: Rng) -> Picture:
    """Laid on a scanner: a grey or dark ground, turned a little, in grey or in colour."""
    ground = shade(0, 0, pick(looks, (between(looks, 0.55, 0.85), between(looks, 0.1, 0.3))))
    colourless = chance(looks, 0.5)
    picture = _laid(picture, ground, between(looks, 0.02, 0.07), float(content.normal(0, 1.6)))
    picture = _noisy(picture, content, between(looks, 3, 9), np.full(3, between(looks, 0.88, 1)))
    return picture.convert("L").convert("RGB") if colourless else picture


def photographed(picture: Picture, looks: Rng, content: Rng) -> Picture:
    """On a table under a lamp: light falls off, folds show."""
    table = shade(between(looks, 0, 1), between(looks, 0.1, 0.5), between(looks, 0.2, 0.7))
    folds = count(looks, 0, 3)
    warm = np.array((1, between(looks, 0.93, 1), between(looks, 0.8, 0.98)))
    pen = ImageDraw.Draw(picture, "RGBA")
    for fold in range(folds):
        y = round(picture.height * (fold + 1) / (folds + 1))
        pen.line((0, y, picture.width, y), (0, 0, 0, 40), 2)
        pen.line((0, y + 2, picture.width, y + 2), (255, 255, 255, 90), 2)
    picture = _laid(picture, table, between(looks, 0.03, 0.09), float(content.normal(0, 2.5)))
    across = np.linspace(between(looks, 0.7, 1.05), between(looks, 0.7, 1.05), picture.width)[None, :, None]
    down = np.linspace(between(looks, 0.75, 1.05), between(looks, 0.75, 1.05), picture.height)[:, None, None]
    return _noisy(picture.filter(ImageFilter.GaussianBlur(0.5)), content, between(looks, 2, 7), warm * across * down)


def stamp(page: Page, rng: Rng, x: float, y: float, size: float) -> None:
    """A round or square stamp in one colour, pressed on at a slant."""
    side = page.pixels(size, size)[0]
    ink = shade(pick(rng, (0.98, 0.62, 0.4)), 0.8, between(rng, 0.5, 0.8))
    mark = Image.new("L", (side, side), 0)
    pen = ImageDraw.Draw(mark)
    thick = max(1, side // 20)
    if chance(rng, 0.6):
        pen.ellipse((thick, thick, side - thick, side - thick), 0, 220, thick)
        pen.ellipse((side * 0.14, side * 0.14, side * 0.86, side * 0.86), 0, 200, max(1, thick // 2))
    else:
        pen.rectangle((thick, side * 0.25, side - thick, side * 0.75), 0, 220, thick)
    pen.text((side / 2, side / 2), digits(rng, "latin", 4, 6), 220, page.font(size * 0.22, "title"), anchor="mm")
    mark = mark.rotate(between(rng, -35, 35))
    page.image.paste(Image.new("RGB", mark.size, ink), (round(x * page.unit), round(y * page.unit)), mark)


def pattern(page: Page, rng: Rng) -> None:
    """Fine waves over the whole page, as on cards and certificates."""
    theme = page.theme
    for _ in range(count(rng, 2, 4)):
        colour = mix(theme.ground, pick(rng, (theme.accent, theme.second)), between(rng, 0.12, 0.3))
        height, length, phase = between(rng, 2, 14), between(rng, 8, 40), between(rng, 0, 6)
        gap, slope = between(rng, 2.5, 6), between(rng, -0.4, 0.4)
        xs = np.linspace(0, page.w, 60)
        for start in np.arange(-50, page.h + 50, gap):
            ys = start + slope * xs + height * np.sin(xs / length * 6.3 + phase)
            page.line(list(zip(xs.tolist(), ys.tolist(), strict=True)), colour, 0.15)


def _laid(picture: Picture, ground: tuple[int, int, int], margin: float, degrees: float) -> Picture:
    """On a larger ground, turned by some degrees, with a soft shadow."""
    width, height = picture.size
    edge = round(max(width, height) * margin)
    size = (width + 2 * edge, height + 2 * edge)
    mask = Image.new("L", size, 0)
    mask.paste(255, (edge, edge, edge + width, edge + height))
    sheet = Image.new("RGB", size, WHITE)
    sheet.paste(picture, (edge, edge))
    mask, sheet = (image.rotate(degrees, Image.Resampling.BICUBIC) for image in (mask, sheet))
    under = Image.new("RGB", size, ground)
    under.paste(mix(ground, (0, 0, 0), 0.5), (0, 0), mask.filter(ImageFilter.GaussianBlur(max(1, edge / 6))))
    under.paste(sheet, (0, 0), mask)
    return under


def _noisy(
    picture: Picture, rng: Rng, strength: float, light: "np.ndarray[tuple[int, ...], np.dtype[np.float64]]"
) -> Picture:
    pixels = np.asarray(picture, np.float32)
    noise = rng.standard_normal(pixels.shape[:2], np.float32)[..., None] * strength
    return Image.fromarray(np.clip(pixels * light + noise, 0, 255).astype(np.uint8))
