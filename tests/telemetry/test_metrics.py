"""What /metrics shows, and that strangers cannot break or bloat it."""

import json
import logging
import signal
import time

import pytest
from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.parser import text_string_to_metric_families

from consumer.settings import LogSettings
from consumer.telemetry import logs
from consumer.telemetry.metrics import (
    MAX_BANKS,
    MAX_TENANTS,
    OTHER_BANKS,
    OTHER_TENANTS,
    Metrics,
    TenantWindow,
    largest_tenants,
)


def window(tenant: str, records: int, age_s: int = 10) -> TenantWindow:
    return TenantWindow(tenant, records, records * 600, int(time.time() - age_s) * 1000)


def shown(metrics: Metrics, registry: CollectorRegistry) -> dict[tuple[str, str], float]:
    """(name, labels' values) -> value of what is shown; fails if the page cannot be read back."""
    samples = {}
    for family in text_string_to_metric_families(generate_latest(registry).decode()):
        for sample in family.samples:
            key = (sample.name, ",".join(sample.labels.values()))
            assert key not in samples, f"{key} twice: Prometheus would refuse the page"
            samples[key] = sample.value
    return samples


@pytest.fixture
def registry() -> CollectorRegistry:
    return CollectorRegistry()


def test_every_name_has_its_unit_and_the_page_can_be_read(registry: CollectorRegistry) -> None:
    metrics = Metrics(registry)
    metrics.lags = {0: 7, 3: 0}
    metrics.windows = lambda: [window("shop", 5)]
    metrics.unread_rows = lambda: 3
    samples = shown(metrics, registry)
    assert samples["seenit_consumer_lag_messages", "0"] == 7
    assert samples["seenit_window_embeddings", "shop"] == 5
    assert samples["seenit_window_bytes", "shop"] == 3000
    assert samples["seenit_window_unread", ""] == 3
    assert samples["seenit_window_age_seconds", "shop"] == pytest.approx(10, abs=5)
    assert all(name.startswith("seenit_") for name, _ in samples)
    assert ("seenit_verdicts_total", "near,duplicate") in samples  # from the first moment


def test_series_stay_few_whatever_strangers_call_their_tenants(registry: CollectorRegistry) -> None:
    metrics = Metrics(registry)
    names = [
        OTHER_TENANTS,
        "\ud800",
        "\udfff",
        "?",
        'quo"te',
        "new\nline",
        "back\\slash",
        *(f"tenant-{n}" for n in range(1000)),
    ]
    metrics.windows = lambda: [window(name, 2000 - n, age_s=n) for n, name in enumerate(names)]
    samples = shown(metrics, registry)
    embeddings = {tenant: value for (name, tenant), value in samples.items() if name == "seenit_window_embeddings"}
    assert len(embeddings) == MAX_TENANTS + 1
    assert sum(embeddings.values()) == sum(2000 - n for n in range(len(names)))
    assert samples["seenit_window_age_seconds", OTHER_TENANTS] == pytest.approx(len(names) - 1, abs=5)


def test_series_stay_few_however_many_banks_have_hits(registry: CollectorRegistry) -> None:
    metrics = Metrics(registry)
    for number in range(3 * MAX_BANKS):
        metrics.count_bank_hit("block", f"bank {number}")
    metrics.count_bank_hit("block", "bank 0")
    [family] = [each for each in metrics.bank_hits.collect() if each.name == "seenit_bank_hits"]
    counts = {each.labels["bank"]: each.value for each in family.samples if each.labels["kind"] == "block"}
    assert len(counts) == MAX_BANKS + 1
    assert (counts["bank 0"], counts["bank 1"], counts[OTHER_BANKS]) == (2, 1, 2 * MAX_BANKS)


def test_banks_have_a_bounded_number_of_series_for_their_entries() -> None:
    registry = CollectorRegistry()
    metrics = Metrics(registry)
    metrics.bank_entries = [(f"bank {number}", number + 1) for number in range(2 * MAX_BANKS)]
    metrics.bank_entries += [("\ud800", 1000), ("bank 7", 2000), (OTHER_BANKS, 3000)]
    entries = {bank: value for (name, bank), value in shown(metrics, registry).items() if name == "seenit_bank_entries"}
    assert len(entries) == MAX_BANKS
    assert (entries["?"], entries["bank 7"], entries[f"bank {2 * MAX_BANKS - 1}"]) == (1000, 2008, 2 * MAX_BANKS)
    assert sum(entries.values()) == sum(range(2 * MAX_BANKS + 1)) + 6000


def test_an_empty_window_has_no_age() -> None:
    empty, one = TenantWindow("empty", 0, 0, None), window("a", 1)
    assert largest_tenants([empty]) == [empty]
    assert largest_tenants([empty, one], limit=1) == [one, TenantWindow(OTHER_TENANTS, 0, 0, None)]


def test_a_signal_switches_the_log_to_debug_and_back(monkeypatch: pytest.MonkeyPatch) -> None:
    root = logging.getLogger()
    before, old = root.level, signal.getsignal(signal.SIGUSR1)
    try:
        root.setLevel(logging.WARNING)
        logs.switch_on_signal(LogSettings(level="warning"))
        signal.raise_signal(signal.SIGUSR1)
        assert root.level == logging.DEBUG
        signal.raise_signal(signal.SIGUSR1)
        assert root.level == logging.WARNING
    finally:
        root.setLevel(before)
        signal.signal(signal.SIGUSR1, old)


def test_a_json_line_holds_what_the_call_gave() -> None:
    record = logging.makeLogRecord({"name": "consumer.pipeline.runner", "msg": "unprocessable: %r", "args": ("a\nb",)})
    record.__dict__.update(image_id="a\nb", tenant="\ud800", partition=3, offset=12)
    text = logs.JsonFormatter().format(record)
    assert "\n" not in text
    line = json.loads(text)
    assert (line["image_id"], line["tenant"], line["partition"], line["offset"]) == ("a\nb", "\ud800", 3, 12)
    assert line["message"] == "unprocessable: 'a\\nb'"
