"""Templates of diagrams and charts."""

import math

import numpy as np

from .canvas import Canvas, Picture, Point, Rng, chance, digits, number, pick, real, round_about, some
from .words import FIRST, LAST, NOUNS, PLACES, date, name, phrase, title

_PALETTE = ("#4e79a7", "#f28e2b", "#e15759", "#76b7b2", "#59a14f", "#edc948", "#b07aa1", "#9c755f")


def pie_chart(rng: Rng) -> Picture:
    c = Canvas(900, 640, "white")
    c.text((40, 30), f"Share of {pick(rng, NOUNS)}s by {pick(rng, NOUNS)}", 38, "#222", bold=True)
    c.text((40, 82), f"Survey of {number(rng, 200, 9000)} households, {number(rng, 1990, 2026)}", 22, "#777")
    count = number(rng, 4, 8)
    shares = rng.dirichlet(np.full(count, 1.4))
    start = real(rng, 0, 360)
    for index, (share, label) in enumerate(zip(shares, some(rng, NOUNS, count), strict=True)):
        end = start + float(share) * 360
        c.slice(320, 380, 235, start, end, _PALETTE[index])
        if share > 0.06:
            at = round_about((320, 380), 165, (start + end) / 2 + 90)
            c.text(at, f"{share:.0%}", 26, "white", "mm", bold=True)
        c.box(610, 170 + index * 54, 642, 202 + index * 54, _PALETTE[index])
        c.text((656, 186 + index * 54), label.title(), 26, "#333", "lm")
        start = end
    return c.done()


def gantt_chart(rng: Rng) -> Picture:
    c = Canvas(980, 600, "white")
    c.text((24, 20), f"Project plan: {title(rng)}", 32, "#223", bold=True)
    c.box(0, 78, 980, 116, "#34495e")
    for week in range(16):
        x = 260 + week * 45
        c.text((x + 22, 97), f"W{week + 1}", 17, "white", "mm")
        c.line([(x, 116), (x, 590)], "#dde", 1)
    begin = 0.0
    for index in range(10):
        y = 122 + index * 47
        c.box(0, y, 258, y + 42, "#f3f5f8")
        c.text((14, y + 21), phrase(rng).capitalize(), 21, "#223", "lm", fit=235)
        begin = min(12.5, max(0.0, begin + real(rng, -1.5, 3.2)))
        end = min(15.9, begin + real(rng, 1.5, 6))
        left, right, colour = 260 + begin * 45, 260 + end * 45, pick(rng, _PALETTE)
        c.box(left, y + 6, right, y + 36, colour, corner=6)
        c.text((left + 8, y + 21), pick(rng, FIRST), 17, "white", "lm", fit=right - left - 14)
    return c.done()


def ecg_strip(rng: Rng) -> Picture:
    c = Canvas(960, 680, "#fff5f3")
    for step in range(0, 970, 12):
        for points in ([(step, 70), (step, 680)], [(0, step), (960, step)]):
            c.line([(px, max(70, py)) for px, py in points], "#f2b3ad" if step % 60 == 0 else "#fadcd8", 1)
    c.box(0, 0, 960, 69, "white")
    c.text((16, 12), f"{name(rng)}   born {date(rng)}", 22, "#222")
    c.text((16, 42), f"{number(rng, 44, 150)} bpm   25 mm/s   10 mm/mV   PR {number(rng, 110, 230)} ms", 18, "#444")
    beat = real(rng, 65, 190)
    for row, lead in enumerate(("I", "II", "V1", "V5")):
        middle, x = 150 + row * 145, np.arange(960.0)
        trace = rng.normal(0, 1.0, 960).cumsum() * 0.12 * np.exp(-x / 4000)
        heights = rng.uniform((4, -12, 18, -38, 5), (14, 2, 80, -4, 26)) * (1 if chance(rng, 0.75) else -1)
        at = real(rng, 0, beat)
        while at < 960:
            for place, wide, height in zip((-26, -6, 0, 6, 32), (6, 2, 2.5, 2.5, 9), heights, strict=True):
                trace += height * np.exp(-(((x - at - place) / wide) ** 2))
            at += beat * real(rng, 0.9, 1.1)
        c.text((8, middle - 62), lead, 22, "#222", bold=True)
        c.line([(float(px), middle - float(py)) for px, py in zip(x, trace, strict=True)], "#222", 2)
    return c.done()


