"""Templates of what apps and players show, and of warnings."""

import math

import numpy as np

from .canvas import Canvas, Picture, Rng, blob, chance, clock, digits, letters, number, pick, real, some, turned
from .words import ADJECTIVES, CITIES, DAYS, DISHES, FIRST, NOUNS, PLACES, name, phrase, question, sentence, text, title

_BRIGHT = ("#ef476f", "#ffd166", "#06d6a0", "#118ab2", "#8338ec", "#fb5607")


def _sky(c: Canvas, kind: int, x: float, y: float, size: float) -> None:
    """Sun, cloud, rain, snow or lightning."""
    if kind in (0, 1):
        c.disc(x - (size * 0.3 if kind else 0), y - (size * 0.3 if kind else 0), size * 0.62, "#ffd23f")
    if kind:
        for dx, dy, radius in ((-0.5, 0.1, 0.4), (0, -0.15, 0.55), (0.55, 0.12, 0.38)):
            c.disc(x + dx * size, y + dy * size, radius * size, "#f4f8fb")
        c.box(x - size * 0.6, y, x + size * 0.65, y + size * 0.5, "#f4f8fb", corner=size * 0.2)
    for dx in (-0.4, 0, 0.4) if kind in (2, 3) else ():
        left, top = x + dx * size, y + size * 0.75
        if kind == 2:
            c.line(
                [(left + size * 0.1, top - size * 0.1), (left - size * 0.1, top + size * 0.35)], "#bde0ff", size * 0.1
            )
        else:
            c.disc(left, top + size * 0.1, size * 0.1, "white")
    if kind == 4:
        c.polygon(
            [
                (x + dx * size, y + dy * size)
                for dx, dy in ((0.1, 0.4), (-0.25, 0.9), (0, 0.9), (-0.1, 1.3), (0.3, 0.75), (0.05, 0.75))
            ],
            "#ffd23f",
        )


def weather_app(rng: Rng) -> Picture:
    c = Canvas(520, 960, "#3f7fc4")
    start, warm = number(rng, 0, 6), number(rng, -12, 34)
    c.text((260, 62), pick(rng, CITIES), 50, "white", "mm", bold=True)
    _sky(c, number(rng, 0, 4), 150, 200, 88)
    c.text((370, 200), f"{warm}°", 120, "white", "mm")
    c.text((260, 320), f"like a {phrase(rng)}", 30, "#dcecff", "mm")
    c.box(16, 352, 504, 500, "#5b95d4", corner=20)
    for hour in range(5):
        x = 65 + hour * 97
        c.text((x, 378), f"{(number(rng, 0, 3) + 6 + hour * 3)}:00", 20, "white", "mm")
        _sky(c, number(rng, 0, 4), x, 422, 24)
        c.text((x, 478), f"{warm + number(rng, -5, 5)}°", 26, "white", "mm", bold=True)
    for day in range(6):
        y = 516 + day * 72
        c.box(16, y, 504, y + 66, "#5b95d4", corner=14)
        c.text((36, y + 33), DAYS[(start + day) % 7], 26, "white", "lm")
        _sky(c, number(rng, 0, 4), 230, y + 28, 20)
        low, high = warm - number(rng, 3, 11), warm + number(rng, -2, 7)
        c.text((310, y + 33), f"{low}°", 26, "#cfe3fa", "rm")
        left = 320 + real(rng, 0, 50)
        c.box(left, y + 28, left + real(rng, 20, 70), y + 38, "#ffd23f", corner=5)
        c.text((492, y + 33), f"{high}°", 26, "white", "rm")
    return c.done()


