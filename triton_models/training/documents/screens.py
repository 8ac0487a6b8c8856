"""Screens of phones and programs: chats, posts, mail, articles, settings, shops, players."""

from . import words
from .dice import Rng, between, chance, count, pick
from .page import WHITE, Page, Picture, Theme, mix, shade
from .pictures import face, goods, logo, photo
from .writing import Writer


def _status(page: Page, fill: Writer) -> None:
    """The line at the top of a phone."""
    theme = page.theme
    page.write(3, 1.8, fill(words.clock), 1.6, theme.ink, "bold", "lm")
    page.box(page.w - 6, 1.1, 3.4, 1.5, None, theme.ink, 0.4, 0.15)
    page.box(page.w - 5.7, 1.4, between(fill.rng(0), 0.5, 2.8), 0.9, theme.ink)
    for bar in range(4):
        page.box(page.w - 11 + bar * 0.9, 2.5 - bar * 0.4, 0.6, 0.4 + bar * 0.4, theme.ink)


def chat(template: Rng, content: Rng) -> Picture:
    theme = Theme(template, dark=0.4)
    page = Page(theme, template, 0.46, 0.8)
    shop, fill = Writer(template, script=theme.script), Writer(template, content, theme.script)
    mine = pick(template, (theme.accent, mix(theme.ground, theme.accent, 0.35), (40, 120, 235), (60, 160, 90)))
    theirs, size, radius = mix(theme.ground, theme.ink, 0.1), between(template, 1.9, 2.3), between(template, 0.8, 2.4)
    header, faces, widest = chance(template, 0.5), chance(template, 0.4), page.w * between(template, 0.6, 0.78)
    if chance(template, 0.4):
        tone = mix(theme.ground, theme.second, 0.15)
        for number in range(60):
            page.disc(
                between(template, 0, page.w), between(template, 0, page.h), between(template, 0.4, 1.6), None, tone
            )
            page.disc((number * 7) % page.w, number * 1.6, 0.4, tone)
    fill.prefer(False)
    y = page.h - 9
    for number in range(14):  # from the last message upwards
        fill.prefer(False if number < 3 else None if number == 3 else True)
        own, text = chance(fill.rng(0), 0.5), fill(words.sentence, 1, 14)
        lines = [" ".join(line) for line in page.lines(text, size, "body", widest - 3)]
        wide, tall = max(page.length(line, size) for line in lines) + 3, len(lines) * size * 1.35 + 1.6
        y -= tall + 1.2
        if y < 11:
            break
        x = page.w - wide - 2 if own else 2 + (5 if faces else 0)
        page.box(x, y, wide, tall, mine if own else theirs, radius=radius)
        ink = (WHITE if sum(mine) < 430 else (20, 20, 20)) if own else theme.ink
        for line, written in enumerate(lines):
            page.write(x + 1.5, y + 0.8 + line * size * 1.35, written, size, ink)
        if faces and not own:
            page.paste(face(fill.rng(), page.pixels(4, 4)), 2, y + tall - 4, 2)
    page.box(0, 0, page.w, 10, theme.accent if header else theme.card)
    page.paste(face(fill.rng(2), page.pixels(5.6, 5.6)), 3, 3.6, 3)
    ink = WHITE if header else theme.ink
    page.write(10, 3.8, fill(words.name), 2.3, ink, "bold", width=page.w - 14)
    page.write(10, 6.8, f"{shop(words.word)} {fill(words.clock)}", 1.6, ink)
    page.box(0, page.h - 7, page.w, 7, theme.card)
    page.box(3, page.h - 5.5, page.w - 12, 4, theme.ground, theme.rule, radius=2)
    page.write(5, page.h - 3.5, shop(words.phrase), 1.7, theme.muted, anchor="lm")
    page.disc(page.w - 5, page.h - 3.5, 2, mine)
    return page.finished()


