"""The application: its routes, and what every request and every answer goes through."""

from importlib.metadata import version
from typing import Any

from fastapi import FastAPI

from consumer.events import ImageUpload
from consumer.http import banks, hma, images, lookups, moderation, page
from consumer.http.access import LOOPBACK_NAMES
from consumer.http.limits import Limits
from consumer.http.models import EntryBody, Problem
from consumer.http.observing import Observed
from consumer.http.parts import Parts
from consumer.http.problems import answer_problems

ROUTERS = (lookups.router, images.router, banks.router, moderation.router, hma.router)
PROBLEMS = {
    400: "The picture is bad, or the request",
    401: "No key, or an unknown one",
    403: "The key has not the scope, or not the tenant",
    404: "There is no such thing, or not any more",
    408: "The body did not come in time",
    413: "The body is too large",
    415: "The body is of a type that is not taken",
    422: "A parameter or the body is not as described",
    429: "Too many requests from this key; see Retry-After",
    501: "The operator has not set it up",
    503: "A part is away; see Retry-After",
}
_PROBLEM = {"application/problem+json": {"schema": {"$ref": "#/components/schemas/Problem"}}}


def make_app(parts: Parts) -> FastAPI:
    """Make the application that `seenit serve` runs."""
    app = _app()
    app.state.parts = parts
    answer_problems(app)
    page.add_pages(app, parts)
    hosts = frozenset(LOOPBACK_NAMES) if parts.access.is_open else None
    app.add_middleware(Limits, max_picture_bytes=parts.settings.fetch.max_bytes, hosts=hosts)
    app.add_middleware(Observed, observer=parts.observer)
    return app


def describe() -> dict[str, Any]:
    """Describe the interface as an OpenAPI document."""
    return _app().openapi()


def _app() -> FastAPI:
    app = FastAPI(
        title="Seenit",
        version=version("seenit"),
        summary="Has this picture been uploaded before?",
        license_info={"name": "Apache 2.0", "identifier": "Apache-2.0"},
        # Their pages load scripts from elsewhere.
        docs_url=None,
        redoc_url=None,
        separate_input_output_schemas=False,
        responses={status: {"description": text, "content": _PROBLEM} for status, text in PROBLEMS.items()},
    )
    for router in ROUTERS:
        app.include_router(router)
    app.openapi = lambda: _document(app)  # type: ignore[method-assign]  # as FastAPI's guide extends the document
    return app


def _document(app: FastAPI) -> dict[str, Any]:
    """Describe the interface, with the schemas that are only referred to."""
    if app.openapi_schema is None:
        document = FastAPI.openapi(app)
        schemas = document["components"]["schemas"]
        for model in (Problem, ImageUpload, EntryBody):
            schema = model.model_json_schema(ref_template="#/components/schemas/{model}")
            schemas |= schema.pop("$defs", {})
            schemas[model.__name__] = schema
    return app.openapi_schema or {}
