"""The record of a stack that was left running: its processes and addresses, in a file that `seenit down` reads."""

import fcntl
import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Self

from consumer.errors import SeenitError
from consumer.local.binaries import home
from consumer.local.process import CONSUMERS_STOP_S, SERVERS_STOP_S, stop_all
from consumer.local.servers import remove_shared_memory

CONSUMER = "consumer-"  # and a number: the name of a consumer's process
HTTP = "http"  # the name of the process of `seenit serve`


@dataclass(frozen=True, slots=True)
class Addresses:
    """Where the servers of a stack listen, and the names of its topics."""

    kafka: str
    triton_grpc: str
    triton_metrics_url: str
    redis: str
    metrics_url: str | None  # of the first consumer, once there is one
    input_topic: str
    output_topic: str
    dead_letter_topic: str
    banks_topic: str
    rematches_topic: str
    feedback_topic: str
    audit_topic: str
    http_url: str | None  # of look-ups and the page, once they are served


@dataclass(frozen=True, slots=True)
class Process:
    """A process of the stack; the time of its start tells it from a later one with the same number."""

    name: str
    pid: int
    started: str  # clock ticks since boot
    log: str

    @classmethod
    def of(cls, name: str, pid: int, log: Path) -> Self:
        """Describe the process that has this number now."""
        return cls(name, pid, _start_ticks(pid) or "", str(log))

    @property
    def alive(self) -> bool:
        """Whether this very process still runs."""
        return self.started != "" and _start_ticks(self.pid) == self.started


@dataclass(frozen=True, slots=True)
class State:
    """What is stored of a stack that was left running."""

    addresses: Addresses
    processes: tuple[Process, ...]
    shared_memory_prefix: str
    log_dir: str

    @property
    def alive(self) -> bool:
        """Whether every process still runs."""
        return all(process.alive for process in self.processes)

    def stop(self) -> None:
        """Stop what still runs, first what uses the servers, and forget it."""
        clients = [process for process in self.processes if process.name.startswith((CONSUMER, HTTP))]
        stop_all(clients, CONSUMERS_STOP_S)
        stop_all(self.processes, SERVERS_STOP_S)
        remove_shared_memory(self.shared_memory_prefix)
        _file().unlink(missing_ok=True)

    def save(self) -> None:
        """Write it to the file, all at once."""
        scratch = _file().with_suffix(".new")
        scratch.write_text(json.dumps(asdict(self), indent=2))
        scratch.replace(_file())


def folder() -> Path:
    """Return the folder that a stack left running keeps its logs and its state in; made if missing."""
    path = _file().parent
    path.mkdir(parents=True, exist_ok=True)
    return path


def load() -> State | None:
    """Return the stack that was left running, alive or not; None if there is none."""
    try:
        stored = json.loads(_file().read_text())
        return State(
            addresses=Addresses(**stored["addresses"]),
            processes=tuple(Process(**each) for each in stored["processes"]),
            shared_memory_prefix=stored["shared_memory_prefix"],
            log_dir=stored["log_dir"],
        )
    except OSError:
        return None  # nor can there be one where nothing may be written, as in the image
    except (ValueError, KeyError, TypeError):
        return None  # written by another version: what it names is not known


@contextmanager
def exclusive() -> Iterator[None]:
    """Hold this while a stack is started or stopped; raises SeenitError when another process does."""
    with (folder() / "lock").open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise SeenitError("Another `seenit up` or `seenit down` is at work: wait for it to end.") from None
        yield


def _file() -> Path:
    chosen = os.environ.get("XDG_STATE_HOME")
    return (Path(chosen) / "seenit" if chosen else home() / "run") / "state.json"


def _start_ticks(pid: int) -> str | None:
    """Return when the process started, in clock ticks since boot.

    None if it is gone, or dead and only not yet collected by its parent.
    """
    try:
        status = Path(f"/proc/{pid}/stat").read_text()
    except (FileNotFoundError, ProcessLookupError):
        return None
    fields = status.rpartition(")")[2].split()  # the name before may hold anything
    return None if fields[0] in "ZX" else fields[19]
