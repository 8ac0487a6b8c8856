"""The page in a real browser, with real data: sound, accessible, live, and fit for review by keyboard alone."""

import json
import re
from collections.abc import Callable
from importlib.resources import files
from io import BytesIO
from typing import Any

import pytest
from PIL import Image
from playwright.sync_api import Browser, Page, expect

from consumer.http.page.rendering import PAGES, TEXTS
from tests.http.page.conftest import (
    BOXES,
    CALM,
    HOSTILE_ID,
    LOADED,
    Site,
    address,
    open_campaign,
    press,
    settle,
    window,
)
from tests.http.pictures import PHOTO, jpeg

AXE = (files("axe_playwright_python") / "axe.min.js").read_text()
MAY_BE_WRONG = TEXTS["try"]["may_be_wrong"]
MAX_WEIGHT_BYTES, MAX_PAINT_MS = 150_000, 1000


def is_invisible(finding: dict[str, Any]) -> bool:
    """Whether text has the colour of its ground, which axe takes for text that is hidden on purpose."""
    checks = (check for node in finding["nodes"] for check in node["any"])
    return finding["id"] == "color-contrast" and any(
        (check["data"] or {}).get("messageKey") == "equalRatio" for check in checks
    )


@pytest.mark.parametrize(("width", "scheme"), [(1280, "light"), (390, "dark")])
@pytest.mark.parametrize("name", PAGES)
def test_every_page_is_accessible_and_fits(site: Site, browser: Browser, name: str, width: int, scheme: str) -> None:
    with window(browser, width, 844, scheme) as page:
        page.goto(address(site, name))
        page.evaluate(AXE)
        result = page.evaluate("axe.run()")
        found = [*result["violations"], *(each for each in result["incomplete"] if is_invisible(each))]
        assert [(each["id"], [node["html"] for node in each["nodes"]]) for each in found] == []
        assert page.evaluate("document.documentElement.scrollWidth") <= width


def test_the_page_is_light_and_quick(site: Site, page: Page) -> None:
    for name in PAGES:
        page.goto(address(site, name))
        settle(page, LOADED)
        sizes = page.evaluate(
            "performance.getEntries().filter((e) => !/pictures\\?/.test(e.name)).map((e) => e.decodedBodySize ?? 0)"
        )
        assert 0 < sum(sizes) <= MAX_WEIGHT_BYTES, name
    paints = []
    for _ in range(5):
        page.goto(address(site, "now"))
        settle(page, "performance.getEntriesByName('first-contentful-paint').length")
        paints.append(page.evaluate("performance.getEntriesByName('first-contentful-paint')[0].startTime"))
    assert min(paints) <= MAX_PAINT_MS


def test_two_versions_are_laid_upon_each_other(site: Site, page: Page, pictures: Callable[[str, bytes], str]) -> None:
    page.goto(address(site, "try"))
    page.set_input_files("[name=first]", pictures("a.jpg", jpeg(PHOTO)))
    page.set_input_files("[name=second]", pictures("b.jpg", jpeg(PHOTO.crop((60, 20, 470, 400)), 60)))
    page.get_by_role("button", name="Compare").click()
    expect(page.get_by_role("heading", name="Seenit takes these for the same picture.")).to_be_visible()
    expect(page.get_by_text(MAY_BE_WRONG)).to_be_visible()
    settle(page, LOADED)
    first, second = page.evaluate(BOXES)
    assert first[2] > 100
    assert second[0] > first[0] + first[2]  # beside each other
    page.keyboard.press("v")
    first, second = page.evaluate(BOXES)
    assert first[2] > 100
    assert second == pytest.approx(first, abs=3)  # both boxes lie upon each other, and so do the pictures


