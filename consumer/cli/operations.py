"""Commands around a service at work: `seenit check`, `topics` and `rebuild`."""

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Annotated

import typer
from rich.markup import escape
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from rich.table import Table

from consumer.cli.common import kafka_settings
from consumer.cli.console import err, optional_dependencies, out, plain
from consumer.cli.preflight.check import check_all, check_serving
from consumer.cli.preflight.finding import Finding
from consumer.encoder.triton import TritonEncoder
from consumer.errors import Misconfigured
from consumer.kafka.topics import TopicAdmin, differences, required_topics
from consumer.settings import Settings
from consumer.window.connection import connect
from consumer.window.recovery import RecoveryProgress, recover_window
from consumer.window.window import RedisWindow

_OUTCOMES = {"ok": "[green]ok[/]", "warning": "[yellow]warning[/]", "failed": "[bold red]failed[/]"}
_TOPIC_CONFIG = (
    "cleanup.policy",
    "retention.ms",
    "min.insync.replicas",
    "max.message.bytes",
    "message.timestamp.type",
)


def check(
    serve: Annotated[bool, typer.Option("--serve", help="Try what `seenit serve` needs, which is less.")] = False,
) -> None:
    """Try Kafka, Redis, Triton and object stores as SEENIT_* and SEENIT_CONFIG name them; say how to mend what fails.

    Harmless to a service that runs. Exits with 1 when something failed; warnings do not count.
    """
    with optional_dependencies():
        findings = [*_with_status(check_serving(Settings.load()) if serve else check_all(Settings.load()))]
    table = Table("what", "", "found")
    for finding in findings:
        table.add_row(escape(finding.what), _OUTCOMES[finding.outcome], escape(finding.detail))
    out.print(table)
    for finding in findings:
        if finding.remedy:
            out.print(f"{_OUTCOMES[finding.outcome]} {escape(finding.what)}: {escape(finding.remedy)}", highlight=False)
    raise typer.Exit(1 if any(finding.outcome == "failed" for finding in findings) else 0)


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
    settings = kafka_settings()
    specs = required_topics(settings, partitions, replicas, retention_days, Settings.load().window.retention_s)
    admin = TopicAdmin(settings)
    for name in admin.create(list(specs)) if create else ():
        out.print(f"created {name}", highlight=False)
    existing = admin.describe([spec.name for spec in specs])
    table = Table("topic", "partitions", "replicas", *_TOPIC_CONFIG)
    for topic in existing.values():
        values = (topic.config.get(name, "?") for name in _TOPIC_CONFIG)
        table.add_row(topic.name, str(topic.partitions), str(topic.replicas), *values)
    out.print(table)
    problems = list(differences(existing, specs))
    for each in problems:
        out.print(f"[red]{each.topic}[/]: {each.property} is {each.actual}, should be {each.expected}", highlight=False)
        out.print(f"    {each.remedy}", highlight=False, soft_wrap=True)
    raise typer.Exit(1 if problems else 0)


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
        with _progress_bars() as (show, speed):
            progress = recover_window(settings.kafka, model, window.store, window.loss_guard, show)
    finally:
        redis.close()
    out.print(f"rebuilt {plain(progress.summary)}; {speed(progress)}", highlight=False, soft_wrap=True)


def _with_status(findings: Iterator[Finding]) -> Iterator[Finding]:
    """Yield the findings, and show on the terminal which check has just ended."""
    with err.status("trying") as status:
        for finding in findings:
            status.update(f"{finding.what}: {finding.outcome}")
            yield finding


@contextmanager
def _progress_bars() -> Iterator[tuple[Callable[[RecoveryProgress], None], Callable[[RecoveryProgress], str]]]:
    """Show a bar for the messages read and one for the records restored.

    Gives two functions: one that moves the bars, and one that puts time and speed in words.
    """
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    began_s = time.monotonic()
    with Progress(*columns, TextColumn("{task.fields[more]}"), console=err) as bars:
        reading = bars.add_task("reading messages", total=None, more="")
        restoring = bars.add_task("restoring rows", total=None, more="", visible=False)

        def show(progress: RecoveryProgress) -> None:
            rate = f"{(progress.messages + progress.rows) / (time.monotonic() - began_s):,.0f}/s"
            bars.update(
                reading,
                completed=progress.messages,
                total=progress.total_messages,
                more="" if progress.total_rows else rate,
            )
            if progress.total_rows:
                tenants = f"{progress.tenants} tenants"
                bars.update(restoring, completed=progress.rows, total=progress.total_rows, more=tenants, visible=True)

        def speed(progress: RecoveryProgress) -> str:
            took_s = time.monotonic() - began_s
            return f"{took_s:.1f} s, {progress.messages / took_s:,.0f} messages a second"

        yield show, speed
