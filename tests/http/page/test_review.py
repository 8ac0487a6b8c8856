"""Review in a real browser: what is decided is what was shown, once, and can be read afterwards."""

import json
from itertools import islice

import numpy as np
import pytest
from playwright.sync_api import Browser, Page, Route, expect

from consumer.http.page.rendering import TEXTS
from consumer.local.pictures import edited, photographs
from tests.http.page.conftest import (
    BOXES,
    CALM,
    LOADED,
    Site,
    address,
    open_campaign,
    press,
    settle,
    window,
)
from tests.http.pictures import PHOTO, jpeg
from tests.processes import until

CAPTIONS = "[...document.querySelectorAll('.role')].map((role) => role.innerText)"
SEVERAL_MATCHES = TEXTS["review"]["several_matches"]
SHOWN = "[...document.querySelectorAll('.pair img')].map((image) => new URL(image.src).searchParams.get('image_id'))"


def upload_copies(site: Site, page: Page, tenant: str, count: int) -> None:
    """Upload a picture and copies of it for a tenant, and open their campaign."""
    site.upload(tenant, "first", jpeg(PHOTO))
    for number in range(1, count + 1):
        site.upload(tenant, f"copy {number}", jpeg(PHOTO.crop((0, 0, 512 - number, 512)), 80))
    open_campaign(site, page, tenant, count + 1)


def decisions(site: Site, tenant: str) -> list[tuple[str, str, str]]:
    """What was sent about a tenant's pictures: each upload, its match and the decision."""
    events = [json.loads(message.value() or b"") for message in site.service.all_messages(site.feedback_topic)]
    return [(each["image_id"], each["match_id"], each["decision"]) for each in events if each["tenant"] == tenant]


def test_each_copy_is_shown_with_its_own_match_and_decided_alone(site: Site, page: Page) -> None:
    upload_copies(site, page, "several", 3)
    expect(page.locator(".next")).to_contain_text("a key decides all 3 copies together")
    shown = []
    for number in (1, 2, 3):
        expect(page.get_by_role("button", name=f"Other copy · {number} of 3")).to_be_visible()
        shown.append(page.evaluate(SHOWN))
        assert page.evaluate(CAPTIONS) == [f"Earlier picture {shown[-1][0]}", f"Upload {shown[-1][1]}"]
        expect(page.locator(".copies [aria-current]")).to_have_text(shown[-1][1])
        page.keyboard.press("o")
        expect(page.locator(f"#decide [name=image_id][value='{shown[-1][1]}']")).to_have_count(0)
        expect(page.locator(CALM)).to_be_attached()
    assert [each[1] for each in shown] == ["copy 3", "copy 2", "copy 1"]
    page.get_by_role("link", name="copy 2").focus()
    page.keyboard.press("Enter")
    expect(page.get_by_role("button", name="Other copy · 2 of 3")).to_be_visible()
    expect(page.locator(CALM)).to_be_attached()
    # One alone: the campaign stays open, and the next of it is shown.
    page.keyboard.press("t")
    expect(page.locator(".next")).to_contain_text("a key decides this copy alone")
    press(page, "r", "You said that copy 2 is no copy of first.")
    expect(page.locator(".next")).to_contain_text("0 of 1 decided · this one: 3 copies")
    assert page.evaluate(SHOWN) == ["first", "copy 3"]
    copies = page.locator(".copies li")
    expect(copies.filter(has_text="decided: different")).to_have_count(1)
    expect(copies.filter(has_text="copy 2")).to_contain_text("decided: different")
    expect(page.get_by_text(SEVERAL_MATCHES)).to_have_count(0)
    expect(page.locator(".next")).to_contain_text("a key decides this copy alone")  # chosen for the session
    page.goto(f"{address(site, 'campaigns')}?tenant=several")
    expect(page.locator("tbody tr")).to_contain_text("2 copies are still to decide.")
    page.get_by_role("link", name="Review first").click()
    press(page, "c", "You said that copy 3 is a copy of first.")
    press(page, "r", "You said that copy 1 is no copy of first.")
    expect(page.get_by_role("heading", level=1)).to_have_text("All decided")
    assert decisions(site, "several") == [
        ("copy 2", "first", "reject"),
        ("copy 3", "first", "confirm"),
        ("copy 1", "first", "reject"),
    ]
    # Each decision is shown with its copy, and taken back with it alone.
    page.goto(f"{address(site, 'review')}?tenant=several&image_id=copy 3")
    expect(page.locator("#said")).to_contain_text("UTC by somebody not signed in: same.")
    press(page, "u", "Taken back: copy 3 is to be decided again.")
    expect(page.locator(".next strong")).to_have_text("0 of 1 decided")
    assert page.evaluate(SHOWN) == ["first", "copy 3"]
    assert decisions(site, "several")[3:] == [("copy 3", "first", "withdraw")]