def quiz_question(rng: Rng) -> Picture:
    c = Canvas(980, 600, "#1b1464")
    c.polygon([(0, 0), (980, 0), (490, 330)], "#2a22a0")
    c.box(40, 40, 940, 300, "#0c0a3e", "#ffc312", 4, 30)
    c.text((490, 74), f"QUESTION {number(rng, 1, 15)}  FOR  {number(rng, 1, 90)}00", 24, "#ffc312", "mm")
    c.paragraph((490, 130), question(rng), 48, 820, "white", "mm", bold=True)
    chosen = number(rng, 0, 3)
    for index, noun in enumerate(some(rng, NOUNS, 4)):
        x, y = 40 + index % 2 * 460, 330 + index // 2 * 125
        fill = ("#d35400", "#1e8449", "#0c0a3e")[min(2, abs(index - chosen))] if index == chosen else "#0c0a3e"
        c.box(x, y, x + 440, y + 100, fill, "#ffc312", 4, 50)
        c.text((x + 36, y + 50), f"{'ABCD'[index]}:", 38, "#ffc312", "lm", bold=True)
        c.text((x + 95, y + 50), f"the {pick(rng, ADJECTIVES)} {noun}", 36, "white", "lm", fit=320)
    return c.done()


def poll_result(rng: Rng) -> Picture:
    c = Canvas(720, 760, "#f7f7fb")
    c.box(20, 20, 700, 740, "white", "#ddd", 2, 24)
    y = c.paragraph((50, 50), question(rng), 38, 610, "#16213e", bold=True)
    count = number(rng, 4, 5)
    shares = [round(float(share) * 100) for share in rng.dirichlet(np.full(count, 1.3))]
    for index, share in enumerate(shares):
        top = y + 20 + index * 88
        c.box(50, top, 670, top + 68, "#edeffa", corner=14)
        c.box(50, top, 50 + max(28, share * 6.2), top + 68, "#6c63ff" if share == max(shares) else "#b9b5ff", corner=14)
        c.text((70, top + 34), phrase(rng).capitalize(), 30, "#16213e", "lm")
        c.text((655, top + 34), f"{share}%", 32, "#16213e", "rm", bold=True)
    c.text((50, 705), f"{number(rng, 90, 90_000):,} votes, closes in {number(rng, 1, 23)} hours", 24, "#777", "lm")
    return c.done()


def warning_dialogue(rng: Rng) -> Picture:
    c = Canvas(880, 500, "#3a6ea5")
    c.box(50, 40, 830, 460, "#ece9d8", "#0a246a", 4)
    c.box(54, 44, 826, 96, "#0a4bd6")
    c.text(
        (70, 70),
        f"{pick(rng, ADJECTIVES)}{pick(rng, NOUNS)}.exe - {pick(rng, ('Error', 'Warning', 'Failure'))}",
        27,
        "white",
        "lm",
        True,
    )
    c.box(778, 50, 820, 90, "#d9442f", "white", 2, 5)
    c.text((799, 70), "X", 27, "white", "mm", bold=True)
    sign, fill = pick(rng, (("!", "#ffd21f"), ("X", "#d9442f"), ("?", "#4a90e2")))
    if sign == "!":
        c.polygon([(140, 140), (215, 275), (65, 275)], fill, "#222")
    else:
        c.disc(140, 210, 68, fill, "white", 4)
    c.text((140, 230 if sign == "!" else 212), sign, 74, "#222" if sign == "!" else "white", "mm", bold=True)
    y = c.paragraph((235, 122), sentence(rng), 40, 575)
    c.paragraph((235, y + 14), f"Code 0x{int(rng.integers(2**32)):08X}: {sentence(rng)}", 30, 575, "#444")
    words = ("Retry", "Ignore", "Abort", "Cancel", "Continue", "Help", "Report", "Restart", "Skip", "Wait")
    for index, word in enumerate(some(rng, words, 3)):
        c.box(140 + index * 215, 385, 335 + index * 215, 438, "#f7f6f0", "#003c74", 2, 6)
        c.text((237 + index * 215, 411), word, 27, "black", "mm")
    return c.done()


