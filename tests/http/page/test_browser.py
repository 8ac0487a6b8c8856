"""The page in a real browser, with real data: sound, accessible, live, and fit for review by keyboard alone."""

import json
from collections.abc import Callable
from importlib.resources import files
from typing import Any

import pytest
from confluent_kafka import Consumer, Message, TopicPartition
from PIL import Image
from playwright.sync_api import Browser, Page, expect

from consumer.http.page.rendering import PAGES
from tests.http.page.conftest import BOXES, HOSTILE_ID, LOADED, Site, settle, window
from tests.http.pictures import PHOTO, jpeg

AXE = (files("axe_playwright_python") / "axe.min.js").read_text()
MAX_WEIGHT_BYTES, MAX_PAINT_MS = 150_000, 1000


def all_messages(site: Site, topic: str) -> list[Message]:
    """The messages that stand on a topic of one partition."""
    consumer = Consumer({"bootstrap.servers": site.service.kafka.bootstrap_servers, "group.id": "look"})
    _, end = consumer.get_watermark_offsets(TopicPartition(topic, 0))
    consumer.close()
    return site.service.messages(topic, end)


def address(site: Site, name: str) -> str:
    return f"{site.address}/{'' if name == 'now' else name}"


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
    page.goto(address(site, "review"))
    settle(page, LOADED)
    sizes = page.evaluate(
        "performance.getEntries().filter((e) => !/pictures/.test(e.name)).map((e) => e.decodedBodySize ?? 0)"
    )
    assert sum(sizes) <= MAX_WEIGHT_BYTES
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
    expect(page.get_by_role("heading", name="A copy: both show the same picture.")).to_be_visible()
    settle(page, LOADED)
    first, second = page.evaluate(BOXES)
    assert first[2] > 100
    assert second == pytest.approx(first, abs=3)  # both boxes lie upon each other, and so do the pictures
    page.keyboard.press("v")
    first, second = page.evaluate(BOXES)
    assert second[0] > first[0] + first[2]  # beside each other


def test_one_picture_is_looked_up(site: Site, page: Page, pictures: Callable[[str, bytes], str]) -> None:
    page.goto(address(site, "try"))
    page.set_input_files("[name=first]", pictures("a.jpg", jpeg(PHOTO.crop((20, 20, 480, 490)), 60)))
    page.get_by_role("button", name="Compare").click()
    expect(page.get_by_role("heading", name="Uploaded before.")).to_be_visible()
    settle(page, LOADED)
    expect(page.locator("#result h3").first).to_contain_text("astronaut")


def test_what_is_no_picture_is_refused_with_the_reason(
    site: Site, page: Page, pictures: Callable[[str, bytes], str]
) -> None:
    page.goto(address(site, "try"))
    page.set_input_files("[name=first]", pictures("a.jpg", b"no picture"))
    page.get_by_role("button", name="Compare").click()
    expect(page.get_by_role("alert").first).to_contain_text("no picture of a known format")


def test_now_is_live(site: Site, page: Page) -> None:
    page.goto(address(site, "now"))
    expect(page.get_by_text("Kafka: works")).to_be_visible()
    site.service.picture("while somebody looks", jpeg(PHOTO))
    expect(page.get_by_role("link", name="Look at while somebody looks")).to_be_visible()
    page.get_by_role("link", name="Look at while somebody looks").click()
    expect(page.get_by_role("heading", name="Is this the same picture?")).to_be_visible()


def test_stored_scripts_are_shown_as_text(site: Site, page: Page) -> None:
    for name in ("now", "review?campaign=" + "astronaut.png", "campaigns"):
        page.goto(address(site, name))
        assert page.title().endswith("Seenit")
    page.goto(address(site, "review?campaign=astronaut.png"))
    page.locator("summary").click()
    expect(page.locator("details").get_by_text(HOSTILE_ID, exact=True)).to_be_visible()
    page.get_by_label("Note").fill(HOSTILE_ID)
    page.get_by_label("Bank to put it into").select_option(HOSTILE_ID)
    page.get_by_role("button", name="Same, to a bank").click()
    expect(page.locator(".done")).to_be_visible()
    page.goto(address(site, "campaigns"))
    expect(page.get_by_text(f"to the bank {HOSTILE_ID}")).to_be_visible()
    assert page.title().endswith("Seenit")


def test_pictures_are_blurred_until_asked_for(site: Site, page: Page) -> None:
    page.goto(address(site, "review"))
    settle(page, LOADED)
    image = page.locator(".pair img").first
    assert "blur" in image.evaluate("(image) => getComputedStyle(image).filter")
    page.keyboard.press("s")
    assert image.evaluate("(image) => getComputedStyle(image).filter") == "none"
    page.keyboard.press("g")
    assert "grayscale" in image.evaluate("(image) => getComputedStyle(image).filter")
    before = page.locator(".stage").evaluate("(stage) => stage.style.getPropertyValue('--cut')")
    page.keyboard.press("ArrowRight")
    assert page.locator(".stage").evaluate("(stage) => stage.style.getPropertyValue('--cut')") != before