def test_a_copy_that_is_opened_from_now_is_the_one_that_is_shown(site: Site, page: Page) -> None:
    upload_copies(site, page, "opened", 3)
    page.goto(f"{address(site, 'now')}?tenant=opened")
    page.get_by_role("link", name="Look at copy 1").click()
    expect(page.locator("html.js #case")).to_be_attached()
    assert page.evaluate(SHOWN) == ["first", "copy 1"]


def test_enter_in_the_note_decides_nothing_and_the_note_is_shown_later(site: Site, page: Page) -> None:
    upload_copies(site, page, "noted", 1)
    note = page.get_by_label("Note")
    page.keyboard.press("m")
    expect(note).to_be_focused()
    page.keyboard.type("different receipt")
    page.keyboard.press("Enter")
    expect(note).not_to_be_focused()
    expect(page.locator(".next strong")).to_have_text("0 of 1 decided")
    assert decisions(site, "noted") == []
    press(page, "r", "You said that copy 1 is no copy of first. Note: “different receipt”")  # keys work at once
    page.goto(f"{address(site, 'review')}?tenant=noted&image_id=copy 1")
    expect(page.locator("#said")).to_contain_text("different. Note: “different receipt”")


def test_a_second_tap_decides_nothing(site: Site, page: Page) -> None:
    # The moment in which nothing is decided lasts until the test ends it, however long its taps take.
    page.add_init_script(
        "{ const real = setTimeout;"
        "window.setTimeout = (f, ms, ...more) => ms === 400 ? void (window.endMoment = f) : real(f, ms, ...more); }"
    )
    upload_copies(site, page, "tapped", 3)
    page.keyboard.press("t")
    for first, second in (("c", "c"), ("u", "u")):
        page.keyboard.press(first)
        page.wait_for_selector("[data-fresh]", state="attached")
        page.keyboard.press(second)
        page.locator(f".decisions [aria-keyshortcuts={first}]" if first == "c" else "[aria-keyshortcuts=c]").click()
        page.evaluate("endMoment()")
        expect(page.locator(CALM)).to_be_attached()
    assert decisions(site, "tapped") == [("copy 3", "first", "confirm"), ("copy 3", "first", "withdraw")]


def test_keys_during_a_request_decide_nothing(site: Site, page: Page) -> None:
    upload_copies(site, page, "hurried", 3)
    page.keyboard.press("t")
    held = list[Route]()

    def hold(route: Route) -> None:
        held.append(route)

    page.route("**/review?*", hold)
    page.keyboard.press("c")
    expect(page.locator("body[data-busy]")).to_be_attached()
    for key in "rcno":
        page.keyboard.press(key)
    page.get_by_role("button", name="Skip").click()
    assert len(held) == 1
    held[0].continue_()
    expect(page.locator(CALM)).to_be_attached()
    assert decisions(site, "hurried") == [("copy 3", "first", "confirm")]
    expect(page.locator("#said")).to_have_text("You said that copy 3 is a copy of first.")


def test_what_is_skipped_comes_again_and_undo_says_what_it_takes_back(site: Site, page: Page) -> None:
    upload_copies(site, page, "skipped", 2)
    page.keyboard.press("t")
    press(page, "c", "You said that copy 2 is a copy of first.")
    press(page, "n", "Skipped; it comes again at the end.")
    expect(page.get_by_role("button", name="Undo: copy 2")).to_be_visible()
    press(page, "u", "Taken back: copy 2 is to be decided again.")


