"""What is printed or written to be read: books, papers, newspapers, posters, sayings, notes by hand."""

from . import looks, words
from .charts import bars, curves
from .dice import Rng, between, chance, count, pick
from .page import BLACK, WHITE, Colour, Page, Picture, Theme, mix, shade
from .pictures import logo, photo, scribble
from .writing import Writer


def book(template: Rng, content: Rng) -> Picture:
    theme = Theme(template, dark=0.08, body="serif", head="serif")
    page = Page(theme, template, 0.58, 0.82)
    shop, fill = Writer(template, script=theme.script), Writer(template, content, theme.script)
    edge, size, leading = between(template, 6, 10), between(template, 1.9, 2.5), between(template, 1.3, 1.65)
    indent, gap = (between(template, 2, 5), 0.0) if chance(template, 0.7) else (0.0, size)
    width, bottom, y = page.w - 2 * edge, page.h - between(template, 7, 10), edge
    if chance(template, 0.7):
        page.write(page.w / 2, edge * 0.6, shop(words.title, 2, 4), 1.7, theme.muted, "italic", "ma")
        page.line([(edge, edge), (page.w - edge, edge)], theme.rule)
        y = edge + 2
    if chance(template, 0.35):  # a chapter begins
        page.write(page.w / 2, y + 6, shop(words.word).upper(), 2.2, theme.muted, "head", "ma")
        y = page.block(edge, y + 10, width, fill(words.title, 2, 4), 3.6, face="title", align="centre") + 4
    while y < bottom:
        if chance(fill.rng(0), 0.3):  # speech
            y = page.block(
                edge, y, width, f'"{fill(words.sentence)}"', size, indent=indent, leading=leading, bottom=bottom
            )
        text = fill.paragraph(2, 7)
        y = page.block(edge, y, width, text, size, None, "body", "justified", leading, bottom, indent) + gap
    page.write(page.w / 2, page.h - 5, fill(words.digits, 1, 3), 1.8, anchor="ma")
    return looks.worn(page, content, 0.35)


def _column(
    page: Page, fill: Writer, x: float, y: float, width: float, size: float, bottom: float, heads: bool
) -> None:
    """Text with headings in between, down to `bottom`."""
    while y < bottom - size * 2:
        if heads and chance(fill.rng(0), 0.4):
            page.write(x, y, fill(words.title, 1, 3), size * 1.15, face="bold", width=width)
            y += size * 1.9
        text = fill.paragraph(2, 6)
        y = page.block(x, y, width, text, size, align="justified", leading=1.3, bottom=bottom, indent=size) + size * 0.5


def paper(template: Rng, content: Rng) -> Picture:
    theme = Theme(template, body="serif", head=pick(template, ("serif", "sans")))
    page = Page(theme, template, 0.68, 0.8, WHITE)
    fill, edge, size = Writer(template, content, theme.script), between(template, 5, 8), between(template, 1.35, 1.65)
    shop, gap, tall = Writer(template, script=theme.script), between(template, 2, 3.5), between(template, 10, 18)
    figure, chart = pick(template, (None, 0, 1)), pick(template, (bars, curves))
    width = (page.w - 2 * edge - gap) / 2
    page.write(edge, 2.5, shop(words.title, 3, 5), 1.4, theme.muted, "italic")
    page.write(page.w - edge, 2.5, fill(words.digits, 1, 3), 1.4, theme.muted, anchor="ra")
    y = page.block(edge, edge + 1, page.w - 2 * edge, fill(words.title, 6, 11), 2.9, face="title", align="centre") + 0.5
    names = ", ".join(fill(words.name) for _ in range(3))
    y = page.block(edge, y, page.w - 2 * edge, names, 1.7, align="centre") + 1
    if chance(template, 0.7):
        page.write(page.w / 2, y, shop(words.word).title(), size * 1.1, face="bold", anchor="ma")
        y = page.block(
            edge + 5, y + 2.4, page.w - 2 * edge - 10, fill.prose(320), size, face="italic", align="justified"
        )
    for column in range(2):
        x, top, bottom = edge + column * (width + gap), y + 2, page.h - edge
        if column == figure:
            chart(page, fill, x + 1, top, width - 2, tall, [theme.accent, theme.second, theme.ink])
            caption = f"Fig. {count(fill.rng(), 1, 9)}. {fill(words.sentence, 6, 12)}"
            top = page.block(x, top + tall + 1, width, caption, size * 0.9, leading=1.25) + 1
        _column(page, fill, x, top, width, size, bottom, True)
    return looks.worn(page, content, 0.5)


