"""Child processes that serve on free loopback ports: start, wait until they answer, stop without leftovers."""

import os
import re
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Protocol

from consumer.errors import SeenitError

# Run in the child before the server takes its place. The kernel then stops the server when the thread that started it
# is gone, however that came about; `preexec_fn` would do the same, but forks, which gRPC and other threads do not bear.
_EXEC_TIED = """\
import ctypes, os, signal, sys
ctypes.CDLL(None).prctl(1, signal.SIGTERM)
if os.getppid() == int(sys.argv[1]):
    os.execv(sys.argv[2], sys.argv[2:])
"""
SERVERS_STOP_S = 1.0  # all they hold is in memory and goes anyway; Triton alone would take three to six
CONSUMERS_STOP_S = 20.0  # they have batches to finish
_TRIES = 3  # another process may take a port between its choice and the server's bind
_LISTENING = "0A"  # the kernel's number for a socket that waits for connections
_PORT_TAKEN = re.compile(r"address (?:is )?already in use|already in use|AddrInUse", re.IGNORECASE)


class Running(Protocol):
    """A process that leads a group of its own."""

    @property
    def pid(self) -> int: ...

    @property
    def alive(self) -> bool: ...


class StartFailed(SeenitError):
    """A server of the embedded stack did not come up; carries the last lines of its log."""


class Server:
    """One server as a child process.

    `command` takes as many free ports as `ports` says and returns the arguments; `environment` takes them too and
    returns all variables of the server (without it, they are those of this process). Once the server listens on its
    ports, `ready` says whether it answers as it should. Unless `detached`, the server ends with the thread that called
    `start`, even if that was killed: start it from one that lives as long as the server should (the main thread).
    """

    def __init__(
        self,
        name: str,
        command: Callable[[Sequence[int]], list[str]],
        ready: Callable[[Sequence[int]], bool] = lambda _: True,
        *,
        log: Path,
        ports: int = 1,
        environment: Callable[[Sequence[int]], Mapping[str, str]] | None = None,
        detached: bool = False,
        timeout_s: float = 60.0,
    ) -> None:
        self.name = name
        self.ports: list[int] = []
        self.log = log
        self._command = command
        self._ready = ready
        self._port_count = ports
        self._environment = environment
        self._detached = detached
        self._timeout_s = timeout_s
        self._process: subprocess.Popen[bytes] | None = None
        self._tries_left = 0
        self._deadline_s = 0.0

    @property
    def pid(self) -> int:
        assert self._process is not None, f"{self.name} was not started"  # noqa: S101
        return self._process.pid

    @property
    def alive(self) -> bool:
        return self._process is not None and self._process.poll() is None

    def start(self, ports: Sequence[int] | None = None) -> None:
        """Launch on free ports, or on the given ones, without waiting for an answer."""
        self._tries_left = _TRIES if ports is None else 1
        self._launch(ports)

    def poll(self) -> bool:
        """Tell whether it answers by now. Start again on other ports if others took these. Raises StartFailed."""
        if self.alive and listening_ports(self.pid) >= set(self.ports) and self._ready(self.ports):
            return True
        if not self.alive:
            if self._tries_left == 0 or not _PORT_TAKEN.search(self.tail()):
                status = None if self._process is None else self._process.returncode
                raise StartFailed(f"{self.name} ended with status {status} before it was ready. {self._end_of_log()}")
            self._launch(None)
        elif time.monotonic() > self._deadline_s:
            raise StartFailed(f"{self.name} was not ready within {self._timeout_s:g} s. {self._end_of_log()}")
        return False

    def _launch(self, ports: Sequence[int] | None) -> None:
        self._tries_left -= 1
        self._deadline_s = time.monotonic() + self._timeout_s
        self.ports = list(ports or free_ports(self._port_count))
        command = self._command(self.ports)
        if not self._detached:
            command = [sys.executable, "-I", "-S", "-c", _EXEC_TIED, str(os.getpid()), *command]
        environment = None if self._environment is None else self._environment(self.ports)
        with self.log.open("wb") as log:
            # A group of its own: Ctrl-C reaches the parent alone, which stops its servers in order.
            self._process = subprocess.Popen(
                command, env=environment, stdin=subprocess.DEVNULL, stdout=log, stderr=log, start_new_session=True
            )

    def stop(self, timeout_s: float = SERVERS_STOP_S) -> None:
        """Stop it and its children; do nothing if it is gone already."""
        stop_all([self], timeout_s)

    def _end_of_log(self) -> str:
        return f"{self.log} ends with:\n{self.tail()}"

    def tail(self, lines: int = 15) -> str:
        """Return the last lines of its log."""
        with suppress(OSError):
            return "\n".join(self.log.read_text(errors="replace").splitlines()[-lines:])
        return ""


def wait_until_ready(servers: Sequence[Server]) -> None:
    """Return when all answer; raise StartFailed as soon as one cannot."""
    waiting = list(servers)
    while waiting := [server for server in waiting if not server.poll()]:
        time.sleep(0.05)


def stop_all(processes: Iterable[Running], timeout_s: float) -> None:
    """Send SIGTERM to each that runs, and SIGKILL to each that still does after `timeout_s` and to its children."""
    running = [process for process in processes if process.alive]
    for process in running:
        with suppress(ProcessLookupError):
            os.kill(process.pid, signal.SIGTERM)
    deadline_s = time.monotonic() + timeout_s
    while any(process.alive for process in running) and time.monotonic() < deadline_s:
        time.sleep(0.02)
    stubborn = [process for process in running if process.alive]
    for process in stubborn:
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
    while any(process.alive for process in stubborn):
        time.sleep(0.01)


def free_ports(count: int) -> list[int]:
    """Return ports of the loopback interface that nobody listens on at the moment, all different."""
    sockets = [socket.socket() for _ in range(count)]
    try:
        for each in sockets:
            each.bind(("127.0.0.1", 0))
        return [each.getsockname()[1] for each in sockets]
    finally:
        for each in sockets:
            each.close()


def listening_ports(pid: int) -> set[int]:
    """Return the TCP ports that this very process listens on. (A connection could reach somebody else's server.)"""
    try:
        sockets = {os.readlink(each) for each in Path(f"/proc/{pid}/fd").iterdir()}  # noqa: PTH115  # no real paths
        tables = [Path(f"/proc/{pid}/net/{name}").read_text() for name in ("tcp", "tcp6")]  # gRPC takes IPv6 for both
    except OSError:  # it, or one of its files, is gone meanwhile
        return set()
    rows = [
        line.split() for table in tables for line in table.splitlines()[1:]
    ]  # 1: address:port in hexadecimal, 3: state, 9: inode
    return {
        int(row[1].rpartition(":")[2], 16) for row in rows if row[3] == _LISTENING and f"socket:[{row[9]}]" in sockets
    }


def answers(port: int, path: str) -> bool:
    """Tell whether an HTTP server on this loopback port answers `path` with success."""
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))  # a configured proxy is not for loopback
    with suppress(OSError, urllib.error.URLError), opener.open(f"http://127.0.0.1:{port}{path}", timeout=1.0) as reply:
        return bool(200 <= reply.status < 300)
    return False