def test_what_is_skipped_comes_behind_all_others(site: Site, page: Page) -> None:
    for number, (_, photograph) in enumerate(islice(photographs(), 3)):
        site.upload("skips", f"first {number}", photograph)
        site.upload("skips", f"copy {number}", edited(photograph, "re-compressed", np.random.default_rng(0)))

    def knows_all() -> bool:
        page.goto(f"{address(site, 'campaigns')}?tenant=skips")
        return page.locator("tbody tr").count() == 3

    until(knows_all, 60, "the page does not know them all")
    page.goto(f"{address(site, 'review')}?tenant=skips")
    expect(page.locator(".next strong")).to_have_text("0 of 3 decided")
    shown = [page.evaluate(SHOWN)]
    for key in "ncc":
        page.keyboard.press(key)
        expect(page.locator(f"#decide [name=image_id][value='{shown[-1][1]}']")).to_have_count(0)
        expect(page.locator(CALM)).to_be_attached()
        shown.append(page.evaluate(SHOWN))
    assert len({upload for _, upload in shown}) == 3
    assert shown[3] == shown[0]


def test_it_is_said_where_copies_have_different_earlier_pictures(site: Site, page: Page) -> None:
    copy = jpeg(PHOTO.crop((0, 0, 500, 512)), 80)
    for name, data in (("first", jpeg(PHOTO)), ("copy", copy), ("copy again", copy)):
        site.upload("differ", name, data)
    open_campaign(site, page, "differ", 3)
    expect(page.get_by_text(SEVERAL_MATCHES)).to_be_visible()
    assert page.evaluate(SHOWN) == ["first", "copy"]
    page.keyboard.press("o")
    expect(page.locator(".pair")).to_contain_text("Upload copy again")
    assert page.evaluate(SHOWN) == ["copy", "copy again"]


def test_focus_goes_to_what_is_next_however_it_was_decided(site: Site, page: Page) -> None:
    upload_copies(site, page, "focused", 3)
    page.keyboard.press("t")
    for focused, key in (("c", "r"), ("r", "Enter"), ("u", "Enter")):
        page.locator(f"[aria-keyshortcuts={focused}]").focus()
        page.keyboard.press(key)
        expect(page.locator(".next")).to_be_focused()
        expect(page.locator(CALM)).to_be_attached()


def test_a_list_of_banks_gives_the_keys_back(site: Site, page: Page) -> None:
    upload_copies(site, page, "listed", 1)
    for name in ("one", "two"):
        page.goto(f"{address(site, 'banks')}?tenant=listed")
        page.get_by_label("Name").fill(name)
        page.get_by_role("button", name="Create").click()
    open_campaign(site, page, "listed", 2)
    banks = page.get_by_label("Bank to put it into")
    is_open = "document.querySelector('#case select').matches(':open')"
    banks.focus()
    page.keyboard.press("Space")
    settle(page, is_open)
    page.keyboard.press("ArrowDown")
    page.keyboard.press("Enter")
    settle(page, f"!{is_open}")
    expect(banks).to_have_value("two")
    expect(banks).not_to_be_focused()
    banks.focus()
    page.keyboard.press("ArrowUp")  # chooses in the closed list, where others may be wanted
    expect(banks).to_have_value("one")
    expect(banks).to_be_focused()
    page.keyboard.press("Enter")
    expect(banks).not_to_be_focused()


@pytest.mark.parametrize(("width", "height"), [(1280, 900), (390, 844)], ids=["desk", "phone"])
def test_captions_cover_nothing_and_pictures_grow(site: Site, browser: Browser, width: int, height: int) -> None:
    with window(browser, width, height) as page:
        page.goto(address(site, "review?campaign=coffee.png"))
        settle(page, LOADED)

        def tops() -> list[tuple[float, float]]:
            found = []
            for layer in page.locator(".layer").all():
                caption, view = layer.locator(".role").bounding_box(), layer.locator(".view").bounding_box()
                assert caption is not None
                assert view is not None
                found.append((caption["y"] + caption["height"], view["y"]))
            return found

        assert all(bottom <= top + 0.5 for bottom, top in tops())
        before = page.evaluate(BOXES)[0][2]
        page.keyboard.press("z")
        settle(page, f"{BOXES}[0][2] > {before} * 1.3")
        assert page.evaluate("document.documentElement.scrollWidth") <= width
        assert all(bottom <= top + 0.5 for bottom, top in tops())
        page.keyboard.press("v")
        assert all(bottom <= top + 0.5 for bottom, top in tops())


