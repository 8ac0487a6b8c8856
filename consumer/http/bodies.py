"""The picture of a request: as the body, as the form field `image`, or by its address in JSON."""

import asyncio
import json
from http import HTTPStatus
from typing import NamedTuple

from pydantic import BaseModel, ConfigDict, Field, ValidationError
from starlette.datastructures import UploadFile
from starlette.requests import Request

from consumer.http.problems import Refused
from consumer.images.fetch import Fetcher

IMAGE_FIELD = "image"
# Parts of a form beside the picture.
MAX_FORM_FIELDS = 8


class PictureAddress(BaseModel):
    """A picture by its address."""

    model_config = ConfigDict(extra="forbid")
    url: str = Field(min_length=1, max_length=8192)


class PictureFile(NamedTuple):
    """The bytes of a picture and the type they are announced as."""

    data: bytes
    content_type: str | None


async def read_picture(request: Request, fetcher: Fetcher) -> PictureFile:
    """Read the picture of a request. Raises Refused, Unprocessable or Unavailable."""
    content_type = request.headers.get("content-type", "")
    kind = content_type.partition(";")[0].strip().lower()
    if kind == "application/json":
        url = parse_address(await request.body()).url
        return PictureFile(await asyncio.to_thread(fetcher.fetch, url), None)
    if kind == "multipart/form-data":
        return await _read_form(request)
    if kind.startswith("image/") or kind == "application/octet-stream":
        return PictureFile(await request.body(), kind)
    raise Refused(
        HTTPStatus.UNSUPPORTED_MEDIA_TYPE,
        "wrong-content-type",
        f"Send the picture as the body with content-type image/*, as the form field {IMAGE_FIELD!r}, or its address as "
        'JSON: {"url": "https://..."}.',
    )


def parse_address(body: bytes) -> PictureAddress:
    """Parse `{"url": ...}`. Raises Refused."""
    try:
        return PictureAddress.model_validate(json.loads(body))
    except (ValueError, RecursionError, ValidationError):
        raise Refused(
            HTTPStatus.UNPROCESSABLE_ENTITY, "invalid-request", 'The body is not JSON like {"url": "https://..."}.'
        ) from None


async def _read_form(request: Request) -> PictureFile:
    async with request.form(max_files=1, max_fields=MAX_FORM_FIELDS) as form:
        part = form.get(IMAGE_FIELD)
        if not isinstance(part, UploadFile):
            raise Refused(
                HTTPStatus.UNPROCESSABLE_ENTITY,
                "invalid-request",
                f"The form has no file in its field {IMAGE_FIELD!r}.",
            )
        return PictureFile(await part.read(), part.content_type)
