"""Templates of the road and the journey."""

import numpy as np

from .canvas import Canvas, Picture, Point, Rng, blob, chance, clock, digits, letters, number, pick, real, some
from .words import ADJECTIVES, CITIES, LAST, PLACES, name


def boarding_pass(rng: Rng) -> Picture:
    c = Canvas(960, 400, "#eef2f5")
    c.box(10, 10, 950, 390, "white", "#9ab", 2, 20)
    c.box(10, 10, 950, 80, "#0b5d8a", corner=20)
    c.text((40, 45), "NORTHWIND AIR", 32, "white", "lm", bold=True)
    c.text((480, 45), "BOARDING PASS", 26, "white", "lm")
    for y in range(85, 390, 14):
        c.line([(705, y), (705, y + 7)], "#9ab", 2)
    start, end = some(rng, CITIES, 2)
    who, flight, seat = name(rng).upper(), f"NW {digits(rng, 4)}", f"{number(rng, 1, 38)}{pick(rng, 'ABCDEF')}"
    for x, city in ((40, start), (280, end)):
        c.text((x, 100), city[:3].upper(), 76, "#123", bold=True)
        c.text((x, 185), city, 22, "#456")
    c.polygon([(215, 130), (255, 145), (215, 160), (225, 145)], "#0b5d8a")
    c.text((40, 225), f"PASSENGER   {who}", 24, "#123", fit=500)
    fields = (("FLIGHT", flight), ("GATE", f"{pick(rng, 'ABCD')}{number(rng, 1, 60)}"), ("BOARDING", clock(rng)))
    for index, (label, value) in enumerate((*fields, ("SEAT", seat), ("GROUP", str(number(rng, 1, 9))))):
        c.text((40 + index * 125, 275), label, 15, "#678")
        c.text((40 + index * 125, 298), value, 30, "#123", bold=True, fit=115)
    c.text((40, 355), f"{number(rng, 1, 28)} / {number(rng, 1, 12)} / 2026     SEQ {digits(rng, 3)}", 20, "#456")
    for row in range(18):
        for column in range(8):
            if chance(rng, 0.5):
                c.box(540 + column * 14, 100 + row * 9, 553 + column * 14, 108 + row * 9, "#123")
    for index, (words, size) in enumerate(((who, 22), (f"{start} - {end}", 22), (flight, 40), (seat, 64))):
        c.text((725, 105 + (0, 35, 80, 140)[index]), words, size, "#123", bold=index > 1, fit=210)
    c.text((725, 350), digits(rng, 13), 22, "#456")
    return c.done()


def departures_board(rng: Rng) -> Picture:
    c = Canvas(1000, 640, "#101418")
    c.box(0, 0, 1000, 80, "#f5c518")
    c.text((30, 40), "Departures", 48, "#101418", "lm", bold=True)
    c.text((970, 40), clock(rng), 44, "#101418", "rm", bold=True)
    for x, heading in ((30, "Time"), (150, "To"), (520, "Flight"), (680, "Gate"), (790, "Remark")):
        c.text((x, 92), heading, 22, "#9aa")
    remarks = (
        ("Boarding", "#5f5"),
        ("Delayed", "#f66"),
        ("On time", "white"),
        ("Cancelled", "#f66"),
        ("Closed", "#fa4"),
    )
    for index, (city, when) in enumerate(
        zip(some(rng, CITIES, 10), sorted(clock(rng) for _ in range(10)), strict=True)
    ):
        y = 128 + index * 50
        c.box(15, y, 985, y + 44, "#1c232b")
        remark, colour = pick(rng, remarks)
        flight = f"{letters(rng, 2)} {digits(rng, number(rng, 3, 4))}"
        for x, words in ((30, when), (150, city), (520, flight), (690, f"{pick(rng, 'ABCE')}{number(rng, 1, 48)}")):
            c.text((x, y + 22), words, 30, "#f5d860", "lm")
        c.text((790, y + 22), remark, 28, colour, "lm")
    return c.done()


