"""Draw a folder of documents and screens.

    python -m triton_models.training.documents --output out/documents --templates 16 --contents 7

Of each kind there are several templates, and each is filled with several contents: different pictures of one layout. In
nearly half of the templates the document lies on a larger page, as one that was scanned or shown by an application;
in half of these not quite in the same place each time.
"""

import argparse
from collections.abc import Sequence
from multiprocessing import get_context
from pathlib import Path
from typing import NamedTuple

import numpy as np
from PIL import Image
from tqdm import tqdm

from triton_models.training.documents import KINDS, Rng, draw

ON_PAGE = 0.45  # share of the templates that lie on a larger page
MAX_PAGE = 3.2  # sides of the page, in sides of the document
MOVED = 0.08  # deviation of its place, as a share of what the page leaves free
LONGEST_SIDE_PX, SHORTEST_SIDE_PX = 400, 64
QUALITY = 90


class Document(NamedTuple):
    """A document to draw, and the folder for it."""

    kind: str
    template: int
    content: int
    folder: Path

    def save(self) -> None:
        """Draw the document, put it on its page, and write it to `<kind>-<template>-<content>.webp`."""
        picture = place_on_page(draw(self.kind, self.template, self.content).convert("RGB"), self)
        scale = LONGEST_SIDE_PX / max(picture.size)
        if scale < 1:
            width, height = (max(SHORTEST_SIDE_PX, round(side * scale)) for side in picture.size)
            picture = picture.resize((width, height), Image.Resampling.LANCZOS, reducing_gap=2.0)
        picture.save(self.folder / f"{self.kind}-{self.template:02d}-{self.content}.webp", quality=QUALITY)


def place_on_page(picture: Image.Image, document: Document) -> Image.Image:
    """Lay a picture on a larger page, where its template is one of those; the page is the same for all its contents."""
    rng = np.random.default_rng((document.template, list(KINDS).index(document.kind), 2))
    if rng.random() >= ON_PAGE:
        return picture
    colour, sides, place = _page_colour(rng), rng.uniform(1.0, MAX_PAGE, 2), rng.random(2)
    if rng.random() < 0.5:
        place = place + np.random.default_rng((document.template, document.content, 3)).normal(0, MOVED, 2)
    width, height = (round(side * factor) for side, factor in zip(picture.size, sides.tolist(), strict=True))
    page = Image.new("RGB", (width, height), colour)
    x, y = np.clip(place, 0, 1).tolist()
    page.paste(picture, (round((width - picture.width) * x), round((height - picture.height) * y)))
    return page


def _page_colour(rng: Rng) -> tuple[int, int, int]:
    """Choose the colour of a page: mostly white or a light grey, at times any grey or a light colour."""
    grey = int(rng.integers(225, 256) if rng.random() < 0.8 else rng.integers(0, 256))
    if rng.random() < 0.7:
        return grey, grey, grey
    red, green, blue = rng.integers(180, 256, 3).tolist()
    return red, green, blue


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--output", type=Path, required=True, help="folder for the pictures")
    parser.add_argument("--templates", type=int, default=16, help="of each kind")
    parser.add_argument("--contents", type=int, default=7, help="of each template")
    parser.add_argument(
        "--kinds", nargs="+", choices=list(KINDS), default=list(KINDS), metavar="KIND", help="default: all"
    )
    parser.add_argument("--first-template", type=int, default=0, help="other numbers give other templates")
    parser.add_argument("--workers", type=int, default=2, help="processes")
    given = parser.parse_args(arguments)
    given.output.mkdir(parents=True, exist_ok=True)
    documents = [
        Document(kind, given.first_template + template, content, given.output)
        for kind in given.kinds
        for template in range(given.templates)
        for content in range(given.contents)
    ]
    if given.workers < 2:
        for document in tqdm(documents, mininterval=5):
            document.save()
        return
    with get_context("spawn").Pool(given.workers) as pool:
        for _ in tqdm(pool.imap_unordered(Document.save, documents, chunksize=8), total=len(documents), mininterval=5):
            pass


if __name__ == "__main__":
    main()
