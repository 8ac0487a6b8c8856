"""What is on the screens of offices: slides, sheets, tables, source code, terminals, calendars."""

from collections.abc import Callable

from . import looks, words
from .charts import across, bars, curves, slices
from .dice import Rng, between, chance, count, pick
from .page import BLACK, WHITE, Page, Picture, Theme, mix
from .pictures import logo, photo
from .writing import Writer

Maker = Callable[[Rng, str], str]


def _deck(template: Rng, page: Page, shop: Writer, number: str) -> tuple[float, float]:
    """What all slides of a deck have; returns where the heading goes and where the rest begins."""
    theme, form, foot = page.theme, count(template, 0, 3), page.h - 2
    if form == 0:
        page.box(0, 0, page.w, 11, theme.accent)
        theme.ink = WHITE if theme.dark else theme.ink
    elif form == 1:
        page.box(0, 0, 2, page.h, theme.accent)
        page.box(2, 0, 0.8, page.h, theme.second)
    elif form == 2:
        page.line([(6, 11), (page.w - 6, 11)], theme.accent, 0.5)
        page.disc(page.w - 2, page.h, 9, mix(theme.ground, theme.accent, 0.4))
    else:
        page.shape([(page.w, 0), (page.w - 14, 0), (page.w, 14)], theme.accent)
        page.box(0, page.h - 4.4, page.w, 4.4, mix(theme.ground, theme.ink, 0.15))
    logo(template, page, page.w - 9, page.h - 6.5, 4, theme.second, WHITE)
    page.write(6, foot, f"{shop(words.company)}  {shop(words.date)}", 1.5, theme.muted, anchor="ls")
    page.write(page.w / 2, foot, number, 1.5, theme.muted, anchor="ms")
    return (5.5, 15) if form == 0 else (6.5, 14.5)


def _slide(template: Rng, content: Rng, charted: bool) -> Picture:
    look = pick(template, ("sans", "sans", "serif"))
    theme = Theme(template, dark=0.35, body=look, head=look)
    page = Page(theme, template, 1.3, 1.8)
    shop, fill = Writer(template, script=theme.script), Writer(template, content, theme.script)
    head, y = _deck(template, page, shop, fill(words.digits, 1, 2))
    on_band = page.image.getpixel((1, 1)) == theme.accent and head < 6
    ink = WHITE if on_band else theme.ink
    page.write(6, head, fill(words.title, 2, 6), 3.8, ink, "title", "lm", page.w - 22)
    width, mark, size, left = page.w - 12, pick(template, ("disc", "dash", "number")), between(template, 2.2, 2.9), 6.0
    chart, beside = pick(template, (bars, curves, across, slices)), chance(template, 0.6)
    colours, tall = [theme.accent, theme.second, theme.muted], page.h - y - 9
    if charted:
        part = width * (0.58 if beside else 1)
        chart(page, fill, left, y, part, tall if beside else tall * 0.75, colours)
        left, width, y = (left + part + 3, width - part - 3, y) if beside else (left, width, y + tall * 0.8)
        size *= 0.85
    elif beside:
        page.paste(photo(fill.rng(4), page.pixels(width * 0.38, tall)), left + width * 0.62, y, 1)
        width *= 0.58
    number = 0
    while y < page.h - 8 and not (number > 2 and chance(fill.rng(0), 0.25)):
        number += 1
        if mark == "disc":
            page.disc(left + 0.8, y + size * 0.6, 0.6, theme.accent)
        else:
            page.write(left, y, "-" if mark == "dash" else f"{number}.", size, theme.accent, "bold")
        y = page.block(left + 3, y, width - 3, fill(words.phrase, 3, 10), size, bottom=page.h - 6) + size * 0.7
    return page.finished()


def slide(template: Rng, content: Rng) -> Picture:
    return _slide(template, content, False)


def chart_slide(template: Rng, content: Rng) -> Picture:
    return _slide(template, content, True)


