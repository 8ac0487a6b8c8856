"""What commands print to: standard output for results, standard error for progress and problems; what is not there."""

from collections.abc import Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.markup import escape

from consumer.errors import Misconfigured

out = Console()
err = Console(stderr=True)


def plain(text: str) -> str:
    """Return text from outside without markup for rich and without control characters for the terminal."""
    return escape("".join(letter if letter.isprintable() else "\N{REPLACEMENT CHARACTER}" for letter in text))


@contextmanager
def optional_dependencies() -> Iterator[None]:
    """Say what to install where the block imports what is not there."""
    try:
        yield
    except ModuleNotFoundError as error:
        if (error.name or "").partition(".")[0] == "consumer":
            raise
        raise Misconfigured(f"this command needs {error.name}: pip install '.[serve]'") from None
