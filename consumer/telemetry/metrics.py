"""Every metric's name, labels and unit, in one place. Label values are few by construction."""

import platform
import time
from collections import Counter as Counts
from collections.abc import Callable, Iterable, Iterator, Mapping
from functools import partial
from importlib.metadata import version
from typing import NamedTuple, get_args

from prometheus_client import REGISTRY, Counter, Gauge, Histogram, disable_created_metrics
from prometheus_client.core import GaugeMetricFamily, Metric
from prometheus_client.registry import Collector, CollectorRegistry

from consumer.errors import REASONS, Dependency
from consumer.verdicts import BankKind

# Series of creation times double the number of series, and Prometheus has no use for them.
disable_created_metrics()  # type: ignore[no-untyped-call]

# Steps take from 0.1 ms (an exact lookup) to the deadlines of fetch and inference.
_SECONDS = (0.0001, 0.0003, 0.001, 0.003, 0.01, 0.03, 0.1, 0.3, 1.0, 3.0, 10.0, 30.0)
# The threshold of a good encoder lies around 0.5: fine steps there show how matches drift.
_L2 = tuple(step / 20 for step in range(1, 29))
# Tenants with a series of their own, the largest first; the rest share one. Their names come from strangers.
MAX_TENANTS = 20
OTHER_TENANTS = "(others)"
# Banks with a series of their own, the first that have hits, and those with most entries.
MAX_BANKS, OTHER_BANKS = 50, "(others)"
# An image id may have 2,048 letters.
MAX_LABEL_LENGTH = 256


class TenantWindow(NamedTuple):
    """The size of one tenant's window; `oldest_ms` is None for an empty one."""

    tenant: str
    records: int
    bytes: int
    oldest_ms: int | None


