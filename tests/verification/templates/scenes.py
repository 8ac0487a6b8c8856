"""Templates with a drawn scene, and patterns."""

import math

import numpy as np

from .canvas import Canvas, Colour, Picture, Point, Rng, blob, chance, number, pick, real, round_about, some, turned
from .words import ADJECTIVES, FIRST, LAST, NOUNS, phrase, sentence, title

_BRIGHT = ("#d62828", "#f77f00", "#fcbf49", "#2a9d8f", "#277da1", "#6a4c93", "#f5f5f5", "#222222", "#90be6d")


def _stick_figure(c: Canvas, rng: Rng, x: float, ground: float, size: float) -> None:
    head, hip = ground - size, ground - size * 0.42
    c.line([(x, head), (x, hip)], "black", 4)
    for way in (-1, 1):
        c.line([(x, hip), (x + way * real(rng, 8, 34), ground)], "black", 4)
        hand = (x + way * real(rng, 20, 48), head + size * real(rng, 0.05, 0.6))
        c.line([(x, head + size * 0.22), hand], "black", 4)
    c.disc(x, head - 12, 28, "white", "black", 4)
    for way in (-9, 9):
        c.disc(x + way, head - 17, 3.5, "black")
    bend = pick(rng, (0, 180))
    c.arc(x, head - (8 if bend == 0 else -4), 10, bend + 20, bend + 160, "black", 3)
    hat = number(rng, 0, 3)
    if hat == 1:
        c.box(x - 20, head - 66, x + 20, head - 34, pick(rng, _BRIGHT), "black", 2)
    elif hat == 2:
        c.polygon([(x - 24, head - 32), (x + 24, head - 32), (x, head - 76)], pick(rng, _BRIGHT), "black")


def comic_strip(rng: Rng) -> Picture:
    c = Canvas(1000, 420, "white")
    for panel in range(3):
        left = 14 + panel * 329
        c.box(left, 14, left + 314, 406, "#f3ecd8", "black", 4)
        c.line([(left, 350), (left + 312, 350)], "black", 2)
        if chance(rng, 0.6):
            thing = pick(rng, _BRIGHT)
            x, high = left + real(rng, 40, 220), real(rng, 60, 160)
            c.box(x, 350 - high, x + real(rng, 50, 95), 350, thing, "black", 3)
        places = [left + real(rng, 50, 120), left + real(rng, 190, 265)][: number(rng, 1, 2)]
        for x in places:
            _stick_figure(c, rng, x, 385, real(rng, 150, 190))
        speaker, words = pick(rng, places), sentence(rng)
        rows = c.wrapped(words, 27, 276)
        bottom = 40 + len(rows) * 32.4
        c.box(left + 12, 26, left + 302, bottom + 6, "white", "black", 3, 18)
        c.polygon([(speaker - 8, bottom + 5), (speaker + 14, bottom + 5), (speaker + 2, bottom + 32)], "white", "black")
        c.box(left + 20, bottom - 6, left + 294, bottom + 3, "white")
        c.paragraph((left + 157, 48), words, 27, 276, "black", "mm", step=1.2)
    return c.done()


def meme_caption(rng: Rng) -> Picture:
    c = Canvas(760, 760, "#86c5da")
    c.polygon([(0, 520), (250, 440), (520, 500), (760, 450), (760, 760), (0, 760)], "#6a994e")
    c.oval(380, 560, 150, 160, "#bc8a5f")
    c.disc(380, 360, 120, "#bc8a5f")
    for way in (-1, 1):
        c.polygon([(380 + way * 112, 320), (380 + way * 95, 205), (380 + way * 35, 255)], "#99582a")
        c.oval(380 + way * 45, 345, 24, 30, "white")
        c.disc(380 + way * 40, 352, 13, "black")
    c.oval(380, 410, 26, 17, "#432818")
    c.arc(380, 420, 42, 20, 160, "#432818", 6)
    rows = (
        f"When the {phrase(rng)} {pick(rng, ('says', 'sees', 'eats', 'asks', 'buys'))}",
        f"{phrase(rng)} {sentence(rng).split()[-1][:-1]}",
    )
    for words, at in zip(rows, (62, 0), strict=True):
        size = 82
        count = len(c.wrapped(words.upper(), size, 720))
        top = at or 760 - 62 - (count - 1) * size * 1.1
        c.paragraph((380, top), words.upper(), size, 720, "white", "mm", True, edge="black", step=1.1)
    return c.done()


