"""The page for people: what happens now, pictures to try, matches to review; no script or style comes from elsewhere.

All of it is HTML that this process writes. `static/` has the little that the browser adds, and files of htmx and Pico.
"""

from importlib.resources import files

from fastapi import FastAPI, Request
from fastapi.responses import RedirectResponse, Response
from starlette.middleware.gzip import GZipMiddleware
from starlette.staticfiles import StaticFiles

from consumer.http.page import calibration, entrance, now, review, trial
from consumer.http.page.desk import Desk, SignInNeeded
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
    for module in (now, trial, review, calibration, entrance):
        app.include_router(module.router)
    app.mount("/static", _StaticFiles(directory=str(files("consumer.http.page") / "static")), "static")
    app.add_middleware(GZipMiddleware, minimum_size=1000)

    @app.exception_handler(SignInNeeded)
    async def sign_in(request: Request, _: Exception) -> Response:
        return RedirectResponse(f"/sign-in?{entrance.back_to(request)}", 303)
