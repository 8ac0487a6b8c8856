"""Server processes that a test can stop, kill, freeze and start again, always on the same ports."""

import contextlib
import os
import random
import resource
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Self

ABORT_TIMEOUT_S = 2.0
STOP_TIMEOUT_S = 20.0
_given_ports: set[int] = set()

# Reads the ids of process groups from its standard input, and kills them once the other end is gone: so a test run that
# is itself killed leaves nothing behind. Unlike PR_SET_PDEATHSIG this holds for processes started from any thread.
REAPER = """
import os, signal, sys
for group in [int(line) for line in sys.stdin]:
    try: os.killpg(group, signal.SIGKILL)
    except ProcessLookupError: pass
"""


class Reaper:
    """A process that kills the children when this process ends, however that ends; a context manager."""

    def __enter__(self) -> Self:
        self._process = subprocess.Popen(
            [sys.executable, "-I", "-S", "-c", REAPER], stdin=subprocess.PIPE, text=True, start_new_session=True
        )
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._process.communicate()

    def watch(self, pid: int) -> None:
        """Add a process that leads a group of its own."""
        assert self._process.stdin is not None
        self._process.stdin.write(f"{pid}\n")
        self._process.stdin.flush()


class Child:
    """A process of one command, which can be started again; its output is appended to `log`."""

    def __init__(
        self,
        name: str,
        command: Sequence[str],
        log: Path,
        reaper: Reaper,
        environment: Mapping[str, str] | None = None,
    ) -> None:
        self.name = name
        self.log = log
        self.frozen = False
        self._command = list(command)
        self._environment = None if environment is None else dict(environment)
        self._reaper = reaper
        self._log_start = 0
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def pid(self) -> int:
        assert self._process is not None, f"{self.name} does not run"
        return self._process.pid

    @property
    def alive(self) -> bool:
        """Whether the process runs, frozen or not."""
        return self._process is not None and self._process.poll() is None

    @property
    def status(self) -> int | None:
        """The exit status; None while the process runs, and after `kill` or `stop`."""
        return None if self._process is None else self._process.poll()

    @property
    def output(self) -> str:
        """The output so far, of all starts."""
        return self.log.read_text(errors="replace") if self.log.exists() else ""

    @property
    def latest_output(self) -> str:
        """The output since the last start."""
        return self.log.read_bytes()[self._log_start :].decode(errors="replace") if self.log.exists() else ""

    def start(self) -> None:
        """Start the process, unless it runs."""
        if self.alive:
            return
        with self.log.open("ab") as log:
            self._log_start = log.tell()
            self._process = subprocess.Popen(
                self._command,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                env=self._environment,
                start_new_session=True,
                # As Python does, servers get an error from a write beyond `limit_files`, instead of SIGXFSZ.
                restore_signals=False,
            )
        self._reaper.watch(self._process.pid)

    def stop(self, timeout_s: float = STOP_TIMEOUT_S) -> int | None:
        """Ask the process to end (SIGTERM); return its status, or None if it had to be killed or did not run.

        Before it is killed it gets SIGABRT: with PYTHONFAULTHANDLER its log then has the stacks of its threads.
        """
        status = None
        if self._process:
            self.thaw()
            self._process.terminate()
            try:
                status = self._process.wait(timeout_s)
            except subprocess.TimeoutExpired:
                self._process.send_signal(signal.SIGABRT)
                with contextlib.suppress(subprocess.TimeoutExpired):
                    self._process.wait(ABORT_TIMEOUT_S)
        self.kill()
        return status

    def kill(self) -> None:
        """Kill the process and its own children (SIGKILL)."""
        if self._process:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(self._process.pid, signal.SIGKILL)
            self._process.wait()
            self._process, self.frozen = None, False

    def freeze(self) -> None:
        """Suspend the process (SIGSTOP): its connections stay open and silent."""
        if self.alive:
            os.killpg(self.pid, signal.SIGSTOP)
            self.frozen = True

    def limit_files(self, size_bytes: int | None) -> None:
        """Let every write beyond this size of a file fail, as a full disk would; None lifts the limit."""
        if self.alive:
            _, most = resource.prlimit(self.pid, resource.RLIMIT_FSIZE)
            resource.prlimit(self.pid, resource.RLIMIT_FSIZE, (most if size_bytes is None else size_bytes, most))

    def thaw(self) -> None:
        """Let the process go on if it was frozen."""
        if self.alive and self.frozen:
            os.killpg(self.pid, signal.SIGCONT)
        self.frozen = False


def free_ports(count: int) -> list[int]:
    """Find ports that nobody listens on, below those that the system gives to outgoing connections.

    A port from `bind(0)` could go to such a connection while its server is down, and the server could not come back.
    None is given twice: whoever has it may not listen yet, or be down.
    """
    ports: list[int] = []
    while len(ports) < count:
        port = random.randint(12_000, 32_000)
        with socket.socket() as probe, contextlib.suppress(OSError):
            probe.bind(("127.0.0.1", port))
            if port not in _given_ports:
                _given_ports.add(port)
                ports.append(port)
    return ports


def listens(port: int) -> bool:
    """Tell whether a connection to the loopback port is accepted."""
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


def until(done: Callable[[], object], timeout_s: float, what: str, every_s: float = 0.1) -> None:
    """Wait until `done` is true. Raises TimeoutError with `what` after `timeout_s`; standstills do not count."""
    deadline = _clock.awake_s() + timeout_s
    while not done():
        if _clock.awake_s() > deadline:
            raise TimeoutError(f"{what} after {timeout_s:.0f} s")
        time.sleep(every_s)


class _Clock:
    """A monotonic clock that leaves out the time in which the whole machine stood still, as a virtual one may do."""

    TICK_S = 0.5
    STANDSTILL_S = 5.0

    def __init__(self) -> None:
        self._lost_s = 0.0
        self._started = threading.Lock()

    def awake_s(self) -> float:
        """Return the seconds since some moment."""
        if self._started.acquire(blocking=False):
            threading.Thread(target=self._watch, name="clock", daemon=True).start()
        return time.monotonic() - self._lost_s

    def _watch(self) -> None:
        while True:
            before = time.monotonic()
            time.sleep(self.TICK_S)
            late_s = time.monotonic() - before - self.TICK_S
            if late_s > self.STANDSTILL_S:
                self._lost_s += late_s


_clock = _Clock()
