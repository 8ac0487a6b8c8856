"""What the page is made of: files of others as published, one catalogue of all texts, measured points of the model."""

import re
from hashlib import sha256
from importlib.resources import files
from pathlib import Path

import pytest

from consumer.http.page.calibration import read_measured
from consumer.http.page.rendering import TEXTS

PAGE = Path(str(files("consumer.http.page")))
TEMPLATES = sorted((PAGE / "templates").glob("*.html"))
CARD = Path(str(files("triton_models"))) / "repository" / "image_encoder" / "README.md"
PUBLISHED = {
    "htmx.min.js": "22283ef68cb7545914f0a88a1bdedc7256a703d1d580c1d255217d0a50d31313",
    "sse.min.js": "98a46496de0c3605fbffdce9167ba427bdd9553184f83f149c261891a92c0136",
    "pico.classless.min.css": "61207a40ffc02a42d1e50143651c121beab70ed413c934c1ff84fa263ba436b0",
}


def test_files_of_others_are_as_published_and_their_licence_is_named() -> None:
    licences = (PAGE / "static" / "THIRD_PARTY.md").read_text()
    for name, digest in PUBLISHED.items():
        assert sha256((PAGE / "static" / name).read_bytes()).hexdigest() == digest
        assert name in licences
    own = {"seenit.js", "import.js", "now.js", "seenit.css", "chart.css", "now.css", "pair.css"}
    own |= {"icon.svg", "THIRD_PARTY.md"}
    assert {path.name for path in (PAGE / "static").iterdir()} == own | set(PUBLISHED)


@pytest.mark.parametrize("template", TEMPLATES, ids=lambda path: path.name)
def test_no_template_has_texts_of_its_own(template: Path) -> None:
    text = re.sub(r"\{#.*?#\}|\{%.*?%\}|\{\{.*?\}\}|<kbd>.</kbd>", "", template.read_text(), flags=re.DOTALL)
    outside_tags = re.sub(r"<[^>]*>", " ", text)
    assert re.findall(r"\w{2,}", re.sub(r"&\w+;", "", outside_tags)) == []
    assert re.findall(r"(?:title|aria-label|placeholder|alt)=\"[^\"]*\w", text) == []


def test_every_text_is_used() -> None:
    used = "".join(path.read_text() for path in (*TEMPLATES, *PAGE.glob("*.py")))
    chosen_at_run_time = {"pages", "done_confirm", "done_reject", "decision_confirm", "decision_reject"}
    chosen_at_run_time |= {"kafka", "redis", "triton", "exact", "near", "unique", "unprocessable"}
    chosen_at_run_time |= {"block", "review", "allow", "into_block", "into_review", "into_allow", "into_unknown"}
    unused = [
        f"{section}.{name}"
        for section, texts in TEXTS.items()
        for name in texts
        if section != "pages" and name not in chosen_at_run_time
        if f"t.{section}.{name}" not in used and f'["{section}"]["{name}"]' not in used
    ]
    assert unused == []


def test_the_points_of_the_model_are_those_of_its_card() -> None:
    card = CARD.read_text()
    version = re.search(r"^Version `(\w+)`", card, re.MULTILINE)
    assert version is not None
    measured = read_measured(version[1])
    assert measured is not None
    for row, name in (("called duplicates", "innocence"), ("copies found", "recall")):
        found = re.search(rf"\| \*\*{row}\*\*[^|]*\| ([\d.]+) \| ([\d.]+) \| ([\d.]+) \|", card)
        assert found is not None
        assert [float(each) for each in found.groups()] == [
            measured[name][each] for each in ("strict", "balanced", "eager")
        ]
    assert f"{measured['pictures']:,} pictures" in card
    assert read_measured("another") is None
