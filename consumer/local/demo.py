"""The demonstration: photographs, edited copies and unrelated pictures through the whole service, on real parts."""

import io
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from hashlib import sha256
from itertools import islice
from pathlib import Path

import numpy as np
from PIL import ExifTags, Image, ImageDraw, ImageFont, ImageOps
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn
from rich.table import Table

from consumer.errors import SeenitError
from consumer.events import ImageUpload
from consumer.kafka.clients import EventsProducer, VerdictsReader
from consumer.local import stack, state
from consumer.local.pictures import EDITS, HARDEST, edited, photographs, pictures_in
from consumer.local.stack import Stack
from consumer.local.state import Addresses
from consumer.settings import KafkaSettings
from consumer.verdicts import Box, Edit, Verdict
from consumer.verification.draw import draw_box

# A verdict takes milliseconds; a machine busy with other things may take longer, but not this long.
VERDICT_TIMEOUT_S = 120.0
# Longest side of a picture sent within its event: larger files would not fit a broker's usual message.
MAX_SIDE_PX = 1600
# Of a folder with more pictures, so many are used, the first by name.
MAX_ORIGINALS = 100
# Stands between a picture's name and its edit in the image ids of copies.
COPY_SEPARATOR = " / "


@dataclass(frozen=True, slots=True)
class Upload:
    """An uploaded picture; `original` is the one it was made from, None for a picture that is no copy."""

    image_id: str
    edit: str
    data: bytes
    original: str | None


@dataclass(frozen=True, slots=True)
class Outcome:
    """An upload with its verdict."""

    upload: Upload
    verdict: Verdict

    @property
    def milliseconds(self) -> float:
        """Time from the service's receipt of the event to its decision."""
        return (self.verdict.decided_at - self.verdict.received_at).total_seconds() * 1000

    @property
    def right(self) -> bool:
        """Whether a copy is called a duplicate of its original or of another copy of it, and anything else unique."""
        match = self.verdict.match
        if self.upload.original is None:
            return self.verdict.verdict == "unique"
        return match is not None and match.image_id.partition(COPY_SEPARATOR)[0] == self.upload.original


def demonstrate(images: Path | None, out: Path, console: Console, *, keep: bool = False, seed: int = 7) -> bool:
    """Run the demonstration, print the table, write the contact sheet to `out`; True when all verdicts are right.

    The hardest copies are shown and counted, but do not decide. The stack is left running if it is to be kept.

    Raises SeenitError when there is nothing to show, a server does not start or verdicts stay away.
    """
    originals = dict(islice(_distinct(images, console), MAX_ORIGINALS))
    if not originals:
        raise SeenitError(f"there is no picture in {images}")
    random = np.random.default_rng(seed)
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    outcomes: list[Outcome] = []
    with (
        Progress(*columns, console=console) as progress,
        _servers(keep, progress.console.print) as addresses,
    ):
        kafka = KafkaSettings(bootstrap_servers=addresses.kafka)
        producer, reader = EventsProducer(kafka), VerdictsReader(kafka)
        task = progress.add_task("uploading originals", total=len(originals))
        uploads = [_send(producer, name, "original", data, None) for name, data in originals.items()]
        outcomes += _await_verdicts(uploads, producer, reader, partial(progress.advance, task))
        total = len(originals) * (len(EDITS) + 1)
        task = progress.add_task("uploading copies", total=total)
        uploads = []
        for name, data in originals.items():
            for edit in EDITS:
                uploads.append(_send(producer, name + COPY_SEPARATOR + edit, edit, edited(data, edit, random), name))
            uploads.append(_send(producer, name + COPY_SEPARATOR + "byte-equal", "byte-equal", data, name))
        outcomes += _await_verdicts(uploads, producer, reader, partial(progress.advance, task))
        reader.close()
    console.print(_table(outcomes))
    out.mkdir(parents=True, exist_ok=True)
    sheet = out / "contact-sheet.png"
    contact_sheet(outcomes).save(sheet)
    console.print(f"Each duplicate beside its match: {sheet}")
    right = _print_summary(outcomes, console)
    if keep:
        console.print(f"What was uploaded, on the page: {addresses.http_url}campaigns", soft_wrap=True)
        console.print("It is left running; to stop it: seenit down")
    else:
        console.print("To look at it on the page: make demo KEEP=1")
    return right


@contextmanager
def _servers(keep: bool, progress: Callable[[str], None]) -> Iterator[Addresses]:
    """Run a stack with a consumer until the block is left, or one with the page that is kept."""
    if not keep:
        with Stack(progress=progress) as own:
            own.start_consumer()
            yield own.addresses
        return
    running = state.load()
    if running is not None and running.alive:
        raise SeenitError("A stack is running already, with uploads of its own. Stop it first: seenit down")
    yield stack.up(progress=progress).addresses


def _distinct(images: Path | None, console: Console) -> Iterator[tuple[str, bytes]]:
    """Yield name and file content of the originals, each content once, scaled to a size that fits into an event."""
    digests: set[bytes] = set()
    files = (
        ((str(path.relative_to(images)), path.read_bytes()) for path in pictures_in(images))
        if images
        else photographs()
    )
    for name, data in files:
        digest = sha256(data).digest()
        if digest not in digests:
            digests.add(digest)
            try:
                yield name, _inline(data)
            except (OSError, ValueError) as error:
                console.print(f"left out {name}, which cannot be read: {error}", markup=False)


def _inline(data: bytes) -> bytes:
    with Image.open(io.BytesIO(data)) as image:
        upright = image.getexif().get(ExifTags.Base.Orientation, 1) == 1
        if max(image.size) <= MAX_SIDE_PX and image.mode == "RGB" and len(data) < 500_000 and upright:
            image.load()
            return data
        picture = ImageOps.exif_transpose(image).convert("RGB")
    picture.thumbnail((MAX_SIDE_PX, MAX_SIDE_PX))
    out = io.BytesIO()
    picture.save(out, "JPEG", quality=92)
    return out.getvalue()


