"""`POST /v1/lookup`: what is known of a picture, which is not stored."""

from typing import Annotated, Any

from fastapi import APIRouter, Depends, Query, Request

from consumer.encoder.contract import Strictness
from consumer.events import DEFAULT_TENANT
from consumer.http.bodies import IMAGE_FIELD, PictureAddress, read_picture
from consumer.http.models import LookupAnswer, LookupMatch
from consumer.http.parts import Parts, parts_of

router = APIRouter(prefix="/v1")

PICTURE_BODY: dict[str, Any] = {
    "requestBody": {
        "required": True,
        "content": {
            "image/*": {"schema": {"type": "string", "format": "binary"}},
            "multipart/form-data": {
                "schema": {
                    "type": "object",
                    "required": [IMAGE_FIELD],
                    "properties": {IMAGE_FIELD: {"type": "string", "format": "binary"}},
                }
            },
            "application/json": {"schema": PictureAddress.model_json_schema()},
        },
    }
}

Tenant = Annotated[str, Query(min_length=1, max_length=256, description="Whose pictures are searched.")]


@router.post("/lookup", openapi_extra=PICTURE_BODY, summary="Look a picture up")
async def look_up(
    request: Request,
    parts: Annotated[Parts, Depends(parts_of)],
    tenant: Tenant = DEFAULT_TENANT,
    strictness: Annotated[Strictness | None, Query(description="As the setting says, unless given.")] = None,
    limit: Annotated[int, Query(ge=1, le=32, description="Matches to answer, at most.")] = 6,
) -> LookupAnswer:
    """Find the exact and near matches of a picture in the window; nothing of it is stored."""
    file = await read_picture(request, parts.fetcher)
    found = await parts.look_up(file, tenant, strictness or parts.settings.match.strictness)
    return LookupAnswer(matches=[LookupMatch.of(each) for each in found[:limit]], model=parts.named_model)
