"""The routes of Meta's Hasher-Matcher-Actioner that its clients use, on our banks.

What differs is listed in README.md. HMA knows no tenants: these routes work on the caller's only tenant, or `default`.
"""

import asyncio
import secrets
from collections import defaultdict
from collections.abc import Container
from hashlib import sha256
from http import HTTPStatus
from typing import Annotated, Any

from fastapi import APIRouter, Body, Query, Request
from fastapi.responses import PlainTextResponse

from consumer.http.addresses import check_address
from consumer.http.banks import bank_key, change, known_banks, read_banks, remove
from consumer.http.bodies import PictureAddress, PictureFile, valid
from consumer.http.encoding import hash_content
from consumer.http.hma_requests import (
    BankCreation,
    BankUpdate,
    bad,
    check_name,
    check_note,
    photo_address,
    read_content,
    read_photo,
    signal_types,
)
from consumer.http.parts import Admin, Backends, Parts, Reader, Reviewer, ThePart
from consumer.http.problems import Refused
from consumer.http.scopes import Caller
from consumer.http.signals import SIGNAL_TYPES, check_pdq, compare_pdq, decode_signal, encode_signal, pdq_distance
from consumer.moderation.banks import BankDefined, BankEntry, BankKey, EntryKey
from consumer.moderation.candidates import BankRequest
from consumer.moderation.matching import Banks
from consumer.moderation.shelf import Entry
from consumer.moderation.store import BankRow
from consumer.verdicts import BankHit
from consumer.verification.pair import verify_pair

router = APIRouter(tags=["hma"])

# Content ids are numbers that JavaScript can hold.
MAX_CONTENT_ID = 2**53 - 1
# As the time until which content is disabled; 0 would be for ever.
ENABLED = 1

Url = Annotated[str | None, Query(max_length=8192)]
Types = Annotated[str | None, Query(description="Signal types, by commas.")]
ContentType = Annotated[str | None, Query(description="`photo`: there are no others.")]
Matches = dict[str, list[dict[str, Any]]]


@router.get("/status", operation_id="hmaStatus", summary="Whether it is alive", response_class=PlainTextResponse)
async def status(parts: ThePart) -> str:
    """Say that it is alive, as HMA does, once look-ups can be answered."""
    parts.ready()
    return "I-AM-ALIVE"


@router.get("/status/live", operation_id="hmaLive", summary="Whether it runs", response_class=PlainTextResponse)
async def live() -> str:
    """Say that it runs, whatever it waits for."""
    return "I-AM-ALIVE"


@router.get("/h/hash", operation_id="hmaHashUrl", summary="Hash a picture by its address")
async def hash_url(
    parts: ThePart, caller: Reader, url: Url = None, content_type: ContentType = None, types: Types = None
) -> dict[str, str]:
    """Fetch a picture, and return its signals by type."""
    if not url:
        raise bad("Give the address of a picture as url.")
    return await _hash(parts, caller, photo_address(url, content_type), signal_types(types))


@router.post("/h/hash", operation_id="hmaHash", summary="Hash a picture")
async def hash_form(request: Request, parts: ThePart, caller: Reader, types: Types = None) -> dict[str, str]:
    """Return the signals, by type, of the picture in the form field `photo`."""
    wanted = signal_types(types)
    return await _hash(parts, caller, await read_photo(request), wanted)


@router.get("/m/lookup", operation_id="hmaLookUpSignal", summary="Look up a signal, or a picture by its address")
async def look_up_get(
    parts: ThePart,
    caller: Reader,
    url: Url = None,
    signal: str | None = None,
    signal_type: str | None = None,
    banks: str | None = None,
    content_type: ContentType = None,
    types: Types = None,
) -> dict[str, Any]:
    """Return the entries that a signal matches by bank; for a picture, these by type of its signals."""
    tenant = caller.tenant(None)
    if url:
        signals = await _hash(parts, caller, photo_address(url, content_type), signal_types(types))
        by_type = {name: await _look_up(parts, tenant, name, each, banks) for name, each in signals.items()}
        return by_type if signal_type is None else by_type.get(signal_type, {})
    if not signal or not signal_type:
        raise bad("Either url, or both signal and signal_type are needed.")
    return await _look_up(parts, tenant, signal_type, signal, banks)


