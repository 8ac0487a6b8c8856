"""The `seenit` command."""

import json
import os
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated

import numpy as np
import typer
from PIL import Image, ImageOps
from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from rich.table import Table

from consumer.cli.preflight import Finding
from consumer.cli.preflight import check as try_all
from consumer.encoder.image_encoder import ImageEncoder
from consumer.encoder.triton import TritonEncoder
from consumer.errors import Misconfigured, SeenitError
from consumer.events import Edit, ImageUpload
from consumer.kafka.clients import PublishedVerdict, UploadsProducer, VerdictsReader
from consumer.kafka.topics import TopicAdmin, differences, required_topics
from consumer.local import stack as local
from consumer.local import state
from consumer.local.demo import demonstrate
from consumer.local.pictures import pictures_in
from consumer.service import Service
from consumer.settings import KafkaSettings, Settings, TritonSettings
from consumer.telemetry import logs
from consumer.verification.draw import side_by_side
from consumer.verification.features import verify
from consumer.window.connection import connect
from consumer.window.recovery import RecoveryProgress, recover_window
from consumer.window.window import RedisWindow

app = typer.Typer(
    help="Has this picture been uploaded before? Upload events in, one verdict for each out.",
    no_args_is_help=True,
    rich_markup_mode="rich",
    pretty_exceptions_enable=False,
)
_OUTCOMES = {"ok": "[green]ok[/]", "warning": "[yellow]warning[/]", "failed": "[bold red]failed[/]"}
_TOPIC_CONFIG = ("cleanup.policy", "retention.ms", "min.insync.replicas", "max.message.bytes")
# Of the process, once the service has ended: for what its threads still do.
EXIT_TIMEOUT_S = 1.0

out = Console()
err = Console(stderr=True)


def main() -> None:
    """Run the command; what can go wrong ends as one readable message and status 1, not as a traceback."""
    # A polite kill stops what the command has started, as Ctrl-C does. `run` has a handler of its own.
    signal.signal(signal.SIGTERM, lambda number, _: sys.exit(128 + number))
    try:
        app()
    except SeenitError as error:
        err.print(f"[bold red]seenit:[/] {_plain(str(error))}", highlight=False, soft_wrap=True)
        sys.exit(1)


@app.command(epilog="Example:  SEENIT_KAFKA_BOOTSTRAP_SERVERS=kafka:9092 SEENIT_TRITON_URL=triton:8001 seenit run")
def run() -> None:
    """Run the service, configured by SEENIT_* variables and the file that SEENIT_CONFIG names.

    SIGTERM stops it gracefully; SIGUSR1 switches the log to debug, and back.
    """
    settings = Settings.load()
    logs.configure(settings.log)
    logs.switch_on_signal(settings.log)
    err.print_json(settings.model_dump_json())
    service = Service(settings)
    service.stop_on_signals()
    try:
        service.run()
    finally:
        _end_within(EXIT_TIMEOUT_S, 0 if sys.exception() is None else 1)


@app.command(epilog="Example:  SEENIT_CONFIG=seenit.toml seenit check")
def check() -> None:
    """Try Kafka, Redis, Triton and object stores as SEENIT_* and SEENIT_CONFIG name them; say how to mend what fails.

    Harmless to a service that runs. Exits with 1 when something failed; warnings do not count.
    """
    findings = [*_progress(try_all(Settings.load()))]
    table = Table("what", "", "found")
    for finding in findings:
        table.add_row(escape(finding.what), _OUTCOMES[finding.outcome], escape(finding.detail))
    out.print(table)
    for finding in findings:
        if finding.remedy:
            out.print(f"{_OUTCOMES[finding.outcome]} {escape(finding.what)}: {escape(finding.remedy)}", highlight=False)
    raise typer.Exit(1 if any(finding.outcome == "failed" for finding in findings) else 0)


