"""The page for people: what happens now, pictures to try, matches to review; no script or style comes from elsewhere.

All of it is HTML that this process writes. `static/` has the little that the browser adds, and files of htmx and Pico.
"""

import json
from collections.abc import Callable
from importlib.resources import files
from typing import Any

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import RedirectResponse, Response
from starlette.exceptions import HTTPException
from starlette.middleware.gzip import GZipMiddleware
from starlette.staticfiles import StaticFiles

from consumer.errors import Unavailable
from consumer.http.page import banks, calibration, entrance, now, review, trial
from consumer.http.page.desk import Desk, SignInNeeded
from consumer.http.page.rendering import TEXTS, render
from consumer.http.parts import Parts


class _StaticFiles(StaticFiles):
    """Files that browsers may keep, as long as they ask whether they have changed."""

    def file_response(self, *arguments: object, **options: object) -> Response:
        response = super().file_response(*arguments, **options)  # type: ignore[arg-type]
        response.headers["Cache-Control"] = "no-cache"
        return response


def add_pages(app: FastAPI, parts: Parts) -> None:
    """Add the pages to an application, and what they work with."""
    app.state.desk = Desk.of(parts)
    for module in (now, trial, review, banks, calibration, entrance):
        app.include_router(module.router)
    app.mount("/static", _StaticFiles(directory=str(files("consumer.http.page") / "static")), "static")
    app.add_middleware(GZipMiddleware, minimum_size=1000)

    for kind in (HTTPException, Unavailable, RequestValidationError):
        app.exception_handlers[kind] = _for_people(app.exception_handlers[kind])

    @app.exception_handler(SignInNeeded)
    async def sign_in(request: Request, _: Exception) -> Response:
        return RedirectResponse(f"/sign-in?{entrance.back_to(request)}", 303)


def _for_people(answer: Callable[[Request, Any], Any]) -> Callable[[Request, Any], Any]:
    """Answer a browser that opens a page with a page that says what is wrong; anything else as before."""

    async def handler(request: Request, error: Any) -> Response:
        response: Response = await answer(request, error)
        if "text/html" not in request.headers.get("accept", "") or request.url.path.startswith("/v1"):
            return response
        detail = json.loads(bytes(response.body))["detail"]
        return render(
            request,
            "problem.html",
            None,
            response.status_code,
            title=TEXTS["common"]["problem"],
            detail=detail,
            page="",
        )

    return handler
