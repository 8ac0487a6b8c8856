"""Templates of signs and structures: flags, knitting, molecules, thoughts."""

from .canvas import Canvas, Picture, Point, Rng, chance, number, pick, real, round_about, some
from .words import ADJECTIVES, CITIES, FIRST, LAST, NOUNS, phrase

_BRIGHT = ("#d62828", "#f77f00", "#fcbf49", "#2a9d8f", "#277da1", "#6a4c93", "#f5f5f5", "#222222", "#90be6d")


def _flag(c: Canvas, rng: Rng, x: float, y: float, wide: float, high: float) -> None:
    colours = some(rng, _BRIGHT, 4)
    kind = number(rng, 0, 5)
    c.box(x, y, x + wide, y + high, colours[0])
    if kind == 0:
        c.box(x + wide / 3, y, x + wide * 2 / 3, y + high, colours[1])
        c.box(x + wide * 2 / 3, y, x + wide, y + high, colours[2])
    elif kind == 1:
        c.box(x, y + high / 3, x + wide, y + high * 2 / 3, colours[1])
        c.box(x, y + high * 2 / 3, x + wide, y + high, colours[2])
    elif kind == 2:
        c.box(x, y + high * 0.4, x + wide, y + high * 0.6, colours[1])
        c.box(x + wide * 0.28, y, x + wide * 0.42, y + high, colours[1])
    elif kind == 3:
        c.disc(x + wide * real(rng, 0.35, 0.65), y + high / 2, high * real(rng, 0.2, 0.36), colours[1])
    elif kind == 4:
        c.box(x, y + high / 2, x + wide, y + high, colours[1])
        c.polygon([(x, y), (x + wide * 0.45, y + high / 2), (x, y + high)], colours[2])
    else:
        c.polygon([(x, y + high), (x + wide, y), (x + wide, y + high)], colours[1])
        star = [round_about((x + wide / 2, y + high / 2), high * (0.34, 0.14)[p % 2], p * 36) for p in range(10)]
        c.polygon(star, colours[2])
    c.box(x, y, x + wide, y + high, None, "#444", 1.5)


def flag_grid(rng: Rng) -> Picture:
    c = Canvas(980, 680, "#edf1f5")
    c.text((490, 36), f"Flags of the {pick(rng, ADJECTIVES)} islands", 36, "#223", "mm", bold=True)
    for index in range(15):
        x, y = 22 + index % 5 * 190, 72 + index // 5 * 200
        _flag(c, rng, x, y, 176, 118)
        c.text(
            (x + 88, y + 142),
            pick(rng, (f"{pick(rng, LAST)}ia", f"{pick(rng, CITIES)}land")),
            26,
            "#223",
            "mm",
            fit=172,
        )
    return c.done()


def knitting_pattern(rng: Rng) -> Picture:
    c = Canvas(820, 900, "#fbf7f0")
    c.text((410, 34), f"Chart {number(rng, 1, 90)}: {phrase(rng)} jumper", 32, "#5b2333", "mm", bold=True)
    colours = ("#f4efe6", "#7b1e3a", "#1f4e5f", "#d9a441")
    rows: list[list[int]] = []
    while len(rows) < 30:
        kind, high, ink = number(rng, 0, 2), number(rng, 3, 9), number(rng, 1, 3)
        half = rng.random((high, 6)) < real(rng, 0.3, 0.65)
        for row in range(high):
            if kind == 0:
                marks = [bool(half[min(row, high - 1 - row), column]) for column in range(6)]
            elif kind == 1:
                marks = [(row + column) % number(rng, 3, 3) == 0 for column in range(6)]
            else:
                marks = [abs(column - 5 + row) < 2 or abs(column - row) < 1 for column in range(6)]
            full = [*marks, *marks[::-1][1:], marks[-1]]
            rows.append([ink if full[column % len(full)] else 0 for column in range(30)])
        rows.append([number(rng, 0, 3)] * 30)
    for row, marks_of_row in enumerate(rows[:30]):
        c.text((790, 88 + row * 26), row + 1, 15, "#777", "mm")
        for column, ink_of in enumerate(marks_of_row):
            x, y = 20 + column * 25, 75 + row * 26
            c.box(x, y, x + 25, y + 26, colours[ink_of], "#b9ad9c", 0.5)
    c.text((410, 878), f"{number(rng, 2, 12) * 25} g wool, needles {number(rng, 2, 8)} mm", 22, "#5b2333", "mm")
    return c.done()


