"""The routes that change something, listed by the application itself, so that none can be forgotten."""

from typing import Any, NamedTuple
from unittest.mock import Mock

from fastapi.routing import iter_route_contexts

from consumer.http.access import Access
from consumer.http.app import make_app
from consumer.http.limits import SAFE_METHODS
from consumer.settings import Settings


class Changing(NamedTuple):
    """A method and a path, with words for its parameters; pages are those that the OpenAPI document leaves out."""

    method: str
    path: str
    is_page: bool


def changing() -> list[Changing]:
    """List them all."""
    settings = Settings()
    app = make_app(Mock(settings=settings, access=Access(settings.serve)))
    routes: list[Any] = list(iter_route_contexts(app.routes))
    return sorted(
        Changing(method, route.path.replace("{", "").replace("}", ""), not route.include_in_schema)
        for route in routes
        for method in (route.methods or set()) - SAFE_METHODS
    )
