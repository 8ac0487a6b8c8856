"""Cards, tickets, labels and packages."""

import math

from . import looks, words
from .dice import Rng, between, chance, count, pick
from .page import BLACK, WHITE, Colour, Page, Picture, Theme, mix, shade
from .pictures import barcode, face, logo, matrix, scribble
from .writing import Writer


def id_card(template: Rng, content: Rng) -> Picture:
    theme = Theme(template)
    theme.ground = shade(theme.hue, between(template, 0.05, 0.25), between(template, 0.85, 0.98))
    page = Page(theme, template, *pick(template, ((1.4, 1.7), (1.4, 1.7), (0.6, 0.75))))
    shop, fill = Writer(template, script=theme.script), Writer(template, content, theme.script)
    looks.pattern(page, template)
    upright, size, swap = page.w < page.h, between(template, 2.1, 2.5), chance(template, 0.3)
    page.box(0, 0, page.w, 10, theme.accent)
    logo(template, page, 2.5, 1.8, 6.4, WHITE, theme.second)
    page.write(11, 2.2, shop(words.title, 2, 3), 3, WHITE, "title", width=page.w - 13)
    page.write(11, 6.4, shop(words.phrase, 1, 2).upper(), 1.8, WHITE, width=page.w - 13)
    wide, tall = (26.0, 32.0) if upright else (24.0, page.h - 28)
    left = (page.w - wide) / 2 if upright else page.w - wide - 4 if swap else 4.0
    page.paste(face(fill.rng(4), page.pixels(wide, tall)), left, 13, between(template, 0, 1.5))
    x, y = (5.0, 15.0 + tall) if upright else (4.0 if swap else wide + 7, 13.0)
    bottom, room = page.h - (13 if not upright else 8), page.w - (10 if upright else wide + 13)
    step = max(4.6, (bottom - y) / 5)
    for maker in (words.name, words.date, words.identifier, words.place, words.date):
        if y + 4 < bottom:
            page.write(x, y, shop(words.phrase, 1, 2), 1.6, theme.muted, width=room)
            page.write(x, y + 1.9, fill(maker), size, theme.ink, "bold", width=room)
        y += step
    if upright:
        barcode(fill.rng(), page, 8, page.h - 7, page.w - 16, 5)
    else:
        scribble(fill.rng(), page, left + 2, page.h - 11.5, wide - 6, 2.2, (30, 40, 110), 0.25)
        page.box(0, page.h - 9, page.w, 9, mix(theme.ground, WHITE, 0.5))
        for line in range(2):
            text = f"{fill(words.identifier)}<{fill(words.name)}<{fill(words.digits, 8, 9)}".upper().replace(" ", "<")
            width = page.length("<" * 40, 1.9, "mono")
            page.write(
                3, page.h - 8 + line * 3.4, text.ljust(44, "<")[:44], 1.9 * min(1, (page.w - 6) / width), face="mono"
            )
    return looks.worn(page, content, 0.5)


def business_card(template: Rng, content: Rng) -> Picture:
    theme = Theme(template, dark=0.3, body=pick(template, ("sans", "serif")), head=pick(template, ("sans", "serif")))
    page = Page(theme, template, 1.5, 1.9)
    shop, fill = Writer(template, script=theme.script), Writer(template, content, theme.script)
    form, left = count(template, 0, 2), 6.0
    if form == 0:
        page.box(0, 0, page.w * 0.3, page.h, theme.accent)
        left = page.w * 0.3 + 5
        logo(template, page, page.w * 0.15 - 7, page.h / 2 - 7, 14, WHITE, theme.second)
    elif form == 1:
        page.box(0, page.h - 6, page.w, 6, theme.accent)
        logo(template, page, page.w - 19, 6, 13, theme.accent, theme.second)
    else:
        page.shape([(page.w, 0), (page.w * 0.6, 0), (page.w, page.h)], theme.accent)
        logo(template, page, page.w - 16, 5, 11, WHITE, theme.second)
    room = page.w - left - 4 - (14 if form else 0)
    page.write(left, page.h * 0.14, shop(words.company), 3, theme.muted, "head", width=room)
    page.write(left, page.h * 0.3, fill(words.name), between(template, 4.4, 5.6), theme.ink, "title", width=room)
    page.write(
        left, page.h * 0.44, fill(words.title, 2, 3), 2.8, theme.accent if not theme.dark else theme.ink, width=room
    )
    for number, maker in enumerate((words.phone, words.email, words.street)):
        page.write(left, page.h * 0.6 + number * 4, fill(maker), 2.6, theme.ink, width=room)
    return looks.worn(page, content, 0.4)