def post(template: Rng, content: Rng) -> Picture:
    theme = Theme(template, dark=0.4)
    page = Page(theme, template, 0.7, 1.6)
    shop, fill = Writer(template, script=theme.script), Writer(template, content, theme.script)
    edge, size, pictured = between(template, 3, 6), between(template, 2.2, 3), chance(template, 0.5)
    square, below = chance(template, 0.3), chance(template, 0.5)
    if chance(template, 0.5):
        page.box(1.5, 1.5, page.w - 3, page.h - 3, theme.card, theme.rule, 2)
    page.paste(face(fill.rng(2), page.pixels(8, 8)), edge, edge, 1 if square else 4)
    page.write(edge + 10, edge + 0.5, fill(words.name), 2.6, face="bold", width=page.w - edge - 24)
    page.write(edge + 10, edge + 4.2, f"@{fill(words.word)}  {fill(words.clock)}", 2, theme.muted)
    logo(template, page, page.w - edge - 4, edge, 4, theme.accent, theme.second)
    y, width = edge + 10.5, page.w - 2 * edge
    text, bottom = fill.prose(60 if pictured else min(500, 0.6 * width * (page.h - 24) / size**2)), page.h - 12
    tall = max(10, min(width * 0.6, page.h * 0.45))
    if pictured and not below:
        page.paste(photo(fill.rng(3), page.pixels(width, tall)), edge, y, 2)
        y += tall + 1.5
    y = page.block(edge, y, width, text, size, bottom=bottom - (tall if pictured and below else 0)) + 1
    if pictured and below and bottom - y > 6:
        page.paste(photo(fill.rng(3), page.pixels(width, bottom - y)), edge, y, 2)
    page.line([(edge, page.h - 9.5), (page.w - edge, page.h - 9.5)])
    for number in range(4):
        x = edge + 1.5 + number * width / 4
        page.disc(x, page.h - 6, 1.2, theme.accent if number == 2 else None, theme.muted)
        page.write(x + 2.2, page.h - 6, fill(words.digits, 1, 5), 1.9, theme.muted, anchor="lm")
    page.write(page.w - edge, page.h - 3.2, shop(words.word), 1.6, theme.muted, anchor="rs")
    return page.finished()


def mail(template: Rng, content: Rng) -> Picture:
    """A window of a mail program: a message, or a list of them."""
    theme = Theme(template, dark=0.3)
    page = Page(theme, template, 1.1, 1.8)
    shop, fill = Writer(template, script=theme.script), Writer(template, content, theme.script)
    side, listed, size = between(template, 14, 20), chance(template, 0.4), between(template, 1.6, 1.9)
    page.box(0, 0, page.w, 5, theme.accent if chance(template, 0.5) else theme.card)
    page.box(side + 2, 1, page.w * 0.4, 3, theme.ground, radius=1.5)
    page.box(0, 5, side, page.h, theme.card)
    page.box(1, 6.5, side - 2, 3.6, theme.second, radius=1.8)
    page.write(side / 2, 8.3, shop(words.word), size, WHITE, "bold", "mm")
    for number in range(int((page.h - 14) / 3.6)):
        page.write(2, 12 + number * 3.6, shop(words.word), size)
        if chance(template, 0.4):
            page.write(side - 1.5, 12 + number * 3.6, fill(words.digits, 1, 2), size, theme.muted, anchor="ra")
    x, width, y = side + 2, page.w - side - 4, 7.0
    if listed:
        row = between(template, 3.4, 5)
        while y + row < page.h:
            strong = "bold" if chance(fill.rng(0), 0.4) else "body"
            page.box(x, y + row * 0.3, 1.2, 1.2, None, theme.muted)
            page.write(x + 2.5, y + row / 2, fill(words.name), size, theme.ink, strong, "lm", 14)
            page.write(x + 18, y + row / 2, fill(words.sentence, 4, 12), size, theme.muted, strong, "lm", width - 25)
            page.write(x + width, y + row / 2, fill(words.clock), size, theme.muted, anchor="rm")
            page.line([(x, y + row), (x + width, y + row)], theme.rule, 0.1)
            y += row
        return page.finished()
    page.write(x, y, fill(words.phrase, 3, 7), 2.8, face="title", width=width)
    page.disc(x + 2.2, y + 7, 2.2, shade(between(fill.rng(0), 0, 1), 0.6, 0.7))
    page.write(x + 6, y + 4.6, f"{fill(words.name)}  <{fill(words.email)}>", size, face="bold", width=width - 22)
    page.write(x + 6, y + 7.2, f"{shop(words.word)} {fill(words.name)}", size, theme.muted)
    page.write(x + width, y + 4.6, fill(words.date), size, theme.muted, anchor="ra")
    y += 12
    while y < page.h - 8 and not (y > page.h * 0.5 and chance(fill.rng(0), 0.3)):
        text = fill.paragraph(1, 4)
        y = page.block(x, y, width, text, size, leading=1.45, bottom=page.h - 6) + size
    page.box(x, page.h - 5, 10, 3.4, None, theme.accent, 1)
    page.write(x + 5, page.h - 3.3, shop(words.word), size, theme.accent, anchor="mm")
    return page.finished()


