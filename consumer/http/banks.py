"""`/v1/banks`: banks of known pictures and their entries, as they stand on their topic."""

import asyncio
import time
from http import HTTPStatus
from typing import Annotated, Any

from fastapi import APIRouter, Path, Query, Request

from consumer.errors import Unavailable
from consumer.http.addresses import check_address
from consumer.http.bodies import FILE_SCHEMA, content_type_of, parse, request_body, valid
from consumer.http.changes import Asked, not_set_up
from consumer.http.models import Accepted, BankAnswer, BankBody, EntryAnswer, EntryBody
from consumer.http.parts import Admin, Parts, Reader, Reviewer, ThePart
from consumer.http.problems import Refused
from consumer.http.scopes import Caller
from consumer.moderation.banks import BankDefined, BankEntry, BankKey, EntryKey, change_message, removal_message
from consumer.moderation.matching import Banks

router = APIRouter(prefix="/v1/banks", tags=["banks"])

# The tenant of what holds for all of them.
ALL = "*"
# How long a change is waited for, so that whoever asked for it sees it in the next answer.
SEEN_WITHIN_S, LOOK_EVERY_S = 10.0, 0.05

BankName = Annotated[str, Path(min_length=1, max_length=256)]
EntryId = Annotated[str, Path(min_length=1, max_length=2048)]
Tenant = Annotated[
    str | None, Query(min_length=1, max_length=256, description="Whose bank; `*` for a bank of all tenants.")
]


def known_banks(parts: Parts) -> Banks:
    """The banks. Raises Refused where there are none, or Unavailable."""
    banks = parts.ready().banks
    if banks is None:
        raise not_set_up("SEENIT_KAFKA_BANKS_TOPIC")
    return banks


async def read_banks(parts: Parts) -> Banks:
    """The banks, with all that changed until now. Raises Refused or Unavailable."""
    banks = known_banks(parts)
    await asyncio.to_thread(banks.sync)
    return banks


def bank_key(caller: Caller, tenant: str | None, bank: str, *, changes: bool = False) -> BankKey:
    """Name a bank of the caller's tenant, or of all. Raises Refused."""
    if tenant != ALL:
        return BankKey(caller.tenant(tenant), bank)
    if changes:
        caller.require_all_tenants()
    return BankKey(None, bank)


async def change(parts: Parts, caller: Caller, body: BankDefined | BankEntry) -> Accepted:
    """Define a bank or add an entry, and wait until that is seen. Raises Refused, Unprocessable or Unavailable."""
    banks, topic = known_banks(parts), parts.settings.kafka.banks_topic
    action, subject = (
        ("bank.defined", body.bank) if isinstance(body, BankDefined) else ("bank.entry", _subject(body.key))
    )
    asked = await parts.changes.ask(caller, action, body.tenant, subject, change_message(topic, body))
    return await _seen(banks, asked)


async def remove(parts: Parts, caller: Caller, key: BankKey | EntryKey) -> Accepted:
    """Delete a bank with its entries, or an entry, and wait until that is seen. Raises Refused or Unavailable."""
    banks, topic = await read_banks(parts), parts.settings.kafka.banks_topic
    keys: list[BankKey | EntryKey] = [key]
    if isinstance(key, BankKey):
        keys = [*(entry.key for entry in banks.entries(key)), key]
    for each in keys:
        action, subject = (
            ("bank.deleted", each.bank) if isinstance(each, BankKey) else ("entry.deleted", _subject(each))
        )
        asked = await parts.changes.ask(caller, action, each.tenant, subject, removal_message(topic, each))
    return await _seen(banks, asked)


def find_bank(banks: Banks, key: BankKey) -> BankAnswer:
    """Describe a bank. Raises Refused for one that is not known."""
    row = banks.bank(key)
    if row is None:
        raise Refused(HTTPStatus.NOT_FOUND, "unknown-bank", "There is no such bank of this tenant.")
    return BankAnswer.of(key, row, len(banks.entries(key)))


async def _seen(banks: Banks, asked: Asked) -> Accepted:
    deadline_s = time.monotonic() + SEEN_WITHIN_S
    while time.monotonic() < deadline_s:
        try:
            await asyncio.to_thread(banks.sync)
        except Unavailable:
            break  # the change is on its topic all the same
        if banks.is_read({asked.sent.partition: asked.sent.offset + 1}):
            break
        await asyncio.sleep(LOOK_EVERY_S)
    return Accepted(id=asked.id)


