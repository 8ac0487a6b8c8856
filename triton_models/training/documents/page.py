"""A page to draw on, and the theme of colours and fonts of a template.

Lengths on a page are in hundredths of its long side, whatever its size in pixels.
"""

import colorsys
import math
from collections.abc import Sequence

from PIL import Image, ImageDraw

from . import fonts
from .dice import Rng, between, chance, count, pick

Picture = Image.Image
Colour = tuple[int, int, int]
Point = tuple[float, float]

WHITE: Colour = (255, 255, 255)
BLACK: Colour = (20, 20, 22)


def shade(hue: float, saturation: float, value: float) -> Colour:
    red, green, blue = colorsys.hsv_to_rgb(hue % 1, min(saturation, 1), min(value, 1))
    return round(red * 255), round(green * 255), round(blue * 255)


def mix(first: Colour, second: Colour, share: float) -> Colour:
    """The first colour, with a share of the second."""
    red, green, blue = (round(a + (b - a) * share) for a, b in zip(first, second, strict=True))
    return red, green, blue


def _within(colour: Colour, low: float, high: float) -> Colour:
    """The colour, made brighter or darker until its brightness is between two."""
    bright = _brightness(colour)
    if bright < low:
        return mix(colour, WHITE, (low - bright) / (255 - bright))
    return mix(colour, (0, 0, 0), 1 - high / bright) if bright > high else colour


def _brightness(colour: Colour) -> float:
    return 0.3 * colour[0] + 0.59 * colour[1] + 0.11 * colour[2]


class Theme:
    """Colours, fonts and the script of a template."""

    def __init__(self, rng: Rng, dark: float = 0.0, body: str = "sans", head: str = "sans") -> None:
        self.dark = chance(rng, dark)
        self.hue = between(rng, 0, 1)
        tone = between(rng, 0, 0.12)
        if self.dark:
            self.ground = shade(self.hue, tone * 3, between(rng, 0.05, 0.2))
            self.ink = mix(self.ground, WHITE, between(rng, 0.82, 1))
        else:
            self.ground = shade(self.hue, tone * pick(rng, (0, 0.3, 1)), between(rng, 0.93, 1))
            self.ink = shade(between(rng, 0, 1), between(rng, 0, 0.6), between(rng, 0.05, 0.22))
        self.accent = shade(self.hue + between(rng, -0.1, 0.1), between(rng, 0.5, 0.95), between(rng, 0.5, 0.85))
        self.second = shade(self.hue + between(rng, 0.2, 0.8), between(rng, 0.4, 0.9), between(rng, 0.5, 0.9))
        # Seen on the ground, and with white on them.
        bounds = (105.0, 165.0) if self.dark else (0.0, 140.0)
        self.accent, self.second = (_within(colour, *bounds) for colour in (self.accent, self.second))
        self.muted = mix(self.ink, self.ground, 0.4)
        self.rule = mix(self.ground, self.ink, between(rng, 0.12, 0.35))
        self.card = mix(self.ground, WHITE if chance(rng, 0.5) and not self.dark else self.ink, 0.08)
        self.body, self.head, self.mono = (fonts.choose(rng, look) for look in (body, head, "mono"))
        self.script = "latin"
        known = fonts.scripts(self.body) & fonts.scripts(self.head) & fonts.scripts(self.mono) - {"latin"}
        if known and chance(rng, 0.35):
            self.script = pick(rng, sorted(known))

    def path(self, face: str) -> str:
        """The file of a face: body, bold, italic, head, title (bold head), mono or code (bold mono)."""
        return {
            "body": self.body.regular,
            "bold": self.body.bold,
            "italic": self.body.italic,
            "head": self.head.regular,
            "title": self.head.bold,
            "mono": self.mono.regular,
            "code": self.mono.bold,
        }[face]


