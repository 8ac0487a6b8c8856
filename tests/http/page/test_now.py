"""The page Now in a real browser: it is live, and nobody on it loses their place."""

import pytest
from playwright.sync_api import Page, expect

from consumer.http.page.activity import MAX_LATEST
from tests.http.page.conftest import Site, address
from tests.http.pictures import PHOTO, jpeg


def test_now_is_live(site: Site, page: Page) -> None:
    page.goto(address(site, "now"))
    expect(page.get_by_text("Kafka: works")).to_be_visible()
    site.service.picture("while somebody looks", jpeg(PHOTO))
    expect(page.get_by_role("link", name="Look at while somebody looks")).to_be_visible()
    page.get_by_role("link", name="Look at while somebody looks").click()
    expect(page.get_by_role("heading", name="Is this the same picture?")).to_be_visible()


@pytest.mark.parametrize("moves", [True, False], ids=["moves", "moves not"])
def test_whoever_is_on_a_row_stays_there_while_others_come(site: Site, page: Page, moves: bool) -> None:
    """In a browser that can move an element as it is, and in one that cannot yet."""
    if not moves:
        page.add_init_script("delete Element.prototype.moveBefore")
    tenant = f"watched {moves}"
    site.upload(tenant, "first", jpeg(PHOTO))
    site.upload(tenant, "copy 0", jpeg(PHOTO, 60))
    page.goto(f"{address(site, 'now')}?tenant={tenant}")
    link = page.get_by_role("link", name="Look at copy 0")
    link.focus()
    page.evaluate("window.row = document.activeElement.closest('tr')")
    site.upload(tenant, "copy 1", jpeg(PHOTO, 61))
    expect(page.get_by_role("link", name="Look at copy 1")).to_be_visible()
    expect(link).to_be_focused()
    assert page.evaluate("row === document.activeElement.closest('tr')")  # the same to a screen reader as well
    # Once it leaves the list, the focus goes to the list.
    for number in range(2, MAX_LATEST + 1):
        site.upload(tenant, f"copy {number}", jpeg(PHOTO, 60 + number))
    expect(link).to_have_count(0)
    expect(page.get_by_role("region", name="Latest duplicates")).to_be_focused()