def _subject(key: EntryKey) -> str:
    return f"{key.bank}/{key.entry_id}"


@router.get("", operation_id="listBanks", summary="List the banks")
async def list_banks(parts: ThePart, caller: Reader, tenant: Tenant = None) -> list[BankAnswer]:
    """List the banks of a tenant, and those of all tenants."""
    banks, own = await read_banks(parts), bank_key(caller, tenant, "").tenant
    known = sorted(
        (key for key in banks.known() if key.tenant in {own, None}), key=lambda key: (key.bank, str(key.tenant))
    )
    return [find_bank(banks, key) for key in known]


@router.get("/{bank}", operation_id="getBank", summary="What a bank is for")
async def get_bank(bank: BankName, parts: ThePart, caller: Reader, tenant: Tenant = None) -> BankAnswer:
    """Describe a bank, and count its entries."""
    return find_bank(await read_banks(parts), bank_key(caller, tenant, bank))


@router.put("/{bank}", status_code=202, operation_id="putBank", summary="Define a bank")
async def put_bank(bank: BankName, body: BankBody, parts: ThePart, caller: Admin, tenant: Tenant = None) -> Accepted:
    """Define a bank, or change what it is for."""
    key = bank_key(caller, tenant, bank, changes=True)
    return await change(parts, caller, valid(BankDefined, bank=bank, tenant=key.tenant, **body.model_dump()))


@router.delete("/{bank}", status_code=202, operation_id="deleteBank", summary="Delete a bank")
async def delete_bank(bank: BankName, parts: ThePart, caller: Admin, tenant: Tenant = None) -> Accepted:
    """Delete a bank and all its entries."""
    return await remove(parts, caller, bank_key(caller, tenant, bank, changes=True))


@router.get("/{bank}/entries", operation_id="listEntries", summary="List the entries of a bank")
async def list_entries(
    bank: BankName,
    parts: ThePart,
    caller: Reader,
    tenant: Tenant = None,
    after: Annotated[int, Query(ge=0, le=2**63 - 1, description="The `serial` of the last entry seen.")] = 0,
    limit: Annotated[int, Query(ge=1, le=1000)] = 100,
) -> list[EntryAnswer]:
    """List the entries of a bank that the service could use, in the order in which they came."""
    banks, key = await read_banks(parts), bank_key(caller, tenant, bank)
    find_bank(banks, key)
    return [EntryAnswer.of(entry) for entry in banks.entries(key) if entry.serial > after][:limit]


@router.put(
    "/{bank}/entries/{entry_id:path}",
    status_code=202,
    operation_id="putEntry",
    summary="Add an entry to a bank",
    openapi_extra=request_body(
        {
            "application/json": {"schema": {"$ref": "#/components/schemas/EntryBody"}},
            "image/*": {"schema": FILE_SCHEMA},
        }
    ),
)
async def put_entry(
    bank: BankName, entry_id: EntryId, request: Request, parts: ThePart, caller: Reviewer, tenant: Tenant = None
) -> Accepted:
    """Add an entry: JSON as of the event `bank.entry`, or the picture itself; earlier uploads are looked for too."""
    key = bank_key(caller, tenant, bank, changes=True)
    if content_type_of(request).startswith("image/"):
        fields: dict[str, Any] = {"data_base64": await request.body()}
    else:
        fields = parse(EntryBody, await request.body()).model_dump()
    check_address(caller, fields.get("url"), parts.settings.fetch.networks)
    entry = valid(BankEntry, bank=bank, entry_id=entry_id, tenant=key.tenant, **fields)
    find_bank(await read_banks(parts), key)
    return await change(parts, caller, entry)


@router.delete(
    "/{bank}/entries/{entry_id:path}", status_code=202, operation_id="deleteEntry", summary="Remove an entry of a bank"
)
async def delete_entry(
    bank: BankName, entry_id: EntryId, parts: ThePart, caller: Reviewer, tenant: Tenant = None
) -> Accepted:
    """Remove an entry of a bank."""
    key = bank_key(caller, tenant, bank, changes=True)
    return await remove(parts, caller, EntryKey(key.tenant, bank, entry_id))