def article(template: Rng, content: Rng) -> Picture:
    theme = Theme(template, dark=0.15, body=pick(template, ("serif", "sans")), head=pick(template, ("serif", "sans")))
    page = Page(theme, template, 0.65, 1.5)
    shop, fill = Writer(template, script=theme.script), Writer(template, content, theme.script)
    band, beside, size = chance(template, 0.6), page.w > 70 and chance(template, 0.6), between(template, 1.8, 2.2)
    page.box(0, 0, page.w, 6, theme.accent if band else theme.card)
    logo(template, page, 2, 1, 4, WHITE if band else theme.accent, theme.second)
    ink = WHITE if band else theme.ink
    page.write(8, 3, shop(words.word).title(), 2.8, ink, "title", "lm")
    for number in range(int((page.w - 30) / 11)):
        page.write(30 + number * 11, 3, shop(words.word), 1.6, ink, anchor="lm", width=10)
    edge = between(template, 3, 7)
    width = page.w - 2 * edge - (22 if beside else 0)
    y = page.block(edge, 9, width, fill(words.phrase, 4, 9), between(template, 3.2, 4.2), face="title", leading=1.2) + 1
    page.write(edge, y, f"{fill(words.name)}   {fill(words.date)}", 1.6, theme.muted)
    y, tall = y + 3.4, between(template, 0.4, 0.6) * width
    page.paste(photo(fill.rng(4), page.pixels(width, tall)), edge, y, 0)
    y += tall + 1
    page.write(edge, y, fill(words.sentence, 5, 9), 1.4, theme.muted, "italic", width=width)
    y += 3
    while y < page.h - 3:
        text = fill.paragraph(2, 5)
        y = page.block(edge, y, width, text, size, leading=1.5, bottom=page.h - 1) + size
    if beside:
        x, y = edge + width + 3, 10.0
        page.write(x, y, shop(words.phrase, 1, 2), 2, theme.accent, "bold", width=18)
        while y < page.h - 20:
            y += 4
            page.paste(photo(fill.rng(), page.pixels(18, 9)), x, y)
            y = page.block(x, y + 9.6, 18, fill(words.phrase, 3, 5), 1.6)
    return page.finished()