def _send(producer: EventsProducer, image_id: str, edit: str, data: bytes, original: str | None) -> Upload:
    producer.send(ImageUpload(image_id=image_id, data_base64=data))
    return Upload(image_id, edit, data, original)


def _await_verdicts(
    uploads: list[Upload], producer: EventsProducer, reader: VerdictsReader, arrived: Callable[[], None]
) -> list[Outcome]:
    """Wait for the verdict on each upload; return the outcomes in the order of the uploads."""
    producer.flush()
    waiting = {upload.image_id: upload for upload in uploads}
    outcomes: dict[str, Outcome] = {}
    deadline_s = time.monotonic() + VERDICT_TIMEOUT_S
    while waiting:
        for published in reader.poll(0.2):
            upload = waiting.pop(published.verdict.image_id, None)
            if upload is not None:
                outcomes[upload.image_id] = Outcome(upload, published.verdict)
                arrived()
        if time.monotonic() > deadline_s:
            raise SeenitError(
                f"{len(waiting)} of {len(uploads)} uploads have no verdict after {VERDICT_TIMEOUT_S:.0f} s"
            )
    return [outcomes[upload.image_id] for upload in uploads]


def _table(outcomes: list[Outcome]) -> Table:
    table = Table(title="Verdicts", caption="ms: from the service's receipt of the event to its decision")
    for column in ("upload", "edit", "verdict", "match"):
        table.add_column(column, overflow="fold")
    table.add_column("l2", justify="right")
    table.add_column("ms", justify="right")
    table.add_column("")
    for outcome in outcomes:
        verdict, match = outcome.verdict, outcome.verdict.match
        table.add_row(
            outcome.upload.original or outcome.upload.image_id,
            outcome.upload.edit,
            verdict.kind or verdict.verdict,
            match.image_id if match else "",
            f"{match.l2:.3f}" if match else "",
            f"{outcome.milliseconds:.0f}",
            "[green]right[/]" if outcome.right else "[bold red]wrong[/]",
        )
    return table


def _print_summary(outcomes: list[Outcome], console: Console) -> bool:
    """Print how many verdicts are right; True when all are that count."""
    copies = [each for each in outcomes if each.upload.original is not None and each.upload.edit not in HARDEST]
    others = [each for each in outcomes if each.upload.original is None]
    matched, wrong = sum(each.right for each in copies), sum(not each.right for each in others)
    threshold, model = outcomes[0].verdict.threshold_l2, outcomes[0].verdict.model
    console.print(
        f"{matched} of {len(copies)} copies found; "
        f"{wrong} of {len(others)} unrelated pictures wrongly called duplicates.\n"
        + "".join(_hardest_summary(outcomes, *hardest) for hardest in HARDEST.items())
        + f"Encoder version {model.version}, threshold_l2 {threshold:g}."
    )
    return matched == len(copies) and wrong == 0


def _hardest_summary(outcomes: list[Outcome], edit: str, description: str) -> str:
    copies = [each for each in outcomes if each.upload.edit == edit]
    return f"Of copies {description} {sum(each.right for each in copies)} of {len(copies)}.\n"


def contact_sheet(outcomes: list[Outcome], side: int = 140) -> Image.Image:
    """Draw a row for each original, its copies beside it with edit and distance; wrong verdicts are in red.

    Boxes are from the second look: in a copy the part that shows the original, in an original what its copies show.
    """
    rows: dict[str, list[Outcome]] = {}
    for outcome in outcomes:
        rows.setdefault(outcome.upload.original or outcome.upload.image_id, []).append(outcome)
    margin, caption = 8, 46
    width, height = side + margin, side + caption + margin
    sheet = Image.new("RGB", (max(map(len, rows.values())) * width + margin, len(rows) * height + margin), "white")
    draw, font = ImageDraw.Draw(sheet), ImageFont.load_default(11)
    for row, copies in enumerate(rows.values()):
        for column, outcome in enumerate(copies):
            left, top = column * width + margin, row * height + margin
            with Image.open(io.BytesIO(outcome.upload.data)) as image:
                thumbnail = image.convert("RGB")
            thumbnail.thumbnail((side, side))
            for box in _boxes(outcome, copies):
                draw_box(thumbnail, box)
            sheet.paste(thumbnail, (left, top + side - thumbnail.height))
            match = outcome.verdict.match
            result = f"{outcome.verdict.kind}, l2 {match.l2:.3f}" if match else outcome.verdict.verdict
            if match is not None and match.image_id != outcome.upload.original:
                result += f"\nof {match.image_id}"
            name = outcome.upload.edit if outcome.upload.original else outcome.upload.image_id
            colour = "black" if outcome.right else "red"
            draw.multiline_text((left, top + side + 2), f"{name}\n{result}", fill=colour, font=font, spacing=2)
    return sheet


def _boxes(outcome: Outcome, row: list[Outcome]) -> list[Box]:
    """Return the boxes to draw: in a copy the part that shows its original, in an original what its copies show."""
    if outcome.upload.original is None:
        return [edit.box_in_match for copy in row if (edit := _edit(copy)) is not None]
    edit = _edit(outcome)
    return [] if edit is None else [edit.box_in_upload]


def _edit(outcome: Outcome) -> Edit | None:
    """Return the edit that made a copy of its original, if the second look verified that."""
    match = outcome.verdict.match
    if match is None or match.image_id != outcome.upload.original or match.evidence is None:
        return None
    return match.evidence.edit if match.evidence.verified else None
