"""No command lets a library begin threads that spin; whoever wants them can still say so."""

import os
import subprocess
import sys

import pytest

from consumer.threads import ONE_THREAD

CODE = """
import contextlib, io, os, pathlib, sys
from consumer.cli.app import main
sys.argv[1:] = ["--help"]
with contextlib.suppress(SystemExit), contextlib.redirect_stdout(io.StringIO()):
    main()
import consumer.window.prefilter
print(len(list(pathlib.Path("/proc/self/task").iterdir())), os.environ.get("OPENBLAS_NUM_THREADS"))
"""


def after_a_command(**variables: str) -> list[str]:
    """The threads of a process in which a command ran and numpy is loaded, and how many OpenBLAS may have."""
    environment = {name: value for name, value in os.environ.items() if name not in ONE_THREAD}
    command = [sys.executable, "-c", CODE]
    return subprocess.run(
        command, env={**environment, **variables}, capture_output=True, check=True, text=True
    ).stdout.split()


@pytest.mark.skipif((os.cpu_count() or 1) < 2, reason="on one core there are no helpers")
def test_a_command_leaves_linear_algebra_in_the_thread_that_asks() -> None:
    assert after_a_command() == ["1", "1"]


def test_what_is_set_is_left() -> None:
    assert after_a_command(OPENBLAS_NUM_THREADS="2")[1] == "2"
