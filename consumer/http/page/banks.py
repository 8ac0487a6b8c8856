"""The page Banks: what they are, their entries; pictures are added one by one, with progress."""

import asyncio
from http import HTTPStatus
from typing import Annotated, Any

from fastapi import APIRouter, Depends, Form, Query, Request, UploadFile
from fastapi.responses import RedirectResponse, Response

from consumer.http.banks import SEEN_WITHIN_S
from consumer.http.bodies import valid
from consumer.http.changes import not_set_up
from consumer.http.page.bank_directory import Bank
from consumer.http.page.desk import Desk, TheDesk, TheVisitor, check_form
from consumer.http.page.rendering import own_page, render, tenant_query
from consumer.http.page.sessions import Visitor
from consumer.http.parts import Parts, ThePart
from consumer.http.problems import Refused
from consumer.http.scopes import Scope
from consumer.kafka.messages import OutgoingMessage
from consumer.moderation.banks import BankDefined, BankEntry, BankKey, EntryKey, change_message, removal_message
from consumer.verdicts import BankKind

router = APIRouter(include_in_schema=False)

MAX_LISTED = 500
# A picture in base64 has to fit into the usual message.
MAX_PICTURE_BYTES = 700_000
Name = Annotated[str, Query(min_length=1, max_length=256)]
BackQuery = Annotated[str, Query(max_length=8192)]
NameField = Annotated[str, Form(min_length=1, max_length=256)]


@router.get("/banks")
async def banks(
    request: Request, desk: TheDesk, parts: ThePart, visitor: TheVisitor, kind: BankKind = "block", back: BackQuery = ""
) -> Response:
    """List the banks that count for a tenant; offer to create one of a kind, and the way back if one is named."""
    context: dict[str, Any] = {
        "banks": desk.banks.visible_to(visitor.tenant),
        "is_set_up": bool(parts.settings.kafka.banks_topic),
        "wanted": kind,
        "back": own_page(back) if back else "",
    }
    return render(request, "banks.html", visitor, page="banks", **context)


@router.get("/banks/entries")
async def entries(request: Request, desk: TheDesk, visitor: TheVisitor, bank: Name, shared: bool = False) -> Response:
    """List the entries of a bank, of the tenant or of all tenants."""
    found = _find(desk, visitor, bank, shared)
    listed = list(reversed(found.entries.values()))[:MAX_LISTED]
    return render(request, "bank.html", visitor, page="banks", bank=found, entries=listed, limit=MAX_LISTED)


@router.post("/banks", dependencies=[Depends(check_form)])
async def create(
    desk: TheDesk,
    parts: ThePart,
    visitor: TheVisitor,
    name: NameField,
    kind: Annotated[BankKind, Form()],
    back: Annotated[str, Form(max_length=8192)] = "",
) -> Response:
    """Create a bank of the tenant, and lead back to where it was wanted."""
    topic = _changeable(parts, visitor, "admin")
    message = change_message(topic, valid(BankDefined, bank=name, tenant=visitor.tenant, kind=kind))
    await _change(desk, parts, visitor, "bank.defined", visitor.tenant, name, message)
    return RedirectResponse(own_page(back) if back else f"/banks?{tenant_query(visitor)}", 303)


@router.post("/banks/entries", dependencies=[Depends(check_form)])
async def add(
    desk: TheDesk, parts: ThePart, visitor: TheVisitor, bank: Name, picture: UploadFile, shared: bool = False
) -> Response:
    """Add a picture to a bank, under the name of its file."""
    topic = _changeable(parts, visitor, "review")
    tenant = _find(desk, visitor, bank, shared, change=True).key.tenant
    data, entry_id = await picture.read(MAX_PICTURE_BYTES + 1), (picture.filename or "picture")[:256]
    if len(data) > MAX_PICTURE_BYTES:
        raise Refused(
            HTTPStatus.REQUEST_ENTITY_TOO_LARGE, "too-large", f"It has more than {MAX_PICTURE_BYTES // 1000} kB."
        )
    async with parts.slot():
        await asyncio.wrap_future(parts.encoder.decode(data, picture.content_type))  # refuses what is no picture
    entry = valid(BankEntry, bank=bank, entry_id=entry_id, tenant=tenant, data_base64=data, source="page")
    message = change_message(topic, entry)
    await _change(desk, parts, visitor, "bank.entry", tenant, f"{bank}/{entry_id}", message)
    return Response(status_code=202)


@router.post("/banks/entries/remove", dependencies=[Depends(check_form)])
async def remove(
    desk: TheDesk,
    parts: ThePart,
    visitor: TheVisitor,
    bank: Name,
    entry_id: Annotated[str, Form(max_length=2048)],
    shared: bool = False,
) -> Response:
    """Remove an entry."""
    topic = _changeable(parts, visitor, "review")
    tenant = _find(desk, visitor, bank, shared, change=True).key.tenant
    message = removal_message(topic, EntryKey(tenant, bank, entry_id))
    await _change(desk, parts, visitor, "entry.deleted", tenant, f"{bank}/{entry_id}", message)
    return Response(status_code=200)  # the row is replaced by nothing


def _changeable(parts: Parts, visitor: Visitor, scope: Scope) -> str:
    """The topic of the banks, for a visitor who has a scope, the same as on `/v1/banks`. Raises Refused.

    What is in a bank is for reviewers: they put pictures into it by their decisions too. What it is for is not.
    """
    visitor.caller.require(scope)
    if not parts.settings.kafka.banks_topic:
        raise not_set_up("SEENIT_KAFKA_BANKS_TOPIC")
    return parts.settings.kafka.banks_topic


async def _change(
    desk: Desk, parts: Parts, visitor: Visitor, action: str, tenant: str | None, subject: str, message: OutgoingMessage
) -> None:
    """Ask for a change, and wait until the pages show it. Raises Refused, Unprocessable or Unavailable."""
    asked = await parts.changes.ask(visitor.caller, action, tenant, subject, message)
    await asyncio.to_thread(desk.replicas[message.topic].await_read, *asked.sent, SEEN_WITHIN_S)


def _find(desk: Desk, visitor: Visitor, bank: str, shared: bool, *, change: bool = False) -> Bank:
    """Find a bank that the visitor may see, and change if wanted. Raises Refused."""
    if shared and change:
        visitor.caller.require_all_tenants()
    found = desk.banks.find(BankKey(None if shared else visitor.tenant, bank))
    if found is None:
        raise Refused(HTTPStatus.NOT_FOUND, "unknown-bank", "There is no such bank.")
    return found