class Page:
    """A picture of a size that the template draws, of an aspect (width to height) between two."""

    def __init__(self, theme: Theme, rng: Rng, low: float, high: float, ground: Colour | None = None) -> None:
        long = count(rng, 400, 1200)
        aspect = math.exp(between(rng, math.log(low), math.log(high)))
        self.size = (round(long * min(1, aspect)), round(long * min(1, 1 / aspect)))
        scale = 2 if long < 700 else 1  # small ones are drawn larger, for smooth edges
        self.unit = long * scale / 100
        self.w, self.h = self.size[0] * 100 / long, self.size[1] * 100 / long
        self.theme = theme
        self.looks = rng.spawn(1)[0]
        self.image = Image.new("RGB", (self.size[0] * scale, self.size[1] * scale), ground or theme.ground)
        self.pen = ImageDraw.Draw(self.image)

    def finished(self) -> Picture:
        return self.image if self.image.size == self.size else self.image.resize(self.size, Image.Resampling.LANCZOS)

    def font(self, size: float, face: str) -> fonts.Font:
        return fonts.font(self.theme.path(face), max(5, round(size * self.unit)))

    def length(self, text: str, size: float, face: str = "body") -> float:
        return float(self.font(size, face).getlength(text)) / self.unit

    def fitted(self, text: str, size: float, face: str, width: float) -> str:
        """The text, or as much of its beginning as there is room for."""
        if self.length(text, size, face) <= width:
            return text
        while text and self.length(text + "...", size, face) > width:
            text = text[:-1]
        return text.rstrip() + "..."

    def write(
        self,
        x: float,
        y: float,
        text: str,
        size: float,
        fill: Colour | None = None,
        face: str = "body",
        anchor: str = "la",
        width: float = math.inf,
    ) -> None:
        if width < math.inf:
            text = self.fitted(text, size, face, width)
        place = (x * self.unit, y * self.unit)
        self.pen.text(place, text, fill or self.theme.ink, self.font(size, face), anchor=anchor)

    def lines(self, text: str, size: float, face: str, width: float, indent: float = 0) -> list[list[str]]:
        """The words of each line of a text broken at a width."""
        made: list[list[str]] = [[]]
        space, left = self.length(" ", size, face), width - indent
        for word in text.split():
            length = self.length(word, size, face)
            if made[-1] and length > left:
                made.append([])
                left = width
            made[-1].append(word)
            left -= length + space
        return made

    def block(
        self,
        x: float,
        y: float,
        width: float,
        text: str,
        size: float,
        fill: Colour | None = None,
        face: str = "body",
        align: str = "left",
        leading: float = 1.4,
        bottom: float = math.inf,
        indent: float = 0,
    ) -> float:
        """Writes a paragraph, left, centre or justified, down to `bottom`; returns where the next one starts."""
        broken = self.lines(text, size, face, width, indent)
        for number, line in enumerate(broken):
            if y + size > bottom:
                return max(y, bottom)
            start = x + (indent if number == 0 else 0)
            if align == "centre":
                self.write(x + width / 2, y, " ".join(line), size, fill, face, "ma")
            elif align == "justified" and number < len(broken) - 1 and len(line) > 1:
                self._spread(start, y, x + width - start, line, size, fill, face)
            else:
                self.write(start, y, " ".join(line), size, fill, face)
            y += size * leading
        return y

    def _spread(
        self, x: float, y: float, width: float, line: Sequence[str], size: float, fill: Colour | None, face: str
    ) -> None:
        lengths = [self.length(word, size, face) for word in line]
        gap = (width - sum(lengths)) / (len(line) - 1)
        for word, length in zip(line, lengths, strict=True):
            self.write(x, y, word, size, fill, face)
            x += length + gap

    def box(
        self,
        x: float,
        y: float,
        width: float,
        height: float,
        fill: Colour | None = None,
        outline: Colour | None = None,
        radius: float = 0,
        stroke: float = 0.2,
    ) -> None:
        corners = [value * self.unit for value in (x, y, x + max(width, 0.1), y + max(height, 0.1))]
        thick = max(1, round(stroke * self.unit)) if outline else 0
        self.pen.rounded_rectangle(corners, min(radius, width / 2, height / 2) * self.unit, fill, outline, thick)

    def line(self, points: Sequence[Point], fill: Colour | None = None, stroke: float = 0.2) -> None:
        places = [(x * self.unit, y * self.unit) for x, y in points]
        self.pen.line(places, fill or self.theme.rule, max(1, round(stroke * self.unit)), joint="curve")

    def shape(self, points: Sequence[Point], fill: Colour) -> None:
        self.pen.polygon([(x * self.unit, y * self.unit) for x, y in points], fill)

    def disc(
        self, x: float, y: float, radius: float, fill: Colour | None, outline: Colour | None = None, stroke: float = 0.3
    ) -> None:
        corners = [value * self.unit for value in (x - radius, y - radius, x + radius, y + radius)]
        self.pen.ellipse(corners, fill, outline, max(1, round(stroke * self.unit)) if outline else 0)

    def pixels(self, width: float, height: float) -> tuple[int, int]:
        return max(2, round(width * self.unit)), max(2, round(height * self.unit))

    def paste(self, picture: Picture, x: float, y: float, radius: float = 0) -> None:
        """Puts a picture down, with rounded corners where a radius is given."""
        mask = Image.new("L", picture.size, 0)
        corners = (0, 0, picture.width - 1, picture.height - 1)
        ImageDraw.Draw(mask).rounded_rectangle(corners, min(radius * self.unit, min(picture.size) / 2), 255)
        self.image.paste(picture, (round(x * self.unit), round(y * self.unit)), mask)
