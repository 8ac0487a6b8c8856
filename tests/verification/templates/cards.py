"""Templates of cards and posted sheets: few words, large."""

from .canvas import Canvas, Picture, Rng, blob, clock, digits, number, pick, real, round_about, some
from .words import ADJECTIVES, CITIES, DAYS, FIRST, GOODS, LAST, NOUNS, PLACES, date, name, phrase, sentence, text


def name_badge(rng: Rng) -> Picture:
    c = Canvas(760, 520, "#c9ced6")
    c.box(20, 20, 740, 500, "#e63946", corner=34)
    c.text((380, 70), "HELLO", 62, "white", "mm", bold=True)
    c.text((380, 122), "my name is", 34, "white", "mm")
    c.box(20, 155, 740, 440, "white")
    c.text((380, 250), pick(rng, FIRST), 170, "#1d3557", "mm", bold=True, fit=640)
    c.text((380, 375), f"{pick(rng, LAST)}, {pick(rng, CITIES)}", 50, "#457b9d", "mm", fit=640)
    c.text((380, 468), f"{pick(rng, NOUNS)} department".capitalize(), 34, "white", "mm")
    return c.done()


def price_tag(rng: Rng) -> Picture:
    c = Canvas(820, 560, "#8d99ae")
    c.box(20, 20, 800, 540, "#ffe600", "#222", 4, 20)
    c.box(20, 20, 800, 110, "#d00000", corner=20)
    c.text((410, 65), "SUPER PRICE", 58, "white", "mm", bold=True)
    c.text((50, 130), f"{pick(rng, ADJECTIVES)} {pick(rng, GOODS)}".title(), 62, "#222", bold=True, fit=720)
    c.text((50, 212), f"{number(rng, 1, 40) * 50} g, from {pick(rng, CITIES)}", 36, "#444")
    c.text((770, 400), f"{number(rng, 0, 99)}.{number(rng, 0, 9)}9", 210, "#d00000", "rm", bold=True, fit=600)
    c.text((50, 262), f"was {number(rng, 20, 120)}.{digits(rng, 1)}9", 40, "#222")
    c.text((50, 512), f"until {date(rng)}", 28, "#444", "lm")
    return c.done()


def gift_card(rng: Rng) -> Picture:
    c = Canvas(900, 560, "#f1faee")
    c.box(20, 20, 880, 540, "#7b2cbf", corner=36)
    for _ in range(22):
        hue = pick(rng, ("#9d4edd", "#c77dff", "#ff9e00", "#ff6d00"))
        c.disc(real(rng, 70, 830), real(rng, 70, 490), real(rng, 14, 46), hue)
    c.box(105, 20, 155, 540, "#ffd60a")
    c.text((200, 60), "GIFT CARD", 52, "white", bold=True)
    c.text((840, 220), f"{number(rng, 1, 50) * 5} $", 130, "white", "rm", bold=True, edge="#3c096c")
    c.text((200, 330), f"For {pick(rng, FIRST)}", 64, "white", bold=True, edge="#3c096c")
    c.text((200, 412), f"from {name(rng)}", 38, "white", edge="#3c096c")
    c.text((200, 480), "  ".join(digits(rng, 4) for _ in range(4)), 36, "white", edge="#3c096c")
    return c.done()


def event_flyer(rng: Rng) -> Picture:
    c = Canvas(640, 920, "#ff477e")
    c.box(24, 24, 616, 896, "#ffe5ec")
    for _ in range(7):
        at = (real(rng, 110, 530), real(rng, 330, 600))
        hue = pick(rng, ("#ff85a1", "#fbb1bd", "#7209b7", "#4cc9f0", "#f9c74f"))
        c.polygon(blob(rng, at, real(rng, 30, 85), real(rng, 30, 85), 0.5), hue)
    c.text((320, 80), "COME ALONG!", 36, "#ff477e", "mm", bold=True)
    c.paragraph(
        (320, 160),
        f"{phrase(rng)} {pick(rng, ('night', 'fair', 'party', 'run'))}".upper(),
        66,
        540,
        "#3a0ca3",
        "mm",
        True,
        step=1.1,
    )
    c.box(24, 690, 616, 896, "#3a0ca3")
    c.text((320, 730), f"{pick(rng, DAYS)}, {date(rng)[:-5]}", 40, "#ffe5ec", "mm", bold=True, fit=560)
    c.text((320, 785), f"{clock(rng, 8, 22)}  {pick(rng, PLACES)}", 38, "#f9c74f", "mm", bold=True, fit=560)
    c.text((320, 845), f"with {name(rng)} and {name(rng)}", 28, "#ffe5ec", "mm", fit=560)
    return c.done()