def test_that_files_are_the_same_is_no_opinion(site: Site, page: Page, pictures: Callable[[str, bytes], str]) -> None:
    page.goto(address(site, "try"))
    for name in ("first", "second"):
        page.set_input_files(f"[name={name}]", pictures(f"{name}.jpg", jpeg(PHOTO)))
    page.get_by_role("button", name="Compare").click()
    expect(page.get_by_role("heading", name="The same file, byte for byte.")).to_be_visible()
    expect(page.get_by_text(MAY_BE_WRONG)).to_have_count(0)


def test_one_picture_is_looked_up(site: Site, page: Page, pictures: Callable[[str, bytes], str]) -> None:
    page.goto(address(site, "try"))
    page.set_input_files("[name=first]", pictures("a.jpg", jpeg(PHOTO.crop((20, 20, 480, 490)), 60)))
    page.get_by_role("button", name="Compare").click()
    expect(page.get_by_role("heading", name="Seenit takes this for a picture uploaded before.")).to_be_visible()
    expect(page.get_by_text(MAY_BE_WRONG)).to_be_visible()
    settle(page, LOADED)
    expect(page.locator("#result h3").first).to_contain_text("astronaut")


def test_what_is_no_picture_is_refused_with_the_reason(
    site: Site, page: Page, pictures: Callable[[str, bytes], str]
) -> None:
    page.goto(address(site, "try"))
    page.set_input_files("[name=first]", pictures("a.jpg", b"no picture"))
    page.get_by_role("button", name="Compare").click()
    expect(page.get_by_role("alert").first).to_contain_text("no picture of a known format")


def test_stored_scripts_are_shown_as_text(site: Site, page: Page) -> None:
    for name in ("now", "review?campaign=" + "astronaut.png", "campaigns"):
        page.goto(address(site, name))
        assert page.title().endswith("Seenit")
    page.goto(address(site, "review?campaign=astronaut.png"))
    expect(page.locator(".copies").get_by_text(HOSTILE_ID, exact=True)).to_be_visible()
    page.get_by_label("Note").fill(HOSTILE_ID)
    page.get_by_label("Bank to put it into").select_option(HOSTILE_ID)
    page.get_by_role("button", name="Same, to a bank").click()
    expect(page.locator("#said")).to_contain_text("is a copy of astronaut.png.")
    expect(page.locator("#said")).to_contain_text(f"Added to the bank {HOSTILE_ID}, which blocks.")
    expect(page.locator("#said")).to_contain_text(f"Note: “{HOSTILE_ID}”")
    page.goto(address(site, "campaigns"))
    expect(
        page.get_by_text(f"same, by somebody not signed in. Added to the bank {HOSTILE_ID}, which blocks.")
    ).to_be_visible()
    assert page.title().endswith("Seenit")


FILTERS = "[...document.querySelectorAll('#case img')].map((image) => getComputedStyle(image).filter)"


def skip(page: Page) -> None:
    """Go to the next campaign, and wait until it is there."""
    campaign = page.locator("#decide [name=campaign]").get_attribute("value")
    page.keyboard.press("n")
    expect(page.locator(f"#decide [name=campaign][value={json.dumps(campaign)}]")).to_have_count(0)
    expect(page.locator(CALM)).to_be_attached()


def test_pictures_are_blurred_until_asked_for(site: Site, page: Page) -> None:
    page.goto(address(site, "review?campaign=astronaut.png"))
    assert len(page.evaluate(FILTERS)) > 2  # both pictures, and small ones of the copies
    assert all("blur" in each for each in page.evaluate(FILTERS))
    page.keyboard.press("s")
    assert set(page.evaluate(FILTERS)) == {"none"}
    skip(page)  # it was asked for one picture alone
    assert all("blur" in each for each in page.evaluate(FILTERS))


