"""Commands that read banks: `seenit bank list` and `check`."""

import json
import sys
from collections import Counter
from hashlib import sha256
from pathlib import Path
from typing import Annotated

import typer
from rich.markup import escape
from rich.table import Table

from consumer.cli.common import bank_settings, open_encoder, redis_settings
from consumer.cli.console import out, plain
from consumer.errors import Misconfigured
from consumer.images.pdq import pdq_hash
from consumer.moderation.banks import BankDefined, BankEntry, BankKey
from consumer.moderation.candidates import BankRequest
from consumer.moderation.matching import Banks
from consumer.moderation.store import BankStore
from consumer.moderation.topic import read_banks
from consumer.settings import Settings
from consumer.window.connection import connect
from consumer.window.store import WindowStore

Json = Annotated[bool, typer.Option("--json", help="One JSON object a line.")]
ALL_TENANTS = "(all)"


def list_banks(
    bank: Annotated[str | None, typer.Argument(help="List the entries of this bank.")] = None,
    tenant: Annotated[str | None, typer.Option(help="Of this tenant; without it, of all tenants.")] = None,
    as_json: Json = False,
) -> None:
    """List the banks, or the entries of one."""
    known = read_banks(bank_settings())
    if bank is None:
        banks = [each for each in known.banks.values() if tenant in (None, each.tenant)]
        counts = Counter(key.of_bank for key in known.entries)
        if as_json:
            _print_json(banks)
        else:
            _print_banks(banks, counts)
        return
    key = BankKey(tenant, bank)
    entries = [entry for of, entry in known.entries.items() if of.of_bank == key]
    if key not in known.banks and not entries:
        raise Misconfigured(f"there is no bank {bank!r}; see: seenit bank list")
    if as_json:
        _print_json(entries)
        return
    table = Table("entry", "picture", "labels", "source", "expires")
    for entry in entries:
        labels = ", ".join(f"{name}={value}" for name, value in entry.labels.items())
        expires = "" if entry.expires_at is None else entry.expires_at.isoformat(timespec="seconds")
        table.add_row(plain(entry.entry_id), plain(_picture(entry)), plain(labels), plain(entry.source or ""), expires)
    out.print(table)


def check_picture(
    picture: Annotated[Path, typer.Argument(exists=True, dir_okay=False)],
    tenant: Annotated[str, typer.Option(help="Compare with the banks of this tenant, and of all tenants.")] = "default",
    as_json: Annotated[bool, typer.Option("--json", help="The hits as one JSON object.")] = False,
) -> None:
    """Whether a picture file shows an entry of a bank. Exits with 1 when it shows none.

    As the service would tell of an upload; nothing is stored.
    """
    data = picture.read_bytes()
    with open_encoder() as encoder:
        model, views = encoder.info, encoder.encode_views(data, Settings.load().decode)
    redis = connect(redis_settings())
    try:
        settings = Settings.load()
        banks = Banks(BankStore(WindowStore(redis, model, settings.window, settings.redis.key_prefix)), model)
        banks.sync()
        pdq = pdq_hash(data) if banks.compares_pdq(tenant) else None
        [result] = banks.match([BankRequest(tenant, sha256(data).digest(), views, pdq)])
    finally:
        redis.close()
    if as_json:
        found = {
            "banks": [hit.model_dump(mode="json", exclude_none=True) for hit in result.hits],
            "silenced_by": [each.model_dump() for each in result.silenced_by],
        }
        sys.stdout.write(json.dumps(found) + "\n")
    else:
        for hit in result.hits:
            how = "the same bytes" if hit.exact else "PDQ" if hit.l2 is None else f"l2 {hit.l2:.3f}"
            out.print(f"{plain(hit.bank)} ({hit.kind}): {plain(hit.entry_id)}, {how}", highlight=False)
        for each in result.silenced_by:
            out.print(f"{plain(each.bank)} (allow): {plain(each.entry_id)}", highlight=False)
        if not result.hits:
            out.print("no entry of any bank", highlight=False)
    raise typer.Exit(0 if result.hits else 1)


def _print_banks(banks: list[BankDefined], counts: Counter[BankKey]) -> None:
    table = Table("bank", "tenant", "kind", "", "strictness", "action", "silences", "entries")
    for bank in banks:
        enabled = "" if bank.enabled else "[yellow]disabled[/]"
        tenant = escape(ALL_TENANTS) if bank.tenant is None else plain(bank.tenant)
        silences = plain(", ".join(bank.silences))
        cells = (plain(bank.bank), tenant, bank.kind, enabled, bank.strictness, plain(bank.action or ""), silences)
        table.add_row(*cells, str(counts[bank.key]))
    out.print(table)


def _print_json(bodies: list[BankDefined] | list[BankEntry]) -> None:
    for body in bodies:
        sys.stdout.write(body.model_dump_json(exclude={"data_base64"}, exclude_none=True) + "\n")


def _picture(entry: BankEntry) -> str:
    """What an entry's picture is known by."""
    if entry.data_base64 is not None:
        return f"{len(entry.data_base64)} bytes"
    return entry.url or entry.image_id or f"PDQ {entry.pdq}"
