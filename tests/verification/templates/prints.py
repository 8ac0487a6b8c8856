"""Templates of what is printed on cards, sheets and boxes."""

from .canvas import Canvas, Picture, Rng, chance, digits, letters, number, pick, real, some
from .words import (
    ADJECTIVES,
    DAYS,
    DISHES,
    FIRST,
    GOODS,
    date,
    name,
    phrase,
    title,
)


def sheet_music(rng: Rng) -> Picture:
    c = Canvas(740, 1000, "#fffef8")
    c.text(
        (370, 46),
        f"{pick(rng, ('Etude', 'Waltz', 'Sonata', 'Song', 'March'))} No. {number(rng, 1, 60)}",
        40,
        "black",
        "mm",
        True,
    )
    c.text((700, 90), name(rng), 22, "#333", "rm")
    c.text((40, 90), pick(rng, ("Allegro", "Andante", "Largo", "Presto", "Moderato")), 22, "#333", "lm")
    for row in range(7):
        top = 135 + row * 122
        for line in range(5):
            c.line([(40, top + line * 12), (700, top + line * 12)], "#333", 1.2)
        clef = [
            (66, 62),
            (60, 68),
            (54, 62),
            (62, 56),
            (62, 0),
            (68, -14),
            (72, -6),
            (54, 22),
            (52, 36),
            (62, 44),
            (72, 36),
        ]
        c.line([(x, top + y) for x, y in (*clef, (66, 26), (58, 30))], "black", 3)
        pitch, x = number(rng, 0, 8), 108.0
        while x < 645:
            length = pick(rng, (1, 1, 2, 2, 2, 4))
            for _ in range(2 if length == 1 else 1):
                pitch = min(10, max(-2, pitch + number(rng, -3, 3)))
                _note(c, x, top + 48 - pitch * 6, length, pitch < 4)
                x += 24 + length * 7
            if chance(rng, 0.2):
                c.line([(x, top), (x, top + 48)], "#333", 2)
                x += 18
        c.line([(700, top), (700, top + 48)], "#333", 3)
    return c.done()


def _note(c: Canvas, x: float, y: float, length: int, up: bool) -> None:
    c.oval(x, y, 8, 6, "black" if length < 4 else "#fffef8", "black", 2)
    way = -1 if up else 1
    stem = x - way * 7
    c.line([(stem, y), (stem, y + way * 40)], "black", 2)
    if length == 1:
        c.line([(stem, y + way * 40), (stem + 11, y + way * 22)], "black", 4)


def menu_board(rng: Rng) -> Picture:
    c = Canvas(720, 940, "#23302a")
    c.box(14, 14, 706, 926, None, "#a9703c", 14)
    c.text((360, 80), "Today's Menu", 60, "#fff3d6", "mm", bold=True)
    c.line([(120, 122), (600, 122)], "#fff3d6", 2)
    c.text((360, 152), f"{pick(rng, DAYS)} at {pick(rng, FIRST)}'s", 28, "#f7b267", "mm")
    for index, dish in enumerate(some(rng, DISHES, 8)):
        y = 190 + index * 88
        c.text((56, y), dish, 38, "#fff3d6", fit=480)
        c.text((664, y), f"{number(rng, 4, 29)}.{pick(rng, ('00', '50', '90'))}", 38, "#f7b267", "ra")
        c.text((56, y + 44), f"with {pick(rng, GOODS)} and {pick(rng, ADJECTIVES)} {pick(rng, GOODS)}", 22, "#b9c7bd")
    return c.done()


def nutrition_facts(rng: Rng) -> Picture:
    c = Canvas(520, 960, "white")
    c.box(10, 10, 510, 950, "white", "black", 5)
    c.text((28, 22), "Nutrition Facts", 60, "black", bold=True, fit=460)
    c.text((28, 96), f"{number(rng, 1, 24)} servings of {number(rng, 20, 400)} g", 30)
    c.box(24, 140, 496, 154, "black")
    c.text((28, 176), "Calories", 46, "black", bold=True)
    c.text((492, 160), number(rng, 15, 980), 70, "black", "ra", bold=True)
    c.box(24, 240, 496, 248, "black")
    kinds = (
        "Fat Saturates Cholesterol Sodium Carbohydrate Fibre Sugars Protein Iron Zinc Calcium Starch Salt Iodine "
        "Copper Niacin Folate Biotin Magnesium Potassium"
    )
    for index, row in enumerate(some(rng, kinds.split(), 10)):
        y = 254 + index * 50
        c.text((28, y + 24), row, 34, "black", "lm", bold=chance(rng, 0.4))
        c.text((300, y + 24), f"{real(rng, 0, 90):.1f} {pick(rng, ('g', 'mg'))}", 30, "black", "lm")
        c.text((492, y + 24), f"{number(rng, 0, 99)}%", 32, "black", "rm", bold=True)
        c.line([(24, y + 49), (496, y + 49)], "black", 1.5)
    c.paragraph((28, 768), f"Ingredients: {', '.join(some(rng, GOODS, 13))}. May contain {pick(rng, GOODS)}.", 26, 460)
    return c.done()


