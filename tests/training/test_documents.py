"""Drawn documents: one template looks alike with any content, and the command writes what it was asked for."""

from pathlib import Path

import numpy as np
from PIL import Image

from triton_models.training.documents import KINDS, draw
from triton_models.training.documents.__main__ import LONGEST_SIDE_PX, Document, main, place_on_page


def test_seeds_decide_and_contents_differ() -> None:
    kind = "receipt"
    first, again, other = (draw(kind, 3, content) for content in (0, 0, 1))
    assert first.tobytes() == again.tobytes()
    assert first.tobytes() != other.tobytes()


def test_a_page_is_the_same_for_all_contents_of_a_template(tmp_path: Path) -> None:
    picture = Image.new("RGB", (40, 60), (255, 0, 0))
    pages = [
        [place_on_page(picture, Document("letter", template, content, tmp_path)) for content in range(3)]
        for template in range(30)
    ]
    sizes = [{page.size for page in of_template} for of_template in pages]
    assert all(len(each) == 1 for each in sizes)
    on_page = [of_template for of_template in pages if of_template[0].size != picture.size]
    assert 5 < len(on_page) < 25
    for page in on_page[0]:  # all of the document is on the page
        red = (np.asarray(page) == (255, 0, 0)).all(axis=2)
        assert red.sum() == 40 * 60


def test_the_command_draws_a_folder(tmp_path: Path) -> None:
    kinds = list(KINDS)[:2]
    main(["--output", str(tmp_path), "--templates", "1", "--contents", "2", "--workers", "1", "--kinds", *kinds])
    files = sorted(path.name for path in tmp_path.iterdir())
    assert files == sorted(f"{kind}-00-{content}.webp" for kind in kinds for content in range(2))
    for name in files:
        with Image.open(tmp_path / name) as picture:
            assert max(picture.size) <= LONGEST_SIDE_PX
