"""Charts of bars, lines and slices, and maps of streets."""

import math
from collections.abc import Sequence

import numpy as np

from . import words
from .dice import Rng, between, chance, count, pick
from .page import WHITE, Colour, Page, Picture, Point, Theme, mix
from .pictures import logo
from .writing import Writer


def _axes(page: Page, fill: Writer, x: float, y: float, width: float, height: float, size: float) -> None:
    """Lines across, with numbers at the left, of the range of this content."""
    most = count(fill.rng(), 1, 9) * 10 ** count(fill.rng(0), 0, 3)
    for step in range(5):
        level = y + height * step / 4
        page.line([(x, level), (x + width, level)], page.theme.rule, 0.12)
        page.write(x - 0.8, level, f"{most * (4 - step) / 4:g}", size, page.theme.muted, anchor="rm")


def bars(
    page: Page,
    fill: Writer,
    x: float,
    y: float,
    width: float,
    height: float,
    colours: Sequence[Colour],
    number: int = 6,
) -> None:
    """Upright bars with labels."""
    _axes(page, fill, x + 3, y, width - 3, height - 3, 1.7)
    step = (width - 3) / number
    for bar in range(number):
        tall = (height - 3) * between(fill.rng(), 0.05, 1)
        colour = colours[bar % len(colours)]
        page.box(x + 3 + step * (bar + 0.15), y + height - 3 - tall, step * 0.7, tall, colour)
        label = fill(words.word)
        page.write(x + 3 + step * (bar + 0.5), y + height - 2.4, label, 1.8, page.theme.ink, anchor="ma", width=step)


def curves(
    page: Page,
    fill: Writer,
    x: float,
    y: float,
    width: float,
    height: float,
    colours: Sequence[Colour],
    number: int = 3,
) -> None:
    """Lines over steps of time."""
    _axes(page, fill, x + 3, y, width - 3, height - 3, 1.7)
    for colour in colours[:number]:
        fill.prefer(False if colour == colours[0] else None)
        rng = fill.rng(3)
        steps = np.cumsum(rng.normal(between(rng, -0.3, 0.3), 1, 25))
        span = max(float(np.ptp(steps)), 0.1)
        low, high = sorted((between(rng, 0, 0.6), between(rng, 0.4, 1)))
        levels = low + (steps - steps.min()) / span * (high - low)
        points = [(x + 3 + (width - 3) * n / 24, y + (height - 3) * (1 - v)) for n, v in enumerate(levels.tolist())]
        page.line(points, colour, 0.45)
    fill.prefer(None)
    for mark in range(4):
        label = fill(words.digits, 2, 4)
        page.write(x + 3 + (width - 3) * (mark + 0.5) / 4, y + height - 2.4, label, 1.8, page.theme.ink, anchor="ma")


def across(
    page: Page,
    fill: Writer,
    x: float,
    y: float,
    width: float,
    height: float,
    colours: Sequence[Colour],
    number: int = 6,
) -> None:
    """Bars lying on their sides, with values."""
    step = height / number
    for bar in range(number):
        middle, long = y + step * (bar + 0.5), (width - 22) * between(fill.rng(), 0.05, 1)
        page.write(x + 12, middle, fill(words.phrase, 1, 2), 1.8, page.theme.ink, anchor="rm", width=12)
        page.box(x + 13, middle - step * 0.32, long, step * 0.64, colours[bar % len(colours)])
        page.write(x + 14 + long, middle, fill(words.digits, 2, 4), 1.8, page.theme.muted, anchor="lm")


def slices(
    page: Page,
    fill: Writer,
    x: float,
    y: float,
    width: float,
    height: float,
    colours: Sequence[Colour],
    number: int = 5,
) -> None:
    """A pie or a ring, with a legend."""
    radius = min(width * 0.55, height) / 2
    shares = [between(fill.rng(2), 0.05, 1) for _ in range(number)]
    start = between(fill.rng(0), 0, 360)
    corners = [v * page.unit for v in (x, y + height / 2 - radius, x + 2 * radius, y + height / 2 + radius)]
    for part, share in enumerate(shares):
        end, colour = start + 360 * share / sum(shares), mix(colours[part % len(colours)], WHITE, part / number * 0.6)
        page.pen.pieslice(corners, start, end, colour, page.theme.ground, 2)
        start = end
        level = y + height / 2 + (part - number / 2) * 4
        page.box(x + 2 * radius + 3, level, 2, 2, colour)
        label = f"{fill(words.phrase, 1, 2)} {round(100 * share / sum(shares))}%"
        page.write(x + 2 * radius + 6, level, label, 1.9, page.theme.ink, width=width - 2 * radius - 6)
    if len(colours) % 2:
        page.disc(x + radius, y + height / 2, radius * 0.5, page.theme.ground)