def medicine_box(rng: Rng) -> Picture:
    c = Canvas(920, 440, "#b8c4c8")
    c.box(20, 30, 900, 410, "white", "#8aa", 2, 6)
    c.box(20, 30, 900, 90, "#00897b")
    c.text((44, 60), "PHARMALINE", 30, "white", "lm", bold=True)
    made = (
        letters(rng, 1) + pick(rng, ("adol", "exin", "oprin", "umab", "istat", "ocort", "amide", "izole", "avir"))
    ).title()
    c.text(
        (44, 112),
        pick(rng, ("Pro", "Ner", "Cal", "Zy", "Lo", "Vas", "Hep")) + made.lower(),
        100,
        "#004d40",
        bold=True,
        fit=560,
    )
    c.text(
        (44, 240), f"{number(rng, 1, 80) * 10} mg {pick(rng, ('tablets', 'capsules', 'drops', 'syrup'))}", 50, "#333"
    )
    c.text((44, 318), f"For {phrase(rng)} ache. {number(rng, 1, 4)} times a day.", 28, "#555")
    c.text(
        (44, 362),
        f"Lot {letters(rng, 2)}{digits(rng, 5)}   Use before {number(rng, 1, 12)}/20{number(rng, 26, 39)}",
        24,
        "#555",
    )
    hues = some(rng, ("#ef5350", "#42a5f5", "#ffca28", "#ab47bc", "#66bb6a"), 2)
    for index in range(number(rng, 3, 9)):
        x, y = 690 + index % 3 * 80, 150 + index // 3 * 85
        c.box(x - 30, y - 18, x + 30, y + 18, hues[0], corner=18)
        c.box(x, y - 18, x + 30, y + 18, hues[1], corner=18)
    return c.done()


def equations(rng: Rng) -> Picture:
    c = Canvas(760, 920, "#fffef9")
    c.text((40, 30), f"Exercise {number(rng, 1, 30)}.{number(rng, 1, 9)}", 34, "#800", bold=True)
    for index in range(8):
        y = 150 + index * 98
        c.text((40, y), f"({index + 1})", 28, "#800", "lm")
        kind, one, two = number(rng, 0, 3), pick(rng, "abcxyz"), pick(rng, "kmnpqt")
        values = [number(rng, 2, 99) for _ in range(5)]
        if kind == 0:  # a fraction
            c.text((230, y - 26), f"{values[0]}{one} + {values[1]}", 38, "black", "mm")
            c.line([(120, y), (340, y)], "black", 3)
            c.text((230, y + 26), f"{two} - {values[2]}", 38, "black", "mm")
            c.text((370, y), f"= {values[3]}{two} + {one}", 40, "black", "lm")
        elif kind == 1:  # a root
            c.line([(115, y), (128, y + 28), (142, y - 32), (400, y - 32)], "black", 3)
            c.text((152, y), f"{values[0]}{one} - {values[1]}{two}", 40, "black", "lm")
            c.text((420, y), f"= {values[2]} {one}", 40, "black", "lm")
        elif kind == 2:  # a polynomial
            c.text((115, y), f"{values[0]}{one}", 42, "black", "lm")
            c.text((118 + c.length(f"{values[0]}{one}", 42), y - 16), number(rng, 2, 9), 25, "black", "lm")
            c.text((215, y), f"- {values[1]}{one} + {values[2]} = {values[3]}{two}", 42, "black", "lm")
        else:  # an integral
            c.arc(146, y - 26, 9, 180, 330, "black", 4)
            c.line([(138, y - 26), (132, y + 26)], "black", 4)
            c.arc(124, y + 26, 9, 0, 150, "black", 4)
            c.text((160, y - 34), values[0] + 100, 20, "black", "lm")
            c.text((150, y + 34), values[1], 20, "black", "lm")
            c.text((205, y), f"({values[2]}{one} - sin {values[3]}{one}) d{one} = {two}", 40, "black", "lm")
    return c.done()