def settings(template: Rng, content: Rng) -> Picture:
    """A list of settings, of the page that this content opens."""
    theme = Theme(template, dark=0.45)
    page = Page(theme, template, 0.46, 0.75, mix(theme.ground, theme.ink, 0.05))
    fill, row = Writer(template, content, theme.script), between(template, 5.2, 8)
    told, icons, carded, radius = (chance(template, 0.5) for _ in range(4))
    _status(page, fill)
    page.write(3, 6, fill(words.phrase, 1, 2), between(template, 2.8, 4.2), face="title")
    y, number = 13.0, 0
    while y + row < page.h - 2:
        if number % 5 == 4:
            page.write(4, y + 1, fill(words.phrase, 1, 3), 1.7, theme.accent, "bold")
            y += 4
        if carded:
            page.box(2, y, page.w - 4, row - 0.3, theme.card, radius=1 if radius else 0)
        x = 10 if icons else 4
        if icons:
            colour = shade(between(fill.rng(0), 0, 1), 0.6, 0.8)
            page.box(4, y + row / 2 - 1.8, 3.6, 3.6, colour, radius=0.9 if radius else 1.8)
        page.write(
            x, y + row * (0.33 if told else 0.5), fill(words.phrase, 1, 3), 2.1, anchor="lm", width=page.w - x - 13
        )
        if told:
            page.write(x, y + row * 0.7, fill(words.phrase, 2, 5), 1.6, theme.muted, anchor="lm", width=page.w - x - 13)
        _switch(page, fill, page.w - 4, y + row / 2)
        if not carded:
            page.line([(x, y + row), (page.w, y + row)], theme.rule, 0.1)
        y, number = y + row, number + 1
    return page.finished()


def _switch(page: Page, fill: Writer, right: float, middle: float) -> None:
    """A switch, a value or an arrow."""
    rng, theme = fill.rng(0), page.theme
    form, on = count(rng, 0, 3), chance(rng, 0.5)
    if form < 2:
        page.box(right - 5, middle - 1.4, 5, 2.8, theme.accent if on else theme.rule, radius=1.4)
        page.disc(right - 1.4 if on else right - 3.6, middle, 1.1, WHITE)
    elif form == 2:
        page.write(right, middle, fill(words.word), 1.7, theme.muted, anchor="rm", width=9)
    else:
        page.line([(right - 1, middle - 1), (right, middle), (right - 1, middle + 1)], theme.muted, 0.3)


def shop_list(template: Rng, content: Rng) -> Picture:
    theme = Theme(template, dark=0.2)
    page = Page(theme, template, 0.46, 1.2)
    shop, fill = Writer(template, script=theme.script), Writer(template, content, theme.script)
    currency, stars, columns = (
        pick(template, words.CURRENCIES),
        chance(template, 0.5),
        count(template, 1, 2 + (page.w > 60)),
    )
    page.box(0, 0, page.w, 9, theme.accent if chance(template, 0.5) else theme.card)
    page.box(3, 3, page.w - 13, 4, theme.ground, radius=pick(template, (0.5, 2)))
    page.write(5, 5, fill(words.phrase, 1, 2), 1.9, theme.muted, anchor="lm")
    logo(template, page, page.w - 8, 2.5, 5, theme.second, WHITE)
    width, y = (page.w - 2) / columns, 11.0
    row = width + 11 if columns > 1 else between(template, 13, 18)
    while y < page.h - 12:
        for column in range(columns):
            x, side = 2 + column * width, width - 3 if columns > 1 else row - 2
            page.paste(goods(fill.rng(2), page.pixels(side, side)), x, y, 0.8)
            left, top = (x, y + side + 0.6) if columns > 1 else (x + side + 2, y)
            room = width - 3 if columns > 1 else page.w - left - 2
            page.block(left, top, room, fill(words.title, 2, 3), 1.8, leading=1.25, bottom=top + 5)
            if stars:
                page.write(
                    left, top + 5, "*" * count(fill.rng(0), 1, 5) + f" ({fill(words.digits, 1, 3)})", 1.6, theme.second
                )
            page.write(left, top + 7, f"{currency}{fill(words.amount)}", 2.4, theme.accent, "bold")
        y += row
    page.box(0, page.h - 7, page.w, 7, theme.card)
    for number in range(4):
        page.disc(page.w * (number + 0.5) / 4, page.h - 4.6, 1.2, theme.accent if number == 1 else theme.muted)
        page.write(
            page.w * (number + 0.5) / 4, page.h - 1.6, shop(words.word), 1.4, theme.muted, anchor="mm", width=page.w / 4
        )
    return page.finished()
