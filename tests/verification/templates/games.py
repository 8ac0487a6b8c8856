"""Templates of board games, cards and puzzles."""

import numpy as np

from .canvas import Canvas, Colour, Picture, Point, Rng, chance, letters, number, pick, real, some, turned
from .words import NOUNS

_PIPS: dict[int, list[Point]] = {
    0: [],
    1: [(0, 0)],
    2: [(-1, -1), (1, 1)],
    3: [(-1, -1), (0, 0), (1, 1)],
    4: [(-1, -1), (1, 1), (-1, 1), (1, -1)],
    5: [(-1, -1), (1, 1), (-1, 1), (1, -1), (0, 0)],
    6: [(-1, -1), (1, 1), (-1, 1), (1, -1), (-1, 0), (1, 0)],
}
_PIECES: dict[str, str] = {  # outlines, in hundredths of a square
    "pawn": "50,20 59,25 60,36 55,43 64,60 72,85 28,85 36,60 45,43 40,36 41,25",
    "rook": "26,18 38,18 38,27 45,27 45,18 55,18 55,27 62,27 62,18 74,18 74,38 64,42 76,85 24,85 36,42 26,38",
    "bishop": "50,12 64,36 58,50 70,85 30,85 42,50 36,36",
    "knight": "30,85 36,60 50,48 34,50 22,46 30,32 44,20 48,10 54,20 68,34 74,85",
    "queen": "18,25 35,50 37,18 50,48 63,18 65,50 82,25 71,85 29,85",
    "king": "46,8 54,8 54,16 62,16 62,24 54,24 54,32 78,36 74,55 67,85 33,85 26,55 22,36 46,32 46,24 38,24 38,16 46,16",
}


def crossword(rng: Rng) -> Picture:
    c = Canvas(780, 840, "white")
    c.text((30, 22), "THE DAILY CROSSWORD", 34, "black", bold=True)
    black = rng.random((15, 15)) < 0.2
    black |= black[::-1, ::-1]
    count = 0
    for row in range(15):
        for column in range(15):
            x, y = 30 + column * 48, 85 + row * 48
            c.box(x, y, x + 48, y + 48, "black" if black[row, column] else "white", "black", 1)
            if black[row, column]:
                continue
            if row == 0 or column == 0 or black[row - 1, column] or black[row, column - 1]:
                count += 1
                c.text((x + 3, y + 2), count, 12, "black")
            if chance(rng, 0.6):
                c.text((x + 26, y + 28), letters(rng, 1), 30, "#1a3a8a", "mm")
    c.box(30, 85, 750, 805, None, "black", 3)
    return c.done()


