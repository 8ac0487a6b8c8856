"""A clock of its own for a process: a small library, preloaded, stands between it and the system's.

libfaketime does nearly that, but does not know `cnd_timedwait`, by which librdkafka waits: it would wait for hours.
"""

import os
import shutil
import struct
import subprocess
from pathlib import Path

SOURCE = Path(__file__).with_name("clock.c")
COMPILER = shutil.which("cc")  # without one, clocks cannot be set, and tests leave that out


def environment(file: Path) -> dict[str, str]:
    """Make the variables of a process whose clock `set_clock` sets through `file`; at first it is right.

    The library is put beside the file. Only the time of day is changed; the monotonic clock is not.
    """
    set_clock(file, 0)
    return {"LD_PRELOAD": str(_library(file.parent)), "CLOCK_FILE": str(file)}


def set_clock(file: Path, ahead_hours: float) -> None:
    """Set the clock of the processes that share `file`, ahead or, if negative, behind; it takes effect at once."""
    descriptor = os.open(file, os.O_WRONLY | os.O_CREAT)
    try:
        os.pwrite(descriptor, struct.pack("=q", round(ahead_hours * 3600)), 0)
    finally:
        os.close(descriptor)


def _library(folder: Path) -> Path:
    """Compile the library, unless the folder has it already."""
    assert COMPILER is not None
    library = folder / SOURCE.with_suffix(".so").name
    if not library.exists():
        subprocess.run([COMPILER, "-shared", "-fPIC", "-O1", "-o", str(library), str(SOURCE), "-ldl"], check=True)
    return library
