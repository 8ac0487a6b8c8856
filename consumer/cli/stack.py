"""Commands for the embedded stack: `seenit up`, `down`, `status` and `demo`."""

import json
import sys
from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer
from rich.table import Table

from consumer.cli.console import err, out
from consumer.local import stack, state
from consumer.local.demo import demonstrate


def up(
    as_json: Annotated[bool, typer.Option("--json", help="Print the addresses as one JSON object.")] = False,
    consumer: Annotated[bool, typer.Option(help="Start a consumer and the page too.")] = True,
) -> None:
    """Start broker, Redis, Triton, a consumer and the page on this machine, and leave them running."""
    running = stack.up(consumer=consumer, progress=lambda text: err.print(text, style="dim"))
    if as_json:
        sys.stdout.write(json.dumps(asdict(running.addresses)) + "\n")
    else:
        out.print(_address_table(running))
        if running.addresses.http_url is not None:
            out.print(f"The page: {running.addresses.http_url}", soft_wrap=True)


def down() -> None:
    """Stop what `seenit up` started."""
    out.print("stopped" if stack.down() else "nothing was running")


def status(
    as_json: Annotated[bool, typer.Option("--json", help="Print processes and addresses as one JSON object.")] = False,
) -> None:
    """Show what `seenit up` left running. Exits with 1 when there is nothing, or not all of it."""
    running = state.load()
    if as_json:
        processes = () if running is None else running.processes
        listed = [{"name": each.name, "pid": each.pid, "alive": each.alive, "log": each.log} for each in processes]
        addresses = {} if running is None else asdict(running.addresses)
        sys.stdout.write(json.dumps({"processes": listed, "addresses": addresses}) + "\n")
        raise typer.Exit(0 if running is not None and running.alive else 1)
    if running is None:
        out.print("nothing is running; start it with: seenit up")
        raise typer.Exit(1)
    table = Table("process", "pid", "alive", "log")
    for process in running.processes:
        table.add_row(process.name, str(process.pid), "yes" if process.alive else "[red]no[/]", str(process.log))
    out.print(table, _address_table(running))
    raise typer.Exit(0 if running.alive else 1)


def demo(
    images: Annotated[
        Path | None, typer.Option(exists=True, file_okay=False, help="Use the pictures in this folder.")
    ] = None,
    results: Annotated[Path, typer.Option("--out", help="Folder for the contact sheet.")] = Path("out/demo"),
    keep: Annotated[bool, typer.Option("--keep", help="Leave the stack running, with its page.")] = False,
) -> None:
    """Upload photographs, edited copies and unrelated pictures to a stack of its own; show each verdict.

    Exits with 0 only when every copy is found and no unrelated picture is called a duplicate. Copies with lighting,
    zoom and noise all at once are shown and counted, but do not decide.
    """
    if not demonstrate(images, results, out, keep=keep):
        raise typer.Exit(1)


def _address_table(running: state.State) -> Table:
    table = Table("what", "where")
    for name, value in asdict(running.addresses).items():
        table.add_row(name, str(value or ""))
    return table