def test_how_pictures_are_shown_is_chosen_once_for_a_session(site: Site, page: Page) -> None:
    page.goto(address(site, "review?campaign=astronaut.png"))
    for key, name in (("k", "Keep pictures visible"), ("g", "Grey"), ("v", "Laid upon each other"), ("z", "Larger")):
        toggle = page.get_by_role("button", name=name)
        expect(toggle).to_have_attribute("aria-pressed", "false")
        assert toggle.inner_text().split()[-2] == "off"
        page.keyboard.press(key)
        expect(toggle).to_have_attribute("aria-pressed", "true")
        assert toggle.inner_text().split()[-2] == "on"
    blur = page.get_by_role("button", name="Blur")
    for go_on in (lambda: skip(page), page.reload):
        go_on()
        expect(blur).to_have_attribute("aria-pressed", "false")
        expect(page.locator(".pair")).to_have_class("pair grey laid large visible")
        assert set(page.evaluate(FILTERS)) == {"grayscale(1)"}
    page.keyboard.press("k")
    expect(blur).to_have_attribute("aria-pressed", "true")
    page.keyboard.press("v")
    page.keyboard.press("z")
    page.reload()
    expect(page.locator(".pair")).to_have_class("pair blurred grey")


def test_the_slider_and_its_keys_move_the_line_the_same_way(site: Site, page: Page) -> None:
    page.goto(address(site, "review"))
    expect(page.locator("[data-slider]")).to_be_hidden()
    page.keyboard.press("v")
    slider, line = page.locator("[data-slider]"), "getComputedStyle(document.querySelector('.stage'), '::after').left"
    width = page.locator(".stage").evaluate("(stage) => stage.clientWidth")

    def shown() -> tuple[float, int]:
        return float(page.evaluate(line).removesuffix("px")) / width, int(slider.input_value())

    assert shown() == (pytest.approx(0.5, abs=0.01), 50)
    for focused in (False, True):  # the page's own keys, and those of the slider
        if focused:
            slider.focus()
        page.keyboard.press("ArrowRight")
        assert shown() == (pytest.approx(0.55, abs=0.01), 55)
        page.keyboard.press("ArrowLeft")
        page.keyboard.press("ArrowLeft")
        assert shown() == (pytest.approx(0.45, abs=0.01), 45)
        page.keyboard.press("ArrowRight")


def test_what_a_cropped_picture_does_not_reach_is_not_the_page(
    site: Site, page: Page, pictures: Callable[[str, bytes], str]
) -> None:
    page.goto(address(site, "try"))
    page.set_input_files("[name=first]", pictures("a.jpg", jpeg(PHOTO)))
    page.set_input_files("[name=second]", pictures("b.jpg", jpeg(PHOTO.crop((60, 20, 400, 360)))))
    page.get_by_role("button", name="Compare").click()
    expect(page.locator(".result .yes")).to_be_visible()
    settle(page, LOADED)
    page.keyboard.press("v")
    stage = Image.open(BytesIO(page.locator(".stage").screenshot())).convert("RGB")
    corner = stage.crop((stage.width - 60, stage.height - 90, stage.width - 10, stage.height - 50))
    assert len(corner.getcolors(2000) or ()) > 1
    assert (255, 255, 255) not in {colour for _, colour in corner.getcolors(2000) or ()}


def test_twenty_campaigns_are_decided_by_keyboard(site: Site, page: Page) -> None:
    page.goto(address(site, "review"))
    decided = []
    for turn in range(20):
        campaign = page.locator("#decide [name=campaign]").get_attribute("value")
        page.keyboard.press("s")
        page.keyboard.press("cr"[turn % 2])
        expect(page.locator(f"#decide [name=campaign][value={json.dumps(campaign)}]")).to_have_count(0)
        expect(page.locator(CALM)).to_be_attached()
        decided.append(campaign)
    assert len(set(decided)) == 20, " ".join(map(str, decided))
    page.keyboard.press("u")
    expect(page.locator("#said")).to_contain_text("Taken back:")
    assert page.locator("#decide [name=campaign]").get_attribute("value") == decided[-1]
    expect(page.locator(CALM)).to_be_attached()
    page.keyboard.press("c")  # the latest decision counts
    expect(page.locator("#said")).to_contain_text("is a copy")
    messages = site.service.all_messages(site.feedback_topic)
    events = [json.loads(message.value() or b"") for message in messages]
    last = [each for each in events if each["match_id"] == decided[-1] or each["image_id"] == decided[-1]]
    assert [each["decision"] for each in last] == ["reject", "withdraw", "confirm"]
    assert all(each["by"] == "anybody" and each["tenant"] == "default" for each in last)