@app.command(epilog="Example:  seenit topics --create --partitions 48 --replicas 3")
def topics(
    create: Annotated[
        bool, typer.Option("--create", help="Create what is missing; never changes what is there.")
    ] = False,
    partitions: Annotated[int, typer.Option(min=1, help="Partitions of input and output, at least.")] = 12,
    replicas: Annotated[int, typer.Option(min=1, help="Copies of each partition, at least.")] = 3,
    retention_days: Annotated[float, typer.Option(min=0.01, help="How long input and output are kept, at least.")] = 7,
) -> None:
    """Check the topics (input, output, dead letters, and embeddings if they are published), and say what differs from
    what they should be.

    Exits with 1 when something does.
    """
    settings = _kafka()
    wants = required_topics(settings, partitions, replicas, retention_days, Settings.load().window.retention_s)
    brokers = TopicAdmin(settings)
    for name in brokers.create(list(wants)) if create else ():
        out.print(f"created {name}", highlight=False)
    found = brokers.describe([want.name for want in wants])
    table = Table("topic", "partitions", "replicas", *_TOPIC_CONFIG)
    for topic in found.values():
        values = (topic.config.get(name, "?") for name in _TOPIC_CONFIG)
        table.add_row(topic.name, str(topic.partitions), str(topic.replicas), *values)
    out.print(table)
    less = list(differences(found, wants))
    for each in less:
        out.print(f"[red]{each.topic}[/]: {each.property} is {each.actual}, should be {each.expected}", highlight=False)
        out.print(f"    {each.remedy}", highlight=False, soft_wrap=True)
    raise typer.Exit(1 if less else 0)


@app.command(epilog="Example:  SEENIT_KAFKA_EMBEDDINGS_TOPIC=image-embeddings seenit rebuild")
def rebuild() -> None:
    """Fill an empty Redis with the window again, from the topic that SEENIT_KAFKA_EMBEDDINGS_TOPIC names.

    Tenants that have a window already are left alone, so it can be run beside a service at work, which waits for the
    tenants that are being rebuilt. Interrupted, it can be run again.
    """
    settings = Settings.load()
    if not settings.kafka.embeddings_topic:
        raise Misconfigured("there is nothing to rebuild from: SEENIT_KAFKA_EMBEDDINGS_TOPIC names no topic")
    with TritonEncoder(settings.triton) as encoder:
        model = encoder.info
    redis = connect(settings.redis)
    window = RedisWindow(redis, model, settings.window, settings.redis.key_prefix)
    try:
        with _bars() as (show, rate):
            done = recover_window(settings.kafka, model, window.store, window.loss_guard, show)
    finally:
        redis.close()
    out.print(f"rebuilt {_plain(done.summary)}; {rate(done)}", highlight=False, soft_wrap=True)


@app.command(epilog="Example:  seenit up --json | jq -r .kafka")
def up(
    as_json: Annotated[bool, typer.Option("--json", help="Print the addresses as one JSON object.")] = False,
    consumer: Annotated[bool, typer.Option(help="Start a consumer too.")] = True,
) -> None:
    """Start broker, Redis, Triton and a consumer on this machine, and leave them running."""
    running = local.up(consumer=consumer, progress=lambda text: err.print(text, style="dim"))
    if as_json:
        sys.stdout.write(json.dumps(asdict(running.addresses)) + "\n")
    else:
        out.print(_addresses(running))


@app.command(epilog="Example:  seenit down")
def down() -> None:
    """Stop what `seenit up` started."""
    out.print("stopped" if local.down() else "nothing was running")


@app.command(epilog="Example:  seenit status")
def status() -> None:
    """Show what `seenit up` left running. Exits with 1 when there is nothing, or not all of it."""
    running = state.load()
    if running is None:
        out.print("nothing is running; start it with: seenit up")
        raise typer.Exit(1)
    table = Table("process", "pid", "alive", "log")
    for process in running.processes:
        table.add_row(process.name, str(process.pid), "yes" if process.alive else "[red]no[/]", str(process.log))
    out.print(table, _addresses(running))
    raise typer.Exit(0 if running.alive else 1)