def test_twenty_campaigns_are_decided_by_keyboard(site: Site, page: Page) -> None:
    page.goto(address(site, "review"))
    decided = []
    for turn in range(20):
        campaign = page.locator("[name=campaign]").get_attribute("value")
        page.keyboard.press("s")
        page.keyboard.press("cr"[turn % 2])
        expect(page.locator(f"[name=campaign][value={json.dumps(campaign)}]")).to_have_count(0)
        expect(page.locator("body:not([data-busy])")).to_be_attached()
        decided.append(campaign)
    assert len(set(decided)) == 20, " ".join(map(str, decided))
    page.keyboard.press("u")
    expect(page.locator(".decided")).to_contain_text("anybody decided at")
    assert page.locator("[name=campaign]").get_attribute("value") == decided[-1]
    expect(page.locator("body:not([data-busy])")).to_be_attached()
    page.keyboard.press("c")  # the latest decision counts
    expect(page.locator(".done")).to_contain_text("is a copy")
    messages = all_messages(site, site.feedback_topic)
    events = [json.loads(message.value() or b"") for message in messages]
    last = [each for each in events if each["match_id"] == decided[-1] or each["image_id"] == decided[-1]]
    assert [each["decision"] for each in last] == ["reject", "confirm"]
    assert all(each["by"] == "anybody" and each["tenant"] == "default" for each in events)


FOCUS = """(() => {
  const focused = document.activeElement, style = getComputedStyle(focused), box = focused.getBoundingClientRect();
  return {
    key: focused.dataset.key ?? focused.className,
    seen: style.outlineStyle !== "none" && parseFloat(style.outlineWidth) >= 2 && box.width > 0,
    within: box.top >= 0 && box.bottom <= innerHeight,
  };
})()"""


def decided(page: Page) -> None:
    """Wait until the next campaign is there."""
    expect(page.locator(".done")).to_be_visible()
    expect(page.locator("body:not([data-busy])")).to_be_attached()


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
        # By Tab the first is Same; Enter decides once, however long it is held, and the focus stays.
        page.keyboard.press("Tab")
        assert page.evaluate(FOCUS) == {"key": "c", "seen": True, "within": True}
        left = page.locator(".next strong").inner_text()
        page.keyboard.down("Enter")
        decided(page)
        expect(page.locator("#said")).to_contain_text("is a copy")
        page.keyboard.down("Enter")  # again while it is down: a repeat
        page.keyboard.up("Enter")
        assert page.evaluate(FOCUS) == {"key": "c", "seen": True, "within": True}
        assert int(left.split()[0]) - int(page.locator(".next strong").inner_text().split()[0]) == 1
        # Two decisions are undone one after the other, also by who has just opened the page.
        page.goto(address(site, "review"))
        for said in ("same", "different"):
            page.keyboard.press("u")
            expect(page.locator(".decided")).to_contain_text(said)
            expect(page.locator("#said")).to_contain_text(said)
            expect(page.locator("body:not([data-busy])")).to_be_attached()


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
    page.keyboard.press("v")
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
    expect(page.get_by_role("button", name="Blur on or off")).to_have_attribute("aria-pressed", "false")


def test_keys_of_a_text_field_decide_nothing(site: Site, page: Page) -> None:
    page.goto(address(site, "review?campaign=astronaut.png"))
    page.get_by_label("Note").press_sequentially("crba")
    assert page.get_by_label("Note").input_value() == "crba"
    assert page.locator(".done").count() == 0


def test_a_bank_is_created_and_pictures_are_added_and_removed(
    site: Site, browser: Browser, pictures: Callable[[str, bytes], str]
) -> None:
    with window(browser, expected="400 (Bad Request)") as page:
        page.goto(address(site, "banks"))
        page.get_by_label("Name").fill("known <b>fakes</b>")
        page.get_by_role("button", name="Create").click()
        link = page.get_by_role("link", name="known <b>fakes</b>")
        for _ in range(20):
            if link.count():
                break
            page.reload()
        link.click()
        page.set_input_files(
            "[type=file]",
            [pictures("a.jpg", jpeg(PHOTO)), pictures("b.jpg", b"no picture"), pictures("c.jpg", jpeg(PHOTO, 70))],
        )
        page.get_by_role("button", name="Add").click()
        expect(page.get_by_role("status").first).to_contain_text("2 sent. They count within seconds. Not taken: b.jpg:")
        row = page.get_by_role("row", name="a.jpg")
        for _ in range(20):
            page.reload()
            if row.count():
                break
        page.get_by_role("button", name="Remove a.jpg").click()
        expect(row).to_have_count(0)
        name = ["default", "known <b>fakes</b>"]
        messages = [each for each in all_messages(site, site.banks_topic) if name[1] in (each.key() or b"").decode()]
        keys = [json.loads(message.key() or b"") for message in messages]
        assert keys == [
            ["bank", *name],
            ["entry", *name, "a.jpg"],
            ["entry", *name, "c.jpg"],
            ["entry", *name, "a.jpg"],
        ]
        assert messages[-1].value() is None
