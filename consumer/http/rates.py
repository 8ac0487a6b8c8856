"""How many requests a caller may send: a bucket each, which fills at the caller's rate."""

import time
from collections import OrderedDict
from http import HTTPStatus

from consumer.http.problems import Refused
from consumer.http.scopes import Caller

# A bucket holds what comes in this time.
BURST_S = 2.0
# Callers that are remembered; names of tokens come from a provider.
MAX_CALLERS = 10_000


class RateLimiter:
    """Counts requests by caller, in this process. Not thread-safe: for the event loop."""

    def __init__(self, requests_per_s: float) -> None:
        self._requests_per_s = requests_per_s
        self._buckets: OrderedDict[str, tuple[float, float]] = OrderedDict()  # requests left, at which time

    def count(self, caller: Caller) -> None:
        """Count a request. Raises Refused with the time after which the next one is taken."""
        rate = caller.requests_per_s or self._requests_per_s
        most, now_s = max(1.0, rate * BURST_S), time.monotonic()
        left, at_s = self._buckets.get(caller.name, (most, now_s))
        left = min(most, left + (now_s - at_s) * rate)
        taken = left >= 1
        self._buckets[caller.name] = (left - taken, now_s)
        self._buckets.move_to_end(caller.name)
        if len(self._buckets) > MAX_CALLERS:
            self._buckets.popitem(last=False)
        if not taken:
            raise Refused(
                HTTPStatus.TOO_MANY_REQUESTS,
                "too-many-requests",
                f"At most {rate:g} requests a second are taken from this key.",
                retry_after_s=(1 - left) / rate,
            )