def sudoku(rng: Rng) -> Picture:
    c = Canvas(700, 780, "#fdfdfd")
    c.text((350, 40), f"SUDOKU   No. {number(rng, 1, 999)}", 36, "#223", "mm", bold=True)
    order = [band * 3 + row for band in some(rng, range(3), 3) for row in some(rng, range(3), 3)]
    faces = some(rng, range(1, 10), 9)
    for row in range(9):
        for column in range(9):
            x, y = 35 + column * 70, 90 + row * 70
            c.box(x, y, x + 70, y + 70, None, "#99a", 1)
            pattern = order[row]
            value = faces[(pattern * 3 + pattern // 3 + column) % 9]
            if chance(rng, 0.62):
                given = chance(rng, 0.6)
                c.text((x + 35, y + 36), value, 46, "black" if given else "#2a62c9", "mm", bold=given)
    for step in range(4):
        c.line([(35 + step * 210, 90), (35 + step * 210, 720)], "black", 4)
        c.line([(35, 90 + step * 210), (665, 90 + step * 210)], "black", 4)
    return c.done()


def chess_position(rng: Rng) -> Picture:
    c = Canvas(760, 760, "#4a3526")
    men = ["king", "queen", "rook", "rook", "bishop", "knight", "knight", *["pawn"] * 7]
    squares = iter(some(rng, range(64), 28))
    for square in range(64):
        x, y = 40 + square % 8 * 85, 40 + square // 8 * 85
        c.box(x, y, x + 85, y + 85, "#eed9b6" if (square + square // 8) % 2 == 0 else "#b5875f")
    for index in range(8):
        c.text((82 + index * 85, 740), "abcdefgh"[index], 22, "#eed9b6", "mm")
        c.text((20, 82 + index * 85), 8 - index, 22, "#eed9b6", "mm")
    for fill, edge in (("white", "#222"), ("#222", "#ddd")):
        for man in men:
            square = next(squares)
            x, y = 40 + square % 8 * 85, 40 + square // 8 * 85
            outline = [tuple(map(int, point.split(","))) for point in _PIECES[man].split()]
            c.polygon([(x + px * 0.85, y + py * 0.85) for px, py in outline], fill, edge)
    return c.done()


def go_position(rng: Rng) -> Picture:
    c = Canvas(780, 780, "#dcb35c")
    for index in range(19):
        at = 39 + index * 39
        c.line([(39, at), (741, at)], "#3a2a10", 1)
        c.line([(at, 39), (at, 741)], "#3a2a10", 1)
    for row in (3, 9, 15):
        for column in (3, 9, 15):
            c.disc(39 + column * 39, 39 + row * 39, 5, "#3a2a10")
    field = sum(  # stones stand in groups
        np.outer(np.exp(-((np.arange(19) - y) ** 2) / 18), np.exp(-((np.arange(19) - x) ** 2) / 18)) * sign
        for sign in (1, -1)
        for y, x in rng.uniform(0, 18, (5, 2))
    )
    for row in range(19):
        for column in range(19):
            value = float(np.asarray(field)[row, column]) + real(rng, -0.25, 0.25)
            if chance(rng, 0.5) and abs(value) > 0.12:
                white = value > 0
                c.disc(39 + column * 39, 39 + row * 39, 18.5, "#f8f8f4" if white else "#1a1a1a", "#555", 1)
    return c.done()


def bingo_card(rng: Rng) -> Picture:
    c = Canvas(640, 800, "#d81e5b")
    for column, letter in enumerate("BINGO"):
        c.text((80 + column * 120, 75), letter, 100, "white", "mm", bold=True)
        for row, value in enumerate(some(rng, range(column * 15 + 1, column * 15 + 16), 5)):
            x, y = 20 + column * 120, 140 + row * 120
            c.box(x, y, x + 120, y + 120, "#fffbe8", "#d81e5b", 3)
            if (row, column) == (2, 2):
                c.text((x + 60, y + 60), "FREE", 34, "#d81e5b", "mm", bold=True)
                continue
            if chance(rng, 0.45):
                c.disc(x + 60, y + 60, 50, "#ffc93c")
            c.text((x + 60, y + 60), value, 60, "#222", "mm", bold=True)
    c.text((320, 770), f"Card {number(rng, 1000, 9999)}", 24, "white", "mm")
    return c.done()


def word_search(rng: Rng) -> Picture:
    c = Canvas(900, 700, "#fff8f0")
    c.text((40, 24), "WORD SEARCH", 42, "#246", bold=True)
    c.box(30, 85, 645, 680, "white", "#246", 3, 12)
    grid = [[letters(rng, 1) for _ in range(14)] for _ in range(14)]
    hidden = [word.upper() for word in some(rng, NOUNS, 11)]
    for index, word in enumerate(hidden):
        at, start = number(rng, 0, 13), number(rng, 0, 14 - len(word))
        marks: list[Point] = []
        for place, letter in enumerate(word, start):
            row, column = (at, place) if index % 2 else (place, at)
            grid[row][column] = letter
            marks.append((60 + column * 42.5, 112 + row * 41.5))
        if index < 4:
            c.line([marks[0], marks[-1]], "#ffd24d", 32)
    for row, content in enumerate(grid):
        for column, letter in enumerate(content):
            c.text((60 + column * 42.5, 112 + row * 41.5), letter, 28, "#222", "mm")
    for index, word in enumerate(hidden):
        c.text((675, 100 + index * 50), word, 28, "#246", fit=205)
    return c.done()


def dice_throw(rng: Rng) -> Picture:
    c = Canvas(860, 640, "#6b3f1d")
    c.box(30, 30, 830, 610, "#1f7a45", "#3d220d", 6, 40)
    total = 0
    places = some(rng, [(x, y) for x in range(4) for y in range(2)], 6)
    for column, row in places:
        at = (150 + column * 187 + real(rng, -25, 25), 170 + row * 220 + real(rng, -30, 30))
        angle, value = real(rng, 0, 90), number(rng, 1, 6)
        total += value
        square = [(-1.0, -1.0), (1.0, -1.0), (1.0, 1.0), (-1.0, 1.0)]
        c.polygon(turned(square, angle, (at[0] + 9, at[1] + 11), 66), "#155a32")
        c.polygon(turned(square, angle, at, 66), "#fbf7ec", "#887")
        for x, y in turned(_PIPS[value], angle, at, 36):
            c.disc(x, y, 12, "#c0182b")
    c.text((430, 577), f"Throw {number(rng, 1, 99)}:  {total} points", 38, "white", "mm", bold=True)
    return c.done()


def dominoes(rng: Rng) -> Picture:
    c = Canvas(900, 620, "#7b4a2b")
    for y in range(0, 620, 62):
        c.line([(0, y), (900, y)], "#6b3f23", 3)
    for row in range(4):
        for column in range(5):
            x, y = 30 + column * 172, 25 + row * 146
            upright = chance(rng, 0.4)
            wide, high = (66, 132) if upright else (150, 75)
            left, top = x + (150 - wide) / 2, y + (132 - high) / 2
            c.box(left, top, left + wide, top + high, "#f7f1e1", "#222", 2, 10)
            for half in (0, 1):
                at = (
                    (left + wide / 2, top + high * (0.25 + half / 2))
                    if upright
                    else (left + wide * (0.25 + half / 2), y + 66)
                )
                for px, py in turned(_PIPS[number(rng, 0, 6)], 0 if upright else 90, at, 19):
                    c.disc(px, py, 6.5, "#111")
            middle = [(left, y + 66), (left + wide, y + 66)] if upright else [(x + 75, top), (x + 75, top + high)]
            c.line(middle, "#222", 2)
    return c.done()


def _suit(c: Canvas, suit: int, at: Point, size: float, colour: Colour) -> None:
    x, y = at
    if suit == 0:  # diamonds
        c.polygon([(x, y - size), (x + size * 0.75, y), (x, y + size), (x - size * 0.75, y)], colour)
        return
    if suit == 1:  # hearts
        c.polygon([(x - size * 0.9, y - size * 0.1), (x + size * 0.9, y - size * 0.1), (x, y + size)], colour)
        places: list[Point] = [(-0.45, -0.4), (0.45, -0.4)]
    elif suit == 2:  # spades
        c.polygon([(x - size * 0.9, y + size * 0.15), (x + size * 0.9, y + size * 0.15), (x, y - size)], colour)
        places = [(-0.45, 0.3), (0.45, 0.3)]
    else:  # clubs
        places = [(-0.5, 0.2), (0.5, 0.2), (0, -0.5)]
    for px, py in places:
        c.disc(x + px * size, y + py * size, size * 0.5, colour)
    if suit > 1:
        c.polygon([(x, y), (x + size * 0.4, y + size), (x - size * 0.4, y + size)], colour)


def playing_cards(rng: Rng) -> Picture:
    c = Canvas(960, 620, "#0f5c3a")
    c.oval(480, 310, 450, 285, "#14704a", "#d9b64a", 3)
    deck = [(suit, rank) for suit in range(4) for rank in range(13)]
    for index, (suit, rank) in enumerate(some(rng, deck, 10)):
        x, y = 62 + index % 5 * 172, 30 + index // 5 * 290
        colour = "#c8102e" if suit < 2 else "#111"
        face = ("A", *map(str, range(2, 11)), "J", "Q", "K")[rank]
        c.box(x, y, x + 150, y + 265, "white", "#888", 2, 14)
        c.text((x + 10, y + 8), face, 42, colour, bold=True, fit=34)
        _suit(c, suit, (x + 28, y + 72), 15, colour)
        if rank in (0, 10, 11, 12):
            _suit(c, suit, (x + 75, y + 140), 46, colour)
            c.text((x + 75, y + 226), face, 60, colour, "mm", bold=True)
            continue
        for pip in range(rank + 1):
            _suit(c, suit, (x + 65 + pip % 2 * 48, y + 62 + pip // 2 * (170 / max(1, rank // 2))), 17, colour)
    return c.done()


def connect_four(rng: Rng) -> Picture:
    c = Canvas(800, 720, "#f0ead6")
    c.box(20, 20, 780, 690, "#1f4fb8", corner=26)
    for column in range(7):
        filled = number(rng, 1, 6)
        for row in range(6):
            colour = pick(rng, ("#e8302a", "#ffd21f")) if row >= 6 - filled else "#f0ead6"
            c.disc(85 + column * 105, 85 + row * 108, 45, colour, "#163a8a", 4)
    return c.done()


def maze(rng: Rng) -> Picture:
    c = Canvas(720, 800, "white")
    c.text((360, 40), f"Find the way out!   Maze {number(rng, 1, 300)}", 32, "#333", "mm", bold=True)
    c.box(30, 80, 690, 740, "#eaf4ff")
    seen, trail = {(0, 0)}, [(0, 0)]
    open_walls: set[tuple[tuple[int, int], tuple[int, int]]] = set()
    while trail:
        x, y = trail[-1]
        near = [(x + 1, y), (x - 1, y), (x, y + 1), (x, y - 1)]
        fresh = [cell for cell in near if cell not in seen and 0 <= cell[0] < 15 and 0 <= cell[1] < 15]
        if not fresh:
            trail.pop()
            continue
        cell = pick(rng, fresh)
        open_walls |= {((x, y), cell), (cell, (x, y))}
        seen.add(cell)
        trail.append(cell)
    for x, y in sorted(seen):
        left, top = 30 + x * 44, 80 + y * 44
        if ((x, y), (x + 1, y)) not in open_walls:
            c.line([(left + 44, top), (left + 44, top + 44)], "#134", 5)
        if ((x, y), (x, y + 1)) not in open_walls:
            c.line([(left, top + 44), (left + 44, top + 44)], "#134", 5)
    c.box(30, 80, 690, 740, None, "#134", 5)
    c.disc(52, 102, 12, "#e63946")
    c.disc(668, 718, 12, "#2a9d4b")
    c.text((360, 770), "Start at the red dot, end at the green one", 20, "#555", "mm")
    return c.done()