def newspaper(template: Rng, content: Rng) -> Picture:
    theme = Theme(template, body="serif", head=pick(template, ("serif", "serif", "sans")))
    page = Page(theme, template, 0.6, 1.5)
    shop, fill = Writer(template, script=theme.script), Writer(template, content, theme.script)
    edge, columns, size = between(template, 3, 5), max(2, round(page.w / between(template, 20, 30))), 1.55
    y, width, gap = edge, page.w - 2 * edge, between(template, 1.5, 2.5)
    if chance(template, 0.6):
        page.write(page.w / 2, y, shop(words.title, 2, 3), 6, BLACK, "title", "ma", width)
        page.line([(edge, y + 8), (page.w - edge, y + 8)], BLACK, 0.2)
        page.write(edge, y + 8.6, fill(words.date), 1.5)
        page.write(page.w - edge, y + 8.6, shop(words.phrase), 1.5, anchor="ra")
        page.line([(edge, y + 11), (page.w - edge, y + 11)], BLACK, 0.2)
        y += 12
    y = page.block(edge, y, width, fill(words.phrase, 4, 7), between(template, 3.8, 5), BLACK, "title", leading=1.15)
    if chance(template, 0.6):
        y = page.block(edge, y + 0.5, width, fill(words.sentence, 8, 14), 2.1, face="italic")
    y += 1.5
    wide = (width - gap * (columns - 1)) / columns
    pictured, over, tall = chance(template, 0.7), count(template, 1, max(1, columns - 1)), between(template, 14, 22)
    ruled, grey = chance(template, 0.5), chance(template, 0.6)
    if pictured:
        picture = photo(fill.rng(3), page.pixels(over * wide + (over - 1) * gap, tall))
        page.paste(picture.convert("L").convert("RGB") if grey else picture, edge, y)
        page.write(
            edge, y + tall + 0.5, fill(words.sentence, 5, 8), 1.3, face="italic", width=over * (wide + gap) - gap
        )
    for column in range(columns):
        x = edge + column * (wide + gap)
        _column(page, fill, x, y + (tall + 3 if pictured and column < over else 0), wide, size, page.h - edge, False)
        if ruled and column:
            page.line([(x - gap / 2, y), (x - gap / 2, page.h - edge)], theme.rule, 0.1)
    return looks.worn(page, content, 0.2)


def _backdrop(page: Page, template: Rng) -> None:
    """A ground for large text: plain, striped, rays, discs or a slope of colours."""
    theme, form = page.theme, count(template, 0, 4)
    colour = mix(theme.ground, theme.accent, between(template, 0.15, 0.4))
    if form == 1:
        step = between(template, 4, 12)
        for number in range(int((page.w + page.h) / step)):
            x = number * step
            page.line([(x, 0), (x - page.h, page.h)], colour, step / 2)
    elif form == 2:
        for _ in range(count(template, 3, 10)):
            place = (between(template, 0, page.w), between(template, 0, page.h))
            page.disc(*place, between(template, 4, 28), colour)
    elif form == 3:
        for number in range(60):
            y = page.h * number / 60
            page.box(0, y, page.w, page.h / 60 + 0.5, mix(theme.ground, theme.accent, number / 100))
    elif form == 4:
        page.shape(
            [(0, page.h * between(template, 0.3, 0.8)), (page.w, page.h * 0.5), (page.w, page.h), (0, page.h)], colour
        )


def poster(template: Rng, content: Rng) -> Picture:
    look = pick(template, ("sans", "sans", "serif"))
    theme = Theme(template, dark=0.5, body=look, head=look)
    page = Page(theme, template, 0.55, 1.1)
    shop, fill = Writer(template, script=theme.script), Writer(template, content, theme.script)
    if chance(template, 0.6):
        theme.ground = page.theme.second if theme.dark else shade(theme.hue, between(template, 0.2, 0.6), 0.97)
        page.box(0, 0, page.w, page.h, theme.ground)
        theme.ink = WHITE if sum(theme.ground) < 400 else BLACK
        theme.muted = mix(theme.ink, theme.ground, 0.3)
    _backdrop(page, template)
    edge, align, upper = between(template, 4, 8), pick(template, ("left", "centre")), chance(template, 0.4)
    pictured, size, width = chance(template, 0.5), page.w * between(template, 0.1, 0.14), page.w - 12
    y = edge + 2
    page.write(edge, y, shop(words.phrase, 2, 3), 2.6, theme.muted, "bold")
    logo(template, page, page.w - edge - 7, edge, 7, theme.accent, theme.ink)
    y += 8
    if pictured:
        page.paste(photo(fill.rng(3), page.pixels(page.w - 2 * edge, page.h * 0.3)), edge, y, 1)
        y += page.h * 0.3 + 3
    text = fill(words.phrase, 2, 4 if pictured else 6)
    text = text.upper() if upper and theme.script == "latin" else text
    y = page.block(edge, y, width, text, size, theme.ink, "title", align, 1.15, page.h - 30) + 2
    y = page.block(edge, y, width, fill.prose(60), 2.6, theme.ink, "body", align, bottom=page.h - 18) + 2
    page.box(edge, page.h - 14, page.w - 2 * edge, 9, theme.accent, radius=1)
    page.write(page.w / 2, page.h - 11.3, fill(words.date), 3, WHITE, "bold", "mm")
    page.write(page.w / 2, page.h - 7.6, f"{fill(words.street)}  {fill(words.clock)}", 2.1, WHITE, anchor="mm")
    return page.finished()


