"""The consumers under test. One that ends by itself is started again, as a cluster's supervisor would do."""

import os
import shutil
import signal
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

from tests.processes import Child
from tests.torture.world import World, log_lines

STOP_TIMEOUT_S = 40.0
RESTART_AFTER_S = 0.5


@dataclass
class Slot:
    """A consumer of the fleet; its process is replaced at each start. It is `wanted` unless a fault keeps it away."""

    child: Child
    wanted: bool = True


class Fleet:
    """Runs `size` consumers, each with the `environment` of its number; `trouble` lists what none should have done."""

    def __init__(self, world: World, size: int, environment: Callable[[int], Mapping[str, str]]) -> None:
        self._world = world
        self._environment = environment
        self.slots = [Slot(world.consumer(number, environment(number))) for number in range(size)]
        for slot in self.slots:
            slot.child.log.unlink(missing_ok=True)
        self.trouble: list[str] = []
        self._watching = threading.Event()
        self._lock = threading.Lock()

    def start(self) -> None:
        """Start all consumers, and the thread that starts them again."""
        self._watching.set()
        for slot in self.slots:
            slot.child.start()
        threading.Thread(target=self._watch, name="fleet", daemon=True).start()

    def kill(self, number: int) -> None:
        """Kill a consumer with SIGKILL; it stays away until `restart`."""
        with self._lock:
            self.slots[number].wanted = False
            self.slots[number].child.kill()

    def stop(self, number: int) -> None:
        """Stop a consumer with SIGTERM: it has to end by itself with status 0. It stays away until `restart`."""
        with self._lock:
            slot = self.slots[number]
            slot.wanted = False
            if slot.child.alive:
                started = time.monotonic()
                status = slot.child.stop(STOP_TIMEOUT_S)
                ended_by_signal = status in (-signal.SIGTERM, 128 + signal.SIGTERM)
                was_starting = ended_by_signal and "answering on" not in slot.child.latest_output
                if status != 0 and not was_starting:
                    took_s = time.monotonic() - started
                    self.trouble.append(f"{slot.child.name} ended with {status} on SIGTERM after {took_s:.1f} s")

    def restart(self, number: int) -> None:
        """Start a consumer that was killed or stopped."""
        with self._lock:
            self.slots[number].wanted = True
            self.slots[number].child.start()

    def thaw(self) -> None:
        """Let every consumer run again."""
        with self._lock:
            for slot in self.slots:
                slot.child.thaw()
                slot.wanted = True
                slot.child.start()

    def close(self) -> None:
        """Stop all consumers as an operator would, and search their logs for exceptions."""
        self._watching.clear()
        for number in range(len(self.slots)):
            self.stop(number)
        for slot in self.slots:
            for line in log_lines(slot.child):
                if "exception" in line or "Traceback" in str(line.get("text", "")):
                    logged = str(line.get("exception") or line.get("text"))
                    self.trouble.append(f"{slot.child.name} logged an exception: {logged[-1500:]}")

    def dump(self) -> None:
        """End all consumers, each with the stacks of its threads in its log."""
        self._watching.clear()
        for slot in self.slots:
            slot.wanted = False
            if slot.child.alive:
                os.kill(slot.child.pid, signal.SIGABRT)
        time.sleep(1)
        self.kill_all()

    def keep_logs(self, folder: Path) -> None:
        """Copy the consumers' logs to a folder."""
        folder.mkdir(parents=True, exist_ok=True)
        for slot in self.slots:
            if slot.child.log.exists():
                shutil.copy(slot.child.log, folder)

    def kill_all(self) -> None:
        """Kill all consumers."""
        self._watching.clear()
        for slot in self.slots:
            slot.child.kill()

    def _watch(self) -> None:
        while self._watching.is_set():
            with self._lock:
                for slot in self.slots:
                    if slot.wanted and self._watching.is_set() and slot.child.status is not None:
                        last = slot.child.output.strip().splitlines()[-3:]
                        self.trouble.append(f"{slot.child.name} ended by itself with {slot.child.status}: {last}")
                        slot.child.start()
            time.sleep(RESTART_AFTER_S)