@router.post("/m/lookup", operation_id="hmaLookUp", summary="Look up a picture")
async def look_up_post(
    request: Request, parts: ThePart, caller: Reader, banks: str | None = None, types: Types = None
) -> dict[str, Matches]:
    """Return the entries that the picture in the form field `photo` matches, by type of signal and by bank."""
    tenant, wanted = caller.tenant(None), signal_types(types)
    signals = await _hash(parts, caller, await read_photo(request), wanted)
    return {name: await _look_up(parts, tenant, name, each, banks) for name, each in signals.items()}


@router.post("/m/compare", operation_id="hmaCompare", summary="Compare two signals")
async def compare(body: Annotated[Any, Body()], parts: ThePart, _: Reader) -> dict[str, Any]:
    """Tell of each pair of signals, given by type, whether they match, and how far they are apart."""
    backends = parts.ready()
    if not isinstance(body, dict):
        raise bad("Give signals by type, as an object.")
    answers: dict[str, Any] = {}
    for name, pair in body.items():
        if not isinstance(pair, list) or len(pair) != 2 or not all(isinstance(each, str) for each in pair):
            raise bad("Give two signals of each type, as a list.")
        try:
            if name == "pdq":
                same, distance = compare_pdq(*pair)
                answers[name] = [same, {"distance": distance}]
            elif name == "seenit":
                answers[name] = await asyncio.to_thread(_compare, backends, *pair)
            else:
                raise bad(f"There is no signal type {name[:80]!r}.")
        except ValueError as error:
            raise bad(f"{name}: {error}.") from None
    return answers


@router.get("/c/banks", operation_id="hmaListBanks", summary="List the banks")
async def list_banks(parts: ThePart, caller: Reader) -> list[dict[str, Any]]:
    """List the banks of the caller's tenant."""
    banks, tenant = await read_banks(parts), caller.tenant(None)
    known = sorted((key.bank, row) for key, row in banks.known().items() if key.tenant == tenant)
    return [_bank(name, row) for name, row in known]


@router.post("/c/banks", status_code=201, operation_id="hmaCreateBank", summary="Create a bank")
async def create_bank(body: BankCreation, parts: ThePart, caller: Admin) -> dict[str, Any]:
    """Create a bank of kind `block`."""
    banks, name, enabled = await read_banks(parts), check_name(body.name), body.is_on(True)
    key = bank_key(caller, None, name)
    if banks.bank(key) is not None:
        raise Refused(HTTPStatus.FORBIDDEN, "bank-exists", "There is a bank of this name.")
    await change(parts, caller, BankDefined(bank=name, tenant=key.tenant, kind="block", enabled=enabled))
    return {"name": name, "matching_enabled_ratio": float(enabled)}


@router.get("/c/bank/{name}", operation_id="hmaGetBank", summary="What a bank is")
async def get_bank(name: str, parts: ThePart, caller: Reader) -> dict[str, Any]:
    """Describe a bank."""
    banks = await read_banks(parts)
    return _bank(name, _known(banks, bank_key(caller, None, name)))


@router.put("/c/bank/{name}", operation_id="hmaPutBank", summary="Turn a bank on or off")
async def put_bank(name: str, body: BankUpdate, parts: ThePart, caller: Admin) -> dict[str, Any]:
    """Turn a bank on or off; its name stays."""
    key, banks = bank_key(caller, None, name), await read_banks(parts)
    row = _known(banks, key)
    if body.name not in {None, name}:
        check_name(body.name)
        raise Refused(HTTPStatus.NOT_IMPLEMENTED, "not-supported", "A bank keeps its name here; create another one.")
    enabled = body.is_on(row.enabled)
    defined = BankDefined(bank=name, tenant=key.tenant, enabled=enabled, **row.model_dump(exclude={"at", "enabled"}))
    await change(parts, caller, defined)
    return {"name": name, "matching_enabled_ratio": float(enabled)}