class Metrics(Collector):
    """All metrics of one service.

    Most are counted as things happen. Five are read only when Prometheus asks: `lags`, messages by partition;
    `windows`, which gives (tenant, records, bytes, oldest_ms or None) of each window; `unread_rows` of one that is
    being read; `campaigns`, the few with the highest rates: (tenant, id, uploads an hour); and `bank_entries`: (name,
    entries) of each bank.
    """

    def __init__(self, registry: CollectorRegistry = REGISTRY) -> None:
        self.lags: Mapping[int, int] = {}
        self.campaigns: Iterable[tuple[str, str, int]] = ()
        self.bank_entries: Iterable[tuple[str, int]] = ()
        self.windows: Callable[[], Iterable[tuple[str, int, int, int | None]]] = tuple
        self.unread_rows: Callable[[], int] = int
        counter, gauge = partial(Counter, registry=registry), partial(Gauge, registry=registry)
        histogram = partial(Histogram, registry=registry)
        self.verdicts = counter("seenit_verdicts", "Verdicts published", ["verdict", "kind"])
        self.unprocessable = counter("seenit_unprocessable", "Uploads dead-lettered", ["reason"])
        self.deleted = counter("seenit_deleted", "Deletion events carried out")
        self.step_seconds = histogram(
            "seenit_step_seconds",
            "Duration of a step: fetch, decode and infer for one picture or request, the others for a batch",
            ["step"],
            buckets=_SECONDS,
        )
        self.step_cpu_seconds = counter(
            "seenit_step_cpu_seconds", "Processor time of a step's Python threads", ["step"]
        )
        self.end_to_end_seconds = histogram(
            "seenit_end_to_end_seconds", "From the event's arrival on the topic to the commit", buckets=_SECONDS
        )
        self.batch_uploads = histogram(
            "seenit_batch_uploads", "Uploads in a batch", ["closed_by"], buckets=(1, 2, 4, 8, 16, 32, 64, 128)
        )
        self.batches_in_flight = gauge("seenit_batches_in_flight", "Batches between poll and commit")
        self.batches_in_flight_limit = gauge("seenit_batches_in_flight_limit", "Most batches between poll and commit")
        self.retries = counter("seenit_retries", "Repeated calls to a dependency", ["dependency"])
        self.ready = gauge("seenit_ready", "1 when /readyz finds nothing wrong")
        self.dependency_up = gauge("seenit_dependency_up", "1 when it could be asked the last time", ["dependency"])
        self.rebalances = counter("seenit_rebalances", "Changes of the partitions held", ["change"])
        self.floods = counter("seenit_floods", "Floods of campaigns told", ["state"])
        self.feedback = counter("seenit_feedback", "Decisions of people taken in, and feedback refused", ["decision"])
        self.match_l2 = histogram("seenit_match_l2", "Distance of near matches", buckets=_L2)
        self.window_resets = gauge("seenit_window_resets", "Times Redis came back without what it had")
        self.bank_hits = counter("seenit_bank_hits", "Entries of banks that uploads show", ["kind", "bank"])
        self.silenced = counter("seenit_silenced", "Uploads that show an allowed picture")
        self.refused_entries = counter("seenit_refused_entries", "Entries of banks dead-lettered", ["reason"])
        self.rematches = counter("seenit_rematches", "Earlier uploads found that show a new entry of a bank")
        self.rematches_under_way = gauge("seenit_rematches_under_way", "Entries that earlier uploads are searched for")
        self.model_info = gauge("seenit_model_info", "The served encoder", ["name", "version"])
        self.model_threshold_l2 = gauge("seenit_model_threshold_l2", "Distance up to which two pictures are duplicates")
        build = gauge("seenit_build_info", "This program", ["version", "python"])
        build.labels(version("seenit"), platform.python_version()).set(1)
        self._banks: set[str] = set()  # that are counted by name
        self._begin_series()
        registry.register(self)

    def _begin_series(self) -> None:
        """Show a zero for each label that is known beforehand.

        A series that begins with its first event has no rate yet when that event is the alarm.
        """
        for dependency in get_args(Dependency):
            self.retries.labels(dependency)
        for reason in REASONS:
            self.unprocessable.labels(reason)
            self.refused_entries.labels(reason)
        for kind in get_args(BankKind):
            self.bank_hits.labels(kind, OTHER_BANKS)
        for change in ("assigned", "revoked", "lost"):
            self.rebalances.labels(change)
        for state in ("began", "ended"):
            self.floods.labels(state)
        for decision in ("confirm", "reject", "withdraw", "refused"):
            self.feedback.labels(decision)
        for verdict, kind in (("unique", ""), ("duplicate", "exact"), ("duplicate", "near"), ("unprocessable", "")):
            self.verdicts.labels(verdict, kind)

    def count_bank_hit(self, kind: str, bank: str) -> None:
        """Count an entry of a bank that an upload shows, of the first MAX_BANKS by the bank's name."""
        if len(self._banks) < MAX_BANKS:
            self._banks.add(bank)
        self.bank_hits.labels(kind, bank if bank in self._banks else OTHER_BANKS).inc()

    def count_feedback(self, decision: str) -> None:
        """Count feedback that was answered: confirm, reject or refused."""
        self.feedback.labels(decision).inc()

    def collect(self) -> Iterator[Metric]:
        """Give the metrics that are read only when Prometheus asks."""
        lag = GaugeMetricFamily(
            "seenit_consumer_lag_messages", "From the committed offset to the partition's end", labels=["partition"]
        )
        for partition, messages in self.lags.items():
            lag.add_metric([str(partition)], messages)
        yield lag
        rates = GaugeMetricFamily(
            "seenit_campaign_uploads_per_hour",
            "Uploads of a campaign in the last hour, of the campaigns that have most",
            labels=["tenant", "campaign"],
        )
        # Names that differ only where they are cut, or in what cannot be written, are one series.
        named = {(_series_name(tenant), _series_name(campaign)): rate for tenant, campaign, rate in self.campaigns}
        for names, rate in named.items():
            rates.add_metric(names, rate)
        yield rates
        entries = GaugeMetricFamily("seenit_bank_entries", "Entries of banks, of all tenants' by name", labels=["bank"])
        for bank, count in largest_banks(self.bank_entries).items():
            entries.add_metric([bank], count)
        yield entries
        embeddings = GaugeMetricFamily("seenit_window_embeddings", "Embeddings mirrored from Redis", labels=["tenant"])
        size = GaugeMetricFamily("seenit_window_bytes", "Memory of the mirrored embeddings", labels=["tenant"])
        age = GaugeMetricFamily("seenit_window_age_seconds", "Age of the oldest mirrored embedding", labels=["tenant"])
        now_ms = time.time() * 1000
        for window in largest_tenants(map(TenantWindow._make, self.windows())):
            embeddings.add_metric([window.tenant], window.records)
            size.add_metric([window.tenant], window.bytes)
            if window.oldest_ms is not None:
                age.add_metric([window.tenant], max(0.0, now_ms - window.oldest_ms) / 1000)
        yield from (embeddings, size, age)
        unread = "Embeddings still to be read of a window that is being read"
        yield GaugeMetricFamily("seenit_window_unread", unread, self.unread_rows())