def spreadsheet(template: Rng, content: Rng) -> Picture:
    theme = Theme(template, dark=0.2)
    page = Page(theme, template, 0.9, 1.8)
    shop, fill = Writer(template, script=theme.script), Writer(template, content, theme.script)
    row, side, size = between(template, 3.2, 4.6), 4.0, between(template, 1.6, 1.9)
    first, columns = between(template, 16, 24), max(3, round(page.w / between(template, 10, 15)))
    width, top = (page.w - side - first) / (columns - 1), between(template, 6, 12)
    page.box(0, 0, page.w, 3.4, theme.accent)
    page.write(page.w / 2, 1.7, f"{fill(words.word)}.xlsx", 1.7, WHITE, anchor="mm")
    for number in range(int(page.w / 5)):
        page.box(
            1 + number * 5, 4.2, 3, top - 5.2, mix(theme.ground, theme.accent, between(template, 0.1, 0.6)), radius=0.4
        )
    xs = [side, *(side + first + width * n for n in range(columns))]
    page.box(0, top, page.w, row, theme.card)
    page.box(0, top, side, page.h, theme.card)
    kinds = [pick(template, ("money", "money", "word", "date", "count")) for _ in xs]
    rows, filled = int((page.h - top - 2) / row), count(fill.rng(0), 8, 30)
    for number, x in enumerate(xs[:-1]):
        middle = (x + xs[number + 1]) / 2
        page.write(middle, top + row / 2, "ABCDEFGHIJKLMNOP"[number], size, theme.muted, anchor="mm")
        page.write(
            x + 0.6, top + row * 1.5, shop(words.word), size, face="bold", anchor="lm", width=xs[number + 1] - x - 1
        )
    makers = {"word": words.word, "date": words.date}
    for line in range(1, rows + 1):
        y = top + row * line
        page.line([(0, y), (page.w, y)], theme.rule, 0.1)
        page.write(side / 2, y + row / 2, f"{line}", size, theme.muted, anchor="mm")
        if line == 1 or line > filled:
            continue
        for number, x in enumerate(xs[:-1]):
            room = xs[number + 1] - x - 1
            if number == 0 or kinds[number] in makers:
                text = fill(words.phrase, 1, 3) if number == 0 else fill(makers[kinds[number]])
                page.write(x + 0.6, y + row / 2, text, size, anchor="lm", width=room)
            else:
                text = fill(words.amount, 5000) if kinds[number] == "money" else fill(words.digits, 1, 4)
                page.write(x + room, y + row / 2, text, size, anchor="rm", width=room)
    for x in xs:
        page.line([(x, top), (x, page.h)], theme.rule, 0.1)
    return page.finished()


