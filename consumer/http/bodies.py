"""The pictures of a request: as the body, as fields of a form, or by their addresses in JSON.

Nothing here holds a place of the service: a client may take its time to send a body.
"""

import json
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from http import HTTPStatus
from typing import Any, NamedTuple, TypeVar

from pydantic import BaseModel, ConfigDict, Field, ValidationError
from starlette.datastructures import FormData, UploadFile
from starlette.formparsers import MultiPartException, MultiPartParser
from starlette.requests import Request

from consumer.http.problems import Refused

IMAGE_FIELD = "image"
# Parts of a form beside the pictures.
MAX_FORM_FIELDS = 8

_Json = TypeVar("_Json", bound=BaseModel)


class PictureAddress(BaseModel):
    """A picture by its address."""

    model_config = ConfigDict(extra="forbid")
    url: str = Field(min_length=1, max_length=8192)


class PictureFile(NamedTuple):
    """The bytes of a picture and the type they are announced as."""

    data: bytes
    content_type: str | None


FILE_SCHEMA: Mapping[str, Any] = {"type": "string", "format": "binary"}


def form_schema(*fields: str) -> dict[str, Any]:
    """Describe a form with a picture in each of these fields, as OpenAPI does."""
    return {"schema": {"type": "object", "required": list(fields), "properties": dict.fromkeys(fields, FILE_SCHEMA)}}


def request_body(content: Mapping[str, Any]) -> dict[str, Any]:
    """Describe the body of a route, by its content types."""
    return {"requestBody": {"required": True, "content": content}}


PICTURE_BODY = request_body(
    {
        "image/*": {"schema": FILE_SCHEMA},
        "multipart/form-data": form_schema(IMAGE_FIELD),
        "application/json": {"schema": PictureAddress.model_json_schema()},
    }
)


def content_type_of(request: Request) -> str:
    """The content type of a request's body, without parameters."""
    return request.headers.get("content-type", "").partition(";")[0].strip().lower()


async def read_picture(request: Request) -> PictureFile | PictureAddress:
    """Read the picture of a request, or its address. Raises Refused."""
    kind = content_type_of(request)
    if kind == "application/json":
        return parse(PictureAddress, await request.body())
    if kind == "multipart/form-data":
        return (await read_form(request, IMAGE_FIELD))[IMAGE_FIELD]
    if kind.startswith("image/") or kind == "application/octet-stream":
        return PictureFile(await request.body(), kind)
    raise Refused(
        HTTPStatus.UNSUPPORTED_MEDIA_TYPE,
        "wrong-content-type",
        f"Send the picture as the body with content-type image/*, as the form field {IMAGE_FIELD!r}, or its address as "
        'JSON: {"url": "https://..."}.',
    )


async def read_form(request: Request, *fields: str, optional: str = "") -> dict[str, PictureFile]:
    """Read the pictures in these fields of a form, of which the `optional` one may be left out. Raises Refused."""
    files = {}
    async with read_parts(request, len(fields)) as form:
        for field in fields:
            part = form.get(field)
            if field == optional and (not isinstance(part, UploadFile) or not part.size):
                continue
            if not isinstance(part, UploadFile):
                raise Refused(
                    HTTPStatus.UNPROCESSABLE_ENTITY, "invalid-request", f"The form has no file in its field {field!r}."
                )
            files[field] = PictureFile(await part.read(), part.content_type)
    return files


@asynccontextmanager
async def read_parts(request: Request, max_files: int) -> AsyncIterator[FormData]:
    """Read a form, and hold its parts until the block is left. Raises Refused."""
    parser = MultiPartParser(
        request.headers, request.stream(), max_files=max_files, max_fields=MAX_FORM_FIELDS, max_part_size=64 << 10
    )
    parser.spool_max_size = 1 << 40  # never on disk: how large a body may be is bounded before
    try:
        form = await parser.parse()
    except (MultiPartException, KeyError, UnicodeDecodeError) as error:
        message = getattr(error, "message", "it is malformed")
        raise Refused(HTTPStatus.UNPROCESSABLE_ENTITY, "invalid-request", f"The form: {message}") from None
    try:
        yield form
    finally:
        await form.close()


def parse(model: type[_Json], body: bytes) -> _Json:
    """Parse a body of JSON. Raises Refused."""
    try:
        return model.model_validate(json.loads(body))
    except ValidationError as error:
        raise _invalid(error) from None
    except (ValueError, RecursionError):
        raise Refused(HTTPStatus.UNPROCESSABLE_ENTITY, "invalid-request", "The body is not JSON.") from None


def valid(model: type[_Json], **fields: object) -> _Json:
    """Make a model of these fields. Raises Refused that says what is wrong."""
    try:
        return model.model_validate(fields)
    except ValidationError as error:
        raise _invalid(error) from None


def _invalid(error: ValidationError) -> Refused:
    first = error.errors(include_input=False, include_url=False)[0]
    where = ".".join(map(str, first["loc"]))
    detail = f"{where}: {first['msg']}" if where else first["msg"]
    return Refused(HTTPStatus.UNPROCESSABLE_ENTITY, "invalid-request", detail[:500])