def _series_name(name: str) -> str:
    """A name from outside, fit for a label: halves of surrogate pairs would break the page."""
    return name[:MAX_LABEL_LENGTH].encode("utf-8", "replace").decode()


class HttpMetrics:
    """All metrics of one `seenit serve`. Routes are named as the OpenAPI document names them."""

    def __init__(self, registry: CollectorRegistry = REGISTRY) -> None:
        counter, gauge = partial(Counter, registry=registry), partial(Gauge, registry=registry)
        histogram = partial(Histogram, registry=registry)
        self.requests = counter("seenit_http_requests", "Requests answered", ["route", "status"])
        self.failures = counter("seenit_http_failures", "Requests answered with a status of 500 or more")
        self.request_seconds = histogram(
            "seenit_http_request_seconds", "From the first byte of a request to its answer", ["route"], buckets=_SECONDS
        )
        self.requests_in_flight = gauge("seenit_http_requests_in_flight", "Requests that are not answered yet")
        self.step_seconds = histogram(
            "seenit_http_step_seconds",
            "Duration of a step of a look-up, with its waiting",
            ["step"],
            buckets=_SECONDS,
        )
        self.ready = gauge("seenit_http_ready", "1 when /readyz finds nothing wrong")
        self.dependency_up = gauge(
            "seenit_http_dependency_up", "1 when it could be asked the last time", ["dependency"]
        )


def largest_banks(entries: Iterable[tuple[str, int]], limit: int = MAX_BANKS) -> dict[str, int]:
    """Sum the entries of banks by name: of those with the most entries, and of all others as OTHER_BANKS."""
    counts = Counts[str]()
    for bank, count in entries:
        counts[_series_name(bank)] += count
    named = dict(counts.most_common(limit))
    rest = counts.total() - sum(named.values())
    if rest:
        named[OTHER_BANKS] = named.get(OTHER_BANKS, 0) + rest
    return named


def largest_tenants(windows: Iterable[TenantWindow], limit: int = MAX_TENANTS) -> list[TenantWindow]:
    """Return the windows with the most records, and all others as one named OTHER_TENANTS.

    Names that cannot be a series of their own count among the others.
    """
    named: dict[str, TenantWindow] = {}
    rest = []
    for window in sorted(windows, key=lambda window: window.records, reverse=True):
        name = window.tenant.encode("utf-8", "replace").decode()  # halves of surrogate pairs would break the page
        if len(named) < limit and name not in named and name != OTHER_TENANTS:
            named[name] = window._replace(tenant=name)
        else:
            rest.append(window)
    if not rest:
        return list(named.values())
    oldest_ms = min((window.oldest_ms for window in rest if window.oldest_ms is not None), default=None)
    records, size = sum(window.records for window in rest), sum(window.bytes for window in rest)
    return [*named.values(), TenantWindow(OTHER_TENANTS, records, size, oldest_ms)]