def ticket(template: Rng, content: Rng) -> Picture:
    theme = Theme(template, dark=0.25)
    theme.ground = (
        shade(theme.hue, between(template, 0.05, 0.5), between(template, 0.8, 1)) if not theme.dark else theme.ground
    )
    page = Page(theme, template, 1.7, 2.7)
    shop, fill = Writer(template, script=theme.script), Writer(template, content, theme.script)
    if chance(template, 0.6):
        looks.pattern(page, template)
    stub, size = page.w * between(template, 0.7, 0.78), between(template, 2, 2.4)
    page.box(0, 0, page.w, 7, theme.accent)
    page.write(4, 3.5, shop(words.company), 2.8, WHITE, "title", "lm")
    page.write(stub - 2, 3.5, shop(words.phrase), 2, WHITE, anchor="rm")
    for number in range(int(page.h / 1.6)):
        page.disc(stub, number * 1.6 + 0.8, 0.35, theme.muted)
    page.write(4, 9.5, fill(words.title, 2, 4), 5, theme.ink, "title", width=stub - 8)
    page.write(4, 16, fill(words.phrase, 3, 6), size, theme.muted, width=stub - 8)
    parts, y = count(template, 3, 4), page.h - 15
    makers = (words.date, words.clock, words.identifier, words.amount)[:parts]
    for number, maker in enumerate(makers):
        x = 4 + number * (stub - 8) / parts
        page.write(x, y, shop(words.word).upper(), 1.6, theme.muted)
        page.write(x, y + 2.4, fill(maker), size * 1.2, theme.ink, "bold", width=(stub - 8) / parts - 1)
    page.write(4, page.h - 5, f"{fill(words.name)}   {fill(words.street)}", size, width=stub - 8)
    wide = page.w - stub - 6
    if chance(template, 0.5):
        barcode(fill.rng(), page, stub + 3, 10, wide, page.h - 20, 25)
    else:
        side = min(wide, page.h - 20)
        matrix(fill.rng(), page, stub + 3, 9, side, 25, BLACK, WHITE)
    page.write(stub + 3, page.h - 8, fill(words.digits, 8, 10), 1.9, face="mono", width=wide)
    page.write(stub + 3, page.h - 5, fill(words.identifier), 2, face="bold", width=wide)
    return looks.worn(page, content, 0.5)


