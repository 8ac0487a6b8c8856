"""The page for people: what happens now, and matches to review; no script or style comes from elsewhere."""

from importlib.resources import files

from fastapi import APIRouter, Request
from fastapi.responses import HTMLResponse
from fastapi.templating import Jinja2Templates
from starlette.staticfiles import StaticFiles

router = APIRouter(include_in_schema=False)

_FOLDER = files("consumer.http.page")
_templates = Jinja2Templates(str(_FOLDER / "templates"))


def static_files() -> StaticFiles:
    """The files that pages load."""
    return StaticFiles(directory=str(_FOLDER / "static"))


@router.get("/", response_class=HTMLResponse)
async def now(request: Request) -> HTMLResponse:
    """Show what happens now."""
    return _templates.TemplateResponse(request, "now.html")
