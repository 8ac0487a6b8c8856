"""Commands are loaded when they are run."""

import pytest
import typer

from consumer.cli.lazy_group import CommandEntry, LazyGroup
from consumer.errors import Misconfigured


class Group(LazyGroup):
    entries = {  # noqa: RUF012
        "elsewhere": CommandEntry("nowhere.commands:run", "Not installed.", "seenit elsewhere"),
        "broken": CommandEntry("consumer.cli.lazy_group:missing", "Not there.", "seenit broken"),
    }


def test_a_command_that_is_not_installed_says_so() -> None:
    app = typer.Typer(cls=Group, callback=lambda: None)
    with pytest.raises(Misconfigured, match="lacks nowhere: run it from a checkout"):
        app(["elsewhere"], standalone_mode=False)


def test_a_fault_of_a_command_is_not_taken_for_that() -> None:
    app = typer.Typer(cls=Group, callback=lambda: None)
    with pytest.raises(AttributeError):
        app(["broken"], standalone_mode=False)
