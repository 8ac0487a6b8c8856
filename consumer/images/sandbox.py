"""Pictures fetched and decoded in a process of their own, which may die of them without harm.

What the child found is what counts: nothing is fetched or decoded once more in the service, where a server could give
other bytes, or a decoder fail only now. The child ends when its standard input does, so with the service, however that
ends. A kernel short of memory takes the child first; and the child may have no more than is free, since the kernel may
also kill a control group as a whole.

Over the pipes go lines of JSON, and after a line the bytes whose number it names.
"""

import json
import logging
import os
import re
import resource
import signal
import subprocess
import sys
import threading
from concurrent.futures import Future
from contextlib import suppress
from hashlib import sha256
from pathlib import Path
from typing import IO, Any

import numpy as np

from consumer.errors import Unavailable, Unprocessable
from consumer.events import ImageUpload
from consumer.images.decode import Picture, decode
from consumer.images.fetch import Fetcher
from consumer.settings import DecodeSettings, FetchSettings, Settings

log = logging.getLogger(__name__)

# A picture is poison when so many children died of it, one after the other: one may have been killed by mistake.
DEATHS = 2
START_TIMEOUT_S = 30
# Beyond the bounds on fetching. Far more than the largest picture takes; one that takes more proves nothing.
DECODE_TIMEOUT_S = 60
# Of the memory that is free, what a child may take: the service goes on meanwhile.
MEMORY_SHARE = 0.9
# A picture that fails for want of memory proves nothing where everyday ones would.
LEAST_FREE_BYTES = 256 << 20


class DecodeSandbox:
    """At most one child, started when it is needed. Thread-safe: one picture goes after the other."""

    def __init__(self, size: int, settings: Settings) -> None:
        self._orders = {
            "size": size,
            "fetch": settings.fetch.model_dump(mode="json"),
            "decode": settings.decode.model_dump(mode="json"),
            "timeout_s": round(2 * settings.fetch.timeout_s) + DECODE_TIMEOUT_S,
        }
        self._child: subprocess.Popen[bytes] | None = None
        self._at_work = threading.Lock()

    def decode(self, upload: ImageUpload) -> tuple[bytes, Future[Picture]] | None:
        """The SHA-256 of the upload's bytes, and the picture, or why they are none.

        None if it takes too long or cannot be tried, which says nothing about the upload. Raises Unprocessable when
        there are no bytes, or `poison` when they bring the child down; Unavailable when a store cannot be asked.
        """
        with self._at_work:
            return self._decode({"url": upload.url, "content_type": upload.content_type}, upload.data_base64 or b"")

    def close(self) -> None:
        """End a child that is not at work; one that is ends with this process."""
        if self._at_work.acquire(blocking=False):
            self._end()
            self._at_work.release()

    def _decode(self, task: dict[str, Any], data: bytes) -> tuple[bytes, Future[Picture]] | None:
        status = 0
        for _ in range(DEATHS):
            child = self._child or self._start()
            if child is None:
                return None
            with suppress(OSError):  # it may die before it has read everything
                _send(child.stdin, task, data)
            reply = _receive(child.stdout)
            if reply is not None:
                return _result(*reply)
            status = child.wait()
            self._end()
            if status >= 0 or status == -signal.SIGALRM:  # its own decision, or time is up
                log.error("a picture cannot be tried out: the process ended with %s", _said(status))
                return None
            log.error("decoding a picture brought the process down: %s", _said(status))
        raise Unprocessable(
            "poison",
            f"Decoding the picture ends the process that does it ({_said(status)}); report the decoder's fault.",
        )

    def _end(self) -> None:
        child, self._child = self._child, None
        if child is not None:
            child.kill()
            child.communicate()

    def _start(self) -> subprocess.Popen[bytes] | None:
        """A child that is ready; None where there can be none."""
        try:
            child = self._child = subprocess.Popen(
                [sys.executable, "-P", "-m", "consumer.images.sandbox"], stdin=subprocess.PIPE, stdout=subprocess.PIPE
            )
            _send(child.stdin, self._orders)
            if _receive(child.stdout) is not None:
                return child
        except OSError as error:
            log.error("pictures cannot be tried out in another process: %s", error)
        else:
            log.error("pictures cannot be tried out in another process: it ended with %s", _said(child.wait()))
        self._end()
        return None


