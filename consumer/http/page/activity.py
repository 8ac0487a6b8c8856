"""What happens: verdicts by second and kind in the last minute, and the latest duplicates, by tenant. Bounded."""

import threading
import time
from collections import Counter, OrderedDict, deque
from collections.abc import Callable
from dataclasses import dataclass, field
from statistics import median
from typing import NamedTuple

from consumer.verdicts import Verdict

SPAN_S = 60
# Over which the rate is taken.
RATE_S = 10
MAX_TENANTS = 200
MAX_LATEST = 10
KINDS = ("unique", "exact", "near", "unprocessable")


class Summary(NamedTuple):
    """A tenant's last minute: verdicts by second, the oldest first, and by kind; the time they took; duplicates."""

    by_second: list[int]
    by_kind: dict[str, int]
    uploads_per_s: float
    latency_ms: float | None
    latest: list[Verdict]


@dataclass(slots=True)
class _Tenant:
    seconds: dict[int, Counter[str]] = field(default_factory=dict)
    latencies: deque[tuple[float, float]] = field(default_factory=lambda: deque(maxlen=1000))
    latest: deque[Verdict] = field(default_factory=lambda: deque(maxlen=MAX_LATEST))


class Activity:
    """Counts verdicts as they come. Thread-safe."""

    def __init__(self, clock: Callable[[], float] = time.time) -> None:
        self._clock = clock
        self._tenants: OrderedDict[str, _Tenant] = OrderedDict()
        self._lock = threading.Lock()

    def add(self, verdict: Verdict) -> None:
        """Count a verdict, in the second in which it was decided."""
        decided_s = verdict.decided_at.timestamp()
        with self._lock:
            tenant = self._tenants.setdefault(verdict.tenant, _Tenant())
            self._tenants.move_to_end(verdict.tenant)
            if len(self._tenants) > MAX_TENANTS:
                self._tenants.popitem(last=False)
            if verdict.match is not None:
                tenant.latest.append(verdict)
            if decided_s < self._clock() - SPAN_S:
                return
            tenant.seconds.setdefault(int(decided_s), Counter())[verdict.kind or verdict.verdict] += 1
            took_ms = (verdict.decided_at - verdict.received_at).total_seconds() * 1000
            tenant.latencies.append((decided_s, took_ms))
            for second in [each for each in tenant.seconds if each < self._clock() - 2 * SPAN_S]:
                del tenant.seconds[second]

    def tenants(self) -> set[str]:
        """The tenants with verdicts lately."""
        with self._lock:
            return set(self._tenants)

    def summary(self, name: str) -> Summary:
        """Sum up a tenant's last minute."""
        now = int(self._clock())
        with self._lock:
            tenant = self._tenants.get(name, _Tenant())
            counts = [tenant.seconds.get(second, Counter()) for second in range(now - SPAN_S + 1, now + 1)]
            by_second = [each.total() for each in counts]
            by_kind = sum(counts, Counter[str]())
            took_ms = [ms for second, ms in tenant.latencies if second > now - SPAN_S]
            return Summary(
                by_second,
                {kind: by_kind[kind] for kind in KINDS},
                sum(by_second[-RATE_S - 1 : -1]) / RATE_S,
                median(took_ms) if took_ms else None,
                list(reversed(tenant.latest)),
            )