@app.command(epilog="Example:  seenit upload holiday.jpg https://example.org/cat.png")
def upload(
    pictures: Annotated[list[str], typer.Argument(metavar="PATH|URL...", help="Files, folders or addresses.")],
    tenant: Annotated[str, typer.Option(help="Tenant the pictures belong to.")] = "default",
) -> None:
    """Send an upload event for each picture: files within the event, addresses as they are."""
    producer = UploadsProducer(_kafka())
    sent = 0
    for event in _uploads(pictures, tenant):
        producer.send(event)
        sent += 1
    producer.flush()
    out.print(f"sent {sent} upload{'' if sent == 1 else 's'}; see the verdicts with: seenit watch --from-beginning")


@app.command(epilog="Example:  seenit watch --json | jq 'select(.verdict == \"duplicate\")'")
def watch(
    as_json: Annotated[bool, typer.Option("--json", help="One JSON object a line, as on the topic.")] = False,
    from_beginning: Annotated[bool, typer.Option(help="Start with the oldest verdict kept.")] = False,
    count: Annotated[int, typer.Option(min=0, help="Stop after this many verdicts; 0: never.")] = 0,
) -> None:
    """Follow the verdicts until Ctrl-C."""
    reader = VerdictsReader(_kafka(), from_beginning=from_beginning)
    seen = 0
    try:
        while count == 0 or seen < count:
            for published in reader.poll(0.5):
                if count and seen == count:
                    break
                seen += 1
                if as_json:
                    sys.stdout.write(published.verdict.model_dump_json() + "\n")
                    sys.stdout.flush()
                else:
                    out.print(_line(published), highlight=False, soft_wrap=True)
    except KeyboardInterrupt:
        pass
    finally:
        reader.close()


@app.command(epilog="Example:  seenit demo --images ~/Pictures")
def demo(
    images: Annotated[
        Path | None, typer.Option(exists=True, file_okay=False, help="Use the pictures in this folder.")
    ] = None,
    results: Annotated[Path, typer.Option("--out", help="Folder for the contact sheet.")] = Path("out/demo"),
) -> None:
    """Upload photographs, edited copies and unrelated pictures to a stack of its own; show each verdict.

    Exits with 0 only when every copy is found and no unrelated picture is called a duplicate. Copies with lighting,
    zoom and noise all at once are shown and counted, but do not decide.
    """
    if not demonstrate(images, results, out):
        raise typer.Exit(1)


@app.command(epilog="Example:  seenit compare original.jpg cropped.jpg --draw both.png")
def compare(
    a: Annotated[Path, typer.Argument(exists=True, dir_okay=False)],
    b: Annotated[Path, typer.Argument(exists=True, dir_okay=False)],
    drawing: Annotated[
        Path | None, typer.Option("--draw", help="Draw both, with boxes around what they share, into this file.")
    ] = None,
) -> None:
    """The distance of two image files, whether B is a copy of A, and by which edit. Exits with 1 when it is not.

    As in the service, B may also show A in a part of it, as a screenshot does.
    """
    with _encoder() as encoder:
        info, original = encoder.info, encoder.encode(a)
        frames, copies = encoder.encode_views(b, Settings.load().decode)
    each_l2: list[float] = np.linalg.norm(original.embeddings - copies.embeddings, axis=1).tolist()
    same, rule, look, which = each_l2[0] <= info.threshold_l2, info.verification_rule, None, 0
    if original.patches is not None and copies.patches is not None and rule is not None:
        originals = np.broadcast_to(original.patches, copies.patches.shape)
        looks = verify(copies.patches, originals, rule.rotation_maps, rule.thumbnail_side)
        verified = [view for view, look in enumerate(looks) if rule.accepts(each_l2[view], look.score)]
        which = min(verified, key=each_l2.__getitem__, default=0)
        same, look = same or bool(verified), looks[which].in_whole_image(frames[which])
    said = f"l2 {each_l2[which]:.4f}{' of a picture within B' if which else ''}, threshold_l2 {info.threshold_l2:g}"
    if look is not None and rule is not None:
        said += f", candidate_l2 {rule.candidate_l2:g}, score {look.score:.3f} of {look.inliers} inliers"
    out.print(f"{'duplicates' if same else 'different'}: {said}", highlight=False, soft_wrap=True)
    if same and look is not None and look.edit is not None:
        out.print(_in_words(look.edit), highlight=False, soft_wrap=True)
    if drawing is not None:
        if look is None:
            raise Misconfigured("there is nothing to draw: the encoder gives no local features")
        with Image.open(a) as left, Image.open(b) as right:
            side_by_side(ImageOps.exif_transpose(left), ImageOps.exif_transpose(right), look).save(drawing)
    raise typer.Exit(0 if same else 1)


