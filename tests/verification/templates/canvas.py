"""A canvas that draws at twice the size, so that edges come out smooth, and how content is chosen."""

import math
from collections.abc import Sequence
from functools import lru_cache
from typing import TypeVar

import numpy as np
from PIL import Image, ImageDraw, ImageFont

Picture = Image.Image
Rng = np.random.Generator
Colour = str | tuple[int, int, int]
Point = tuple[float, float]
T = TypeVar("T")

_ZOOM = 2


@lru_cache(maxsize=256)
def _font(size: float) -> ImageFont.FreeTypeFont | ImageFont.ImageFont:
    return ImageFont.load_default(size)


class Canvas:
    """Coordinates are of the finished picture; `done()` gives it."""

    def __init__(self, width: int, height: int, paper: Colour = "white") -> None:
        self.width, self.height = width, height
        self._image = Image.new("RGB", (width * _ZOOM, height * _ZOOM), paper)
        self._draw = ImageDraw.Draw(self._image)

    def done(self) -> Picture:
        return self._image.reduce(_ZOOM)

    def box(
        self,
        left: float,
        top: float,
        right: float,
        bottom: float,
        fill: Colour | None = None,
        edge: Colour | None = None,
        line: float = 2,
        corner: float = 0,
    ) -> None:
        place = tuple(round(value * _ZOOM) for value in (left, top, right, bottom))
        self._draw.rounded_rectangle(place, corner * _ZOOM, fill, edge, round(line * _ZOOM))

    def oval(
        self,
        x: float,
        y: float,
        across: float,
        down: float,
        fill: Colour | None = None,
        edge: Colour | None = None,
        line: float = 2,
    ) -> None:
        """An ellipse round x and y, with its two half axes."""
        place = tuple(value * _ZOOM for value in (x - across, y - down, x + across, y + down))
        self._draw.ellipse(place, fill, edge, round(line * _ZOOM))

    def disc(
        self, x: float, y: float, radius: float, fill: Colour | None = None, edge: Colour | None = None, line: float = 2
    ) -> None:
        self.oval(x, y, radius, radius, fill, edge, line)

    def slice(self, x: float, y: float, radius: float, start: float, end: float, fill: Colour) -> None:
        """A slice of a pie, clockwise in degrees from three o'clock."""
        place = tuple(value * _ZOOM for value in (x - radius, y - radius, x + radius, y + radius))
        self._draw.pieslice(place, start, end, fill)

    def arc(self, x: float, y: float, radius: float, start: float, end: float, colour: Colour, line: float = 2) -> None:
        place = tuple(value * _ZOOM for value in (x - radius, y - radius, x + radius, y + radius))
        self._draw.arc(place, start, end, colour, round(line * _ZOOM))

    def polygon(self, points: Sequence[Point], fill: Colour | None = None, edge: Colour | None = None) -> None:
        self._draw.polygon(_up(points), fill, edge, 2 * _ZOOM if edge else 0)

    def line(self, points: Sequence[Point], colour: Colour = "black", width: float = 2) -> None:
        self._draw.line(_up(points), colour, max(1, round(width * _ZOOM)), joint="curve")

    def length(self, words: str, size: float) -> float:
        return _font(round(size * _ZOOM, 1)).getlength(words) / _ZOOM

    def text(
        self,
        at: Point,
        words: object,
        size: float,
        colour: Colour = "black",
        anchor: str = "la",
        bold: bool = False,
        fit: float = 0,
        edge: Colour | None = None,
    ) -> None:
        """`fit` is the width into which the words are squeezed, where they are longer."""
        shown = str(words)
        if fit and shown:
            size *= min(1.0, fit / self.length(shown, size))
        stroke = size * _ZOOM * (0.07 if edge else 0.03) if bold or edge else 0
        place = (at[0] * _ZOOM, at[1] * _ZOOM)
        font = _font(round(size * _ZOOM, 1))
        self._draw.text(place, shown, colour, font, anchor, stroke_width=round(stroke), stroke_fill=edge or colour)

    def paragraph(
        self,
        at: Point,
        words: str,
        size: float,
        width: float,
        colour: Colour = "black",
        anchor: str = "la",
        bold: bool = False,
        edge: Colour | None = None,
        step: float = 1.3,
    ) -> float:
        """Words in lines no wider than `width`; gives the height where the next line would stand."""
        x, y = at
        for row in self.wrapped(words, size, width):
            self.text((x, y), row, size, colour, anchor, bold, edge=edge)
            y += size * step
        return y

    def wrapped(self, words: str, size: float, width: float) -> list[str]:
        rows: list[str] = []
        for word in words.split():
            if rows and self.length(f"{rows[-1]} {word}", size) <= width:
                rows[-1] += f" {word}"
            else:
                rows.append(word)
        return rows


def _up(points: Sequence[Point]) -> list[Point]:
    return [(x * _ZOOM, y * _ZOOM) for x, y in points]


def turned(points: Sequence[Point], degrees: float, at: Point, scale: float = 1.0) -> list[Point]:
    """Points about the origin, scaled, turned clockwise and moved to `at`."""
    cos, sin = math.cos(math.radians(degrees)) * scale, math.sin(math.radians(degrees)) * scale
    return [(at[0] + x * cos - y * sin, at[1] + x * sin + y * cos) for x, y in points]


def round_about(at: Point, radius: float, degrees: float) -> Point:
    """The point on a circle, clockwise from twelve o'clock."""
    angle = math.radians(degrees - 90)
    return at[0] + radius * math.cos(angle), at[1] + radius * math.sin(angle)


def blob(rng: Rng, at: Point, across: float, down: float, rough: float = 0.25) -> list[Point]:
    """The outline of an island or a cloud."""
    angles = np.linspace(0, 2 * np.pi, 90, endpoint=False)
    reach = np.ones(90)
    for wave in range(2, 8):
        reach += rough / wave * 1.6 * rng.uniform(0.2, 1) * np.sin(wave * angles + rng.uniform(0, 6.3))
    outline = zip(np.cos(angles) * reach * across, np.sin(angles) * reach * down, strict=True)
    return [(at[0] + float(x), at[1] + float(y)) for x, y in outline]


# How content is chosen


def pick(rng: Rng, items: Sequence[T]) -> T:
    return items[int(rng.integers(len(items)))]


def some(rng: Rng, items: Sequence[T], count: int) -> list[T]:
    """Different ones, in any order."""
    return [items[int(index)] for index in rng.permutation(len(items))[:count]]


def number(rng: Rng, low: int, high: int) -> int:
    """From low to high, both included."""
    return int(rng.integers(low, high + 1))


def real(rng: Rng, low: float, high: float) -> float:
    return float(rng.uniform(low, high))


def chance(rng: Rng, share: float) -> bool:
    return bool(rng.random() < share)


def digits(rng: Rng, count: int) -> str:
    return "".join(str(number(rng, 0, 9)) for _ in range(count))


def letters(rng: Rng, count: int) -> str:
    return "".join(pick(rng, "ABCDEFGHIJKLMNOPQRSTUVWXYZ") for _ in range(count))


def clock(rng: Rng, low: int = 0, high: int = 23) -> str:
    return f"{number(rng, low, high):02}:{number(rng, 0, 59):02}"