def captcha(rng: Rng) -> Picture:
    c = Canvas(720, 400, "#f9f9f9")
    c.box(10, 10, 710, 390, "#f9f9f9", "#bbb", 2, 8)
    c.box(30, 30, 690, 270, "#dfe8ef")
    for _ in range(14):
        ends = [(real(rng, 30, 690), real(rng, 30, 270)) for _ in range(2)]
        c.line(ends, pick(rng, ("#9fb3c8", "#c8a99f", "#a8c89f")), real(rng, 1.5, 4))
    for index in range(6):
        x, y = 85 + index * 110 + real(rng, -12, 12), 150 + real(rng, -45, 45)
        tone = number(rng, 10, 110)
        c.text(
            (x, y),
            letters(rng, 1) if chance(rng, 0.7) else digits(rng, 1),
            real(rng, 95, 150),
            (tone, 30, 130 - tone),
            "mm",
            True,
        )
    for _ in range(3):
        wave = [(x, 150 + 70 * math.sin(x / real(rng, 60, 62)) + real(rng, -4, 4)) for x in range(30, 691, 12)]
        shift = real(rng, -60, 60)
        c.line([(x, min(268, max(32, y + shift))) for x, y in wave], "#4a5a6a", 3)
    c.box(30, 295, 480, 365, "white", "#888", 2)
    c.text((48, 330), "Type the characters above", 26, "#999", "lm")
    c.box(500, 295, 690, 365, "#4285f4", corner=6)
    c.text((595, 330), "Verify", 32, "white", "mm", bold=True)
    return c.done()


def video_thumbnail(rng: Rng) -> Picture:
    c = Canvas(960, 600, pick(rng, ("#264653", "#6a040f", "#3a0ca3", "#1b4332", "#5f0f40")))
    for _ in range(number(rng, 3, 6)):
        at = (real(rng, 100, 900), real(rng, 80, 440))
        c.polygon(blob(rng, at, real(rng, 70, 220), real(rng, 60, 160)), pick(rng, _BRIGHT))
    c.paragraph(
        (40, 60), f"{phrase(rng)} vs {phrase(rng)}".upper(), 74, 880, "white", bold=True, edge="black", step=1.15
    )
    c.box(400, 225, 560, 335, "#ff0000", corner=30)
    c.polygon([(455, 250), (455, 310), (512, 280)], "white")
    c.box(0, 500, 960, 600, "#111")
    done = real(rng, 40, 900)
    c.box(0, 500, 960, 507, "#666")
    c.box(0, 500, done, 507, "#ff0000")
    c.disc(done, 503, 10, "#ff0000")
    c.polygon([(28, 535), (28, 571), (58, 553)], "white")
    c.text(
        (90, 553),
        f"{number(rng, 0, 9)}:{digits_below_60(rng)} / {number(rng, 10, 59)}:{digits_below_60(rng)}",
        26,
        "white",
        "lm",
    )
    c.text((930, 553), name(rng), 30, "white", "rm")
    return c.done()


def digits_below_60(rng: Rng) -> str:
    return f"{number(rng, 0, 59):02}"


def music_player(rng: Rng) -> Picture:
    c = Canvas(540, 960, "#181818")
    c.text((270, 46), "NOW PLAYING", 22, "#aaa", "mm")
    c.box(40, 85, 500, 545, pick(rng, _BRIGHT))
    for index in range(number(rng, 4, 8)):
        x, y, size = real(rng, 110, 430), real(rng, 155, 475), real(rng, 30, 70)
        if index % 2:
            c.disc(x, y, size, pick(rng, _BRIGHT))
        else:
            c.polygon(
                turned([(-1, -1), (1, -1), (1, 1), (-1, 1)], real(rng, 0, 45), (x, y), size * 0.7), pick(rng, _BRIGHT)
            )
    c.text((40, 580), title(rng), 40, "white", bold=True, fit=460)
    c.text((40, 636), f"{name(rng)} & the {pick(rng, NOUNS)}s", 28, "#b3b3b3", fit=460)
    share = real(rng, 0.05, 0.95)
    c.box(40, 700, 500, 708, "#555", corner=4)
    c.box(40, 700, 40 + 460 * share, 708, "#1ed760", corner=4)
    c.disc(40 + 460 * share, 704, 11, "white")
    c.text((40, 722), f"{number(rng, 0, 3)}:{digits_below_60(rng)}", 22, "#b3b3b3")
    c.text((500, 722), f"{number(rng, 3, 9)}:{digits_below_60(rng)}", 22, "#b3b3b3", "ra")
    c.disc(270, 800, 44, "white")
    for x in (258, 274):
        c.box(x, 780, x + 9, 820, "#181818")
    for x, way in ((150, -1), (390, 1)):
        c.polygon([(x - 18 * way, 780), (x - 18 * way, 820), (x + 14 * way, 800)], "white")
    for row, words in enumerate((sentence(rng), sentence(rng))):
        c.text((270, 880 + row * 38), words, 24, "#9a9a9a" if row else "white", "mm", fit=480)
    return c.done()