@app.command(epilog="Example:  seenit embed photo.jpg --out photo.npy")
def embed(
    picture: Annotated[Path, typer.Argument(exists=True, dir_okay=False)],
    file: Annotated[Path | None, typer.Option("--out", help="Write a .npy file instead of printing JSON.")] = None,
) -> None:
    """The embedding of a picture, as JSON on standard output or as a .npy file."""
    with _encoder() as encoder:
        vector, info = encoder(picture), encoder.info
    if file is None:
        model = {"name": info.name, "version": info.version}
        sys.stdout.write(json.dumps({"model": model, "embedding": [round(float(x), 6) for x in vector]}) + "\n")
    else:
        np.save(file, vector)
        out.print(f"wrote float32 {list(vector.shape)} to {file}", highlight=False)


@app.command(epilog="Example:  seenit calibrate --images ~/Pictures --fpr 1e-6")
def calibrate(
    images: Annotated[Path, typer.Option(exists=True, file_okay=False, help="Pictures like those to be judged.")],
    rate: Annotated[
        float, typer.Option("--fpr", min=1e-9, max=0.1, help="Share of unrelated pairs that may count as the same.")
    ] = 1e-6,
    pictures: Annotated[int, typer.Option(min=1, help="Make copies of this many of the pictures, at most.")] = 500,
    results: Annotated[Path, typer.Option("--out", help="Folder for the figures and configurations.")] = Path(
        "out/calibration"
    ),
) -> None:
    """The threshold for your own pictures, from edited copies of them, and the configurations that put it in force."""
    # Here, since a machine that only runs the service need not have the training's modules.
    from triton_models.training import calibrate as calibration  # noqa: PLC0415
    from triton_models.training.data import list_pictures  # noqa: PLC0415
    from triton_models.training.encoders import ServedEncoder  # noqa: PLC0415

    with _triton() as settings:
        encoder = ServedEncoder(settings)
        try:
            found, measured = calibration.calibrate(list_pictures(images), encoder, rate, pictures)
        except ValueError as error:
            raise Misconfigured(str(error)) from None
        finally:
            encoder.client.close()
    low, high = found.threshold_interval
    out.print(
        f"threshold_l2 {found.threshold_l2:.4f} (95%: {low:.4f} to {high:.4f}) at {rate:g} of {found.pairs:.2g} pairs, "
        f"finding {found.recall:.3f} of copies",
        highlight=False,
    )
    for path in calibration.write(found, measured, results):
        out.print(f"  {path}", highlight=False)


def _progress(findings: Iterator[Finding]) -> Iterator[Finding]:
    """The same findings, with a word about what is being done for whoever watches."""
    with err.status("trying") as status:
        for finding in findings:
            status.update(f"{finding.what}: {finding.outcome}")
            yield finding


def _end_within(timeout_s: float, status: int) -> None:
    """Python waits for the threads of all pools when it ends, and nothing interrupts one that fetches."""
    timer = threading.Timer(timeout_s, os._exit, (status,))
    timer.daemon = True
    timer.start()


