"""Templates of results, diagrams of many seats and tiles, and what a class room shows."""

import numpy as np

from .canvas import Canvas, Picture, Point, Rng, chance, letters, number, pick, real, round_about, some
from .words import ADJECTIVES, CITIES, DAYS, FIRST, LAST, MONTHS, NOUNS, TEAMS, phrase

_SEGMENTS = {"0": "abcdef", "1": "bc", "2": "abged", "3": "abgcd", "4": "fgbc", "5": "afgcd", "6": "afgedc", "7": "abc"}
_SEGMENTS |= {"8": "abcdefg", "9": "abcfgd"}
_PLACES: dict[str, tuple[Point, Point]] = {
    "a": ((0, 0), (1, 0)),
    "b": ((1, 0), (1, 1)),
    "c": ((1, 1), (1, 2)),
    "d": ((0, 2), (1, 2)),
    "e": ((0, 1), (0, 2)),
    "f": ((0, 0), (0, 1)),
    "g": ((0, 1), (1, 1)),
}


def _lamps(c: Canvas, at: Point, shown: str, size: float, colour: str) -> None:
    """A number in seven segments."""
    for index, digit in enumerate(shown):
        for segment in _SEGMENTS[digit]:
            points = [(at[0] + index * size * 1.5 + x * size, at[1] + y * size) for x, y in _PLACES[segment]]
            c.line(points, colour, size * 0.2)


def scoreboard(rng: Rng) -> Picture:
    c = Canvas(960, 600, "#1a1d21")
    c.box(15, 15, 945, 585, "#0c0e10", "#d8d8d8", 6, 14)
    for x, side, team in ((240, "HOME", pick(rng, TEAMS)), (720, "GUEST", pick(rng, TEAMS))):
        c.text((x, 60), side, 26, "#aaa", "mm")
        c.text((x, 115), f"{pick(rng, CITIES)} {team}".upper(), 40, "white", "mm", bold=True, fit=400)
        _lamps(c, (x - 118, 175), f"{number(rng, 10, 129):03}"[-2:], 92, "#ff3b2f")
        c.text((x - 70, 470), "FOULS", 22, "#aaa", "mm")
        _lamps(c, (x - 15, 448), str(number(rng, 0, 9)), 26, "#ffd23f")
        for lamp in range(5):
            c.disc(x - 80 + lamp * 40, 535, 13, "#39d353" if chance(rng, 0.5) else "#24282d")
    c.text((480, 200), "PERIOD", 22, "#aaa", "mm")
    _lamps(c, (465, 225), str(number(rng, 1, 4)), 32, "#ffd23f")
    _lamps(c, (385, 465), _two(number(rng, 0, 19)), 32, "#39d353")
    for y in (485, 520):
        c.disc(482, y, 5, "#39d353")
    _lamps(c, (497, 465), _two(number(rng, 0, 59)), 32, "#39d353")
    return c.done()


def _two(value: int) -> str:
    return f"{value:02}"