def quote(template: Rng, content: Rng) -> Picture:
    look = pick(template, ("serif", "sans"))
    theme = Theme(template, dark=0.3, body=look, head=look)
    theme.ground = shade(theme.hue, between(template, 0.2, 0.85), between(template, 0.2, 0.95))
    theme.ink = WHITE if sum(theme.ground) < 420 else BLACK
    page = Page(theme, template, 0.7, 1.6)
    shop, fill = Writer(template, script=theme.script), Writer(template, content, theme.script)
    _backdrop(page, template)
    edge, align, face = (
        between(template, 8, 14),
        pick(template, ("left", "centre")),
        pick(template, ("bold", "italic", "body")),
    )
    if chance(template, 0.5):
        page.box(3, 3, page.w - 6, page.h - 6, None, theme.ink, stroke=between(template, 0.2, 1))
    page.write(edge, 4, '"', 16, mix(theme.ink, theme.ground, 0.4), "title")
    text, room = f"{fill(words.sentence, 3, 9)} {fill(words.sentence, 3, 9)}", page.h - 44
    size = 6.0
    while size > 2.4 and len(page.lines(text, size, face, page.w - 2 * edge)) * size * 1.4 > room:
        size -= 0.3
    y = page.block(edge, 20, page.w - 2 * edge, text, size, theme.ink, face, align)
    place, anchor = (page.w / 2, "ma") if align == "centre" else (edge, "la")
    page.write(place, max(y + 3, page.h * 0.7), fill(words.name), 2.8, theme.ink, "bold", anchor)
    page.write(page.w - 6, page.h - 6, "@" + shop(words.word), 2, theme.ink, "body", "rs")
    return page.finished()


def note(template: Rng, content: Rng) -> Picture:
    """Writing by hand on ruled, squared or plain paper."""
    theme = Theme(template)
    paper_colour = shade(between(template, 0.1, 0.16), between(template, 0, 0.3), between(template, 0.92, 1))
    page = Page(theme, template, 0.6, 1.5, paper_colour)
    fill, step, edge = Writer(template, content), between(template, 3.6, 6), between(template, 6, 13)
    ruling, margin, rings = count(template, 0, 2), chance(template, 0.6), chance(template, 0.4)
    pen: Colour = pick(template, ((30, 40, 120), (20, 20, 25), (60, 60, 70), (150, 30, 40), (20, 90, 60)))
    height, stroke, blue = (
        step * between(template, 0.5, 0.75),
        between(template, 0.22, 0.4),
        mix(paper_colour, (90, 130, 200), 0.5),
    )
    if ruling:
        for number in range(int(page.h / step)):
            page.line([(0, (number + 1) * step), (page.w, (number + 1) * step)], blue, 0.12)
    for number in range(int(page.w / step) if ruling == 2 else 0):
        page.line([((number + 1) * step, 0), ((number + 1) * step, page.h)], blue, 0.12)
    if margin:
        page.line([(edge - 1.5, 0), (edge - 1.5, page.h)], (220, 110, 120), 0.2)
    for number in range(int(page.h / 6) if rings else 0):
        page.disc(2.2, 3 + number * 6, 1, mix(paper_colour, BLACK, 0.5))
    y, lines = step * 2, int(page.h / step) - 3
    for _ in range(count(fill.rng(0), lines * 2 // 3, lines)):
        x, line = edge, fill.rng(5)
        last = page.w - 4 if chance(line, 0.75) else page.w * between(line, 0.25, 0.9)
        x += 5 if chance(line, 0.15) else 0
        while x < last - 8:
            length = min(between(line, 3, 15), last - x)
            scribble(line, page, x, y - step * 0.1, length, height, pen, stroke)
            x += length + height
        y += step
    return looks.worn(page, content, 0.3)