def star_chart(rng: Rng) -> Picture:
    c = Canvas(820, 860, "#0a1024")
    c.disc(410, 450, 390, "#101b3d", "#c9b37a", 3)
    for radius in (130, 260):
        c.disc(410, 450, radius, None, "#31406f", 1)
    for angle in range(0, 360, 30):
        c.line([(410, 450), round_about((410, 450), 390, angle)], "#31406f", 1)
    c.text((410, 28), f"The night sky, {date(rng)}", 30, "#e6d9a8", "mm", bold=True)
    for _ in range(260):
        at = round_about((410, 450), 385 * math.sqrt(rng.random()), real(rng, 0, 360))
        c.disc(*at, 0.8 + 2.2 * real(rng, 0, 1) ** 3, pick(rng, ("white", "#ffe9c0", "#cfe0ff")))
    for index in range(8):
        x, y = round_about((410, 450), real(rng, 120, 270), index * 45 + real(rng, -14, 14))
        stars = [(x, y)]
        for _ in range(number(rng, 3, 6)):
            stars.append((stars[-1][0] + real(rng, -50, 50), stars[-1][1] + real(rng, -50, 50)))
        c.line(stars, "#8fb3ff", 2)
        for star in stars:
            c.disc(*star, real(rng, 3, 6.5), "white")
        c.text((x + 10, y + 12), f"{pick(rng, LAST)}a", 20, "#e6d9a8")
    return c.done()


def flow_chart(rng: Rng) -> Picture:
    c = Canvas(820, 920, "#fbfcfe")
    c.text((410, 38), f"How to handle a {phrase(rng)}", 32, "#1c2c4c", "mm", bold=True)
    steps: list[tuple[int, int]] = [(1, 0)]
    for row in range(1, 6):
        steps += [(column, row) for column in some(rng, range(3), number(rng, 1, 2))]
    for column, row in steps[1:]:
        above = [step for step in steps if step[1] == row - 1]
        start = pick(rng, above)
        x, y, px = 150 + column * 260, 130 + row * 145, 150 + start[0] * 260
        c.line([(px, y - 100), (px, y - 70), (x, y - 70), (x, y - 45)], "#556", 3)
        c.polygon([(x - 9, y - 56), (x + 9, y - 56), (x, y - 40)], "#556")
    for column, row in steps:
        x, y, kind = 150 + column * 260, 130 + row * 145, number(rng, 0, 2)
        if row == 0:
            c.box(x - 110, y - 40, x + 110, y + 40, "#2f8f5b", corner=40)
        elif kind == 0:
            c.polygon([(x - 125, y), (x, y - 52), (x + 125, y), (x, y + 52)], "#ffd98a", "#b98a20")
        else:
            c.box(x - 115, y - 40, x + 115, y + 40, ("#cfe0fb", "#f6c9c9")[kind - 1], "#557")
        words = "Start" if row == 0 else f"{phrase(rng)}?" if kind == 0 else f"{pick(rng, FIRST)}: {pick(rng, NOUNS)}"
        c.text((x, y), words, 24, "white" if row == 0 else "#223", "mm", fit=150 if kind == 0 else 205)
    return c.done()