@contextmanager
def _bars() -> Iterator[tuple[Callable[[RecoveryProgress], None], Callable[[RecoveryProgress], str]]]:
    """Two bars on a terminal, for what is read and what is put in order; and how fast it was."""
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    began_s = time.monotonic()
    with Progress(*columns, TextColumn("{task.fields[more]}"), console=err) as bars:
        reading = bars.add_task("reading messages", total=None, more="")
        restoring = bars.add_task("restoring rows", total=None, more="", visible=False)

        def show(done: RecoveryProgress) -> None:
            each_s = f"{(done.messages + done.rows) / (time.monotonic() - began_s):,.0f}/s"
            bars.update(
                reading, completed=done.messages, total=done.total_messages, more="" if done.total_rows else each_s
            )
            if done.total_rows:
                more = f"{done.tenants} tenants"
                bars.update(restoring, completed=done.rows, total=done.total_rows, more=more, visible=True)

        def rate(done: RecoveryProgress) -> str:
            took_s = time.monotonic() - began_s
            return f"{took_s:.1f} s, {done.messages / took_s:,.0f} messages a second"

        yield show, rate


def _kafka() -> KafkaSettings:
    """The broker of the settings, or the one that `seenit up` left running when the settings name none."""
    settings = Settings.load().kafka
    running = state.load()
    if "bootstrap_servers" in settings.model_fields_set or running is None or not running.alive:
        return settings
    addresses = running.addresses
    return settings.model_copy(update={"bootstrap_servers": addresses.kafka})


@contextmanager
def _triton() -> Iterator[TritonSettings]:
    """The encoder of the settings, else of the running stack, else one started for this command."""
    settings = Settings.load().triton
    running = state.load()
    if "url" in settings.model_fields_set:
        yield settings
    elif running is not None and running.alive:
        yield TritonSettings(url=running.addresses.triton_grpc)
    else:
        with local.triton() as url:
            yield TritonSettings(url=url)


@contextmanager
def _encoder() -> Iterator[ImageEncoder]:
    with _triton() as settings, ImageEncoder(settings=settings) as encoder:
        yield encoder


def _uploads(pictures: list[str], tenant: str) -> Iterator[ImageUpload]:
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
    verdict = published.verdict
    image_id = _plain(verdict.image_id)
    clock = time.strftime("%H:%M:%S", time.localtime(verdict.decided_at.timestamp()))
    if verdict.match is not None:
        why = f"({verdict.kind}, l2 {verdict.match.l2:.3f})"
        return f"{clock}  [red]{verdict.verdict}[/]  {image_id} = {_plain(verdict.match.image_id)}  {why}"
    if verdict.reason is not None:
        return f"{clock}  [yellow]{verdict.verdict}[/]  {image_id}: {_plain(verdict.reason)}"
    return f"{clock}  [green]{verdict.verdict}[/]  {image_id}"


def _plain(text: str) -> str:
    """Text from outside, with no markup for rich and no control characters for the terminal."""
    return escape("".join(letter if letter.isprintable() else "\N{REPLACEMENT CHARACTER}" for letter in text))


def _in_words(edit: Edit) -> str:
    """What was done to the first picture to get the second."""
    mirrored = "mirrored, " if edit.mirrored else ""
    boxes = (
        f"[{box.left:.2f}..{box.right:.2f}] x [{box.top:.2f}..{box.bottom:.2f}]"
        for box in (edit.box_in_upload, edit.box_in_match)
    )
    return (
        f"{mirrored}zoomed {edit.zoom:.2f} times, turned by {round(edit.rotation_deg)} degrees; "
        f"{' of B shows '.join(boxes)} of A, overlap {edit.overlap:.2f}"
    )


def _addresses(running: state.State) -> Table:
    table = Table("what", "where")
    for name, value in asdict(running.addresses).items():
        table.add_row(name, str(value or ""))
    return table
