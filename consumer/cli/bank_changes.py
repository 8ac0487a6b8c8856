"""Commands that change banks: `seenit bank create`, `add` and `remove`."""

from collections.abc import Iterator
from datetime import datetime
from pathlib import Path
from typing import Annotated, Any

import typer
from pydantic import ValidationError
from rich.progress import track

from consumer.cli.common import bank_settings
from consumer.cli.console import err, out, plain
from consumer.encoder.contract import Strictness
from consumer.errors import Misconfigured
from consumer.kafka.clients import MessageProducer
from consumer.local.pictures import pictures_in
from consumer.moderation.banks import BankDefined, BankEntry, BankKey, EntryKey, change_message, removal_message
from consumer.moderation.topic import read_banks
from consumer.verdicts import BankKind

Bank = Annotated[str, typer.Argument(help="Name of the bank.")]
Tenant = Annotated[str | None, typer.Option(help="Tenant that the bank is for; without it, all tenants.")]


def create(
    bank: Bank,
    kind: Annotated[BankKind, typer.Option(help="What its entries are.")],
    tenant: Tenant = None,
    strictness: Annotated[Strictness, typer.Option(help="How sure a hit has to be.")] = "balanced",
    action: Annotated[str | None, typer.Option(help="A word for whoever acts on hits: `remove`, say.")] = None,
    silences: Annotated[
        list[str] | None, typer.Option(help="A bank whose hits its entries silence; of kind allow. May be repeated.")
    ] = None,
    disabled: Annotated[bool, typer.Option("--disabled", help="Compare nothing with it for now.")] = False,
    note: Annotated[str | None, typer.Option(help="For people.")] = None,
) -> None:
    """Create a bank of known pictures, or change what it is."""
    settings = bank_settings()
    defined = _valid(
        BankDefined,
        bank=bank,
        tenant=tenant,
        kind=kind,
        enabled=not disabled,
        strictness=strictness,
        action=action,
        silences=tuple(silences or ()),
        note=note,
    )
    banks = read_banks(settings).banks if silences else {}
    producer = MessageProducer(settings)
    producer.send(change_message(settings.banks_topic, defined))
    producer.flush()
    # They may come later, but a name that was mistyped silences nothing, and nobody is told.
    for name in silences or ():
        if BankKey(tenant, name) not in banks:
            err.print(f"[yellow]warning:[/] there is no bank {plain(name)} yet, which it silences", highlight=False)
    out.print(f"bank {plain(bank)} ({kind}); fill it with: seenit bank add {plain(bank)} PICTURES", highlight=False)


def add(
    bank: Bank,
    pictures: Annotated[
        list[str], typer.Argument(metavar="PATH|URL|ID...", help="Files, folders, addresses; ids with --uploads.")
    ],
    tenant: Tenant = None,
    entry_id: Annotated[str | None, typer.Option("--id", help="Id of a single entry; else its name.")] = None,
    uploads: Annotated[bool, typer.Option("--uploads", help="The names are image ids of the window.")] = False,
    label: Annotated[list[str] | None, typer.Option(help="`name=value`, told with each hit. May be repeated.")] = None,
    source: Annotated[str | None, typer.Option(help="Where the entries are from.")] = None,
    note: Annotated[str | None, typer.Option(help="For people.")] = None,
    expires_at: Annotated[
        datetime | None, typer.Option(formats=["%Y-%m-%d", "%Y-%m-%dT%H:%M:%S%z"], help="When the entries end.")
    ] = None,
    lookback: Annotated[
        float | None, typer.Option(help="Also look for uploads of the last seconds that have left the window.")
    ] = None,
) -> None:
    """Add pictures to a bank: files, folders, addresses, or uploads that the window holds."""
    settings = bank_settings()
    if BankKey(tenant, bank) not in read_banks(settings).banks:
        raise Misconfigured(f"there is no bank {bank!r}; create it with: seenit bank create {bank} --kind block")
    sources = [(name, {"image_id": name}) for name in pictures] if uploads else list(_sources(pictures))
    if entry_id is not None and len(sources) != 1:
        raise Misconfigured(f"--id names one entry, and these are {len(sources)} pictures")
    common: dict[str, Any] = {
        "bank": bank,
        "tenant": tenant,
        "labels": _labels(label or []),
        "source": source,
        "note": note,
        "expires_at": None if expires_at is None else expires_at.astimezone(),
        "lookback": lookback,
    }
    producer = MessageProducer(settings)
    for name, picture in track(sources, "adding", console=err, transient=True):
        if isinstance(picture.get("path"), Path):
            picture = {"data_base64": _read(picture["path"])}  # noqa: PLW2901
        entry = _valid(BankEntry, entry_id=entry_id or name, **picture, **common)
        producer.send(change_message(settings.banks_topic, entry))
    producer.flush()
    count = f"{len(sources)} {'entry' if len(sources) == 1 else 'entries'}"
    out.print(f"sent {count} for the bank {plain(bank)}; what cannot be one is on {settings.dead_letter_topic}")


