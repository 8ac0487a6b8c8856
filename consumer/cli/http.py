"""`seenit serve`: look-ups over HTTP, and the page. `seenit key`: the keys that it takes."""

import json
import sys
from typing import Annotated

import typer

from consumer.cli.console import err, optional_dependencies
from consumer.cli.process import EXIT_TIMEOUT_S, begin, exit_within


def serve() -> None:
    """Answer look-ups over HTTP, and show a page to review matches; configured as `run` is.

    SIGTERM stops it gracefully; SIGUSR1 switches the log to debug, and back.
    """
    with optional_dependencies():
        from consumer.http.server import HttpService  # noqa: PLC0415
    service = HttpService(begin())
    try:
        service.run()
    finally:
        exit_within(EXIT_TIMEOUT_S, 0 if sys.exception() is None else 1)


def key(
    name: Annotated[str, typer.Argument(help="Who uses it, as the audit topic names them.")],
    scopes: Annotated[list[str], typer.Option("--scope", help="read, review or admin; may be given again.")],
    tenants: Annotated[list[str], typer.Option("--tenant", help="A tenant, or * for all; may be given again.")],
) -> None:
    """Make a key for `seenit serve`, and the lines that the file SEENIT_SERVE_KEYS_FILE needs to know it.

    The key itself goes to standard error: it is shown once, and is in no file.
    """
    with optional_dependencies():
        from consumer.http.keys import hash_key, new_key  # noqa: PLC0415
        from consumer.http.scopes import SCOPES  # noqa: PLC0415
    unknown = sorted(set(scopes) - set(SCOPES))
    if unknown:
        raise typer.BadParameter(f"{unknown[0]!r} is not one of {', '.join(SCOPES)}", param_hint="--scope")
    made = new_key()
    lines = (f"[keys.{json.dumps(name)}]", f'sha256 = "{hash_key(made)}"', f"scopes = {json.dumps(scopes)}")
    sys.stdout.write("\n".join((*lines, f"tenants = {json.dumps(tenants)}", "")) + "\n")
    err.print(f"key of {name}: {made}", markup=False, highlight=False, soft_wrap=True)
