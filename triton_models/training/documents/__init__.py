"""Drawn documents and screens: templates, each filled with any number of contents.

Pictures to learn from that one template with other content is another picture. Which fonts there are depends on the
machine, and so do the pictures; on one machine they are the same each time.
"""

from collections.abc import Callable, Mapping

import numpy as np
from PIL import Image

from . import cards, charts, papers, press, screens, work

Rng = np.random.Generator
Kind = Callable[[Rng, Rng], Image.Image]

KINDS: Mapping[str, Kind] = {
    "receipt": papers.receipt,
    "receiptscan": papers.receipt_scan,
    "invoice": papers.invoice,
    "letter": papers.letter,
    "form": papers.form,
    "certificate": papers.certificate,
    "menu": papers.menu,
    "book": press.book,
    "paper": press.paper,
    "newspaper": press.newspaper,
    "poster": press.poster,
    "quote": press.quote,
    "note": press.note,
    "chat": screens.chat,
    "post": screens.post,
    "mail": screens.mail,
    "article": screens.article,
    "settings": screens.settings,
    "shop": screens.shop_list,
    "slide": work.slide,
    "chartslide": work.chart_slide,
    "spreadsheet": work.spreadsheet,
    "table": work.table,
    "sourcecode": work.source_code,
    "terminal": work.terminal,
    "calendar": work.calendar,
    "barchart": charts.bar_chart,
    "linechart": charts.line_chart,
    "map": charts.street_map,
    "idcard": cards.id_card,
    "businesscard": cards.business_card,
    "ticket": cards.ticket,
    "codelabel": cards.code_label,
    "parcellabel": cards.parcel_label,
    "package": cards.package,
}


def draw(kind: str, template_seed: int, content_seed: int) -> Image.Image:
    """A picture of a kind; the same seeds make the same one."""
    number = list(KINDS).index(kind)
    template, content = (
        np.random.default_rng((number, *seeds)) for seeds in ((template_seed,), (template_seed, content_seed, 1))
    )
    return KINDS[kind](template, content)