def code_label(template: Rng, content: Rng) -> Picture:
    """A square code with a few words about it."""
    theme = Theme(template, dark=0.15)
    page = Page(theme, template, 0.65, 1.3)
    shop, fill = Writer(template, script=theme.script), Writer(template, content, theme.script)
    cells = pick(template, (21, 25, 29, 33, 37))
    ink, ground = (BLACK, WHITE) if chance(template, 0.7) else (mix(theme.accent, BLACK, 0.5), WHITE)
    if chance(template, 0.6):
        page.box(1.5, 1.5, page.w - 3, page.h - 3, None, theme.accent, 3, between(template, 0.3, 1.2))
    side = min(page.w - 16, page.h - 38)
    x, y = (page.w - side) / 2, 16.0
    page.write(page.w / 2, 5, shop(words.title, 1, 3), 4, theme.accent, "title", "ma", page.w - 10)
    page.write(page.w / 2, 10.5, fill(words.phrase, 2, 4), 2.3, theme.muted, anchor="ma", width=page.w - 10)
    page.box(x - 2, y - 2, side + 4, side + 4, ground, theme.rule, 1)
    fill.prefer(False)  # most of the picture is the code
    matrix(fill.rng(5), page, x, y, side, cells, ink, ground)
    fill.prefer(None)
    if chance(template, 0.3):
        page.box(page.w / 2 - side * 0.1, y + side * 0.4, side * 0.2, side * 0.2, ground)
        logo(template, page, page.w / 2 - side * 0.07, y + side * 0.43, side * 0.14, theme.accent, theme.second)
    y += side + 4
    page.write(page.w / 2, y, fill(words.identifier), 3, theme.ink, "code", "ma")
    y = page.block(
        8, y + 5, page.w - 16, fill(words.sentence, 5, 10), 2.1, theme.ink, align="centre", bottom=page.h - 5
    )
    page.write(page.w / 2, page.h - 5, fill(words.url), 1.9, theme.muted, anchor="ma")
    return page.finished()


def parcel_label(template: Rng, content: Rng) -> Picture:
    theme = Theme(template)
    theme.ground, theme.ink = (252, 252, 250), BLACK
    page = Page(theme, template, 0.6, 1.4)
    shop, fill = Writer(template, script=theme.script), Writer(template, content, theme.script)
    thick, size, bars = between(template, 0.3, 0.7), between(template, 2, 2.4), between(template, 0.22, 0.32) * page.h
    page.box(2, 2, page.w - 4, page.h - 4, None, BLACK, stroke=thick)
    page.box(2, 2, page.w - 4, 8, BLACK if chance(template, 0.5) else theme.accent)
    page.write(4, 6, shop(words.company), 3.6, WHITE, "title", "lm", page.w * 0.6)
    page.write(page.w - 4, 6, fill(words.identifier), 3, WHITE, "bold", "rm")
    top, middle, low = 10.0, 10 + (page.h - bars - 24) * 0.4, page.h - bars - 14
    page.line([(2, middle), (page.w - 2, middle)], BLACK, thick)
    page.line([(2, low), (page.w - 2, low)], BLACK, thick)
    for start, scale in ((top, 0.9), (middle, 1.25)):
        page.write(3.5, start + 1, shop(words.word).upper(), 1.6)
        for number, maker in enumerate((words.name, words.street, words.place)):
            face_name = "bold" if scale > 1 else "body"
            y = start + 3.4 + number * size * scale * 1.35
            page.write(4, y, fill(maker), size * scale, BLACK, face_name, width=page.w * 0.6)
    page.box(page.w * 0.7, middle, page.w * 0.3 - 2, low - middle, None, BLACK, stroke=thick)
    page.write(page.w * 0.85 - 1, (middle + low) / 2, fill(words.digits, 2, 3), 6, BLACK, "title", "mm")
    page.write(page.w - 4, top + 1.4, f"{shop(words.word)} {fill(words.amount, 30)} kg", 2, BLACK, "mono", "ra")
    page.write(page.w - 4, top + 4.4, fill(words.date), 2, BLACK, "mono", "ra")
    barcode(fill.rng(4), page, 7, low + 2, page.w - 14, bars, 45)
    page.write(
        page.w / 2, low + bars + 3, " ".join(fill(words.digits, 4, 4) for _ in range(4)), 2.6, BLACK, "mono", "ma"
    )
    page.write(page.w / 2, page.h - 5, fill(words.phrase, 3, 5), 2, BLACK, "mono", "ma")
    return looks.worn(page, content, 0.5)


