"""Papers of offices and shops: receipts, invoices, letters, forms, certificates, menus."""

from . import looks, words
from .dice import Rng, between, chance, count, pick
from .page import WHITE, Page, Picture, Theme, mix
from .pictures import barcode, logo, matrix, scribble
from .writing import Writer


def _receipt(template: Rng, content: Rng) -> Page:
    theme = Theme(template)
    theme.ground, theme.ink, currency = (
        (250, 250, 248),
        mix(theme.ink, (0, 0, 0), 0.5),
        pick(template, words.CURRENCIES),
    )
    page = Page(theme, template, 0.34, 0.6)
    shop, fill = Writer(template, script=theme.script), Writer(template, content, theme.script)
    size, edge = min(2.3, page.w * between(template, 0.045, 0.058)), page.w * 0.06
    mark, counted, tail = chance(template, 0.4), chance(template, 0.5), pick(template, ("bars", "square", "none"))
    rule, y, right, middle = pick(template, "-=*."), edge, page.w - edge, page.w / 2
    if mark:
        logo(template, page, middle - size * 2, y, size * 4, theme.ink, mix(theme.ink, WHITE, 0.6))
        y += size * 5
    page.write(middle, y, shop(words.company), size * 1.5, face="code", anchor="ma", width=page.w - 2 * edge)
    for text in (shop(words.street), shop(words.place), shop(words.phone)):
        y += size * (1.9 if text[0] != "+" else 1.4)
        page.write(middle, y, text, size, face="mono", anchor="ma", width=page.w - 2 * edge)
    dashes = rule * int((page.w - 2 * edge) / page.length(rule, size, "mono"))
    header = (f"{shop(words.word)} {fill(words.identifier)}", f"{fill(words.date)}  {fill(words.clock)}", dashes)
    for text in header:
        y += size * 1.5
        page.write(edge, y, text, size, face="mono", width=page.w - 2 * edge)
    room = int((page.h - y - size * (13 if tail == "none" else 21)) / (size * 1.45))
    total = 0.0
    for _ in range(count(fill.rng(), max(2, room // 2), max(3, room))):
        y += size * 1.45
        price = fill(words.amount, 60)
        total += float(price)
        label = (f"{count(fill.rng(0), 1, 9)} x " if counted else "") + fill(words.phrase, 1, 3)
        page.write(edge, y, label, size, face="mono", width=page.w - 2 * edge - size * 5)
        page.write(right, y, price, size, face="mono", anchor="ra")
    for label, value in (("", dashes), (shop(words.word), total * 0.2), (shop(words.word), total * 0.8)):
        y += size * 1.5
        page.write(edge, y, value if isinstance(value, str) else label, size, face="mono")
        if isinstance(value, float):
            page.write(right, y, f"{value:.2f}", size, face="mono", anchor="ra")
    y += size * 1.8
    page.write(edge, y, shop(words.word).upper(), size * 1.4, face="code")
    page.write(right, y, f"{currency}{total:.2f}", size * 1.4, face="code", anchor="ra")
    page.write(edge, y + size * 2.4, f"**** {fill(words.digits, 4, 4)}  {fill(words.identifier)}", size, face="mono")
    page.write(middle, y + size * 4.4, shop(words.phrase), size, face="mono", anchor="ma")
    if tail == "bars":
        barcode(fill.rng(), page, page.w * 0.2, y + size * 6.5, page.w * 0.6, size * 3.5)
    elif tail == "square":
        matrix(fill.rng(), page, middle - size * 2.7, y + size * 6.2, size * 5.4, 21, theme.ink, theme.ground)
    return page


def receipt(template: Rng, content: Rng) -> Picture:
    return looks.worn(_receipt(template, content), content)


def receipt_scan(template: Rng, content: Rng) -> Picture:
    page = _receipt(template, content)
    look = looks.scanned if chance(page.looks, 0.6) else looks.photographed
    return look(page.finished(), page.looks, content)


def _letterhead(page: Page, shop: Writer, template: Rng, edge: float) -> float:
    """The sender's name and mark in one of several places; returns where the rest starts."""
    theme, name = page.theme, shop(words.company)
    form, size = count(template, 0, 2), between(template, 2.6, 3.8)
    if form == 0:  # a band of colour
        page.box(0, 0, page.w, 9, theme.accent)
        page.write(edge, 4.5, name, size, WHITE, "title", "lm")
        logo(template, page, page.w - edge - 5, 2, 5, WHITE, theme.second)
        return 12
    if form == 1:  # in the middle
        logo(template, page, page.w / 2 - 3, 3, 6, theme.accent, theme.second)
        page.write(page.w / 2, 10, name, size, theme.accent, "title", "ma")
        page.line([(edge, 15), (page.w - edge, 15)], theme.accent)
        return 17
    logo(template, page, edge, 3, 7, theme.accent, theme.second)
    page.write(edge + 9, 4, name, size, theme.ink, "title")
    page.write(edge + 9, 7.8, f"{shop(words.street)}, {shop(words.place)}", 1.7, theme.muted)
    return 13


def invoice(template: Rng, content: Rng) -> Picture:
    theme = Theme(template)
    page = Page(theme, template, 0.66, 0.82)
    shop, fill = Writer(template, script=theme.script), Writer(template, content, theme.script)
    edge, size, row = between(template, 5, 8), between(template, 1.8, 2.1), between(template, 3, 4.4)
    tinted, currency, striped = chance(template, 0.6), pick(template, words.CURRENCIES), chance(template, 0.5)
    y, right = _letterhead(page, shop, template, edge) + 2, page.w - edge
    page.write(right, y, shop(words.word).upper(), 3.4, theme.accent, "title", "ra")
    for number, maker in enumerate((words.name, words.street, words.place, words.email)):
        page.write(edge, y + number * 2.6, fill(maker), size, face="bold" if number == 0 else "body", width=30)
    for number, maker in enumerate((words.identifier, words.date)):
        page.write(right - 26, y + 4.6 + number * 2.6, shop(words.word), size, theme.muted, width=12)
        page.write(right, y + 4.6 + number * 2.6, fill(maker), size, anchor="ra")
    y += 14
    columns = [edge + 1, right - 24, right - 14, right - 1]
    page.box(edge, y, right - edge, row, theme.accent if tinted else theme.card)
    for number, x in enumerate(columns):
        ink, anchor = WHITE if tinted else theme.ink, "lm" if number == 0 else "rm"
        page.write(x, y + row / 2, shop(words.word), size, ink, "bold", anchor, width=9)
    most, total = int((page.h - y - row - 22) / row), 0.0
    for number in range(count(fill.rng(), max(3, most // 2), max(4, most))):
        y += row
        if striped and number % 2:
            page.box(edge, y, right - edge, row, theme.card)
        pieces, price = count(fill.rng(), 1, 12), float(fill(words.amount, 400))
        total += pieces * price
        page.write(columns[0], y + row / 2, fill(words.phrase, 2, 5), size, anchor="lm", width=page.w - 2 * edge - 30)
        for x, text in zip(columns[1:], (f"{pieces}", f"{price:.2f}", f"{pieces * price:.2f}"), strict=True):
            page.write(x, y + row / 2, text, size, anchor="rm")
    y += row
    page.line([(edge, y), (right, y)], theme.muted)
    for number, share in enumerate((1.0, 0.2, 1.2)):
        face, place = "bold" if number == 2 else "body", y + 1.5 + number * 3
        page.write(right - 26, place, shop(words.word), size, face=face)
        page.write(right - 1, place, f"{currency}{total * share:.2f}", size, face=face, anchor="ra")
    page.write(page.w / 2, page.h - 4, f"{shop(words.url)}   {shop(words.phone)}", 1.6, theme.muted, anchor="ma")
    if chance(page.looks, 0.3):
        looks.stamp(page, content, edge + 3, y + 2, 13)
    return looks.worn(page, content)


def letter(template: Rng, content: Rng) -> Picture:
    theme = Theme(template, body=pick(template, ("serif", "sans")), head=pick(template, ("serif", "sans")))
    page = Page(theme, template, 0.64, 0.82)
    shop, fill = Writer(template, script=theme.script), Writer(template, content, theme.script)
    edge, size, leading = between(template, 7, 11), between(template, 1.8, 2.2), between(template, 1.3, 1.6)
    align, subject = pick(template, ("left", "justified")), chance(template, 0.7)
    y, width = _letterhead(page, shop, template, edge) + 3, page.w - 2 * edge
    page.write(page.w - edge, y, fill(words.date), size, anchor="ra")
    for maker in (words.name, words.street, words.place):
        page.write(edge, y, fill(maker), size, width=width * 0.6)
        y += size * 1.5
    y += 3
    if subject:
        y = page.block(edge, y, width, fill(words.phrase, 3, 7), size * 1.1, face="bold") + 1
    y = page.block(edge, y, width, f"{shop(words.word).title()} {fill(words.name)},", size) + 1
    bottom = page.h - between(template, 16, 24)
    paragraphs = count(fill.rng(), 2, 5)
    for _ in range(paragraphs):
        if y < bottom:
            text = fill.paragraph(2, 5)
            y = page.block(edge, y, width, text, size, align=align, leading=leading, bottom=bottom) + size
    page.write(edge, y + 1, shop(words.phrase) + ",", size)
    scribble(fill.rng(), page, edge + 1, y + 7.5, 14, 3, (30, 40, 110), 0.25)
    page.write(edge, y + 9, fill(words.name), size)
    page.write(page.w / 2, page.h - 3.5, f"{shop(words.street)}, {shop(words.place)}", 1.5, theme.muted, anchor="ma")
    return looks.worn(page, content)


def form(template: Rng, content: Rng) -> Picture:
    theme = Theme(template)
    page = Page(theme, template, 0.62, 0.95)
    shop, fill = Writer(template, script=theme.script), Writer(template, content, theme.script)
    edge, row, size = between(template, 4, 7), between(template, 5.5, 8), between(template, 1.5, 1.8)
    pen, face = pick(template, ((25, 35, 120), (20, 20, 20), (40, 60, 160))), pick(template, ("italic", "mono", "body"))
    framed, gap = chance(template, 0.6), between(template, 0.6, 1.6)
    page.write(edge, edge, shop(words.title, 2, 4), between(template, 3, 4), theme.accent, "title")
    page.write(page.w - edge, edge + 1, shop(words.identifier), 1.8, theme.muted, "mono", "ra")
    y = edge + 6
    while y + row < page.h - edge:
        if chance(template, 0.15):
            page.box(edge, y, page.w - 2 * edge, 3, mix(theme.ground, theme.accent, 0.25))
            page.write(edge + 0.7, y + 1.5, shop(words.title, 2, 3), 1.9, theme.ink, "bold", "lm")
            y += 3.6
        parts = count(template, 1, 3)
        width = (page.w - 2 * edge - gap * (parts - 1)) / parts
        for part in range(parts):
            x, label, ticks = edge + part * (width + gap), shop(words.phrase, 1, 2), chance(template, 0.15)
            maker = pick(template, (words.name, words.street, words.date, words.digits, words.place, words.phrase))
            page.write(x + 0.5, y + 0.4, label, size, theme.muted, width=width - 1)
            if ticks:
                _ticks(page, shop, fill, x, y + row * 0.62, width, pen)
                continue
            if framed:
                page.box(x, y, width, row - gap, None, theme.muted)
            else:
                page.line([(x, y + row - gap), (x + width, y + row - gap)], theme.muted)
            page.write(x + 1, y + row - gap - 0.6, fill(maker), min(2.6, row * 0.4), pen, face, "ls", width - 2)
        y += row
    if chance(page.looks, 0.3):
        looks.stamp(page, content, page.w * 0.6, page.h * 0.7, 14)
    return looks.worn(page, content)


def _ticks(page: Page, shop: Writer, fill: Writer, x: float, y: float, width: float, pen: tuple[int, int, int]) -> None:
    chosen = count(fill.rng(), 0, 2)
    for number in range(3):
        place = x + number * width / 3
        page.box(place + 0.5, y - 0.9, 1.8, 1.8, None, page.theme.muted)
        if number == chosen:
            page.line([(place + 0.7, y), (place + 1.3, y + 0.7), (place + 2.6, y - 1.4)], pen, 0.4)
        page.write(place + 2.8, y, shop(words.word), 1.5, anchor="lm", width=width / 3 - 3)


def certificate(template: Rng, content: Rng) -> Picture:
    theme = Theme(template, dark=0.1, body="serif", head=pick(template, ("serif", "sans")))
    page = Page(theme, template, 0.7, 1.5)
    shop, fill = Writer(template, script=theme.script), Writer(template, content, theme.script)
    if chance(template, 0.5):
        looks.pattern(page, template)
    for number in range(count(template, 1, 4)):
        edge, colour = 1.5 + number * 1.3, pick(template, (theme.accent, theme.second, theme.ink))
        page.box(edge, edge, page.w - 2 * edge, page.h - 2 * edge, None, colour, stroke=between(template, 0.2, 0.9))
    middle, step, width = page.w / 2, page.h / 100, page.w * 0.76
    logo(template, page, middle - 4, step * 10, 8, theme.accent, theme.second)
    y = page.block(
        page.w * 0.1, step * 10 + 10, page.w * 0.8, shop(words.title, 2, 3), 5.2, theme.accent, "title", "centre"
    )
    page.block(page.w * 0.12, y + step * 2, width, shop(words.sentence, 4, 6), 2, theme.muted, align="centre")
    y = page.block(page.w * 0.1, step * 46, page.w * 0.8, fill(words.name), 4.6, theme.ink, "italic", "centre")
    page.line([(page.w * 0.25, y), (page.w * 0.75, y)], theme.muted)
    y = page.block(page.w * 0.12, y + step * 3, width, fill.prose(70), 2.1, theme.ink, align="centre")
    page.write(middle, y + 0.5, fill(words.title, 3, 5), 2.6, theme.accent, "bold", "ma", width)
    for x in (page.w * 0.25, page.w * 0.75):
        foot = page.h - step * 14
        scribble(fill.rng(), page, x - 7, foot - 1, 12, 2.4, (30, 40, 110), 0.2)
        page.line([(x - 10, foot), (x + 10, foot)], theme.muted)
        page.write(x, foot + 1, fill(words.name), 1.8, theme.ink, anchor="ma")
    page.write(middle, page.h - step * 12, fill(words.date), 1.9, theme.ink, anchor="ma")
    return looks.worn(page, content, 0.6)


def menu(template: Rng, content: Rng) -> Picture:
    theme = Theme(template, dark=0.4, body=pick(template, ("serif", "sans")), head=pick(template, ("serif", "sans")))
    page = Page(theme, template, 0.5, 1.3)
    shop, fill = Writer(template, script=theme.script), Writer(template, content, theme.script)
    columns, row, currency = 1 if page.w < 60 else 2, between(template, 4.6, 7), pick(template, words.CURRENCIES)
    told, edge = chance(template, 0.6), between(template, 5, 8)
    if chance(template, 0.5):
        page.box(2, 2, page.w - 4, page.h - 4, None, theme.accent, stroke=0.4)
    page.write(page.w / 2, edge, shop(words.company), between(template, 4, 6), theme.accent, "title", "ma", page.w - 12)
    width = (page.w - edge * (columns + 1)) / columns
    for column in range(columns):
        x, y = edge + column * (width + edge), edge + 9.0
        while y < page.h - edge - row:
            if chance(template, 0.18) or y == edge + 9.0:
                page.write(
                    x, y, shop(words.title, 1, 2), 2.8, theme.second if not theme.dark else theme.accent, "title"
                )
                y += 4.4
                continue
            price = fill(words.amount, 40)
            page.write(x, y, fill(words.title, 2, 4), 2.1, theme.ink, "bold", width=width - 9)
            page.write(x + width, y, f"{currency}{price}", 2, theme.ink, anchor="ra")
            if told:
                page.write(x, y + 2.6, fill(words.sentence, 4, 7), 1.6, theme.muted, "italic", width=width - 6)
            y += row
    return looks.worn(page, content, 0.6)