FOCUS = """(() => {
  const focused = document.activeElement, style = getComputedStyle(focused), box = focused.getBoundingClientRect();
  return {
    key: focused.getAttribute("aria-keyshortcuts") ?? focused.className,
    seen: style.outlineStyle !== "none" && parseFloat(style.outlineWidth) >= 2 && box.width > 0,
    within: box.top >= 0 && box.bottom <= innerHeight,
  };
})()"""


def count_decided(page: Page) -> int:
    """How many campaigns are decided, as the page says."""
    decided, total = re.findall(r"\d+", page.locator(".next strong").inner_text())
    assert int(decided) <= int(total)
    return int(decided)


def decided(page: Page) -> None:
    """Wait until the next campaign is there."""
    expect(page.locator("#said:not(:empty)")).to_be_visible()
    expect(page.locator(CALM)).to_be_attached()


@pytest.mark.parametrize(("width", "height"), [(1280, 800), (640, 400), (390, 844)], ids=["desk", "zoom 200%", "phone"])
def test_whoever_never_saw_the_page_finds_by_keyboard_what_to_press(
    site: Site, browser: Browser, width: int, height: int
) -> None:
    """From the page that the address opens, by Tab and Enter and what buttons say; nothing has to be scrolled to."""
    with window(browser, width, height) as page:
        page.goto(address(site, "now"))
        for _ in range(5):
            page.keyboard.press("Tab")
            if page.evaluate("document.activeElement.textContent") == "Review":
                break
        assert page.evaluate(FOCUS)["seen"]
        page.keyboard.press("Enter")
        buttons = page.locator(".decisions button")
        expect(buttons).to_have_count(4)
        page.wait_for_load_state()
        assert all(text[-1] == "." for text in buttons.all_inner_texts())  # each says what it does
        for button in buttons.all():
            box = button.bounding_box()
            assert box is not None
            assert 0 <= box["y"] <= height - box["height"]
        hint = page.locator(".hint").bounding_box()
        assert hint is not None
        assert hint["y"] < height
        # By a key of its own the visitor is led to what is next, and hears what was done.
        page.keyboard.press("r")
        decided(page)
        assert page.evaluate(FOCUS) == {"key": "next", "seen": True, "within": True}
        expect(page.locator("#said")).to_contain_text("is no copy")
        # By Tab the first is Same; Enter decides once, however long it is held, and the focus moves on.
        page.keyboard.press("Tab")
        assert page.evaluate(FOCUS) == {"key": "c", "seen": True, "within": True}
        before = count_decided(page)
        page.keyboard.down("Enter")
        decided(page)
        expect(page.locator("#said")).to_contain_text("is a copy")
        page.keyboard.down("Enter")  # again while it is down: a repeat
        page.keyboard.up("Enter")
        assert page.evaluate(FOCUS) == {"key": "next", "seen": True, "within": True}
        assert count_decided(page) == before + 1
        # Two decisions are taken back one after the other, also by who has just opened the page.
        page.goto(address(site, "review"))
        undone = set()
        for number in range(2):
            page.keyboard.press("u")
            expect(page.locator(".next strong")).to_contain_text(f"{before - number} of ")
            expect(page.locator("#said")).to_contain_text("Taken back: ")
            expect(page.locator(CALM)).to_be_attached()
            undone.add(page.locator("#said").inner_text())
        assert len(undone) == 2


