"""Pauses between tries at a dependency that is away."""

import threading

FIRST_PAUSE_S, LONGEST_PAUSE_S = 0.1, 2.0


class Backoff:
    """Doubles the pause with each try, from FIRST_PAUSE_S to LONGEST_PAUSE_S."""

    def __init__(self) -> None:
        self._next_s = FIRST_PAUSE_S

    def wait(self, stop: threading.Event) -> None:
        """Pause; shorter when `stop` is set meanwhile."""
        stop.wait(self._next_s)
        self._next_s = min(self._next_s * 2, LONGEST_PAUSE_S)
