"""`/v1/images` and `/v1/uploads`: what was decided on an image, and events that process or forget one."""

import asyncio
from http import HTTPStatus
from typing import Annotated

from fastapi import APIRouter, Path, Query, Request
from pydantic import ValidationError

from consumer.events import NAME_LENGTH, ImageDeleted, ImageUpload
from consumer.http.addresses import check_address
from consumer.http.bodies import FILE_SCHEMA, content_type_of, parse, request_body
from consumer.http.changes import SOURCE
from consumer.http.models import Accepted
from consumer.http.parts import Admin, Reader, Tenant, ThePart
from consumer.http.problems import Refused
from consumer.http.verdicts import is_gone
from consumer.kafka.messages import incoming_message
from consumer.verdicts import Verdict

router = APIRouter(prefix="/v1", tags=["images"])

ImageId = Annotated[str, Path(min_length=1, max_length=NAME_LENGTH, description="May hold slashes, as addresses do.")]

_UPLOAD_BODY = request_body(
    {
        "application/json": {"schema": {"$ref": "#/components/schemas/ImageUpload"}},
        "image/*": {"schema": FILE_SCHEMA},
    }
)


@router.get("/images/{image_id:path}", operation_id="getImage", summary="What was decided on an image")
async def get_image(image_id: ImageId, parts: ThePart, caller: Reader, tenant: Tenant = None) -> Verdict:
    """Return the last verdict on an image, with its matches, if it is among the latest verdicts and not deleted."""
    verdict = parts.verdicts.find(caller.tenant(tenant), image_id)
    if verdict is None or await asyncio.to_thread(is_gone, parts.ready().window, verdict):
        detail = "There is no verdict on this image, or it is too long ago, or still to come, or the image was deleted."
        raise Refused(HTTPStatus.NOT_FOUND, "unknown-image", detail)
    return verdict


@router.delete("/images/{image_id:path}", status_code=202, operation_id="deleteImage", summary="Forget an image")
async def delete_image(image_id: ImageId, parts: ThePart, caller: Admin, tenant: Tenant = None) -> Accepted:
    """Ask to forget an image; it is gone when the event is processed."""
    body = ImageDeleted(image_id=image_id, tenant=caller.tenant(tenant))
    message = incoming_message(parts.settings.kafka.input_topic, body, SOURCE)
    asked = await parts.changes.ask(caller, "image.deleted", body.tenant, image_id, message)
    return Accepted(id=asked.id)


@router.post(
    "/uploads", status_code=202, openapi_extra=_UPLOAD_BODY, operation_id="upload", summary="Process an upload"
)
async def upload(
    request: Request,
    parts: ThePart,
    caller: Admin,
    tenant: Tenant = None,
    image_id: Annotated[
        str | None, Query(min_length=1, max_length=NAME_LENGTH, description="With a picture as the body.")
    ] = None,
) -> Accepted:
    """Ask to process an upload: JSON as of the event `image.uploaded`, or the picture itself with its `image_id`."""
    body = await _read_upload(request, image_id)
    named = body.tenant if "tenant" in body.model_fields_set else None
    body = body.model_copy(update={"tenant": caller.tenant(tenant or named)})
    check_address(caller, body.url, parts.settings.fetch.networks)
    message = await asyncio.to_thread(incoming_message, parts.settings.kafka.input_topic, body, SOURCE)
    asked = await parts.changes.ask(caller, "image.uploaded", body.tenant, body.image_id, message)
    return Accepted(id=asked.id)


async def _read_upload(request: Request, image_id: str | None) -> ImageUpload:
    kind = content_type_of(request)
    if kind == "application/json":
        return parse(ImageUpload, await request.body())
    if not kind.startswith("image/"):
        raise Refused(
            HTTPStatus.UNSUPPORTED_MEDIA_TYPE,
            "wrong-content-type",
            "Send JSON, or a picture with content-type image/*.",
        )
    if image_id is None:
        raise Refused(
            HTTPStatus.UNPROCESSABLE_ENTITY, "invalid-request", "Name the picture by the query parameter image_id."
        )
    try:
        return ImageUpload(image_id=image_id, data_base64=await request.body(), content_type=kind)
    except ValidationError:
        raise Refused(HTTPStatus.BAD_REQUEST, "not-an-image", "The body is empty.") from None
