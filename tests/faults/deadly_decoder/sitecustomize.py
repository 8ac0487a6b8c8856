"""Gives Pillow a deadly fault, in every Python that has this folder on its PYTHONPATH.

The four reserved bytes of a BMP file name what its decoder does before it decodes: see DEEDS.
"""

import ctypes
import os
import signal
import time
from pathlib import Path
from typing import IO, Any

from PIL import Image

CHUNK_BYTES = 16 << 20


def grow() -> None:
    """Take memory until there is none, then end as allocators in C++ and Rust do."""
    libc = ctypes.CDLL(None)
    libc.malloc.restype = ctypes.c_void_p
    while (chunk := libc.malloc(CHUNK_BYTES)) is not None:
        ctypes.memset(chunk, 1, CHUNK_BYTES)
    os.abort()


def die_once() -> None:
    """Be killed the first time, and not again."""
    if not mark().exists():
        mark().touch()
        os.kill(os.getpid(), signal.SIGKILL)


def hang() -> None:
    """Leave a mark and do nothing more."""
    mark().touch()
    time.sleep(3600)


def mark() -> Path:
    """Return the file that marks a deed as done."""
    return Path(os.environ["DEADLY_DECODER_MARK"])


DEEDS = {
    b"abrt": os.abort,
    b"kill": lambda: os.kill(os.getpid(), signal.SIGKILL),  # as a kernel that is short of memory
    b"grow": grow,
    b"once": die_once,
    b"hang": hang,
}


def deadly(file: IO[bytes], name: str) -> Any:
    """Open a BMP as Pillow does, after the deed that it names."""
    DEEDS.get(file.read(10)[6:], lambda: None)()
    file.seek(0)
    return harmless(file, name)


Image.preinit()
harmless, accepts = Image.OPEN["BMP"]
Image.register_open("BMP", deadly, accepts)
