"""Commands at the two ends of the topics: `seenit upload` and `watch`."""

import sys
import time
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated

import typer

from consumer.cli.common import kafka_settings
from consumer.cli.console import out, plain
from consumer.errors import Misconfigured
from consumer.events import ImageUpload
from consumer.kafka.clients import EventsProducer, PublishedVerdict, VerdictsReader
from consumer.local.pictures import pictures_in


def upload(
    pictures: Annotated[list[str], typer.Argument(metavar="PATH|URL...", help="Files, folders or addresses.")],
    tenant: Annotated[str, typer.Option(help="Tenant the pictures belong to.")] = "default",
) -> None:
    """Send an upload event for each picture: files within the event, addresses as they are."""
    producer = EventsProducer(kafka_settings())
    sent = 0
    for event in _events(pictures, tenant):
        producer.send(event)
        sent += 1
    producer.flush()
    out.print(f"sent {sent} upload{'' if sent == 1 else 's'}; see the verdicts with: seenit watch --from-beginning")


def watch(
    as_json: Annotated[bool, typer.Option("--json", help="One JSON object a line, as on the topic.")] = False,
    from_beginning: Annotated[bool, typer.Option(help="Start with the oldest verdict kept.")] = False,
    count: Annotated[int, typer.Option(min=0, help="Stop after this many verdicts; 0: never.")] = 0,
) -> None:
    """Follow the verdicts until Ctrl-C."""
    reader = VerdictsReader(kafka_settings(), from_beginning=from_beginning)
    printed = 0
    try:
        while count == 0 or printed < count:
            for published in reader.poll(0.5):
                if count and printed == count:
                    break
                printed += 1
                if as_json:
                    sys.stdout.write(published.verdict.model_dump_json() + "\n")
                    sys.stdout.flush()
                else:
                    out.print(_line(published), highlight=False, soft_wrap=True)
    except KeyboardInterrupt:
        pass
    finally:
        reader.close()


def _events(pictures: list[str], tenant: str) -> Iterator[ImageUpload]:
    """Yield an upload event for each address and file, and for each picture file in a folder."""
    now = datetime.now(UTC)
    for picture in pictures:
        if "://" in picture:
            yield ImageUpload(image_id=picture, tenant=tenant, url=picture, uploaded_at=now)
            continue
        path = Path(picture)
        if not path.exists():
            raise Misconfigured(f"there is no file or folder {picture}")
        for file in pictures_in(path) if path.is_dir() else [path]:
            data = file.read_bytes()
            if not data:
                raise Misconfigured(f"{file} is empty")
            yield ImageUpload(image_id=str(file), tenant=tenant, data_base64=data, uploaded_at=now)


def _line(published: PublishedVerdict) -> str:
    """Put a verdict into one line of text with rich's markup."""
    verdict = published.verdict
    image_id = plain(verdict.image_id)
    clock = time.strftime("%H:%M:%S", time.localtime(verdict.decided_at.timestamp()))
    if verdict.match is not None:
        why = f"({verdict.kind}, l2 {verdict.match.l2:.3f})"
        return f"{clock}  [red]{verdict.verdict}[/]  {image_id} = {plain(verdict.match.image_id)}  {why}"
    if verdict.reason is not None:
        return f"{clock}  [yellow]{verdict.verdict}[/]  {image_id}: {plain(verdict.reason)}"
    return f"{clock}  [green]{verdict.verdict}[/]  {image_id}"