@router.delete("/c/bank/{name}", operation_id="hmaDeleteBank", summary="Delete a bank")
async def delete_bank(name: str, parts: ThePart, caller: Admin) -> dict[str, str]:
    """Delete a bank and its entries; one that is not there as well."""
    await remove(parts, caller, bank_key(caller, None, name))
    return {"message": "Done"}


@router.post("/c/bank/{name}/content", operation_id="hmaAddContent", summary="Add a picture to a bank")
async def add_content(
    name: str, request: Request, parts: ThePart, caller: Reviewer, url: Url = None, content_type: ContentType = None
) -> dict[str, Any]:
    """Add the picture at `url`, or in the form field `photo`, to a bank."""
    key, banks = bank_key(caller, None, name), await read_banks(parts)
    _known(banks, key)
    named, note = await read_content(request, url, content_type)
    check_address(caller, url, parts.settings.fetch.networks)
    signals = await _hash(parts, caller, named)
    content_id = _new_id()
    picture = {"url": named.url} if isinstance(named, PictureAddress) else {"data_base64": named.data}
    entry = valid(BankEntry, bank=name, entry_id=str(content_id), tenant=key.tenant, note=note, **picture)
    await change(parts, caller, entry)
    return {"id": content_id, "signals": signals}


@router.post("/c/bank/{name}/signal", operation_id="hmaAddSignal", summary="Add a hash to a bank")
async def add_signal(name: str, body: dict[str, Any], parts: ThePart, caller: Reviewer) -> dict[str, Any]:
    """Add a PDQ hash to a bank."""
    key, banks = bank_key(caller, None, name), await read_banks(parts)
    _known(banks, key)
    if set(body) - {"note"} != {"pdq"} or not isinstance(body["pdq"], str):
        raise bad('Only hashes of the type pdq can be added, as {"pdq": ...}; add other pictures themselves.')
    try:
        pdq = check_pdq(body["pdq"])
    except ValueError as error:
        raise bad(f"pdq: {error}.") from None
    content_id, note = _new_id(), check_note(body.get("note"))
    await change(parts, caller, BankEntry(bank=name, entry_id=str(content_id), tenant=key.tenant, pdq=pdq, note=note))
    return {"id": content_id, "signals": {"pdq": pdq}}


@router.get("/c/bank/{name}/content/{content_id}", operation_id="hmaGetContent", summary="An entry of a bank")
async def get_content(
    name: str, content_id: int, parts: ThePart, caller: Reader, include_signals: bool = False
) -> dict[str, Any]:
    """Describe an entry of a bank; only of one that is a hash it is known which signals it has."""
    key, banks = bank_key(caller, None, name), await read_banks(parts)
    row = _known(banks, key)
    entry = _entry(banks, key, content_id)
    if entry is None:
        raise Refused(HTTPStatus.NOT_FOUND, "unknown-content", "There is no such content in this bank.")
    signals = {"signals": {"pdq": entry.row.pdq}} if include_signals and entry.row.pdq is not None else {}
    return {
        "id": content_id,
        "disable_until_ts": ENABLED,
        "original_media_uri": None,
        "bank": _bank(name, row),
        **signals,
    }


@router.delete("/c/bank/{name}/content/{content_id}", operation_id="hmaDeleteContent", summary="Remove an entry")
async def delete_content(name: str, content_id: int, parts: ThePart, caller: Reviewer) -> dict[str, int]:
    """Remove an entry of a bank."""
    key, banks = bank_key(caller, None, name), await read_banks(parts)
    _known(banks, key)
    entry = _entry(banks, key, content_id)
    if entry is not None:
        await remove(parts, caller, entry.key)
    return {"deleted": int(entry is not None)}