def _fruit(rng: Rng, page: Page, x: float, y: float, size: float, colour: Colour, form: int) -> None:
    """A fruit of one of a few forms, whole or cut."""
    leaf, light = shade(between(rng, 0.25, 0.4), 0.7, 0.55), mix(colour, WHITE, 0.5)
    if form == 0:
        page.disc(x, y, size, colour)
        page.disc(x - size * 0.35, y - size * 0.35, size * 0.2, light)
    elif form == 1:  # cut
        page.disc(x, y, size, colour)
        page.disc(x, y, size * 0.85, light)
        for part in range(8):
            angle = part * math.pi / 4
            page.line(
                [(x, y), (x + size * 0.8 * math.cos(angle), y + size * 0.8 * math.sin(angle))], colour, size * 0.08
            )
    elif form == 2:  # berries
        for part in range(7):
            angle = part * math.pi * 2 / 6
            reach = size * 0.6 if part < 6 else 0
            berry = mix(colour, BLACK, 0.1 * (part % 3))
            page.disc(x + reach * math.cos(angle), y + reach * math.sin(angle), size * 0.38, berry)
    else:
        page.shape([(x - size, y - size * 0.3), (x + size, y - size * 0.3), (x, y + size * 1.2)], colour)
        page.disc(x - size * 0.5, y - size * 0.4, size * 0.55, colour)
        page.disc(x + size * 0.5, y - size * 0.4, size * 0.55, colour)
    page.shape([(x, y - size * 0.8), (x + size * 0.7, y - size * 1.3), (x + size * 0.2, y - size * 0.7)], leaf)


def package(template: Rng, content: Rng) -> Picture:
    """The front of a package: one design of a brand, for several flavours."""
    theme = Theme(template, head=pick(template, ("sans", "serif")))
    page = Page(theme, template, 0.5, 1.1)
    shop, fill = Writer(template, script=theme.script), Writer(template, content, theme.script)
    form, flavour = count(template, 0, 2), fill.rng(2)
    hue, kind = between(flavour, 0, 1), count(flavour, 0, 3)
    colour, pale = shade(hue, 0.75, between(flavour, 0.55, 0.95)), shade(hue, 0.18, 0.97)
    middle, brand = page.w / 2, mix(theme.accent, BLACK, 0.2)
    page.box(0, 0, page.w, page.h, pale if form else mix(theme.ground, WHITE, 0.5))
    if form == 0:
        page.box(0, page.h * 0.62, page.w, page.h, colour)
    elif form == 1:
        page.disc(middle, page.h * 0.95, min(page.w * 0.7, page.h * 0.42), colour)
        page.box(0, page.h * 0.88, page.w, page.h, colour)
    else:
        page.box(0, page.h * 0.45, page.w, page.h * 0.17, colour)
    page.box(page.w * 0.1, 5, page.w * 0.8, 15, brand, radius=between(template, 0, 8))
    page.write(middle, 12.5, shop(words.word).title(), 7.5, WHITE, "title", "mm", page.w * 0.75)
    page.write(middle, 22.5, shop(words.phrase, 2, 3), 2.3, theme.ink, "italic", "ma", page.w - 6)
    size, inks = min(page.w, page.h) * between(template, 0.06, 0.085), WHITE if form == 2 else theme.ink
    pieces = count(flavour, 1, 4)
    for number in range(pieces):
        x = middle + (number - (pieces - 1) / 2) * size * between(flavour, 1.2, 1.8)
        _fruit(flavour, page, x, page.h * 0.36 + between(flavour, -1, 1), size, mix(colour, BLACK, 0.1), kind)
    y, low = (page.h * 0.5, page.h * 0.66) if form == 0 else (page.h * 0.47, page.h * 0.66)
    page.block(4, y, page.w - 8, fill(words.title, 2, 2), min(5.5, page.w * 0.085), inks, "title", "centre", 1.15)
    under = WHITE if form < 2 else theme.ink
    page.block(6, low + 2, page.w - 12, fill(words.phrase, 3, 6), 2.5, under, align="centre")
    page.block(6, low + 10, page.w - 12, fill(words.sentence, 5, 9), 2, under, align="centre")
    page.write(5, page.h - 4, fill(words.digits, 2, 3) + " g", 3, under, "bold", "ls")
    page.write(page.w - 5, page.h - 4, shop(words.word).upper(), 2, under, "bold", "rs")
    return page.finished()