def _person(c: Canvas, rng: Rng, x: float, ground: float, tall: float) -> None:
    skin = pick(rng, ("#f1c27d", "#c68642", "#8d5524", "#ffdbac"))
    c.box(x - tall * 0.24, ground - tall * 0.6, x + tall * 0.24, ground + 40, pick(rng, _BRIGHT), corner=tall * 0.12)
    hair = pick(rng, ("#2b1d0e", "#b5651d", "#555555", "#e6be5a"))
    c.disc(x, ground - tall * 0.8, tall * 0.2, hair)
    if chance(rng, 0.5):
        c.box(x - tall * 0.2, ground - tall * 0.8, x + tall * 0.2, ground - tall * 0.55, hair, corner=8)
    c.oval(x, ground - tall * 0.76, tall * 0.14, tall * 0.17, skin)
    look = real(rng, -6, 6)
    for way in (-1, 1):
        c.disc(x + look + way * tall * 0.055, ground - tall * 0.79, tall * 0.018, "black")
    c.arc(x + look, ground - tall * 0.71, tall * 0.05, 10, 170, "#7a2e2e", 3)


def film_subtitle(rng: Rng) -> Picture:
    c = Canvas(980, 560, "black")
    c.box(0, 70, 980, 490, "#c8b08a")
    c.box(0, 380, 980, 490, "#6d4c33")
    for _ in range(number(rng, 2, 4)):
        x, y, wide, high = real(rng, 20, 800), real(rng, 90, 180), real(rng, 80, 240), real(rng, 80, 190)
        c.box(
            x, y, x + wide, y + high, pick(rng, ("#7ec8e3", "#1d3557", "#a3b18a", "#e9c46a", "#9d0208")), "#4a3420", 7
        )
        c.line([(x + wide / 2, y), (x + wide / 2, y + high)], "#4a3420", 5)
    for index in range(number(rng, 1, 3)):
        _person(c, rng, 190 + index * 290 + real(rng, -70, 70), 480, real(rng, 230, 330))
    left = real(rng, 0, 700)
    c.box(left, 420, left + real(rng, 180, 420), 490, pick(rng, ("#3d2b1f", "#40513b", "#7b2d26")))
    c.box(0, 490, 980, 560, "black")
    for row, words in enumerate(c.wrapped(sentence(rng), 46, 880)[:2]):
        c.text((490, 425 + row * 62), words, 46, "#ffe94d", "mm", edge="black")
    return c.done()


def _eye(c: Canvas, rng: Rng, kind: int, x: float, y: float) -> None:
    if kind == 0:
        c.oval(x, y, 36, 62, "#3b2507")
    elif kind == 1:
        c.arc(x, y + 20, 62, 190, 350, "#3b2507", 20)
    elif kind == 2:
        c.line([(x - 50, y - 40), (x + 50, y + 40)], "#3b2507", 20)
        c.line([(x - 50, y + 40), (x + 50, y - 40)], "#3b2507", 20)
    elif kind == 3:
        c.disc(x, y, 78, "white", "#3b2507", 6)
        c.disc(x + real(rng, -30, 30), y + real(rng, -30, 30), 30, "#3b2507")
    else:
        c.polygon([(x - 75, y - 10), (x + 75, y - 10), (x, y + 78)], "#e02b2b")
        c.disc(x - 37, y - 20, 40, "#e02b2b")
        c.disc(x + 37, y - 20, 40, "#e02b2b")


def _mouth(c: Canvas, kind: int) -> None:
    if kind == 0:
        c.slice(350, 420, 170, 0, 180, "#7a1f1f")
        c.box(195, 420, 505, 455, "white")
    elif kind == 1:
        c.arc(350, 590, 130, 200, 340, "#3b2507", 24)
    elif kind == 2:
        c.oval(350, 500, 75, 95, "#7a1f1f")
    elif kind == 3:
        c.line([(210, 500), (490, 470)], "#3b2507", 24)
    elif kind == 4:
        c.line([(200 + step * 50, 490 + (step % 2) * 44) for step in range(7)], "#3b2507", 20)
    else:
        c.arc(350, 400, 150, 20, 160, "#3b2507", 22)
        c.slice(400, 545, 62, 0, 180, "#ff6b81")


def _extra(c: Canvas, kind: str, hue: Colour) -> None:
    for x in (165, 535):
        if kind == "cheeks":
            c.oval(x, 400, 62, 40, "#ff8a65")
        elif kind == "tears":
            c.polygon([(x - 30, 500), (x + 30, 500), (x, 360)], "#4fc3f7")
            c.disc(x, 510, 31, "#4fc3f7")
        elif kind == "horns":
            c.polygon([(x - 90, 120), (x + (x - 350) / 9, 12), (x + 60, 150)], hue)
        elif kind == "headphones":
            c.box(350 + (x - 350) * 1.5 - 48, 260, 350 + (x - 350) * 1.5 + 48, 440, hue, "#222", 5, 30)
    if kind == "hat":
        c.box(200, 6, 500, 110, hue)
        c.box(120, 100, 580, 138, "#222", corner=12)
    elif kind == "scarf":
        c.box(120, 590, 580, 668, hue, "#222", 4, 30)


