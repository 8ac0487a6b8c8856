"""Fetching and decoding suspect pictures in a child process, which may die of them without harm.

A result of the child is final: the service does not fetch or decode the picture once more, since a server could give
other bytes, or a decoder fail only then. The child gives up the rights that it does not need (`rights`). It ends when
its standard input does, and so with the service, however that ends. A kernel short of memory kills the child first; and
the child may take no more than is free, since the kernel may also kill a control group as a whole.

Each message over the pipes is a line of JSON, followed by as many bytes as its field `bytes` says.
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
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from typing import IO, Any

import numpy as np

from consumer.errors import Unavailable, Unprocessable
from consumer.events import ImageUpload
from consumer.images.decode import Picture, decode
from consumer.images.fetch import Fetcher
from consumer.images.rights import give_up
from consumer.images.thumbnail import THUMBNAIL_BYTES, Thumbnail
from consumer.settings import DecodeSettings, FetchSettings, Settings
from consumer.threads import ONE_THREAD

log = logging.getLogger(__name__)

# A picture is poison when so many children died of it, one after the other: one may have been killed by mistake.
POISON_DEATHS = 2
START_TIMEOUT_S = 30
# On top of the bounds on fetching. Far more than the largest picture takes. A child that takes longer may only be slow:
# that does not make its picture poison.
DECODE_TIMEOUT_S = 60
# Share of the free memory that a child may take: the service goes on meanwhile.
MEMORY_SHARE = 0.9
# With less, everyday pictures would fail too, and no failure would make a picture poison.
MIN_FREE_BYTES = 256 << 20


@dataclass(frozen=True, slots=True)
class SandboxResult:
    """What a child found: the SHA-256 of the upload's bytes, and the picture, or why they are none."""

    digest: bytes
    decoding: Future[Picture]  # done


class DecodeSandbox:
    """Fetches and decodes pictures in at most one child, started when needed. Thread-safe: one picture at a time."""

    def __init__(self, size: int, settings: Settings) -> None:
        self._configuration = {
            "size": size,
            "fetch": settings.fetch.model_dump(mode="json"),
            "decode": settings.decode.model_dump(mode="json"),
            "timeout_s": round(2 * settings.fetch.timeout_s) + DECODE_TIMEOUT_S,
        }
        self._child: subprocess.Popen[bytes] | None = None
        self._busy = threading.Lock()

    def decode(self, upload: ImageUpload) -> SandboxResult | None:
        """Fetch and decode an upload's picture. None if it takes too long, or if no child can be started.

        Raises Unprocessable when the bytes cannot be had, or with the reason `poison` when decoding them brings the
        child down; Unavailable when a store cannot be asked.
        """
        with self._busy:
            task = upload.model_dump(include={"url", "version_id", "content_type"})
            return self._decode(task, upload.data_base64 or b"")

    def close(self) -> None:
        """End an idle child; a busy one ends with this process."""
        if self._busy.acquire(blocking=False):
            self._end()
            self._busy.release()

    def _decode(self, task: dict[str, Any], data: bytes) -> SandboxResult | None:
        status = 0
        for _ in range(POISON_DEATHS):
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
                log.error("a picture cannot be tried out: the process ended with %s", _exit_cause(status))
                return None
            log.error("decoding a picture brought the process down: %s", _exit_cause(status))
        raise Unprocessable(
            "poison",
            f"Decoding the picture ends the process that does it ({_exit_cause(status)}); report the decoder's fault.",
        )

    def _end(self) -> None:
        child, self._child = self._child, None
        if child is not None:
            child.kill()
            child.communicate()

    def _start(self) -> subprocess.Popen[bytes] | None:
        """Start a child and wait until it is ready; None where there can be none."""
        try:
            child = self._child = subprocess.Popen(
                [sys.executable, "-P", "-m", "consumer.images.sandbox"],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                env={**os.environ, **ONE_THREAD},  # helpers would begin before rights are given up
            )
            _send(child.stdin, self._configuration)
            if _receive(child.stdout) is not None:
                return child
        except OSError as error:
            log.error("pictures cannot be tried out in another process: %s", error)
        else:
            log.error("pictures cannot be tried out in another process: it ended with %s", _exit_cause(child.wait()))
        self._end()
        return None


def main() -> None:
    """Run the child: decode one picture after the other, until there is no more input."""
    signal.alarm(START_TIMEOUT_S)
    # What stops the service, or switches its log, may be sent to its children too; they end with their input.
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGUSR1):
        signal.signal(number, signal.SIG_IGN)
    with suppress(OSError):  # where that may not be, the limit has to do
        Path("/proc/self/oom_score_adj").write_text("1000")
    give_up()
    tasks, replies = sys.stdin.buffer, os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)  # what libraries print is no reply
    configuration, _ = _receive(tasks) or sys.exit()
    size, decode_settings = configuration["size"], DecodeSettings.model_validate(configuration["decode"])
    _limit_memory()
    with Fetcher(FetchSettings.model_validate(configuration["fetch"])) as fetcher, suppress(BrokenPipeError):
        _send(replies, {})
        signal.alarm(0)
        while (received := _receive(tasks)) is not None:
            # Ends also a process whose service is gone and whose decoder hangs.
            signal.alarm(configuration["timeout_s"])
            _send(replies, *_run(*received, fetcher, size, decode_settings))
            signal.alarm(0)