def remove(
    bank: Bank,
    entries: Annotated[list[str] | None, typer.Argument(metavar="ENTRY_ID...", help="Ids of entries.")] = None,
    tenant: Tenant = None,
    everything: Annotated[bool, typer.Option("--all", help="The bank itself, and all its entries.")] = False,
) -> None:
    """Remove entries of a bank, or the bank with all its entries."""
    if bool(entries) == everything:
        raise Misconfigured("name the entries to remove, or give --all to remove the bank")
    settings = bank_settings()
    known = read_banks(settings)
    of_bank = {key.entry_id: key for key in known.entries if key.of_bank == BankKey(tenant, bank)}
    if unknown := [entry for entry in entries or () if entry not in of_bank]:
        raise Misconfigured(f"the bank {bank!r} has no entry {unknown[0]!r}; see: seenit bank list {bank}")
    if everything and BankKey(tenant, bank) not in known.banks and not of_bank:
        raise Misconfigured(f"there is no bank {bank!r}; see: seenit bank list")
    keys: list[BankKey | EntryKey] = [of_bank[entry] for entry in entries or of_bank]
    producer = MessageProducer(settings)
    for key in [*keys, *([BankKey(tenant, bank)] if everything else [])]:
        producer.send(removal_message(settings.banks_topic, key))
    producer.flush()
    out.print(f"removed {len(keys)} entries{' and the bank' if everything else ''}", highlight=False)


def _sources(pictures: list[str]) -> Iterator[tuple[str, dict[str, Any]]]:
    """Yield a name and where the picture is, for each address, each file and each picture file in a folder."""
    for picture in pictures:
        path = Path(picture)
        if "://" in picture:
            yield picture, {"url": picture}
        elif path.is_dir():
            for file in pictures_in(path):
                yield str(file.relative_to(path)), {"path": file}
        elif path.is_file():
            yield path.name, {"path": path}
        else:
            raise Misconfigured(f"there is no file or folder {picture}")


def _read(path: Path) -> bytes:
    data = path.read_bytes()
    if not data:
        raise Misconfigured(f"{path} is empty")
    return data


def _labels(texts: list[str]) -> dict[str, str]:
    labels = {}
    for text in texts:
        name, equals, value = text.partition("=")
        if not name or not equals:
            raise Misconfigured(f"a label is name=value, not {text!r}")
        labels[name] = value
    return labels


def _valid(body: type[Any], **fields: Any) -> Any:
    """Make an event. Raises Misconfigured that says what is wrong."""
    try:
        return body(**fields)
    except ValidationError as error:
        first = error.errors(include_input=False, include_url=False)[0]
        raise Misconfigured(": ".join([*map(str, first["loc"]), first["msg"]])) from None