def table(template: Rng, content: Rng) -> Picture:
    """A table with headings, as in a report."""
    theme = Theme(template, dark=0.15, body=pick(template, ("sans", "serif")), head=pick(template, ("sans", "serif")))
    page = Page(theme, template, 0.8, 1.7)
    shop, fill = Writer(template, script=theme.script), Writer(template, content, theme.script)
    edge, row, size = between(template, 3, 7), between(template, 4, 6.5), between(template, 1.8, 2.3)
    columns, striped, boxed, banded = count(template, 3, 6), *(chance(template, 0.5) for _ in range(3))
    page.write(page.w / 2, edge, fill(words.title, 2, 6), 3, theme.ink, "title", "ma", page.w - 2 * edge)
    first = (page.w - 2 * edge) * between(template, 0.28, 0.4)
    width, y = (page.w - 2 * edge - first) / (columns - 1), edge + 6
    choices: tuple[Maker, ...] = (words.amount, words.amount, words.digits, words.word, words.date)
    makers = [pick(template, choices) for _ in range(columns)]
    page.box(edge, y, page.w - 2 * edge, row, theme.accent if banded else theme.card)
    for number in range(columns):
        x = edge + (0.8 if number == 0 else first + width * (number - 0.5))
        ink, anchor = WHITE if banded else theme.ink, "lm" if number == 0 else "mm"
        page.write(x, y + row / 2, shop(words.word).title(), size, ink, "bold", anchor, width - 1)
    rows = int((page.h - y - row - edge - 4) / row)
    for line in range(count(fill.rng(0), max(3, rows * 2 // 3), max(4, rows))):
        y += row
        if striped and line % 2:
            page.box(edge, y, page.w - 2 * edge, row, theme.card)
        page.write(edge + 0.8, y + row / 2, fill(words.phrase, 1, 3), size, anchor="lm", width=first - 1.5)
        for number in range(1, columns):
            text = fill(makers[number])
            page.write(edge + first + width * (number - 0.5), y + row / 2, text, size, anchor="mm", width=width - 1)
        page.line([(edge, y + row), (page.w - edge, y + row)], theme.rule, 0.12)
        for number in range(columns if boxed else 0):
            x = edge + (first + width * (number - 1) if number else 0)
            page.line([(x, y), (x, y + row)], theme.rule, 0.12)
    page.write(
        edge,
        page.h - edge,
        f"{shop(words.word).title()}: {fill(words.sentence, 4, 9)}",
        1.6,
        theme.muted,
        "italic",
        "ls",
    )
    return looks.worn(page, content, 0.6)


_KEYWORDS = ("for", "while", "if", "class", "import", "from", "const", "let", "var", "public", "static", "new")


def _tokens(fill: Writer, depth: int) -> list[tuple[str, str]]:
    """A line of source code, as pairs of a sort and a text."""
    rng = fill.rng(0)
    name, other = (fill(words.phrase, 1, 2).lower().replace(" ", "_") for _ in range(2))
    number, text = fill(words.digits, 1, 3), fill(words.phrase, 1, 4)
    plain = [("plain", f"{name} = {other} + "), ("number", number)]
    forms = (
        [("keyword", pick(rng, ("def ", "function ", "fn "))), ("call", name), ("plain", f"({other}, n):")],
        [("comment", f"# {text} {name}")],
        [("plain", f"{name} = "), ("string", f'"{text}"')],
        [("keyword", "if "), ("plain", f"{name} > "), ("number", number), ("plain", ":")],
        [("keyword", f"{pick(rng, _KEYWORDS)} "), ("plain", f"{name} "), ("keyword", "in "), ("call", other)],
        [("plain", f"{name}."), ("call", other), ("plain", "("), ("number", number), ("plain", ")")],
        [("keyword", "return "), ("call", name), ("plain", f"({other})")] if depth else plain,
        plain,
    )
    return pick(rng, forms)


def source_code(template: Rng, content: Rng) -> Picture:
    theme = Theme(template, dark=0.65)
    page = Page(theme, template, 0.8, 1.8)
    shop, fill = Writer(template), Writer(template, content)
    size, leading, tree = between(template, 1.7, 2.3), between(template, 1.35, 1.6), chance(template, 0.5)
    base = theme.ink
    tones = [
        mix(base, tone, 0.75) for tone in ((220, 70, 90), (70, 130, 230), (60, 170, 90), (230, 150, 40), (170, 90, 210))
    ]
    colours = {sort: pick(template, tones) for sort in ("keyword", "call", "string", "number")}
    colours |= {"comment": theme.muted, "plain": base}
    left, y, numbered = (16.0 if tree else 0.0), 5.0, chance(template, 0.7)
    page.box(0, 0, page.w, 3.8, theme.card)
    page.box(left, 0, 16, 3.8, theme.ground)
    page.write(left + 1.5, 1.9, fill(words.word) + ".py", 1.6, anchor="lm")
    page.write(left + 18, 1.9, shop(words.word) + ".py", 1.6, theme.muted, anchor="lm")
    if tree:
        page.box(0, 3.8, left, page.h, theme.card)
        for number in range(int((page.h - 6) / 3)):
            page.write(1 + 1.5 * count(template, 0, 2), 5 + number * 3, shop(words.word), 1.6, theme.muted, width=11)
    depth, start, number = 0, left + (6 if numbered else 2), count(fill.rng(0), 1, 400)
    while y < page.h - 5:
        if numbered:
            page.write(start - 1.5, y, f"{number}", size, theme.muted, "mono", "ra")
        step = fill.rng(0)
        x = start + depth * size * 2.2
        for sort, text in _tokens(fill, depth) if not chance(step, 0.12) else []:
            page.write(x, y, text, size, colours[sort], "mono")
            x += page.length(text, size, "mono")
        depth = max(0, min(4, depth + pick(step, (-1, 0, 0, 0, 1))))
        y, number = y + size * leading, number + 1
    page.box(0, page.h - 3, page.w, 3, theme.accent)
    page.write(1, page.h - 1.5, shop(words.phrase), 1.5, WHITE, anchor="lm")
    return page.finished()


def terminal(template: Rng, content: Rng) -> Picture:
    theme = Theme(template, dark=0.85)
    page = Page(theme, template, 0.9, 1.8, pick(template, (BLACK, (48, 10, 36), theme.ground)) if theme.dark else None)
    shop, fill = Writer(template), Writer(template, content)
    size, leading = between(template, 1.7, 2.3), between(template, 1.25, 1.5)
    prompt = f"{shop(words.word)}@{shop(words.word)}{pick(template, ('$', '%', '>', ':~$'))} "
    strong = mix(
        pick(template, ((90, 220, 90), (90, 160, 250), (240, 190, 60))), theme.ink, 0.15 if theme.dark else 0.6
    )
    y = 1.5
    if chance(template, 0.6):
        page.box(0, 0, page.w, 3.8, theme.card)
        for number, colour in enumerate(((250, 95, 85), (250, 190, 50), (50, 200, 70))):
            page.disc(2 + number * 2.4, 1.9, 0.8, colour)
        page.write(page.w / 2, 1.9, shop(words.phrase), 1.6, theme.muted, anchor="mm")
        y = 5
    makers = {0: words.sentence, 1: words.url, 2: words.phrase}
    while y < page.h - size * 2:
        page.write(1.5, y, prompt, size, strong, "code")
        command = f"{fill(words.word)} --{fill(words.word)} {fill(words.identifier)}"
        page.write(1.5 + page.length(prompt, size, "code"), y, command, size, face="mono")
        form, lines = count(fill.rng(0), 0, 2), count(fill.rng(0), 0, 9)
        for _ in range(lines):
            y += size * leading
            if y > page.h - size * 2:
                break
            lead = f"{fill(words.clock)} {fill(words.digits, 3, 6):>6} "
            page.write(1.5, y, lead, size, theme.muted, "mono")
            text = makers[form](fill.rng(4), "latin")
            page.write(1.5 + page.length(lead, size, "mono"), y, text, size, face="mono")
        y += size * leading
    return page.finished()


def calendar(template: Rng, content: Rng) -> Picture:
    """A month or a week with entries."""
    theme = Theme(template, dark=0.3)
    page = Page(theme, template, 0.8, 1.6)
    shop, fill = Writer(template, script=theme.script), Writer(template, content, theme.script)
    days, weeks = pick(template, ((7, 5), (7, 4), (5, 3), (5, 2)))
    top, width = between(template, 9, 13), (page.w - 4) / days
    row, size = (page.h - top - 4) / weeks, between(template, 1.5, 1.8)
    page.write(3, 2, fill(words.title, 1, 2), 3.8, theme.accent, "title")
    page.write(page.w - 3, 3, fill(words.digits, 4, 4), 2.6, theme.muted, anchor="ra")
    first = count(fill.rng(), 1, 28)
    for day in range(days):
        page.write(2 + width * (day + 0.5), top - 2.6, shop(words.word)[:5].title(), 1.7, theme.muted, "bold", "ma")
    for cell in range(days * weeks):
        x, y = 2 + width * (cell % days), top + row * (cell // days)
        page.box(x, y, width, row, None, theme.rule)
        page.write(x + 0.6, y + 0.5, f"{(first + cell) % 31 + 1}", 1.7)
        for entry in range(count(fill.rng(0), 0, min(3, int((row - 3) / 2.6)))):
            colour = pick(fill.rng(0), (theme.accent, theme.second, mix(theme.accent, BLACK, 0.4)))
            page.box(x + 0.4, y + 3 + entry * 2.6, width - 0.8, 2.3, colour, radius=0.5)
            text, face = fill(words.phrase, 1, 3), "body"
            page.write(x + 0.8, y + 4.15 + entry * 2.6, text, size, WHITE, face, "lm", width - 1.4)
    return page.finished()
