"""A real Prometheus scrapes a real consumer at work, and has data for every panel and every alert."""

import json
import re
import subprocess
import time
from collections.abc import Iterator
from typing import Any

import httpx
import numpy as np
import pytest
import yaml

from consumer.local.binaries import Binaries
from consumer.local.pictures import edited, photographs
from consumer.local.servers import TritonServer
from consumer.moderation.banks import BankDefined, BankEntry, change_message
from deploy.grafana.dashboards import FOLDER, dashboards
from tests.deploy.prometheus import RATE_INTERVAL, RULES, server, write_config
from tests.deploy.tools import needed
from tests.http_fixtures import http_server
from tests.service_fixtures import Service, new_service
from tests.stack_fixtures import serving

LOAD_S = 12.0
# What a consumer looks up now and then has to be observed once all else is there.
OBSERVED = ("seenit_bank_entries", "seenit_campaign_uploads_per_hour", "seenit_consumer_lag_messages")
OBSERVED_WITHIN_S = 60.0
# Metrics that Triton does not have without a GPU.
NEEDS_GPU = ("nv_gpu_utilization",)


def queries() -> list[tuple[str, str]]:
    """Return (panel, expression) of every query of all dashboards."""
    expressions = []
    for file in sorted(FOLDER.glob("*.json")):
        board = json.loads(file.read_text())
        expressions += [
            (f"{board['title']}: {panel['title']}", target["expr"])
            for panel in board["panels"]
            for target in panel["targets"]
        ]
    return expressions


def alerts() -> list[dict[str, Any]]:
    return [rule for group in yaml.safe_load(RULES.read_text())["groups"] for rule in group["rules"]]


@pytest.fixture(scope="module")
def promtool() -> str:
    return needed("promtool", "prometheus")


def test_the_dashboards_are_written_as_the_code_says() -> None:
    assert {file.name: file.read_text() for file in FOLDER.glob("*.json")} == dashboards(), (
        "run: python deploy/grafana/dashboards.py"
    )


def test_rules_are_valid_and_fire_when_they_should(promtool: str) -> None:
    for arguments in (("check", "rules", RULES.name), ("test", "rules", "rules.test.yml")):
        done = subprocess.run([promtool, *arguments], cwd=RULES.parent, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stdout + done.stderr


def test_every_alert_is_tested_and_says_what_to_do() -> None:
    tests = (RULES.parent / "rules.test.yml").read_text()
    for alert in alerts():
        assert alert["alert"] in tests, f"{alert['alert']} never fires in rules.test.yml"
        assert len(alert["annotations"]["runbook"]) > 80
        assert alert["annotations"]["summary"]
        assert alert["labels"]["severity"] in ("critical", "warning")


@pytest.fixture(scope="module")
def prometheus(
    promtool: str, broker: str, redis_server: str, binaries: Binaries, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[httpx.Client]:
    """Prometheus with the deployed configuration, on a consumer and a Triton that work meanwhile."""
    folder = tmp_path_factory.mktemp("prometheus")
    with serving(TritonServer(binaries, folder)) as triton:
        url = f"127.0.0.1:{triton.ports[0]}"
        with new_service(broker, redis_server, url, folder, banks=True) as service:
            consumer = service.consumer()
            http = http_server(service.environment, folder)
            ports = {"seenit": consumer.ports, "triton": triton.ports[2:]}
            with (
                serving(http),
                serving(server(write_config(folder, {**ports, "seenit-http": http.ports[1:]}), folder)) as running,
                httpx.Client(
                    base_url=f"http://127.0.0.1:{running.ports[0]}/api/v1", trust_env=False, timeout=30.0
                ) as client,
            ):
                work(service, f"http://127.0.0.1:{http.ports[0]}", client)
                yield client
            consumer.stop()


def work(service: Service, http_url: str, prometheus: httpx.Client) -> None:
    """Upload and look up a little of everything, spread over some scrapes, until all is observed."""
    photograph = next(data for name, data in photographs() if name == "chelsea.png")
    rng = np.random.default_rng(0)
    for change in (BankDefined(bank="b", kind="review"), BankEntry(bank="b", entry_id="e", data_base64=photograph)):
        service.send_message(change_message(service.kafka.banks_topic, change))
    service.picture("first", photograph)
    began_s = time.monotonic()
    count = 1
    while time.monotonic() - began_s < LOAD_S or not all(ask(prometheus, name) for name in OBSERVED):
        assert time.monotonic() - began_s < OBSERVED_WITHIN_S
        service.picture(f"near-{count}", edited(photograph, "lighting", rng))
        service.picture(f"exact-{count}", photograph)
        service.send(b"not an image", f"junk-{count}".encode(), {"content-type": b"image/jpeg"})
        count += 3
        service.await_verdicts(count)
        httpx.post(
            f"{http_url}/v1/lookup",
            content=photograph,
            headers={"content-type": "image/png"},
            trust_env=False,
            timeout=30.0,
        )
        time.sleep(0.5)


def ask(prometheus: httpx.Client, expression: str) -> list[Any]:
    answer = prometheus.get("/query", params={"query": expression.replace("$__rate_interval", RATE_INTERVAL)}).json()
    assert answer["status"] == "success", f"{expression}: {answer}"
    result: list[Any] = answer["data"]["result"]
    return result


def test_every_panel_has_data(prometheus: httpx.Client) -> None:
    empty = []
    for panel, expression in queries():
        values = [float(sample["value"][1]) for sample in ask(prometheus, expression)]
        # A division of nothing by nothing is data too, and shows nothing.
        if not any(np.isfinite(values)) and not any(name in expression for name in NEEDS_GPU):
            empty.append((panel, expression, values))
    assert not empty


def test_every_series_that_an_alert_looks_at_exists(prometheus: httpx.Client) -> None:
    looked_at = 0
    for alert in alerts():
        for selector in re.findall(r"\b(?:seenit_\w+|up)\b(?:\{[^}]*\})?", alert["expr"]):
            assert ask(prometheus, selector), f"{alert['alert']}: {selector}"
            looked_at += 1
    assert looked_at >= len(alerts())


def test_no_alert_fires_while_all_is_well(prometheus: httpx.Client) -> None:
    rules = prometheus.get("/rules", params={"type": "alert"}).json()["data"]["groups"][0]["rules"]
    assert {rule["name"] for rule in rules} == {alert["alert"] for alert in alerts()}
    assert [rule["lastError"] for rule in rules if rule.get("lastError")] == []
    assert {rule["name"] for rule in rules if rule["state"] == "firing"} == set()