def mood_face(rng: Rng) -> Picture:
    c = Canvas(700, 800, "#fdf6e3")
    c.disc(350, 350, 300, "#ffcc33", "#d99a00", 6)
    eyes, mouth, brows = number(rng, 0, 4), number(rng, 0, 5), real(rng, -45, 45)
    for kind in some(rng, ("cheeks", "tears", "horns", "headphones", "hat", "scarf"), 2):
        _extra(c, kind, pick(rng, _BRIGHT))
    for way in (-1, 1):
        _eye(c, rng, eyes, 350 + way * real(rng, 100, 125), 280)
        middle = 350 + way * 115
        c.line([(middle - 60, 175 - way * brows), (middle + 60, 175 + way * brows)], "#7a5200", 18)
    _mouth(c, mouth)
    c.text((350, 734), f"{pick(rng, FIRST)} feels {pick(rng, ADJECTIVES)}", 72, "#3b2507", "mm", bold=True, fit=660)
    return c.done()


def postage_stamp(rng: Rng) -> Picture:
    c = Canvas(620, 760, "#3b3f46")
    c.box(40, 40, 580, 720, "#fffdf5")
    for step in range(19):
        for x, y in ((40 + step * 30, 40), (40 + step * 30, 720)):
            c.disc(x, y, 10, "#3b3f46")
    for step in range(23):
        for x in (40, 580):
            c.disc(x, 55 + step * 29.5, 10, "#3b3f46")
    c.box(75, 80, 545, 600, pick(rng, ("#cfe8ef", "#fde2c4", "#dff0d0", "#e6dcf2", "#1d3557")), "#8a7a50", 3)
    hues = some(rng, _BRIGHT[:6], 3)
    for _ in range(number(rng, 1, 3)):
        at = (real(rng, 180, 440), real(rng, 190, 400))
        c.line([at, (310 + real(rng, -60, 60), 596)], "#3a7d44", 9)
        leaf = blob(rng, (at[0] + 40, 500 + real(rng, -40, 40)), real(rng, 40, 70), 22, 0.1)
        c.polygon(leaf, "#52a05c")
        petals, reach = number(rng, 4, 11), real(rng, 60, 105)
        for petal in range(petals):
            oval = [(math.cos(turn) * reach * 0.5, math.sin(turn) * reach * 0.22) for turn in np.linspace(0, 6.28, 30)]
            c.polygon(
                turned(oval, petal * 360 / petals, round_about(at, reach * 0.5, petal * 360 / petals + 90)),
                pick(rng, hues),
            )
        c.disc(*at, reach * 0.28, "#f9c74f")
    c.text((80, 660), "POSTA", 44, "#222", "lm", bold=True)
    c.text((80, 622), f"{phrase(rng)} flower", 24, "#555", "lm")
    c.text((540, 650), number(rng, 1, 99) * 5, 86, "#222", "rm", bold=True)
    return c.done()


def team_shirt(rng: Rng) -> Picture:
    c = Canvas(720, 760, "#e9edf0")
    shirt: list[Point] = [
        (220, 60),
        (500, 60),
        (700, 190),
        (620, 310),
        (560, 270),
        (560, 720),
        (160, 720),
        (160, 270),
        (100, 310),
        (20, 190),
    ]
    colours: list[Colour] = list(some(rng, _BRIGHT[:6], 2))
    c.polygon(shirt, "#0b3d91", "#05204d")
    if chance(rng, 0.5):
        for x in range(185, 540, 95):
            c.box(x, 66, x + 42, 716, colours[0])
    else:
        for y in range(300, 680, 110):
            c.box(164, y, 556, y + 48, colours[1])
    c.oval(360, 62, 80, 30, "#05204d")
    c.text((360, 175), pick(rng, LAST).upper(), 82, "white", "mm", bold=True, fit=370, edge="#05204d")
    c.text((360, 430), number(rng, 1, 99), 340, "white", "mm", bold=True, fit=370, edge="#05204d")
    c.text((360, 675), f"{title(rng)[4:]} {pick(rng, NOUNS)}", 34, "white", "mm", fit=370, edge="#05204d")
    return c.done()