def timetable(rng: Rng) -> Picture:
    c = Canvas(700, 960, "#fffdf0")
    c.box(0, 0, 700, 120, "#c4122f")
    c.disc(65, 60, 42, "white")
    c.text((65, 60), number(rng, 2, 98), 46, "#c4122f", "mm", bold=True)
    c.text((130, 38), pick(rng, PLACES), 40, "white", "lm", bold=True)
    c.text((130, 86), f"towards {pick(rng, PLACES)}", 26, "white", "lm")
    for left, heading in ((20, "Monday - Friday"), (375, "Saturday, Sunday")):
        c.box(left, 135, left + 305, 170, "#333")
        c.text((left + 10, 152), heading, 20, "white", "lm")
        for index in range(19):
            y = 175 + index * 39
            c.box(left, y, left + 305, y + 36, "#f2e6c4" if index % 2 else "#fffdf0")
            c.box(left, y, left + 45, y + 36, "#ddd")
            c.text((left + 22, y + 18), index + 5, 24, "black", "mm", bold=True)
            minutes = sorted(some(rng, range(60), number(rng, 1, 6)))
            for place, minute in enumerate(minutes):
                c.text((left + 72 + place * 42, y + 18), f"{minute:02}", 24, "#222", "mm")
    c.text((350, 938), "Not on public holidays", 18, "#555", "mm")
    return c.done()


def seat_plan(rng: Rng) -> Picture:
    c = Canvas(560, 1000, "#e8edf2")
    c.text((280, 40), f"Coach {number(rng, 1, 29)}", 38, "#1b2a3a", "mm", bold=True)
    first, last = some(rng, CITIES, 2)
    c.text((280, 82), f"{first} - {last}  {clock(rng)}", 24, "#456", "mm")
    c.box(60, 110, 500, 910, "white", "#5a6b7c", 4, 40)
    busy = real(rng, 0.35, 0.65)
    for row in range(13):
        for column, x in enumerate((85, 165, 315, 395)):
            y, seat = 130 + row * 59, row * 4 + column + 1
            state = number(rng, 1, 3) if not chance(rng, busy) else 0
            colour = ("#c8ced4", "#3aa655", "#3aa655", "#f2a516")[state]
            c.box(x, y, x + 70, y + 50, colour, "#5a6b7c", 1.5, 9)
            c.text((x + 35, y + 25), "X" if state == 0 else seat, 26, "#7c8894" if state == 0 else "white", "mm", True)
    for x, colour, words in ((70, "#3aa655", "free"), (220, "#c8ced4", "taken"), (370, "#f2a516", "quiet zone")):
        c.box(x, 935, x + 34, 969, colour, corner=7)
        c.text((x + 44, 952), words, 20, "#1b2a3a", "lm")
    return c.done()


def underground_map(rng: Rng) -> Picture:
    c = Canvas(980, 700, "white")
    c.box(0, 0, 980, 64, "#1d3f94")
    c.text((24, 32), "Underground", 36, "white", "lm", bold=True)
    steps = ((1, 0), (1, 1), (0, 1), (-1, 1), (-1, 0), (-1, -1), (0, -1), (1, -1))
    colours = ("#d7263d", "#1b998b", "#f4a000", "#5b2a86", "#2e86de")
    names = iter(some(rng, PLACES, len(PLACES)))
    stops: list[Point] = []
    for colour in colours:
        column, line, heading = number(rng, 0, 12), number(rng, 0, 8), number(rng, 0, 7)
        path: list[Point] = [(column, line)]
        for _ in range(14):
            heading = (heading + number(rng, -1, 1)) % 8
            while not (0 <= column + steps[heading][0] <= 12 and 0 <= line + steps[heading][1] <= 8):
                heading = (heading + 1) % 8
            column, line = column + steps[heading][0], line + steps[heading][1]
            path.append((column, line))
        shown = [(60 + px * 68, 110 + py * 60) for px, py in path]
        c.line(shown, colour, 11)
        stops += shown[::3]
    for x, y in dict.fromkeys(stops):
        c.disc(x, y, 9, "white", "black", 3)
        c.text((x + 12, y + 8), next(names, ""), 16, "#1d2a4a")
    for index, colour in enumerate(colours):
        c.box(30 + index * 190, 655, 90 + index * 190, 667, colour)
        c.text((100 + index * 190, 661), f"Line {index + 1}", 18, "#1d2a4a", "lm")
    return c.done()