def word_cards(rng: Rng) -> Picture:
    """A card of a word game: say the first without the others."""
    c = Canvas(600, 860, "#fb8500")
    c.box(24, 24, 576, 836, "#ffb703", corner=40)
    words = some(rng, NOUNS, 6)
    c.box(60, 70, 540, 220, "#023047", corner=24)
    c.text((300, 145), words[0].upper(), 84, "white", "mm", bold=True, fit=440)
    c.text((300, 262), "without saying", 30, "#023047", "mm")
    for index, word in enumerate(words[1:]):
        c.box(60, 295 + index * 92, 540, 375 + index * 92, "white", corner=16)
        c.text((300, 335 + index * 92), word, 52, "#d00000", "mm", bold=True)
    c.text((300, 790), f"Card {number(rng, 1, 500)}   {pick(rng, CITIES)} edition", 28, "#023047", "mm")
    return c.done()


def lottery_numbers(rng: Rng) -> Picture:
    c = Canvas(620, 900, "#fff")
    c.box(0, 0, 620, 130, "#e63900")
    c.text((310, 65), "LOTTO 6 / 49", 66, "#ffe600", "mm", bold=True)
    c.text((310, 165), f"Draw of {pick(rng, DAYS)}, {date(rng)}", 28, "#333", "mm")
    hues = ("#ffd23f", "#4ea8de", "#ef6f6c", "#7bc86c", "#c9a0dc")
    for row in range(number(rng, 5, 7)):
        y = 232 + row * 78
        c.text((50, y), f"{'ABCDEFG'[row]}.", 36, "#e63900", "mm", bold=True)
        for column, value in enumerate(some(rng, range(1, 50), 6)):
            c.disc(125 + column * 86, y, 37, hues[value // 10])
            c.text((125 + column * 86, y), f"{value:02}", 36, "#222", "mm", bold=True)
    c.text((310, 788), f"Game 77:  {digits(rng, 7)}", 40, "#222", "mm", bold=True)
    c.text((310, 850), f"{digits(rng, 4)}-{digits(rng, 8)}-{digits(rng, 3)}", 32, "#555", "mm")
    return c.done()


def clock_faces(rng: Rng) -> Picture:
    c = Canvas(960, 680, "#2b2d42")
    for index, city in enumerate(some(rng, CITIES, 6)):
        x, y = 170 + index % 3 * 310, 160 + index // 3 * 330
        minutes = number(rng, 0, 1439)
        day = 400 < minutes < 1150
        c.disc(x, y, 130, "#edf2f4" if day else "#4a4e69", "#ef233c", 7)
        ink = "#2b2d42" if day else "#edf2f4"
        for hour in range(1, 13):
            c.text(round_about((x, y), 106, hour * 30), hour, 24, ink, "mm", bold=True)
        c.line([(x, y), round_about((x, y), 62, minutes / 2)], ink, 10)
        c.line([(x, y), round_about((x, y), 92, minutes * 6)], ink, 6)
        c.line([(x, y), round_about((x, y), 95, real(rng, 0, 360))], "#ef233c", 3)
        c.disc(x, y, 9, "#ef233c")
        c.text((x, y + 158), f"{city} {minutes // 60:02}:{minutes % 60:02}", 28, "#edf2f4", "mm", bold=True)
    return c.done()


def vocabulary_trainer(rng: Rng) -> Picture:
    """A page of a vocabulary trainer: one word large, meanings and examples below."""
    c = Canvas(620, 940, "#e0fbfc")
    c.box(24, 24, 596, 300, "#3d5a80", corner=26)
    word = phrase(rng)
    c.text((310, 140), word, 110, "white", "mm", bold=True, fit=500)
    c.text(
        (310, 246), f"[{word[:3]}'{word[3:]}]  noun, {number(rng, 1, 9)} of {number(rng, 10, 90)}", 28, "#98c1d9", "mm"
    )
    y = 330.0
    for index in range(3):
        c.box(24, y, 596, y + 165, "white", corner=20)
        c.text((52, y + 18), f"{index + 1}. {phrase(rng)}", 34, "#ee6c4d", bold=True)
        c.paragraph((52, y + 64), sentence(rng), 28, 510, "#293241")
        y += 180
    c.text((310, 904), text(rng, 1), 24, "#3d5a80", "mm", fit=560)
    return c.done()