def _run(
    task: dict[str, Any], data: bytes, fetcher: Fetcher, size: int, settings: DecodeSettings
) -> tuple[dict[str, Any], bytes]:
    """Fetch and decode as the task says; return the reply, and the picture's thumbnail and pixels."""
    reply: dict[str, Any] = {}
    try:
        if task["url"] is not None:
            data = fetcher.fetch(task["url"], task["version_id"])
        reply["digest"] = sha256(data).hexdigest()
        picture = decode(data, size, settings, task["content_type"])
    except Unprocessable as error:
        return {**reply, "reason": error.reason, "detail": error.detail}, b""
    except Unavailable as error:
        return {"dependency": error.dependency, "detail": error.detail}, b""
    reply["picture"] = [picture.detail, picture.width, picture.height, picture.format]
    return reply, picture.thumbnail.to_bytes() + picture.pixels.tobytes()


def _result(reply: dict[str, Any], data: bytes) -> SandboxResult:
    """Turn a reply into what `DecodeSandbox.decode` returns or raises."""
    if "dependency" in reply:
        raise Unavailable(reply["dependency"], reply["detail"])
    failure = Unprocessable(reply["reason"], reply["detail"]) if "reason" in reply else None
    if failure is not None and "digest" not in reply:
        raise failure
    decoding: Future[Picture] = Future()
    if failure is not None:
        decoding.set_exception(failure)
    else:
        thumbnail = Thumbnail.from_bytes(data[:THUMBNAIL_BYTES])
        pixels = np.frombuffer(data, np.uint8, offset=THUMBNAIL_BYTES)
        side = round((len(pixels) / 3) ** 0.5)
        decoding.set_result(Picture(pixels.reshape(side, side, 3), thumbnail, *reply["picture"]))
    return SandboxResult(bytes.fromhex(reply["digest"]), decoding)


def _send(pipe: IO[bytes] | None, message: dict[str, Any], data: bytes = b"") -> None:
    assert pipe is not None  # noqa: S101 (narrows the type)
    pipe.write(json.dumps({**message, "bytes": len(data)}).encode() + b"\n")
    pipe.write(data)
    pipe.flush()


def _receive(pipe: IO[bytes] | None) -> tuple[dict[str, Any], bytes] | None:
    """Wait for a message and its bytes; None when the sender is gone."""
    assert pipe is not None  # noqa: S101 (narrows the type)
    line = pipe.readline()
    if not line.endswith(b"\n"):
        return None
    message = json.loads(line)
    data = pipe.read(message["bytes"])
    return (message, data) if len(data) == message["bytes"] else None


def _limit_memory() -> None:
    """Limit this process's memory, so that allocations fail before the kernel kills."""
    free = _free_bytes()
    if free < MIN_FREE_BYTES:
        sys.exit(f"seenit: {free >> 20} MiB of free memory are too little to try out pictures")
    taken_kb = int(re.findall(r"VmData:\s+(\d+)", Path("/proc/self/status").read_text())[0])
    limit = (taken_kb << 10) + int(free * MEMORY_SHARE)
    inherited, _ = resource.getrlimit(resource.RLIMIT_DATA)
    limit = limit if inherited == resource.RLIM_INFINITY else min(limit, inherited)
    resource.setrlimit(resource.RLIMIT_DATA, (limit, limit))


def _free_bytes() -> int:
    """Return the memory free on the machine and in this process's cgroup; only cgroup v2 kills whole groups."""
    free = int(re.findall(r"MemAvailable:\s+(\d+)", Path("/proc/meminfo").read_text())[0]) << 10
    group_path = re.findall(r"^0::/(.*)$", Path("/proc/self/cgroup").read_text(), re.MULTILINE)
    with suppress(OSError, ValueError):  # there is no such file, or "max" in it
        group = Path("/sys/fs/cgroup") / "".join(group_path)
        limit, used = (int((group / name).read_text()) for name in ("memory.max", "memory.current"))
        cached = sum(map(int, re.findall(r"^(?:in)?active_file (\d+)$", (group / "memory.stat").read_text(), re.M)))
        free = min(free, limit - used + cached)
    return max(0, free)


def _exit_cause(status: int) -> str:
    """Name the signal or the status that a process ended with."""
    return signal.Signals(-status).name if status < 0 else f"status {status}"


if __name__ == "__main__":
    main()