def family_tree(rng: Rng) -> Picture:
    c = Canvas(1000, 700, "#f8f1de")
    family = pick(rng, LAST)
    c.text((500, 42), f"The family {family}", 42, "#5a3d1e", "mm", bold=True)
    for level, high in ((0, 590), (1, 440), (2, 290), (3, 140)):
        count, wide = 2**level, (240, 220, 200, 112)[level]
        for index in range(count):
            x = 1000 * (index + 0.5) / count
            if level < 3:
                for side in (-1, 1):
                    to = x + side * 1000 / count / 4
                    c.line([(x, high), (x, high - 75), (to, high - 75), (to, high - 150)], "#8a6a3c", 3)
            colour = pick(rng, ("#dcebd2", "#f3d9d0", "#d6e4f0", "#fbe6a8"))
            c.box(x - wide / 2, high - 48, x + wide / 2, high + 48, colour, "#8a6a3c", 2, 12)
            born = 1990 - level * 28 + number(rng, -9, 9)
            who = f"{pick(rng, FIRST)} {pick(rng, LAST)}" if level else f"{pick(rng, FIRST)} {family}"
            for line, words in enumerate(who.split()):
                c.text((x, high - 28 + line * 26), words, 25, "#3a2813", "mm", fit=wide - 10)
            c.text((x, high + 28), f"{born} - {min(2025, born + number(rng, 31, 92))}", 18, "#7a5a2c", "mm")
    return c.done()


def circuit_diagram(rng: Rng) -> Picture:
    c = Canvas(900, 680, "white")
    c.text((30, 18), f"Circuit {number(rng, 1, 99)}: {phrase(rng)} driver", 28, "#114", bold=True)
    parts = dict.fromkeys("RCBLS", 0)
    for row in range(4):
        for column in range(5):
            at = (80 + column * 185, 110 + row * 170)
            for to in ((at[0] + 185, at[1]), (at[0], at[1] + 170)):
                if to[0] > 830 or to[1] > 640 or chance(rng, 0.28):
                    continue
                kind = pick(rng, "RCBLS--")
                c.line([at, to], "#114", 2.5)
                if kind != "-":
                    parts[kind] += 1
                    _part(c, kind, ((at[0] + to[0]) / 2, (at[1] + to[1]) / 2), to[1] > at[1], f"{kind}{parts[kind]}")
            if chance(rng, 0.6):
                c.disc(*at, 6, "#114")
    return c.done()


def _part(c: Canvas, kind: str, at: Point, upright: bool, label: str) -> None:
    def placed(*points: Point) -> list[Point]:
        return [(at[0] + (y if upright else x), at[1] + (x if upright else y)) for x, y in points]

    if kind == "R":
        c.polygon(placed((-32, -13), (32, -13), (32, 13), (-32, 13)), "white", "#114")
    elif kind == "L":
        c.disc(*at, 24, "#fff3b0", "#114", 3)
        c.line(placed((-17, -17), (17, 17)), "#114", 3)
        c.line(placed((-17, 17), (17, -17)), "#114", 3)
    elif kind == "S":
        c.line(placed((-28, 0), (28, 0)), "white", 6)
        c.line(placed((-28, 0), (24, -22)), "#114", 3)
        c.disc(*placed((-28, 0))[0], 5, "#114")
    else:
        c.line(placed((-8, 0), (8, 0)), "white", 6)
        c.line(placed((-8, -26), (-8, 26)), "#114", 4)
        high = 26 if kind == "C" else 13
        c.line(placed((8, -high), (8, high)), "#114", 4 if kind == "C" else 9)
    c.text(
        (at[0] + (34 if upright else 0), at[1] - (0 if upright else 42)), label, 22, "#a11", "lm" if upright else "mm"
    )


