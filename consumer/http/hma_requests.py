"""What HMA's clients send: parameters, forms and bodies, read and refused as HMA does."""

import re
from collections.abc import Container
from http import HTTPStatus
from typing import Annotated, NamedTuple

from fastapi import Request
from pydantic import BaseModel, Field, TypeAdapter, ValidationError
from starlette.datastructures import UploadFile

from consumer.http.bodies import PictureAddress, PictureFile, content_type_of, read_parts
from consumer.http.problems import Refused
from consumer.http.signals import SIGNAL_TYPES

PHOTO = "photo"
BANK_NAME = re.compile("[A-Z_][A-Z0-9_]*")
MAX_NAME_LENGTH, MAX_NOTE_LENGTH = 256, 255
NOTE = TypeAdapter[str | None](Annotated[str, Field(max_length=MAX_NOTE_LENGTH)] | None)


def bad(detail: str) -> Refused:
    """Refuse a request, with the status that HMA gives."""
    return Refused(HTTPStatus.BAD_REQUEST, "invalid-request", detail)


class BankUpdate(BaseModel):
    """What a bank is to be from now on; null is the same as left out."""

    name: str | None = None
    enabled: bool | None = None
    enabled_ratio: Annotated[float, Field(allow_inf_nan=False)] | None = None

    def is_on(self, now: bool) -> bool:
        """Whether a bank is to be on that is on or off `now`; for a share of the requests it is on for all."""
        if self.enabled_ratio is not None:
            return self.enabled_ratio > 0
        return now if self.enabled is None else self.enabled


class BankCreation(BankUpdate):
    """What a new bank is to be."""

    name: str


class Content(NamedTuple):
    """A picture for a bank, or its address, and what is noted of it."""

    picture: PictureFile | PictureAddress
    note: str | None


def check_name(name: str) -> str:
    """Return the name of a bank. Raises Refused."""
    if not BANK_NAME.fullmatch(name) or len(name) > MAX_NAME_LENGTH:
        raise bad("The name of a bank has capital letters, digits and underscores, and begins with no digit.")
    return name


def check_note(note: object) -> str | None:
    """Return what is noted of content, None for nothing. Raises Refused."""
    try:
        return NOTE.validate_python(note or None)
    except ValidationError:
        raise bad(f"A note is a text of at most {MAX_NOTE_LENGTH} characters.") from None


def photo_address(url: str, content_type: str | None = None) -> PictureAddress:
    """Name a picture by its address. Raises Refused for what is said to be no picture."""
    if content_type and content_type != PHOTO:
        raise bad(f"There is no content type but {PHOTO!r}.")
    return PictureAddress(url=url)


def signal_types(types: str | None) -> Container[str]:
    """Return the types of signals that are asked for by commas: all of them unless some are. Raises Refused."""
    if types is None:
        return SIGNAL_TYPES
    names = [name.strip() for name in types.split(",") if name.strip()]
    unknown = [name for name in names if name not in SIGNAL_TYPES]
    if unknown or not names:
        raise bad(f"There is no signal type {unknown[0][:80]!r}." if unknown else "Name a signal type.")
    return names


async def read_photo(request: Request) -> PictureFile:
    """Read the picture of a form. Raises Refused."""
    return (await _read_form(request))[0]


async def read_content(request: Request, url: str | None, content_type: str | None) -> Content:
    """Read the address of a picture, with its note as JSON, or a picture and its note as a form. Raises Refused."""
    if not url:
        return Content(*await _read_form(request))
    body = None
    if content_type_of(request) == "application/json":
        try:
            body = await request.json()
        except (ValueError, RecursionError):
            raise bad("The body is not JSON.") from None
    return Content(photo_address(url, content_type), check_note(body.get("note")) if isinstance(body, dict) else None)


async def _read_form(request: Request) -> tuple[PictureFile, str | None]:
    if content_type_of(request) != "multipart/form-data":
        raise bad(f"Send the picture as the form field {PHOTO!r}, or its address as url.")
    async with read_parts(request, 1) as form:
        part = form.get(PHOTO)
        if not isinstance(part, UploadFile):
            raise bad(f"Send the picture as the form field {PHOTO!r}; there are no other content types.")
        return PictureFile(await part.read(), None), check_note(form.get("note"))