def bank_cheque(rng: Rng) -> Picture:
    c = Canvas(980, 430, "#dcebdd")
    for y in range(20, 430, 40):
        c.line([(x, y + (x // 20 % 2) * 5) for x in range(0, 981, 20)], "#cfe2d1", 1)
    c.box(12, 12, 968, 418, None, "#2f6b4f", 3)
    c.text((36, 34), "BANK OF THE NORTH", 32, "#1d4d37", bold=True)
    c.text((940, 36), f"No. {digits(rng, 7)}", 28, "#a22", "ra")
    c.text((940, 84), date(rng), 32, "#1a2c88", "ra")
    amount = number(rng, 20, 9999)
    c.text((36, 130), "Pay to", 22, "#1d4d37")
    c.text((130, 114), name(rng), 46, "#1a2c88")
    c.box(690, 125, 942, 190, "white", "#2f6b4f", 2)
    c.text((930, 158), f"$ {amount:,}.{digits(rng, 2)}", 40, "#1a2c88", "rm")
    spoken = ["zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine"]
    c.text((36, 222), "-".join(spoken[int(digit)] for digit in str(amount)), 42, "#1a2c88")
    for y in (170, 278):
        c.line([(36, y), (660 if y == 170 else 942, y)], "#2f6b4f", 2)
    c.text((36, 306), f"For  {phrase(rng)}", 30, "#1a2c88")
    steps = [(620 + index * 22, 320 + real(rng, -34, 34)) for index in range(15)]
    c.line(steps, "#1a2c88", 4)
    c.text((36, 374), f"|: {digits(rng, 9)} |:  {digits(rng, 10)} || {digits(rng, 4)}", 34, "#222")
    return c.done()


def record_label(rng: Rng) -> Picture:
    c = Canvas(800, 800, "#e9e4da")
    c.disc(400, 400, 396, "#141414")
    c.disc(400, 400, 380, "#d95d39", "#f0a202", 6)
    c.text((400, 95), "MERIDIAN", 50, "#fff3d6", "mm", bold=True)
    c.text((400, 205), title(rng).upper(), 72, "#201e1f", "mm", bold=True, fit=590)
    c.text((75, 385), f"SIDE {pick(rng, 'AB')}", 44, "#201e1f", "lm", bold=True)
    c.text((725, 385), f"{letters(rng, 3)} {digits(rng, 4)}", 44, "#201e1f", "rm")
    c.text((400, 290), name(rng), 56, "#fff3d6", "mm", bold=True, fit=560)
    for index in range(4):
        minutes = f"{number(rng, 2, 6)}:{number(rng, 0, 59):02}"
        words = f"{index + 1}. {title(rng)}  {minutes}"
        c.text((400, 492 + index * 56), words, 42, "#201e1f", "mm", fit=670 - index * 65)
    c.disc(400, 385, 34, "#e9e4da", "#201e1f", 3)
    return c.done()


def recipe_card(rng: Rng) -> Picture:
    c = Canvas(960, 680, "#fffaf0")
    c.box(0, 0, 960, 100, "#e07a5f")
    c.text(
        (36, 50), f"{pick(rng, ADJECTIVES).title()} {pick(rng, DISHES).lower()}", 46, "white", "lm", bold=True, fit=640
    )
    c.text((924, 50), f"{number(rng, 1, 12)} people, {number(rng, 2, 30) * 5} min", 26, "white", "rm")
    c.box(24, 124, 320, 656, "#f4e3cf", corner=14)
    for index, item in enumerate(some(rng, GOODS, 9)):
        c.text((46, 150 + index * 55), f"{number(rng, 1, 90) * 5} g {item}", 29, "#3d405b", fit=255)
    y = 130.0
    for step in range(5):
        verb = pick(rng, ("Stir", "Chop", "Fry", "Bake", "Whisk", "Boil"))
        words = f"{verb} the {pick(rng, GOODS)} {pick(rng, ('slowly', 'well'))}"
        c.disc(368, y + 22, 22, "#81b29a")
        c.text((368, y + 22), step + 1, 26, "white", "mm", bold=True)
        end = f", add {pick(rng, GOODS)} and {pick(rng, GOODS)}, wait {number(rng, 2, 45)} minutes."
        y = max(y + 100, c.paragraph((405, y), words + end, 29, 520, "#3d405b") + 20)
    return c.done()
