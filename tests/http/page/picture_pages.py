"""Takes the pictures of the page that README.md shows, from a stack of its own: `make pictures`."""

import json
import tempfile
from pathlib import Path

import numpy as np
from confluent_kafka import Producer
from playwright.sync_api import Browser, sync_playwright

from consumer.events import ImageUpload
from consumer.kafka.clients import EventsProducer, VerdictsReader
from consumer.local.pictures import edited, photographs
from consumer.local.stack import Stack
from consumer.settings import KafkaSettings
from tests.deploy.tools import needed
from tests.http.pictures import PHOTO, jpeg

PICTURES = Path(__file__).parents[3] / "deploy" / "page"
EDITS = ("lighting", "zoom", "screenshot")


def main() -> None:
    """Take all of them."""
    PICTURES.mkdir(exist_ok=True)
    with Stack() as stack:
        kafka = KafkaSettings(bootstrap_servers=stack.addresses.kafka)
        stack.start_consumer()
        address = stack.start_http()
        define_banks(kafka, stack.addresses.banks_topic)
        upload(kafka)
        with sync_playwright() as playwright:
            browser = playwright.chromium.launch(executable_path=needed("chromium", "chromium"), args=["--no-sandbox"])
            for name, width, dark in (
                ("try", 1240, False),
                ("review", 1240, False),
                ("now", 1240, True),
                ("review", 390, True),
            ):
                take(browser, address, name, width, dark)
            browser.close()


def define_banks(kafka: KafkaSettings, topic: str) -> None:
    """Define a bank of each kind."""
    producer = Producer({"bootstrap.servers": kafka.bootstrap_servers})
    for kind, bank in (("block", "known fakes"), ("allow", "our own adverts")):
        body = {"bank": bank, "tenant": "default", "kind": kind}
        event = {"specversion": "1.0", "id": bank, "source": "/pictures", "type": "bank.defined", "data": body}
        producer.produce(topic, json.dumps(event), json.dumps(["bank", "default", bank]))
    producer.flush()


def upload(kafka: KafkaSettings) -> None:
    """Upload photographs and edited copies, and wait for the verdicts."""
    producer, reader, random = EventsProducer(kafka), VerdictsReader(kafka), np.random.default_rng(5)
    pictures = dict(photographs())
    copies = {f"{name} / {edit}": edited(data, edit, random) for name, data in pictures.items() for edit in EDITS}
    for group in (pictures, copies):
        for name, data in group.items():
            producer.send(ImageUpload(image_id=name, data_base64=data))
        producer.flush()
        waiting = set(group)
        while waiting:
            waiting -= {published.verdict.image_id for published in reader.poll(0.5)}
    reader.close()


def take(browser: Browser, address: str, name: str, width: int, dark: bool) -> None:
    """Take the picture of a page as somebody sees it who uses it."""
    page = browser.new_page(viewport={"width": width, "height": 820}, color_scheme="dark" if dark else "light")
    page.goto(address + ("" if name == "now" else name) + ("?campaign=astronaut.png" if name == "review" else ""))
    if name == "try":
        with tempfile.TemporaryDirectory() as folder:
            files = Path(folder, "original.jpg"), Path(folder, "copy.jpg")
            files[0].write_bytes(jpeg(PHOTO))
            files[1].write_bytes(jpeg(PHOTO.crop((60, 20, 470, 400)), 60))
            page.set_input_files("[name=first]", files[0])
            page.set_input_files("[name=second]", files[1])
            page.get_by_role("button", name="Compare").click()
            page.wait_for_selector(".result")
            page.keyboard.press("v")
    if name == "review":
        page.keyboard.press("s")
    page.wait_for_timeout(2000 if name == "now" else 500)
    page.screenshot(path=PICTURES / f"{name}-{width}.png", full_page=name != "now")
    page.close()


if __name__ == "__main__":
    main()