def test_what_is_beside_each_other_is_seen_whole(site: Site, page: Page, pictures: Callable[[str, bytes], str]) -> None:
    wide = PHOTO.crop((0, 100, 512, 400))
    screenshot = Image.new("RGB", (512, 900), "white")
    screenshot.paste(wide, (0, 60))
    page.goto(address(site, "try"))
    page.set_input_files("[name=first]", pictures("a.jpg", jpeg(wide)))
    page.set_input_files("[name=second]", pictures("b.jpg", jpeg(screenshot)))
    page.get_by_role("button", name="Compare").click()
    expect(page.locator(".result .yes")).to_be_visible()
    settle(page, LOADED)
    stage = page.locator(".stage").bounding_box()
    assert stage is not None
    for image in page.locator(".pair img").all():
        box = image.bounding_box()
        assert box is not None
        assert box["y"] + box["height"] <= stage["y"] + stage["height"] + 1


def test_a_blurred_picture_is_shown_by_touch(site: Site, page: Page) -> None:
    page.goto(address(site, "review?campaign=coffee.png"))
    settle(page, LOADED)
    page.locator(".hint").click()
    assert page.locator(".pair img").first.evaluate("(image) => getComputedStyle(image).filter") == "none"
    expect(page.get_by_role("button", name="Blur")).to_have_attribute("aria-pressed", "false")


def test_keys_of_a_text_field_decide_nothing(site: Site, page: Page) -> None:
    page.goto(address(site, "review?campaign=astronaut.png"))
    before = len(site.service.all_messages(site.feedback_topic))
    page.get_by_label("Note").press_sequentially("crbaun")
    assert page.get_by_label("Note").input_value() == "crbaun"
    assert page.locator("body").get_attribute("data-busy") is None
    assert len(site.service.all_messages(site.feedback_topic)) == before


def test_without_a_bank_the_way_leads_to_a_new_one_and_back(site: Site, page: Page) -> None:
    site.upload("bare", "first", jpeg(PHOTO))
    site.upload("bare", "copy", jpeg(PHOTO, 40))
    open_campaign(site, page, "bare", 2)
    expect(page.locator(".next")).to_contain_text("0 of 1 decided · this one: 1 copy, first seen")
    for key, bank, kind in (("b", "mine", "block"), ("a", "ours", "allow")):
        expect(page.locator(f".decisions [aria-keyshortcuts={key}]")).to_contain_text("No bank yet: create one.")
        expect(page.locator("html.js")).to_be_attached()
        page.keyboard.press(key)
        expect(page.get_by_label("Name")).to_be_focused()
        expect(page.get_by_label("Kind")).to_have_value(kind)
        expect(page.get_by_role("link", name="Back to the review")).to_have_attribute(
            "href", f"/review?tenant=bare&campaign=first&image_id=copy&key={key}"
        )
        page.keyboard.type(bank)
        page.keyboard.press("Enter")
        expect(page.locator(f".decisions button[aria-keyshortcuts={key}]")).to_be_enabled()  # at once
        expect(page.locator("#said")).to_have_text(f"The bank is there. Now press {key.upper()}.")
    added = "The picture added is copy."
    press(page, "b", f"You said that copy is a copy of first. Added to the bank mine, which blocks. {added}")
    press(page, "u", "Taken back: copy is to be decided again.")
    press(page, "a", f"You said that copy is a copy of first. Allowed by the bank ours. {added}")
    page.goto(f"{address(site, 'banks')}?tenant=bare&back=https://example.org/")
    assert page.locator("main a[href*=example]").count() == 0


