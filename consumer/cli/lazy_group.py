"""A group of commands that imports the module of a command only when that command is run.

A list of the commands needs their summaries alone, so `--help` and shell completion import none of the modules, and a
service at work holds nothing in memory that only other commands need.
"""

import gc
from collections.abc import Mapping
from importlib import import_module
from typing import Any, ClassVar, NamedTuple

import typer
from typer.core import TyperCommand, TyperGroup
from typer.main import get_command

from consumer.errors import Misconfigured


class CommandEntry(NamedTuple):
    """How a command is listed, and where its function is."""

    function: str  # "module:function", whose parameters and docstring are the command's; or a Typer app
    summary: str  # the first paragraph of that docstring
    example: str  # ends the help text of the command


class LazyGroup(TyperGroup):
    """A group whose `entries` name its commands, in the order in which they are listed."""

    entries: ClassVar[Mapping[str, CommandEntry]] = {}

    def __init__(self, **options: Any) -> None:
        super().__init__(**options)
        for name, entry in self.entries.items():
            self.add_command(TyperCommand(name, help=entry.summary))

    def resolve_command(self, ctx: Any, args: list[str]) -> Any:
        """Return the name, the command and its arguments, as the base class does, with the command loaded."""
        name, command, remaining = super().resolve_command(ctx, args)
        return name, command if name is None else self._load(name), remaining

    def _load(self, name: str) -> Any:
        entry = self.entries[name]
        module_name, _, function = entry.function.partition(":")
        gc.disable()  # what an import makes stays: collecting garbage meanwhile takes a tenth of the start
        try:
            module = import_module(module_name)
        except ModuleNotFoundError as error:
            if not module_name.startswith(str(error.name)):
                raise
            raise Misconfigured(
                f"seenit {name} is not part of this installation, which lacks {error.name}: run it from a checkout"
            ) from None
        finally:
            gc.freeze()  # nor does any later collection have to look at it
            gc.enable()
        loaded = getattr(module, function)
        if isinstance(loaded, typer.Typer):  # a group of its own
            return get_command(loaded)
        app = typer.Typer(add_completion=False, rich_markup_mode=self.rich_markup_mode)
        app.command(name, epilog=f"Example:  {entry.example}")(loaded)
        return get_command(app)