def road_sign(rng: Rng) -> Picture:
    c = Canvas(860, 640, "#bfdcf0")
    c.polygon([(0, 560), (300, 510), (860, 570), (860, 640), (0, 640)], "#7fa65a")
    for x in (200, 640):
        c.box(x, 400, x + 22, 640, "#8a8f94")
    c.box(50, 40, 810, 520, "#0a4da2", corner=24)
    c.box(60, 50, 800, 510, None, "white", 6, 18)
    for index, (city, far) in enumerate(zip(some(rng, CITIES, 4), sorted(some(rng, range(3, 640), 4)), strict=True)):
        y = 110 + index * 110
        arrow = [(-28, 8), (0, -30), (28, 8), (9, 4), (9, 34), (-9, 34), (-9, 4)]
        side = pick(rng, (-1, 0, 1))
        points = [(115 + side * py * -1, y + px) if side else (115 + px, y + py) for px, py in arrow]
        c.polygon(points, "white")
        c.text((180, y), city, 70, "white", "lm", bold=True, fit=420)
        c.text((775, y), far, 70, "white", "rm", bold=True)
    c.box(590, 12, 760, 62, "#f5c518", "black", 3, 8)
    c.text((675, 37), f"{pick(rng, 'ABE')} {number(rng, 1, 99)}", 34, "black", "mm", bold=True)
    return c.done()


def licence_plate(rng: Rng) -> Picture:
    c = Canvas(860, 260, "#5c6064")
    c.box(30, 40, 830, 220, "#f6f6f0", "black", 6, 18)
    c.box(36, 46, 110, 214, "#10439f", corner=12)
    for index in range(12):
        c.disc(73 + 20 * (-1) ** index, 70 + index * 5, 3, "#ffd500")
    c.text((73, 180), "EU", 34, "white", "mm", bold=True)
    c.disc(365, 90, 20, pick(rng, ("#d43", "#3a4", "#36c", "#e90")), "#555", 2)
    c.disc(365, 165, 20, None, "#555", 2)
    c.text((225, 130), letters(rng, 3), 124, "#111", "mm", bold=True, fit=215)
    c.text((600, 130), f"{letters(rng, 1)} {digits(rng, 4)}", 124, "#111", "mm", bold=True, fit=420)
    return c.done()


def map_with_pins(rng: Rng) -> Picture:
    c = Canvas(920, 680, "#9fd3ee")
    for _ in range(number(rng, 3, 5)):
        at = (real(rng, 120, 800), real(rng, 160, 560))
        across, down = real(rng, 90, 260), real(rng, 70, 170)
        shape = number(rng, 0, 10**6)
        for colour, share in (("#f1e3b0", 1.0), ("#b9dc9b", 0.92), ("#98c67c", 0.5)):
            c.polygon(blob(_again(shape), at, across * share, down * share, 0.3), colour)
    for place in some(rng, PLACES, 7):
        x, y, colour = real(rng, 60, 780), real(rng, 150, 620), pick(rng, ("#d93025", "#1a73e8", "#8430ce"))
        c.polygon([(x - 13, y - 26), (x + 13, y - 26), (x, y)], colour)
        c.disc(x, y - 34, 16, colour)
        c.disc(x, y - 34, 6, "white")
        c.text((x + 20, y - 32), place, 20, "#222", "lm", edge="white")
    c.box(20, 20, 620, 78, "white", "#ccc", 1, 29)
    c.text((50, 49), f"{pick(rng, ADJECTIVES)} bay near {pick(rng, LAST)}ville", 24, "#333", "lm")
    c.disc(588, 46, 10, None, "#1a73e8", 3)
    for y, sign in ((560, "+"), (612, "-")):
        c.box(860, y, 908, y + 48, "white", "#ccc", 1, 8)
        c.text((884, y + 24), sign, 34, "#444", "mm")
    return c.done()


def _again(shape: int) -> Rng:
    """The same outline at every size."""
    return np.random.default_rng(shape)
