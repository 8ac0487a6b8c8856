"""One stack with campaigns to review, one `seenit serve` and one browser for all tests of the page."""

import json
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import httpx
import numpy as np
import pytest
from confluent_kafka import Producer
from PIL import Image
from playwright.sync_api import Browser, Page, expect, sync_playwright

from consumer.local.pictures import edited, photographs
from tests.deploy.tools import needed
from tests.http.conftest import serve
from tests.http.pictures import PHOTO, jpeg
from tests.service_fixtures import Service, new_service

SCRIPT = "<img src=x onerror=\"document.title='pwned'\"><script>document.title='pwned'</script>"
HOSTILE_ID = f"{SCRIPT}\"'&{{{{7*7}}}}"
# What a browser tells of two pictures laid upon each other.
BOXES = "[...document.querySelectorAll('.box')].map((box) => Object.values(box.getBoundingClientRect().toJSON()))"
LOADED = "[...document.querySelectorAll('.pair img')].every((image) => image.complete && image.naturalWidth)"

# A page that takes decisions: nothing is under way, and nothing has just appeared.
CALM = "body:not([data-busy], [data-fresh])"


@dataclass(frozen=True, slots=True)
class Site:
    """The page on a service: its address, and a client of it."""

    service: Service
    client: httpx.Client
    feedback_topic: str
    banks_topic: str

    @property
    def address(self) -> str:
        return str(self.client.base_url).rstrip("/")

    def upload(self, tenant: str, name: str, data: bytes) -> None:
        """Upload a picture of a tenant, and wait for its verdict."""
        attributes = {"specversion": "1.0", "id": name, "source": "/test", "type": "image.uploaded", "tenant": tenant}
        headers = {f"ce_{key}": text.encode() for key, text in attributes.items()}
        headers |= {"ce_subject": name.encode(), "content-type": b"image/jpeg"}
        self.service.send(data, name.encode(), headers)
        self.service.await_verdicts(lambda known: any((each.tenant, each.image_id) == (tenant, name) for each in known))


@pytest.fixture(scope="package")
def site(broker: str, redis_server: str, triton: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    """A page with some thirty campaigns, an upload that is no picture, and one whose id is a script."""
    folder, name = tmp_path_factory.mktemp("page"), uuid.uuid4().hex[:8]
    topic, banks = f"feedback-{name}", f"banks-{name}"
    more = {
        "SEENIT_KAFKA_FEEDBACK_TOPIC": topic,
        "SEENIT_KAFKA_DECISIONS_TOPIC": f"decisions-{name}",
        "SEENIT_KAFKA_BANKS_TOPIC": banks,
        "SEENIT_SERVE_REQUESTS_PER_S": "10000",
    }
    with new_service(broker, redis_server, triton, folder, **more) as service:
        service.consumer()
        define_banks(service, banks)
        upload_campaigns(service)
        with serve(service.environment, folder) as client:
            yield Site(service, client, topic, banks)


def define_banks(service: Service, topic: str) -> None:
    """Define a bank whose name is a script, and one of allowed pictures."""
    producer = Producer({"bootstrap.servers": service.kafka.bootstrap_servers})
    for kind, bank in (("block", HOSTILE_ID), ("allow", "fine")):
        body = {"bank": bank, "tenant": "default", "kind": kind, "note": HOSTILE_ID}
        event = {"specversion": "1.0", "id": bank, "source": "/test", "type": "bank.defined", "data": body}
        producer.produce(topic, json.dumps(event), json.dumps(["bank", "default", bank]))
    producer.flush()


def upload_campaigns(service: Service) -> None:
    """Upload photographs, and then an edited copy of each."""
    random = np.random.default_rng(7)
    originals = dict(photographs()) | {"tall": jpeg(PHOTO.crop((150, 0, 350, 512)))}
    noise = [Image.fromarray(random.integers(0, 255, (8, 8, 3), np.uint8)).resize((256, 256)) for _ in range(14)]
    originals |= {f"noise {number}": jpeg(each) for number, each in enumerate(noise)}
    for name, data in originals.items():
        service.picture(name, data)
    service.await_verdicts(len(originals))
    copies = {f"{name} / zoom": edited(data, "zoom", random) for name, data in originals.items()}
    copies |= {f"{name} / same file": data for name, data in originals.items() if name.startswith("noise")}
    copies[HOSTILE_ID] = jpeg(PHOTO.crop((40, 20, 500, 480)), 70)
    for name, data in copies.items():
        service.picture(name, data)
    service.picture("no picture", b"no picture")
    service.await_verdicts(len(originals) + len(copies) + 1)


@pytest.fixture(scope="package")
def browser() -> Iterator[Browser]:
    """A Chromium without a window."""
    expect.set_options(timeout=20_000)
    program = needed("chromium", "chromium")
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=program, args=["--no-sandbox"])
        yield browser
        browser.close()


@contextmanager
def window(
    browser: Browser, width: int = 1280, height: int = 900, scheme: str = "light", expected: str = ""
) -> Iterator[Page]:
    """Open a window; whatever the browser complains of fails the test, unless that is what the test is about."""
    context = browser.new_context(
        viewport={"width": width, "height": height}, color_scheme="dark" if scheme == "dark" else "light"
    )
    page, complaints = context.new_page(), list[str]()
    page.set_default_timeout(20_000)
    page.on("pageerror", lambda error: complaints.append(str(error)))
    page.on(
        "console", lambda message: complaints.append(message.text) if message.type in {"error", "warning"} else None
    )
    yield page
    context.close()
    assert [each for each in complaints if not expected or expected not in each] == []


@pytest.fixture
def page(browser: Browser) -> Iterator[Page]:
    """A window of a desktop computer."""
    with window(browser) as page:
        yield page


@pytest.fixture
def pictures(tmp_path: Path) -> Callable[[str, bytes], str]:
    """Write a file that a test chooses in the browser."""

    def write(name: str, data: bytes) -> str:
        (tmp_path / name).write_bytes(data)
        return str(tmp_path / name)

    return write


def settle(page: Page, expression: str) -> None:
    """Wait until an expression is true. Playwright's own way needs `eval`, which the page forbids."""
    for _ in range(400):
        if page.evaluate(expression):
            return
        page.wait_for_timeout(50)
    pytest.fail(f"never true: {expression}")


def address(site: Site, name: str) -> str:
    """The address of a page."""
    return f"{site.address}/{'' if name == 'now' else name}"


def open_campaign(site: Site, page: Page, tenant: str, size: int) -> None:
    """Open a tenant's only campaign once the page knows all its uploads."""
    for _ in range(100):
        page.goto(f"{address(site, 'campaigns')}?tenant={tenant}")
        row = page.locator("tbody tr")
        if row.count() and row.locator("td").nth(1).inner_text() == str(size):
            row.get_by_role("link").click()
            page.wait_for_url("**/review*")
            expect(page.locator("html.js #case")).to_be_attached()  # its script listens to keys by then
            return
        page.wait_for_timeout(50)
    pytest.fail("the campaign is not listed")


def press(page: Page, key: str, said: str) -> None:
    """Press a key, and wait for what the page says then: once, also to those who hear it."""
    expect(page.locator("html.js")).to_be_attached()  # a page just opened listens to keys by now
    page.keyboard.press(key)
    expect(page.locator("#said")).to_have_text(said)
    expect(page.locator(CALM)).to_be_attached()
    assert page.locator("main").inner_text().count(said) == 1
