"""The application: its routes, and what every request and every answer goes through."""

from importlib.metadata import version

from fastapi import FastAPI

from consumer.http import lookups, page
from consumer.http.parts import Parts
from consumer.http.problems import answer_problems


def make_app(parts: Parts) -> FastAPI:
    """Make the application that `seenit serve` runs."""
    app = FastAPI(
        title="Seenit",
        version=version("seenit"),
        description="Has this picture been uploaded before?",
        # Their pages load scripts from elsewhere.
        docs_url=None,
        redoc_url=None,
    )
    app.state.parts = parts
    answer_problems(app)
    app.include_router(lookups.router)
    app.include_router(page.router)
    app.mount("/static", page.static_files(), "static")
    return app