def _chart(template: Rng, content: Rng, upright: bool) -> Picture:
    theme = Theme(template, dark=0.35)
    page = Page(theme, template, 0.9, 1.9)
    shop, fill = Writer(template, script=theme.script), Writer(template, content, theme.script)
    edge, number, middle = between(template, 5, 9), count(template, 4, 9), chance(template, 0.4)
    colours = [theme.accent, theme.second, mix(theme.accent, theme.ink, 0.5)][: count(template, 1, 3)]
    make = pick(template, (bars, bars, across, slices)) if upright else curves
    if not upright:
        colours, number = [theme.accent, theme.second, theme.muted], count(template, 1, 3)
    if chance(template, 0.4):
        page.box(edge - 2, edge + 7, page.w - 2 * edge + 4, page.h - edge - 13, theme.card, radius=1)
    place, anchor = (page.w / 2, "ma") if middle else (edge, "la")
    page.write(place, edge * 0.6, fill(words.phrase, 2, 6), 3.4, theme.ink, "title", anchor, page.w - 2 * edge)
    page.write(place, edge * 0.6 + 4.6, fill(words.sentence, 4, 9), 1.9, theme.muted, "body", anchor, page.w - 2 * edge)
    make(page, fill, edge, edge + 10, page.w - 2 * edge, page.h - edge - 17, colours, number)
    page.write(edge, page.h - 3.5, f"{shop(words.phrase)}: {shop(words.company)}", 1.5, theme.muted)
    return page.finished()


def bar_chart(template: Rng, content: Rng) -> Picture:
    return _chart(template, content, True)


def line_chart(template: Rng, content: Rng) -> Picture:
    return _chart(template, content, False)


def _walk(rng: Rng, start: Point, angle: float, step: float, bend: float) -> list[Point]:
    """A way that wanders across the page."""
    points = [start]
    for _ in range(round(200 / step)):
        angle += float(rng.normal(0, bend))
        points.append((points[-1][0] + step * math.cos(angle), points[-1][1] + step * math.sin(angle)))
    return points


def _blocks(rng: Rng, page: Page, road: Colour, stroke: float) -> None:
    """Small streets: an uneven grid, turned, with some pieces left out."""
    turn, gaps = between(rng, 0, math.pi / 2), (between(rng, 6, 14), between(rng, 6, 14))
    for side, gap in enumerate(gaps):
        angle = turn + side * math.pi / 2
        along, off = (math.cos(angle), math.sin(angle)), -80.0
        while off < 80:
            off += gap * between(rng, 0.6, 1.5)
            start = between(rng, -110, 0) if chance(rng, 0.4) else -110
            end = between(rng, 20, 110) if chance(rng, 0.4) else 110
            middle = (page.w / 2 - off * along[1], page.h / 2 + off * along[0])
            ends = [(middle[0] + reach * along[0], middle[1] + reach * along[1]) for reach in (start, end)]
            page.line(ends, road, stroke)


def street_map(template: Rng, content: Rng) -> Picture:
    theme = Theme(template, dark=0.25)
    ground = mix(theme.ground, theme.ink, 0.07)
    page = Page(theme, template, 0.55, 1.7, ground)
    shop, fill = Writer(template, script=theme.script), Writer(template, content, theme.script)
    grass, water = mix(ground, (90, 190, 90), 0.4), mix(ground, (80, 150, 230), 0.55)
    road, main = (
        mix(ground, WHITE, 0.25 if theme.dark else 0.95),
        mix(ground, pick(template, ((250, 190, 60), theme.accent)), 0.6),
    )
    stroke, bar, pin = between(template, 0.6, 1.2), chance(template, 0.7), pick(template, ((220, 50, 50), theme.accent))
    lie = fill.rng(12)  # how the town lies is one field
    for _ in range(count(lie, 2, 5)):
        x, y, size = between(lie, 0, page.w), between(lie, 0, page.h), between(lie, 6, 20)
        page.shape([(x + size * between(lie, 0.5, 1) * math.cos(n), y + size * math.sin(n)) for n in range(6)], grass)
    if chance(lie, 0.7):
        page.line(
            _walk(lie, (-10, between(lie, 0, page.h)), between(lie, -0.6, 0.6), 4, 0.12), water, between(lie, 3, 9)
        )
    _blocks(lie, page, road, stroke)
    for _ in range(count(lie, 2, 4)):
        way = _walk(lie, (-10, between(lie, -20, page.h + 20)), between(lie, -0.9, 0.9), 6, 0.1)
        page.line(way, mix(main, theme.ink, 0.3), stroke * 2.4)
        page.line(way, main, stroke * 1.9)
    for _ in range(8):
        spot = fill.rng(0)
        text, x, y = fill(words.title, 1, 2), between(spot, 3, page.w - 18), between(spot, 12, page.h - 5)
        place, font = (x * page.unit, y * page.unit), page.font(2, "bold")
        page.pen.text(place, text, theme.ink, font, stroke_width=max(1, round(page.unit * 0.35)), stroke_fill=ground)
    spot = fill.rng()
    x, y = between(spot, 10, page.w - 10), between(spot, page.h * 0.3, page.h * 0.85)
    page.shape([(x, y), (x - 2, y - 4), (x + 2, y - 4)], pin)
    page.disc(x, y - 4.6, 2.2, pin, WHITE)
    if bar:
        page.box(3, 3, page.w - 6, 6, theme.ground, theme.rule, radius=3)
        page.write(6, 6, fill(words.street), 2.2, anchor="lm")
    logo(template, page, 3, page.h - 6, 3.5, theme.accent, theme.second)
    page.write(page.w - 2, page.h - 2, shop(words.company), 1.5, theme.muted, anchor="rs")
    return page.finished()
