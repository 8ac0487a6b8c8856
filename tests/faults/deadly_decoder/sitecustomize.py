"""Gives Pillow a deadly fault, in every Python that has this folder on its PYTHONPATH.

What the decoder of BMP files does before it decodes stands in the file's four reserved bytes.
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
    """Be killed, but by somebody who does so only once."""
    if not mark().exists():
        mark().touch()
        os.kill(os.getpid(), signal.SIGKILL)


def hang() -> None:
    """Do nothing more, and let it be seen."""
    mark().touch()
    time.sleep(3600)


def mark() -> Path:
    return Path(os.environ["DEADLY_DECODER_MARK"])


DEEDS = {
    b"abrt": os.abort,
    b"kill": lambda: os.kill(os.getpid(), signal.SIGKILL),  # as a kernel that is short of memory
    b"grow": grow,
    b"once": die_once,
    b"hang": hang,
}


def deadly(file: IO[bytes], name: str) -> Any:
    DEEDS.get(file.read(10)[6:], lambda: None)()
    file.seek(0)
    return harmless(file, name)


Image.preinit()
harmless, accepts = Image.OPEN["BMP"]
Image.register_open("BMP", deadly, accepts)
