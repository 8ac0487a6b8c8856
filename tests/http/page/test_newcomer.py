"""The way of a newcomer, from the address that `seenit up` prints: a match with its boxes, and uploads to review."""

import os
import re
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from playwright.sync_api import Page, expect

from consumer.local.binaries import Binaries, home
from tests.http.page.conftest import BOXES, LOADED, settle
from tests.http.pictures import PHOTO, jpeg

COMMAND = """
import sys; from pathlib import Path; from consumer.local import binaries
binaries.CHECKOUT = Path("/nowhere")
from consumer.cli.app import main
sys.argv[0] = "seenit"; main()
"""
Seenit = Callable[..., str]


@pytest.fixture
def seenit(binaries: Binaries, tmp_path: Path) -> Iterator[Seenit]:
    """The command, with a home of its own that links to the installed binaries; what it prints."""
    (tmp_path / "seenit").mkdir()
    installed = next(path for path in binaries.triton.parents if path.parent == home())
    (tmp_path / "seenit" / installed.name).symlink_to(installed)
    environment = {name: value for name, value in os.environ.items() if not name.startswith("SEENIT_")}

    def run(*arguments: str) -> str:
        done = subprocess.run(
            [sys.executable, "-c", COMMAND, *arguments],
            env={**environment, "XDG_CACHE_HOME": str(tmp_path)},
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 0, done.stderr
        return done.stdout

    yield run
    run("down")


@pytest.mark.timeout(240)
def test_from_the_printed_address_to_a_match_with_its_boxes(
    seenit: Seenit, page: Page, pictures: Callable[[str, bytes], str]
) -> None:
    first = pictures("holiday.jpg", jpeg(PHOTO))
    second = pictures("holiday-small.jpg", jpeg(PHOTO.crop((60, 20, 470, 400)), 60))
    printed = re.search(r"^The page: (http://\S+)$", seenit("up"), re.MULTILINE)
    assert printed is not None
    page.goto(printed[1])
    page.get_by_role("link", name="Try", exact=True).click()
    expect(page.locator("html.js #try")).to_be_attached()  # its scripts listen by then
    page.get_by_label("A picture", exact=True).set_input_files(first)
    page.get_by_label("Another version of it").set_input_files(second)
    page.get_by_role("button", name="Compare").click()
    expect(page.get_by_role("heading", name="Seenit takes these for the same picture.")).to_be_visible()
    settle(page, LOADED)
    page.keyboard.press("v")
    one, other = page.evaluate(BOXES)
    assert one[2] > 100
    assert other == pytest.approx(one, abs=3)
    # As the README goes on: what is uploaded shows up by itself, and can be reviewed.
    page.get_by_role("link", name="Now", exact=True).click()
    expect(page.get_by_text("No duplicates yet.")).to_be_visible()
    seenit("upload", first)
    seenit("upload", second)
    page.get_by_role("link", name="holiday-small.jpg").click()
    expect(page.get_by_role("heading", name="Is this the same picture?")).to_be_visible()
    settle(page, LOADED)
