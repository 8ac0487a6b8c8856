"""Turns templates into answers: the texts of the catalogue, and headers that let no foreign script or style in."""

import re
import tomllib
from collections.abc import Mapping
from datetime import UTC, datetime
from hashlib import sha256
from importlib.resources import files
from typing import Any
from urllib.parse import urlencode

from fastapi import Request
from fastapi.responses import HTMLResponse
from fastapi.templating import Jinja2Templates
from jinja2 import Environment, PackageLoader, StrictUndefined

from consumer.http.access import ANYBODY
from consumer.http.page.sessions import Visitor

HEADERS: Mapping[str, str] = {
    "Content-Security-Policy": "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' blob: data:; "
    "connect-src 'self'; form-action 'self'; base-uri 'none'; frame-ancestors 'none'",
    # With "no-referrer" browsers name no origin for a form either, and it would be taken for another site's.
    "Referrer-Policy": "same-origin",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
}
PAGES = ("now", "try", "review", "campaigns", "banks", "calibration")
TEXTS: dict[str, dict[str, Any]] = tomllib.loads((files("consumer.http.page") / "catalogue.toml").read_text())


def _fill(text: str | Mapping[str, str], **values: object) -> str:
    """Fill in the words in braces; of a text in two forms the one that fits the number `count`."""
    if not isinstance(text, str):
        text = text["one" if values["count"] == 1 else "other"]
    return text.format(**values)


def _moment(time: datetime) -> str:
    """Write a time for people: without the date if it is today's."""
    return time.astimezone(UTC).strftime("%H:%M:%S" if time.date() == datetime.now(UTC).date() else "%Y-%m-%d %H:%M")


def _element_id(text: str) -> str:
    """Name an element after any text, so that the name can stand in a selector."""
    return f"of-{sha256(text.encode()).hexdigest()[:16]}"


def _new_environment() -> Environment:
    environment = Environment(
        loader=PackageLoader("consumer.http.page"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.globals.update(t=TEXTS, pages=PAGES, anybody=ANYBODY.name)
    environment.filters.update(fill=_fill, moment=_moment, element_id=_element_id)
    return environment


_templates = Jinja2Templates(env=_new_environment())


def tenant_query(visitor: Visitor) -> str:
    """The query of an address that keeps the tenant."""
    return urlencode({"tenant": visitor.tenant})


def own_page(page: str) -> str:
    """The page that somebody is led back to, if it is one of ours.

    Browsers leave out tabs and line breaks and take a backslash for a slash: two slashes would begin another site's.
    """
    return page if re.fullmatch(r"/(?!/)[!-\[\]-~]*", page) else "/"


def render(request: Request, template: str, visitor: Visitor | None, status: int = 200, **context: Any) -> HTMLResponse:
    """Render a page, or a part of one, for a visitor."""
    response = _templates.TemplateResponse(
        request, template, {"visitor": visitor, **context}, status_code=status, headers=dict(HEADERS)
    )
    if visitor is not None:
        visitor.keep(response)
    return response


def render_blocks(template: str, **context: Any) -> dict[str, str]:
    """Render each block of a template by itself, the same for all visitors."""
    loaded = _templates.get_template(template)
    return {name: "".join(block(loaded.new_context(context))) for name, block in loaded.blocks.items()}