def floor_plan(rng: Rng) -> Picture:
    c = Canvas(900, 700, "#f4f4f0")
    c.text(
        (40, 22), f"Flat {number(rng, 1, 80)}, {number(rng, 1, 9)}. floor, {pick(rng, PLACES)}", 30, "#222", bold=True
    )
    rooms, waiting = [], [(40.0, 80.0, 860.0, 640.0)]
    while waiting:
        left, top, right, bottom = waiting.pop()
        wide, high = right - left, bottom - top
        cut = real(rng, 0.36, 0.64)
        if wide * high < 95_000 or (wide * high < 140_000 and chance(rng, 0.4)):
            rooms.append((left, top, right, bottom))
        elif wide > high * real(rng, 0.8, 1.25):
            waiting += [(left, top, left + wide * cut, bottom), (left + wide * cut, top, right, bottom)]
        else:
            waiting += [(left, top, right, top + high * cut), (left, top + high * cut, right, bottom)]
    uses = (
        "Kitchen",
        "Bedroom",
        "Bath",
        "Hall",
        "Living room",
        "Study",
        "Store",
        "Dining",
        "Balcony",
        "Guest",
        "Nursery",
    )
    fills = ("#fff", "#e6f0f7", "#f8ecd8", "#e9f3e2")
    for (left, top, right, bottom), use in zip(rooms, some(rng, uses, len(rooms)), strict=False):
        c.box(left, top, right, bottom, pick(rng, fills), "#222", 7)
        x, y = (left + right) / 2, (top + bottom) / 2
        c.text((x, y - 14), use, 26, "#222", "mm", fit=right - left - 20)
        c.text((x, y + 18), f"{(right - left) * (bottom - top) / 6500:.1f} sqm", 20, "#666", "mm")
        door = real(rng, left + 12, right - 75)
        c.line([(door, bottom), (door + 60, bottom)], "#f4f4f0", 9)
        c.line([(door, bottom), (door, bottom - 60)], "#222", 3)
        c.arc(door, bottom, 60, 270, 360, "#222", 2)
    c.text((40, 672), f"Scale 1:{pick(rng, (50, 75, 100, 200))}      Drawn by {name(rng)}", 20, "#555", "lm")
    return c.done()


def element_grid(rng: Rng) -> Picture:
    c = Canvas(980, 680, "#20242c")
    c.text((24, 18), f"PERIODIC TABLE OF {pick(rng, NOUNS).upper()}S", 34, "white", bold=True)
    for row in range(6):
        for column in range(10):
            x, y = 22 + column * 94, 76 + row * 98
            if 2 <= column < 8 and row < number(rng, 0, 2):
                continue
            word = pick(rng, (*NOUNS, *[first.lower() for first in FIRST]))
            c.box(x, y, x + 88, y + 92, pick(rng, _PALETTE), corner=6)
            c.text((x + 6, y + 4), number(rng, 1, 118), 16, "white")
            c.text((x + 44, y + 46), word[:2].capitalize(), 42, "white", "mm", bold=True)
            c.text((x + 44, y + 80), word, 15, "white", "mm", fit=80)
    return c.done()


def radar_chart(rng: Rng) -> Picture:
    c = Canvas(820, 800, "white")
    c.text((410, 36), f"Player profile: {name(rng)}", 34, "#213", "mm", bold=True)
    skills = some(rng, NOUNS, 7)
    turns = [index * 360 / 7 for index in range(7)]
    for ring in range(1, 6):
        c.polygon([round_about((410, 420), ring * 56, turn) for turn in turns], None, "#ccd")
    for turn, skill in zip(turns, skills, strict=True):
        c.line([(410, 420), round_about((410, 420), 280, turn)], "#ccd", 1)
        c.text(round_about((410, 420), 320, turn), skill.title(), 24, "#334", "mm")
    for colour, edge in (("#f7b7a3", "#d1495b"), ("#a9d3e8", "#00798c")):
        corners = [round_about((410, 420), real(rng, 40, 280), turn) for turn in turns]
        c.polygon(corners, colour, edge)
        for corner in corners:
            c.disc(*corner, 7, edge)
    c.text((410, 772), f"Season {number(rng, 1980, 2026)}, {digits(rng, 2)} matches", 22, "#667", "mm")
    return c.done()