def main() -> None:
    """The child: do as ordered, one picture after the other, until there is no more input."""
    signal.alarm(START_TIMEOUT_S)
    # What stops the service, or switches its log, may be sent to its children too; they end with their input.
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGUSR1):
        signal.signal(number, signal.SIG_IGN)
    with suppress(OSError):  # where that may not be, the limit has to do
        Path("/proc/self/oom_score_adj").write_text("1000")
    tasks, replies = sys.stdin.buffer, os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)  # what libraries print is no reply
    orders, _ = _receive(tasks) or sys.exit()
    size, decoding = orders["size"], DecodeSettings.model_validate(orders["decode"])
    _limit_memory()
    with Fetcher(FetchSettings.model_validate(orders["fetch"])) as fetcher, suppress(BrokenPipeError):
        _send(replies, {})
        signal.alarm(0)
        while (received := _receive(tasks)) is not None:
            signal.alarm(orders["timeout_s"])  # ends also a process whose service is gone and whose decoder hangs
            _send(replies, *_try(*received, fetcher, size, decoding))
            signal.alarm(0)


def _try(
    task: dict[str, Any], data: bytes, fetcher: Fetcher, size: int, settings: DecodeSettings
) -> tuple[dict[str, Any], bytes]:
    """The reply to a task."""
    about: dict[str, Any] = {}
    try:
        if task["url"] is not None:
            data = fetcher.fetch(task["url"])
        about["digest"] = sha256(data).hexdigest()
        picture = decode(data, size, settings, task["content_type"])
    except Unprocessable as error:
        return {**about, "reason": error.reason, "detail": error.detail}, b""
    except Unavailable as error:
        return {"dependency": error.dependency, "detail": error.detail}, b""
    about["picture"] = [picture.detail, picture.width, picture.height, picture.format]
    return about, picture.pixels.tobytes()


def _result(reply: dict[str, Any], pixels: bytes) -> tuple[bytes, Future[Picture]]:
    """A reply as the service wants it."""
    if "dependency" in reply:
        raise Unavailable(reply["dependency"], reply["detail"])
    failure = Unprocessable(reply["reason"], reply["detail"]) if "reason" in reply else None
    if failure is not None and "digest" not in reply:
        raise failure
    decoding: Future[Picture] = Future()
    if failure is not None:
        decoding.set_exception(failure)
    else:
        side = round((len(pixels) / 3) ** 0.5)
        decoding.set_result(Picture(np.frombuffer(pixels, np.uint8).reshape(side, side, 3), *reply["picture"]))
    return bytes.fromhex(reply["digest"]), decoding


def _send(pipe: IO[bytes] | None, message: dict[str, Any], data: bytes = b"") -> None:
    assert pipe is not None  # noqa: S101 (narrows the type)
    pipe.write(json.dumps({**message, "bytes": len(data)}).encode() + b"\n")
    pipe.write(data)
    pipe.flush()


def _receive(pipe: IO[bytes] | None) -> tuple[dict[str, Any], bytes] | None:
    """A message; None when its sender is gone."""
    assert pipe is not None  # noqa: S101 (narrows the type)
    line = pipe.readline()
    if not line.endswith(b"\n"):
        return None
    message = json.loads(line)
    data = pipe.read(message["bytes"])
    return (message, data) if len(data) == message["bytes"] else None


def _limit_memory() -> None:
    """Let allocations fail before the kernel kills."""
    free = _free_bytes()
    if free < LEAST_FREE_BYTES:
        sys.exit(f"seenit: {free >> 20} MiB of free memory are too little to try out pictures")
    taken_kb = int(re.findall(r"VmData:\s+(\d+)", Path("/proc/self/status").read_text())[0])
    limit = (taken_kb << 10) + int(free * MEMORY_SHARE)
    own, _ = resource.getrlimit(resource.RLIMIT_DATA)
    limit = limit if own == resource.RLIM_INFINITY else min(limit, own)
    resource.setrlimit(resource.RLIMIT_DATA, (limit, limit))


def _free_bytes() -> int:
    """Memory free on the machine and, by cgroup v2, which alone kills whole groups, in this process's group."""
    free = int(re.findall(r"MemAvailable:\s+(\d+)", Path("/proc/meminfo").read_text())[0]) << 10
    own = re.findall(r"^0::/(.*)$", Path("/proc/self/cgroup").read_text(), re.MULTILINE)
    with suppress(OSError, ValueError):  # there is no such file, or "max" in it
        group = Path("/sys/fs/cgroup") / "".join(own)
        most, taken = (int((group / name).read_text()) for name in ("memory.max", "memory.current"))
        cached = sum(map(int, re.findall(r"^(?:in)?active_file (\d+)$", (group / "memory.stat").read_text(), re.M)))
        free = min(free, most - taken + cached)
    return max(0, free)


def _said(status: int) -> str:
    return signal.Signals(-status).name if status < 0 else f"status {status}"


if __name__ == "__main__":
    main()