def test_undo_takes_a_decision_back(site: Site, page: Page) -> None:
    site.upload("undone", "first", jpeg(PHOTO))
    for number in range(1, 7):
        site.upload("undone", f"copy {number}", jpeg(PHOTO.crop((0, 0, 512 - number, 512)), 80))
    open_campaign(site, page, "undone", 7)
    # Whoever decides sees about what.
    expect(page.locator(".next")).to_contain_text("this one: 6 copies")
    expect(page.get_by_role("heading", name="All 6 copies")).to_be_visible()
    expect(page.locator(".copies .thumbnail")).to_have_count(4)
    page.get_by_text("2 more").click()
    expect(page.locator(".copies").get_by_text("copy 1", exact=True)).to_be_visible()
    before = len(site.service.all_messages(site.feedback_topic))
    others = "So for 5 other copies, each and its earlier picture."
    press(page, "r", f"You said that copy 6 is no copy of first. {others}")
    expect(page.get_by_role("heading", level=1)).to_have_text("All decided")
    expect(page.locator(".next")).to_have_text(
        "1 of 1 decided · 0 same, 1 different. Nothing is left to decide for now."
    )
    assert page.url.endswith("/review?tenant=undone")  # and not that of a campaign opened before
    expect(page.get_by_role("button", name="Undo: 6 copies")).to_be_visible()
    press(page, "u", "Taken back: 6 copies are to be decided again.")
    expect(page.locator(".next strong")).to_have_text("0 of 1 decided")
    expect(page.locator(".pair")).to_be_visible()
    events = [json.loads(message.value() or b"") for message in site.service.all_messages(site.feedback_topic)[before:]]
    pairs = {(f"copy {number}", "first") for number in range(1, 7)}
    for decision, made in (("reject", events[:6]), ("withdraw", events[6:])):
        assert {(each["image_id"], each["match_id"]) for each in made} == pairs
        assert {each["decision"] for each in made} == {decision}
    page.goto(f"{address(site, 'campaigns')}?tenant=undone")
    expect(page.locator("tbody tr")).to_contain_text("to decide")
    # What somebody opens that is decided is taken back likewise.
    open_campaign(site, page, "undone", 7)
    press(page, "c", f"You said that copy 6 is a copy of first. {others}")
    open_campaign(site, page, "undone", 7)
    expect(page.locator("#said")).to_contain_text("UTC by somebody not signed in: same.")
    expect(page.get_by_role("button", name="Undo: 6 copies")).to_be_visible()
    expect(page.locator(".next strong")).to_have_text("1 of 1 decided")
    press(page, "u", "Taken back: 6 copies are to be decided again.")
    expect(page.get_by_role("button", name="Undo")).to_have_count(0)


def test_a_bank_is_created_and_pictures_are_added_and_removed(
    site: Site, browser: Browser, pictures: Callable[[str, bytes], str]
) -> None:
    with window(browser, expected="400 (Bad Request)") as page:
        page.goto(address(site, "banks"))
        page.get_by_label("Name").fill("known <b>fakes</b>")
        page.get_by_role("button", name="Create").click()
        page.get_by_role("link", name="known <b>fakes</b>").click()
        expect(page.locator("html.js [data-import]")).to_be_attached()  # its scripts listen by then
        page.set_input_files(
            "[type=file]",
            [pictures("a.jpg", jpeg(PHOTO)), pictures("b.jpg", b"no picture"), pictures("c.jpg", jpeg(PHOTO, 70))],
        )
        page.get_by_role("button", name="Add").click()
        expect(page.get_by_role("status").first).to_contain_text("Sent: 2. What is sent counts within")
        expect(page.get_by_role("status").first).to_contain_text("Not taken: b.jpg:")
        page.reload()
        row = page.get_by_role("row", name="a.jpg")
        page.get_by_role("button", name="Remove a.jpg").click()
        expect(row).to_have_count(0)
        name = ["default", "known <b>fakes</b>"]
        messages = site.service.all_messages(site.banks_topic)
        messages = [each for each in messages if name[1] in (each.key() or b"").decode()]
        keys = [json.loads(message.key() or b"") for message in messages]
        assert keys == [
            ["bank", *name],
            ["entry", *name, "a.jpg"],
            ["entry", *name, "c.jpg"],
            ["entry", *name, "a.jpg"],
        ]
        assert messages[-1].value() is None