def alarm_list(rng: Rng) -> Picture:
    c = Canvas(540, 960, "#0b132b")
    c.text((36, 32), "Alarms", 50, "white", bold=True)
    c.text((505, 60), "+", 56, "#ff9f1c", "rm")
    for index in range(7):
        y, active = 115 + index * 120, chance(rng, 0.5)
        c.box(20, y, 520, y + 108, "#1c2541", corner=22)
        c.text((42, y + 40), clock(rng), 56, "white" if active else "#6b7591", "lm", bold=True)
        words = f"{pick(rng, FIRST)}: {phrase(rng)}" if chance(rng, 0.5) else f"{pick(rng, DAYS)}, {pick(rng, PLACES)}"
        c.text((42, y + 84), words, 22, "#a9b4d0", "lm", fit=340)
        c.box(415, y + 34, 500, y + 76, "#2ec4b6" if active else "#3a4564", corner=21)
        c.disc(478 if active else 437, y + 55, 18, "white")
    return c.done()


def fitness_rings(rng: Rng) -> Picture:
    c = Canvas(560, 900, "black")
    c.text((36, 32), f"{pick(rng, DAYS)}, {pick(rng, FIRST)}", 40, "white", bold=True)
    for radius, colour, track in (
        (200, "#fa114f", "#3a0713"),
        (150, "#92e82a", "#1f340a"),
        (100, "#1eeaef", "#08393a"),
    ):
        c.arc(280, 320, radius, 0, 360, track, 42)
        c.arc(280, 320, radius, -90, -90 + real(rng, 30, 355), colour, 42)
    rows = (("Move", 900, "kcal", "#fa114f"), ("Exercise", 90, "min", "#92e82a"), ("Stand", 14, "h", "#1eeaef"))
    for index, (label, most, unit, colour) in enumerate(rows):
        y = 550 + index * 112
        c.text((36, y), label, 26, "#aaa")
        c.text((36, y + 30), f"{number(rng, 1, most)} / {number(rng, most // 3, most)} {unit}", 40, colour, bold=True)
        for hour in range(14):
            c.box(330 + hour * 14, y + 72 - real(rng, 2, 62), 340 + hour * 14, y + 74, colour)
    return c.done()


def delivery_tracker(rng: Rng) -> Picture:
    c = Canvas(560, 920, "#fff4e6")
    c.box(0, 0, 560, 120, "#ff6b35")
    c.text((36, 38), f"Arrives at {clock(rng)}", 44, "white", bold=True)
    state = number(rng, 0, 4)
    for index in range(5):
        y = 175 + index * 92
        if index < 4:
            c.line([(64, y), (64, y + 92)], "#2a9d4b" if index < state else "#ccc", 8)
        c.disc(64, y, 24, "#2a9d4b" if index <= state else "#ccc")
        c.text((110, y - 16), f"{clock(rng)}  {pick(rng, PLACES)}", 28, "#222", "lm", bold=index == state, fit=420)
        c.text((110, y + 18), phrase(rng), 22, "#777", "lm")
    c.box(24, 620, 536, 830, "white", "#ffb595", 2, 18)
    for index, dish in enumerate(some(rng, DISHES, 4)):
        c.text((48, 650 + index * 48), f"{number(rng, 1, 5)} x {dish}", 28, "#333", "lm", fit=460)
    c.text((280, 876), text(rng, 1), 22, "#777", "mm", fit=510)
    return c.done()