async def _hash(
    parts: Parts, caller: Caller, named: PictureFile | PictureAddress, types: Container[str] = SIGNAL_TYPES
) -> dict[str, str]:
    backends = parts.ready()
    async with parts.slot():
        file = await parts.picture(named, caller)
        views = await parts.encode(file)
        digest = await asyncio.to_thread(hash_content, file.data)
        signals = {"seenit": encode_signal(backends.model, digest, views)}
        if pdq := await asyncio.wrap_future(parts.encoder.hash_pdq(file.data)):
            signals["pdq"] = pdq
    return {name: signal for name, signal in signals.items() if name in types}


async def _look_up(parts: Parts, tenant: str, name: str, signal: str, wanted: str | None) -> Matches:
    """The entries that a signal matches, by bank."""
    banks, model = known_banks(parts), parts.ready().model
    try:
        if name == "pdq":
            request = BankRequest(tenant, b"", None, check_pdq(signal))
        elif name == "seenit":
            request = BankRequest(tenant, *decode_signal(model, signal))
        else:
            raise bad(f"There is no signal type {name[:80]!r}.")
    except ValueError as error:
        raise bad(f"{name}: {error}.") from None
    hits = await asyncio.to_thread(_hits, banks, request)
    by_bank: Matches = defaultdict(list)
    for hit in hits:
        if not wanted or hit.bank in wanted.split(","):
            distance = _distance(banks, tenant, request, hit)
            by_bank[hit.bank].append({"bank_content_id": _content_id(hit.entry_id), "distance": distance})
    return by_bank


def _hits(banks: Banks, request: BankRequest) -> tuple[BankHit, ...]:
    banks.sync()
    [result] = banks.match([request])
    return result.hits


def _distance(banks: Banks, tenant: str, request: BankRequest, hit: BankHit) -> str:
    if hit.l2 is not None or request.pdq is None:
        return f"{hit.l2 or 0.0:.4f}"
    for scope in (tenant, None):
        found = banks.entry(EntryKey(scope, hit.bank, hit.entry_id))
        if found is not None and found[0].row.pdq is not None:
            return str(pdq_distance(request.pdq, found[0].row.pdq))
    return ""


def _compare(backends: Backends, one: str, other: str) -> list[Any]:
    left, right = (decode_signal(backends.model, each) for each in (one, other))
    if left.views is None or right.views is None:
        return [left.digest == right.digest, {"distance": 0.0 if left.digest == right.digest else 2.0}]
    result = verify_pair(backends.model, left.views, right.views)
    return [left.digest == right.digest or result.duplicate, {"distance": round(result.l2, 4)}]


def _bank(name: str, row: BankRow) -> dict[str, Any]:
    return {"name": name, "matching_enabled_ratio": float(row.enabled)}


def _known(banks: Banks, key: BankKey) -> BankRow:
    row = banks.bank(key)
    if row is None:
        raise Refused(HTTPStatus.NOT_FOUND, "unknown-bank", "There is no such bank.")
    return row


def _new_id() -> int:
    return secrets.randbelow(MAX_CONTENT_ID) + 1


def _content_id(entry_id: str) -> int:
    """The number of an entry: its id, where that is one, or else a hash of it."""
    if entry_id.isascii() and entry_id.isdigit() and int(entry_id) <= MAX_CONTENT_ID:
        return int(entry_id)
    return int.from_bytes(sha256(entry_id.encode("utf-8", "surrogatepass")).digest()[:6])


def _entry(banks: Banks, key: BankKey, content_id: int) -> Entry | None:
    return next((each for each in banks.entries(key) if _content_id(each.key.entry_id) == content_id), None)
