"""What commands print to: standard output for results, standard error for progress and problems."""

from rich.console import Console
from rich.markup import escape

out = Console()
err = Console(stderr=True)


def plain(text: str) -> str:
    """Return text from outside without markup for rich and without control characters for the terminal."""
    return escape("".join(letter if letter.isprintable() else "\N{REPLACEMENT CHARACTER}" for letter in text))