@pytest.mark.parametrize(("width", "height"), [(1280, 800), (390, 844), (640, 400)], ids=["desk", "phone", "zoom 200%"])
@pytest.mark.parametrize("name", ["coffee.png", "tall"])
def test_large_pictures_are_seen_whole_at_once(
    site: Site, browser: Browser, name: str, width: int, height: int
) -> None:
    with window(browser, width, height) as page:
        page.goto(address(site, f"review?campaign={name}"))
        settle(page, LOADED)
        for key in "zv":  # beside or above each other, and upon each other
            page.keyboard.press(key)
            page.wait_for_timeout(100)
            for view in page.locator(".view").all():
                box = view.bounding_box()
                assert box is not None
                assert 0 <= box["y"] <= height - box["height"]


@pytest.mark.parametrize(("width", "height"), [(1280, 900), (390, 844)], ids=["desk", "phone"])
def test_nothing_moves_when_something_is_said(site: Site, browser: Browser, width: int, height: int) -> None:
    with window(browser, width, height) as page:
        tenant = f"steady {width}"
        first, *copies = (f"a-picture-with-a-name-of-several-words-{number}.jpg" for number in range(3))
        for number, name in enumerate((first, *copies)):
            site.upload(tenant, name, jpeg(PHOTO.crop((0, 0, 512 - number, 512)), 80))
        open_campaign(site, page, tenant, 3)
        settle(page, LOADED)
        places = "[...document.querySelectorAll('.decisions, #case')].map((each) => each.getBoundingClientRect().top)"
        before = page.evaluate(places)
        page.keyboard.press("t")
        press(page, "r", f"You said that {copies[1]} is no copy of {first}.")
        assert page.evaluate(places) == before
        # Whatever is focused, or stands at the end, can be seen beside what was said.
        said = page.locator("#said").bounding_box()
        assert said is not None
        for control in page.locator("#case :is(a, button, input:not([type=hidden])):visible").all():
            control.focus()
            box = control.bounding_box()
            assert box is not None
            assert box["y"] + box["height"] <= said["y"] or box["y"] >= said["y"] + said["height"]


def test_an_entry_made_by_a_decision_is_listed_by_its_picture(site: Site, page: Page) -> None:
    upload_copies(site, page, "kept", 1)
    page.goto(f"{address(site, 'banks')}?tenant=kept")
    page.get_by_label("Name").fill("stolen")
    page.get_by_role("button", name="Create").click()
    open_campaign(site, page, "kept", 2)
    expect(page.locator("html.js")).to_be_attached()
    page.keyboard.press("b")
    expect(page.locator("#said")).to_contain_text(
        "Added to the bank stolen, which blocks. The picture added is copy 1."
    )
    for _ in range(100):
        page.goto(f"{address(site, 'banks/entries')}?tenant=kept&bank=stolen")
        if page.get_by_role("button", name="Remove copy 1").count():
            break
        page.wait_for_timeout(100)
    expect(page.get_by_role("cell", name="copy 1", exact=True)).to_be_visible()


def test_the_same_file_adds_the_earlier_picture_to_a_bank_while_that_is_there(site: Site, browser: Browser) -> None:
    with window(browser, expected="409") as page:
        for name in ("first", "same file"):
            site.upload("same", name, jpeg(PHOTO))
        page.goto(f"{address(site, 'banks')}?tenant=same")
        page.get_by_label("Name").fill("stolen")
        page.get_by_role("button", name="Create").click()
        open_campaign(site, page, "same", 2)
        said = "You said that same file is a copy of first. Added to the bank stolen, which blocks."
        press(page, "b", f"{said} The picture added is first.")
        press(page, "u", "Taken back: same file is to be decided again.")
        settle(page, LOADED)  # neither is asked for when it is gone
        assert site.client.delete("/v1/images/first", params={"tenant": "same"}).status_code == 202
        gone = {"tenant": "same", "image_id": "first"}
        until(lambda: site.client.get("/pictures", params=gone).status_code == 404, 60, "it is still there")
        page.keyboard.press("b")
        expect(page.get_by_role("alert")).to_have_text("Neither picture is in the window any more, to be added.")
        assert [each[2] for each in decisions(site, "same")] == ["confirm", "withdraw"]
