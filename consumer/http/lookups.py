"""`/v1/lookup` and `/v1/compare`: what is known of a picture, and whether it is a copy of another."""

import asyncio
from collections.abc import Sequence
from typing import Annotated

import numpy as np
from fastapi import APIRouter, Query, Request
from pydantic import BaseModel, ConfigDict

from consumer.encoder.contract import Strictness
from consumer.encoder.views import EncodedViews
from consumer.http.bodies import (
    PICTURE_BODY,
    PictureAddress,
    PictureFile,
    content_type_of,
    form_schema,
    parse,
    read_form,
    read_picture,
    request_body,
)
from consumer.http.models import Comparison, LookupAnswer, LookupMatch
from consumer.http.parts import Backends, Parts, Reader, Tenant, ThePart
from consumer.verification.pair import verify_pair

router = APIRouter(prefix="/v1", tags=["look-ups"])

Chosen = Annotated[
    Strictness | None, Query(description="How sure a match has to be; as the service's setting says, unless given.")
]


class _Pair(BaseModel):
    model_config = ConfigDict(extra="forbid")
    original: PictureAddress
    upload: PictureAddress


_PAIR_BODY = request_body(
    {
        "multipart/form-data": form_schema("original", "upload"),
        "application/json": {
            "schema": {
                "type": "object",
                "required": ["original", "upload"],
                "properties": dict.fromkeys(("original", "upload"), PictureAddress.model_json_schema()),
            }
        },
    }
)


@router.post("/lookup", openapi_extra=PICTURE_BODY, operation_id="lookUp", summary="Look a picture up")
async def look_up(
    request: Request,
    parts: ThePart,
    caller: Reader,
    tenant: Tenant = None,
    strictness: Chosen = None,
    banks: Annotated[str | None, Query(description="Hits of these banks alone, by commas.")] = None,
    limit: Annotated[int, Query(ge=1, le=32, description="Matches to answer, at most.")] = 6,
) -> LookupAnswer:
    """Find the exact match of a picture in a tenant's window, if any, then the near ones; nothing of it is stored.

    Of the near ones the best comes first, and is the one that a verdict would name; then the others, nearest first.
    """
    tenant, backends, named = caller.tenant(tenant), parts.ready(), await read_picture(request)
    async with parts.slot():
        found = await parts.match(await parts.picture(named, caller), tenant, strictness)
    wanted = None if banks is None else banks.split(",")
    return LookupAnswer(
        matches=[LookupMatch.of(each) for each in found.matches[:limit]],
        banks=[hit for hit in found.banks.hits if wanted is None or hit.bank in wanted],
        silenced_by=list(found.banks.silenced_by),
        campaign=parts.verdicts.campaign(tenant, found.matches[0].match.image_id) if found.matches else None,
        model=backends.named_model,
    )


@router.post("/compare", openapi_extra=_PAIR_BODY, operation_id="compare", summary="Compare two pictures")
async def compare(request: Request, parts: ThePart, caller: Reader, strictness: Chosen = None) -> Comparison:
    """Tell whether one picture is a copy of another, and by which edit; neither has to be known."""
    parts.ready()
    named = await _read_pair(request)
    async with parts.slot():
        original, upload = await asyncio.gather(*(parts.picture(each, caller) for each in named))
        return await compare_files(parts, original, upload, strictness or parts.settings.match.strictness)


async def compare_files(parts: Parts, original: PictureFile, upload: PictureFile, strictness: Strictness) -> Comparison:
    """Compare two pictures. Raises Unprocessable or Unavailable."""
    views = await asyncio.gather(parts.encode(original), parts.encode(upload))
    return await asyncio.to_thread(_compare, parts.ready(), original.data == upload.data, *views, strictness)


async def _read_pair(request: Request) -> Sequence[PictureFile | PictureAddress]:
    if content_type_of(request) == "multipart/form-data":
        files = await read_form(request, "original", "upload")
        return files["original"], files["upload"]
    pair = parse(_Pair, await request.body())
    return pair.original, pair.upload


def _compare(
    backends: Backends,
    exact: bool,
    original: EncodedViews | None,
    upload: EncodedViews | None,
    strictness: Strictness,
) -> Comparison:
    if original is None or upload is None:  # too little to see, so that only the same bytes count
        return Comparison(duplicate=exact, exact=exact, model=backends.named_model)
    result = verify_pair(backends.model, original, upload, strictness)
    verification = result.verification
    return Comparison(
        duplicate=exact or result.duplicate,
        exact=exact,
        l2=round(float(np.float32(result.l2)), 6),
        evidence=None if verification is None else verification.to_evidence(result.duplicate),
        model=backends.named_model,
    )
