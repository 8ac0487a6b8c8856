"""Gives Pillow a deadly fault, in every Python that has this folder on its PYTHONPATH.

The four reserved bytes of a BMP file name what its decoder does before it decodes: see DEEDS.
"""

import ctypes
import os
import signal
import socket
import time
from contextlib import suppress
from pathlib import Path
from typing import IO, Any

from PIL import Image

CHUNK_BYTES = 16 << 20
# The file that marks a deed as done, by not being empty; opened while the process may still do that.
MARK = os.open(os.environ.get("DEADLY_DECODER_MARK", os.devnull), os.O_CREAT | os.O_WRONLY, 0o600)


def grow() -> None:
    """Take memory until there is none, then end as allocators in C++ and Rust do."""
    libc = ctypes.CDLL(None)
    libc.malloc.restype = ctypes.c_void_p
    while (chunk := libc.malloc(CHUNK_BYTES)) is not None:
        ctypes.memset(chunk, 1, CHUNK_BYTES)
    os.abort()


def die_once() -> None:
    """Be killed the first time, and not again."""
    if not os.fstat(MARK).st_size:
        os.write(MARK, b"1")
        os.kill(os.getpid(), signal.SIGKILL)


def hang() -> None:
    """Leave a mark and do nothing more."""
    os.write(MARK, b"1")
    time.sleep(3600)


def overreach() -> None:
    """Try what only an attacker in the decoder would do; each success leaves a letter in the mark."""
    deeds = {
        b"w": lambda: Path(f"{os.environ['DEADLY_DECODER_MARK']}.new").touch(),
        b"d": lambda: Path(os.environ["DEADLY_DECODER_MARK"]).unlink(),
        b"x": lambda: os.posix_spawn("/bin/true", ["true"], {}),
        b"k": lambda: os.kill(os.getppid(), 0),
        b"l": lambda: socket.create_server(("127.0.0.1", 0)),
    }
    for letter, deed in deeds.items():
        with suppress(OSError):
            deed()
            os.write(MARK, letter)


DEEDS = {
    b"bold": overreach,
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
