"""Commands that exchange banks with others: `seenit bank import` and `export`."""

import sys
from pathlib import Path
from typing import Annotated

import typer
from rich.progress import track

from consumer.cli.bank_changes import Bank, Tenant
from consumer.cli.common import bank_settings
from consumer.cli.console import err, out, plain
from consumer.errors import Misconfigured
from consumer.kafka.clients import MessageProducer
from consumer.moderation.banks import BankEntry, BankKey, EntryKey, change_message, removal_message
from consumer.moderation.hash_lists import read_hashes, write_hashes
from consumer.moderation.topic import read_banks


def import_list(
    bank: Bank,
    file: Annotated[Path, typer.Argument(help="A list; -: standard input.")],
    tenant: Tenant = None,
    source: Annotated[str | None, typer.Option(help="Where the list is from; else the name of the file.")] = None,
) -> None:
    """Add the PDQ hashes of a list: CSV or JSON of python-threatexchange and StopNCII, or a hash a line.

    What the list calls withdrawn is removed. What is there already, as it is, is not sent again.
    """
    settings = bank_settings()
    known = read_banks(settings)
    if BankKey(tenant, bank) not in known.banks:
        raise Misconfigured(f"there is no bank {bank!r}; create it with: seenit bank create {bank} --kind block")
    source = source or (None if str(file) == "-" else file.name)
    try:
        text = sys.stdin.read() if str(file) == "-" else file.read_text("utf-8", "replace")
    except OSError as error:
        raise Misconfigured(f"{file} cannot be read: {error.strerror}") from None
    hashes = list(read_hashes(text))
    if not any(hashes):
        raise Misconfigured(f"{file} has no PDQ hash: 64 hexadecimal digits each")
    producer = MessageProducer(settings)
    added = removed = 0
    for listed in track(hashes, "importing", console=err, transient=True):
        if listed is None:
            continue
        key = EntryKey(tenant, bank, listed.pdq)
        entry = BankEntry(**key._asdict(), pdq=listed.pdq, labels=listed.labels, source=source)
        if listed.withdrawn and key in known.entries:
            producer.send(removal_message(settings.banks_topic, key))
            removed += 1
        elif not listed.withdrawn and known.entries.get(key) != entry:
            producer.send(change_message(settings.banks_topic, entry))
            added += 1
    producer.flush()
    skipped = hashes.count(None)
    out.print(
        f"{plain(bank)}: {added} added, {removed} removed, {skipped} lines are no PDQ hashes, "
        f"{len(hashes) - added - removed - skipped} as before",
        highlight=False,
    )


def export_list(
    bank: Bank,
    tenant: Tenant = None,
    as_json: Annotated[bool, typer.Option("--json", help="Everything, one entry a line; else CSV of hashes.")] = False,
) -> None:
    """Write a bank to standard output: its PDQ hashes as CSV, or all of it as JSON lines.

    The CSV is that of `threatexchange dataset -P --csv`. Pictures have no hash there: only entries that were added as
    hashes are in it.
    """
    known = read_banks(bank_settings())
    if BankKey(tenant, bank) not in known.banks:
        raise Misconfigured(f"there is no bank {bank!r}; see: seenit bank list")
    entries = [entry for key, entry in known.entries.items() if key.of_bank == BankKey(tenant, bank)]
    if as_json:
        for entry in entries:
            sys.stdout.write(entry.model_dump_json(exclude_none=True) + "\n")
        return
    count = write_hashes(sys.stdout, bank, ((entry.pdq, entry.labels) for entry in entries if entry.pdq is not None))
    if count < len(entries):
        err.print(f"{len(entries) - count} entries are pictures, which have no hash here: see --json", highlight=False)