def molecule(rng: Rng) -> Picture:
    c = Canvas(880, 660, "white")
    c.text(
        (30, 24),
        f"{number(rng, 2, 6)}-{pick(rng, ('methyl', 'ethyl', 'chloro', 'amino'))}{pick(rng, LAST).lower()}ol",
        34,
        "#222",
        bold=True,
    )
    atoms = (
        ("O", "#d00000"),
        ("N", "#1d4ed8"),
        ("Cl", "#15803d"),
        ("S", "#b45309"),
        ("OH", "#d00000"),
        ("", ""),
        ("", ""),
    )
    cells = some(rng, [(column, row) for column in range(5) for row in range(3)], number(rng, 5, 7))
    ends: dict[tuple[int, int], Point] = {}
    for column, row in sorted(cells):
        at = (160 + column * 130 + (row % 2) * 65, 180 + row * 112.5)
        corners = [round_about(at, 75, turn) for turn in range(0, 360, 60)]
        inner = [round_about(at, 61, turn) for turn in range(0, 360, 60)]
        for side, corner in enumerate(corners):
            ends.setdefault((round(corner[0] / 9), round(corner[1] / 9)), corner)
            c.line([corner, corners[(side + 1) % 6]], "#222", 4)
            if side % 2 == column % 2:
                c.line([inner[side], inner[(side + 1) % 6]], "#222", 3)
    for corner in ends.values():
        label, colour = pick(rng, atoms)
        if label and chance(rng, 0.55):
            c.disc(*corner, 21, "white")
            c.text(corner, label, 32, colour, "mm", bold=True)
    c.text(
        (30, 625),
        f"C{number(rng, 5, 40)}H{number(rng, 5, 60)}O{number(rng, 1, 9)}   {real(rng, 90, 600):.2f} g/mol",
        28,
        "#555",
        "lm",
    )
    return c.done()


def mind_map(rng: Rng) -> Picture:
    c = Canvas(980, 680, "#fffdf7")
    count, start = number(rng, 4, 6), real(rng, 0, 60)
    for index, colour in zip(
        range(count), some(rng, ("#e76f51", "#2a9d8f", "#457b9d", "#f4a261", "#8338ec", "#588157"), 6), strict=False
    ):
        turn = start + index * 360 / count
        x, y = round_about((490, 340), 185, turn)
        x = 490 + (x - 490) * 1.35
        leaves = number(rng, 2, 3)
        for leaf in range(leaves):
            px, py = round_about((x, y), real(rng, 112, 130), turn + (leaf - (leaves - 1) / 2) * 48)
            px, py = min(895, max(85, x + (px - x) * 1.35)), min(655, max(25, py))
            c.line([(x, y), (px, py)], colour, 3)
            words = phrase(rng).split()
            for line, word in enumerate(words):
                c.text((px, py - 13 + line * 24), word, 23, "#222", "mm", edge="#fffdf7")
        c.line([(490, 340), (x, y)], colour, 8)
        c.oval(x, y, 86, 36, colour)
        c.text((x, y), pick(rng, NOUNS), 27, "white", "mm", bold=True, fit=145)
    c.oval(490, 340, 125, 62, "#264653")
    c.text((490, 340), f"{pick(rng, FIRST)}'s {pick(rng, NOUNS)}", 30, "white", "mm", bold=True, fit=215)
    return c.done()