def tournament_bracket(rng: Rng) -> Picture:
    c = Canvas(1000, 700, "#14213d")
    c.text((500, 36), f"CUP {number(rng, 1950, 2026)}  -  {pick(rng, CITIES).upper()}", 36, "#fca311", "mm", bold=True)
    teams = some(rng, CITIES, 16)
    for level in range(4):
        x, gap = 20 + level * 250, 620 / len(teams)
        winners: list[str] = []
        first = 0
        for index, team in enumerate(teams):
            y = 70 + gap * (index + 0.5)
            if level < 3:
                other = 70 + gap * (index // 2 * 2 + 1)
                c.line([(x + 200, y), (x + 225, y), (x + 225, other), (x + 250, other)], "#7d8db0", 2)
            if index % 2 == 0:
                first = number(rng, 0, 1)
            won = index % 2 == first
            c.box(x, y - 16, x + 205, y + 16, "#8fd694" if won else "#e5e5e5", corner=5)
            c.text((x + 10, y), team, 21, "#14213d", "lm")
            c.box(x + 168, y - 16, x + 205, y + 16, "#fca311", corner=5)
            c.text((x + 186, y), number(rng, 0, 9), 21, "#14213d", "mm", bold=True)
            if won:
                winners.append(team)
        teams = winners
    return c.done()


def leaderboard(rng: Rng) -> Picture:
    c = Canvas(640, 960, "#3b1d72")
    c.text((320, 50), "LEADERBOARD", 48, "#ffd166", "mm", bold=True)
    c.text((320, 100), f"{phrase(rng)} league, week {number(rng, 1, 52)}", 24, "#cdbdf0", "mm")
    scores = sorted((number(rng, 200, 99_000) for _ in range(10)), reverse=True)
    me = number(rng, 0, 9)
    for index, score in enumerate(scores):
        y = 135 + index * 80
        c.box(20, y, 620, y + 70, "#ff7a59" if index == me else "#54309b", corner=16)
        c.text((58, y + 35), index + 1, 32, "#ffd166", "mm", bold=True)
        hue = pick(rng, ("#06d6a0", "#ef476f", "#118ab2", "#ffd166", "#f78c6b", "#c9f299"))
        c.disc(120, y + 35, 27, hue)
        first = pick(rng, FIRST)
        c.text((120, y + 35), first[0], 30, "#2a1355", "mm", bold=True)
        c.text(
            (165, y + 35),
            pick(rng, (first, f"{first}{number(rng, 1, 99)}", f"{first} {pick(rng, LAST)[0]}.")),
            30,
            "white",
            "lm",
        )
        c.text((600, y + 35), f"{score:,}", 30, "white", "rm", bold=True)
    return c.done()


def parliament(rng: Rng) -> Picture:
    c = Canvas(940, 620, "white")
    c.text((470, 32), f"Election in {pick(rng, CITIES)}, {number(rng, 1950, 2026)}", 36, "#222", "mm", bold=True)
    colours = ("#c1121f", "#e89005", "#4c956c", "#1d70b8", "#6a4c93")
    shares = rng.dirichlet(np.full(5, 1.6))
    seats = sorted((angle, radius) for radius in range(190, 440, 40) for angle in np.linspace(-88, 88, radius // 9))
    counts = np.bincount(np.searchsorted(np.cumsum(shares), np.linspace(0, 0.999, len(seats))), minlength=5)
    order = np.repeat(some(rng, range(5), 5), counts)
    for (angle, radius), who in zip(seats, order, strict=True):
        c.disc(*round_about((470, 522), radius, float(angle)), 13.5, colours[int(who)])
    c.text((470, 490), len(seats), 60, "#222", "mm", bold=True)
    for party, colour in enumerate(colours):
        c.box(40 + party * 178, 545, 205 + party * 178, 600, colour, corner=8)
        words = f"{pick(rng, ADJECTIVES).title()} {int((order == party).sum())}"
        c.text((122 + party * 178, 572), words, 24, "white", "mm", fit=150)
    return c.done()


def year_heat_map(rng: Rng) -> Picture:
    c = Canvas(980, 420, "#0d1117")
    c.text(
        (24, 18), f"{number(rng, 90, 4000)} {pick(rng, NOUNS)}s in {number(rng, 2008, 2026)}", 30, "#e6edf3", bold=True
    )
    shades = ("#161b22", "#0e4429", "#006d32", "#26a641", "#39d353")
    busy = np.convolve(rng.normal(1.3, 3.4, 60), np.full(4, 0.25), "same")
    for week in range(38):
        if week % 4 == 0:
            c.text((70 + week * 23.5, 84), MONTHS[week // 4][:3], 18, "#8b949e")
        for day in range(7):
            level = int(np.clip(busy[week] + rng.normal(0, 1.1), 0, 4))
            x, y = 70 + week * 23.5, 112 + day * 36
            c.box(x, y, x + 20, y + 31, shades[level], corner=4)
    for day in (0, 2, 4):
        c.text((20, 128 + day * 36), DAYS[day][:3], 18, "#8b949e", "lm")
    c.text((24, 392), f"Longest streak: {number(rng, 3, 90)} days", 20, "#8b949e", "lm")
    return c.done()


def month_calendar(rng: Rng) -> Picture:
    c = Canvas(900, 720, "white")
    month, first = number(rng, 0, 11), number(rng, 0, 6)
    c.box(0, 0, 900, 100, "#b23a48")
    c.text((40, 50), MONTHS[month].upper(), 52, "white", "lm", bold=True)
    c.text((860, 50), number(rng, 1990, 2030), 52, "white", "rm")
    for column, heading in enumerate(DAYS):
        c.text((64 + column * 128, 124), heading[:3], 22, "#666", "mm")
    for day in range(28 if month == 1 else 30 + (month in (0, 2, 4, 6, 7, 9, 11))):
        cell = first + day
        x, y = 2 + cell % 7 * 128, 146 + cell // 7 * 94
        c.box(x, y, x + 128, y + 94, "#fdf1e7" if cell % 7 > 4 else "white", "#ddd", 1)
        c.text((x + 10, y + 6), day + 1, 26, "#b23a48" if cell % 7 > 4 else "#222", bold=True)
        if chance(rng, 0.5):
            colour = pick(rng, ("#8ecae6", "#ffb703", "#b7e4c7", "#f4acb7"))
            c.box(x + 5, y + 44, x + 123, y + 86, colour, corner=6)
            c.text((x + 64, y + 65), pick(rng, (pick(rng, NOUNS), pick(rng, FIRST))), 22, "#222", "mm", fit=110)
    return c.done()


def school_week(rng: Rng) -> Picture:
    """A school's week: what is taught when."""
    c = Canvas(960, 660, "#fefae0")
    c.text(
        (480, 38),
        f"Class {number(rng, 1, 12)}{pick(rng, 'ABCD')}   {pick(rng, LAST)} School",
        36,
        "#283618",
        "mm",
        bold=True,
    )
    subjects = (
        "Maths",
        "Physics",
        "History",
        "Art",
        "Music",
        "English",
        "French",
        "Biology",
        "Sports",
        "Latin",
        "Drama",
    )
    hues = (
        "#ffadad",
        "#ffd6a5",
        "#fdffb6",
        "#caffbf",
        "#9bf6ff",
        "#a0c4ff",
        "#bdb2ff",
        "#ffc6ff",
        "#e0e0e0",
        "#d9ae94",
    )
    for column in range(5):
        c.text((200 + column * 168, 92), DAYS[column], 24, "#606c38", "mm", bold=True)
        for row in range(7):
            x, y = 120 + column * 168, 112 + row * 76
            subject = number(rng, 0, 10)
            if row > 4 and chance(rng, 0.5):
                continue
            c.box(x, y, x + 160, y + 70, hues[subject % 10], "#606c38", 1, 8)
            c.text((x + 80, y + 26), subjects[subject], 27, "#283618", "mm", bold=True)
            c.text((x + 80, y + 54), f"{pick(rng, LAST)}, room {number(rng, 1, 240)}", 16, "#444", "mm", fit=150)
    for row in range(7):
        c.text((60, 147 + row * 76), f"{8 + row}:00", 26, "#606c38", "mm")
    return c.done()


def eye_chart(rng: Rng) -> Picture:
    c = Canvas(620, 900, "white")
    c.box(12, 12, 608, 888, None, "#222", 4)
    y = 110.0
    for row in range(8):
        size = 150 * 0.74**row
        shown = [pick(rng, "CDEFHKLNOPRTUVZ") for _ in range(row + 1)]
        for index, letter in enumerate(shown):
            c.text((310 + (index - row / 2) * size * 1.15, y), letter, size, "black", "mm", bold=True)
        c.text((575, y), row + 1, 18, "#888", "mm")
        y += size * 0.95 + 18
    c.line([(40, 656), (545, 656)], "#2a9d4b", 5)
    c.text((310, 850), "Stand at six metres. Cover one eye.", 20, "#444", "mm")
    return c.done()


def sums_sheet(rng: Rng) -> Picture:
    c = Canvas(680, 940, "white")
    c.text((40, 36), f"Sums, sheet {number(rng, 1, 90)}", 40, "#2b50aa", bold=True)
    c.text((640, 60), f"Name: {pick(rng, FIRST)}", 26, "#555", "rm")
    for row in range(10):
        for column in range(2):
            x, y = 40 + column * 320, 118 + row * 80
            c.box(x, y, x + 290, y + 66, "#eef3ff", "#a9bbec", 2, 12)
            left, right, sign = number(rng, 2, 99), number(rng, 2, 99), pick(rng, "+-x:")
            c.text((x + 20, y + 34), f"{left} {sign} {right} =", 38, "#222", "lm")
            if chance(rng, 0.5):
                c.text((x + 270, y + 34), number(rng, 1, 200), 38, "#d1345b", "rm")
    return c.done()


def letter_tiles(rng: Rng) -> Picture:
    """Letter tiles of a word game on their rack and board."""
    c = Canvas(860, 860, "#d6c9a8")
    bonus = {(0, 0): "#e4572e", (7, 7): "#f3a712"}
    for row in range(11):
        for column in range(11):
            colour = bonus.get((row % 5, column % 5), "#a8c686" if (row * column) % 7 == 3 else "#efe6cc")
            c.box(18 + column * 75, 18 + row * 75, 90 + column * 75, 90 + row * 75, colour)
    for index in range(13):
        at, start, size = number(rng, 0, 10), number(rng, 0, 6), number(rng, 4, 6)
        for place, letter in enumerate((pick(rng, NOUNS).upper() + letters(rng, 3))[:size], start):
            row, column = (at, min(10, place)) if index % 2 else (min(10, place), at)
            x, y = 18 + column * 75, 18 + row * 75
            c.box(x + 2, y + 2, x + 70, y + 70, "#f9dfa5", "#9a7b3f", 2, 6)
            c.text((x + 34, y + 36), letter, 44, "#222", "mm", bold=True)
            c.text((x + 60, y + 60), int(real(rng, 1, 10)), 15, "#222", "mm")
    return c.done()
