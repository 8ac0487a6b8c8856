"""The page Now, live by server-sent events; and the pictures of uploads, as all pages show them."""

import asyncio
from collections.abc import AsyncIterator
from http import HTTPStatus
from typing import Annotated, Any

from fastapi import APIRouter, Query, Request
from fastapi.responses import Response, StreamingResponse

from consumer.events import NAME_LENGTH
from consumer.http.page.desk import Desk, TheDesk, TheVisitor
from consumer.http.page.rendering import render, render_blocks
from consumer.http.problems import Refused

router = APIRouter(include_in_schema=False)

EVERY_S = 1.0
# A visitor is asked again who it is after this long, and may have signed out: the browser connects again by itself.
STREAM_S = 60.0
# Visitors who are sent events at once; each takes a connection. Others see the page as it was when they opened it.
MAX_STREAMS = 200


@router.get("/")
async def now(request: Request, desk: TheDesk, visitor: TheVisitor) -> Response:
    """Show what happens now."""
    return render(request, "now.html", visitor, page="now", **await _context(desk, visitor.tenant))


@router.get("/now/events")
async def events(request: Request, desk: TheDesk, visitor: TheVisitor) -> StreamingResponse:
    """Send each part of the page that has changed, each second. Raises Refused when too many look."""
    if desk.streams >= MAX_STREAMS:
        raise Refused(HTTPStatus.SERVICE_UNAVAILABLE, "busy", "Too many look at this page.", retry_after_s=EVERY_S)

    async def stream() -> AsyncIterator[str]:
        desk.streams += 1
        shown: dict[str, str] = {}
        try:
            for _ in range(int(STREAM_S / EVERY_S)):
                await asyncio.sleep(EVERY_S)
                if desk.is_closing or await request.is_disconnected():
                    return
                parts = render_blocks("_now.html", **await _context(desk, visitor.tenant))
                for name, html in parts.items():
                    if shown.get(name) != html:
                        yield f"event: {name}\n" + "".join(f"data: {line}\n" for line in html.splitlines()) + "\n"
                shown = parts
        finally:
            desk.streams -= 1

    return StreamingResponse(stream(), media_type="text/event-stream")


@router.get("/pictures")
async def picture(
    desk: TheDesk, visitor: TheVisitor, image_id: Annotated[str, Query(min_length=1, max_length=NAME_LENGTH)]
) -> Response:
    """Show the picture of an upload, fetched once more."""
    # Kept by no browser: a picture that is deleted meanwhile is shown no more.
    headers = {"Cache-Control": "no-store", "Cross-Origin-Resource-Policy": "same-origin"}
    return Response(await desk.originals.jpeg(visitor.tenant, image_id), media_type="image/jpeg", headers=headers)


async def _context(desk: Desk, tenant: str) -> dict[str, Any]:
    summary = desk.activity.summary(tenant)
    total = sum(summary.by_kind.values())
    copies = summary.by_kind["exact"] + summary.by_kind["near"]
    return {
        "summary": summary,
        "health": await desk.monitor.health(),
        "peak": max(4, *summary.by_second),
        "duplicates_percent": round(100 * copies / total) if total else 0,
    }
