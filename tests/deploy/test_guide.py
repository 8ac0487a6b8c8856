"""The operator's guide is right: its names exist, its links lead somewhere, and its Redis user has enough rights."""

import re
import time
from datetime import UTC, datetime
from pathlib import Path

import pytest
from prometheus_client import CollectorRegistry
from pydantic import SecretStr
from redis import AuthenticationError, Redis

from consumer.cli.preflight.redis import TRIAL_MODEL, check_redis, check_serving
from consumer.errors import Unavailable
from consumer.events import Record
from consumer.kafka.leases import Lease
from consumer.local.binaries import Binaries
from consumer.pipeline.poison import PoisonGuard
from consumer.settings import RedisSettings, Settings, WindowSettings
from consumer.telemetry.metrics import Metrics
from consumer.window.records import Lookup, pack_record
from consumer.window.window import RedisWindow
from tests.redis_servers import client_of, redis_like
from tests.stack_fixtures import serving

DEPLOY = Path(__file__).parents[2] / "deploy"
GUIDE = (DEPLOY / "README.md").read_text()


def test_every_setting_that_is_named_exists() -> None:
    known = {
        f"SEENIT_{section}_{name}".upper()
        for section, field in Settings.model_fields.items()
        for name in field.annotation.model_fields
    } | {"SEENIT_CONFIG"}
    named = set(re.findall(r"SEENIT_[A-Z0-9_]*[A-Z0-9]", GUIDE))
    assert named
    unknown = {name for name in named - known if not any(each.startswith(f"{name}") for each in known)}
    assert unknown == set()


def test_every_metric_that_is_named_exists() -> None:
    registry = CollectorRegistry()
    Metrics(registry)
    known = {
        f"{family.name}{ending}" for family in registry.collect() for ending in ("", "_total", "_count", "_bucket")
    }
    named = set(re.findall(r"\bseenit_[a-z_0-9]+", GUIDE))
    assert named
    assert named <= known


def test_every_file_that_is_named_is_there() -> None:
    named = set(re.findall(r"\bdeploy/[\w./-]*\w", GUIDE)) | {
        f"deploy/{link}" for link in re.findall(r"\]\(([^)#:]+)\)", GUIDE)
    }
    assert len(named) > 10
    for name in named - {"deploy/kubernetes/overlays/cpu]"}:
        assert (DEPLOY.parent / name).exists(), name


def test_every_alert_that_is_named_exists() -> None:
    rules = (DEPLOY / "prometheus" / "rules.yml").read_text()
    for alert in re.findall(r"\bSeenit[A-Z]\w+", GUIDE):
        assert f"alert: {alert}" in rules


def test_the_redis_user_may_do_all_it_has_to(binaries: Binaries, tmp_path: Path) -> None:
    users = re.findall(r"^ +user (\S+ (?:on|off).*)$", GUIDE, re.MULTILINE)
    assert [user.split()[0] for user in users] == ["default", "operator", "seenit", "seenit-http"]
    with serving(redis_like("valkey", binaries, tmp_path)) as server:
        with client_of(server) as client:
            client.config_set("appendonly", "yes")
            for user in users:
                client.execute_command("ACL", "SETUSER", *user.split())
        url = SecretStr(f"redis://seenit:PASSWORD@127.0.0.1:{server.ports[0]}/0")
        findings = list(check_redis(RedisSettings(url=url)))
        assert [finding for finding in findings if finding.outcome != "ok"] == []
        assert "redis: window" in {finding.what for finding in findings}
        with Redis.from_url(url.get_secret_value()) as user:
            window = RedisWindow(user, TRIAL_MODEL, WindowSettings(on_loss="rebuild"), "seenit")
            assert window.loss_guard.marker() is None
            assert window.loss_guard.lock()
            window.loss_guard.renew()
            record = pack_record("a", b"digest", datetime(2026, 1, 1, tzinfo=UTC))
            window.store.run("stage", [("t", ["", "name", record, b"patches"])], "epoch")
            now_ms = round(time.time() * 1000)
            assert window.store.run("restore", [("t", ["1", 0, 0, "1", now_ms, "name", b"", ""])], "epoch") == [1]
            window.loss_guard.mark()
            window.loss_guard.unlock()
            assert window.find_exact([("t", "b", b"digest", datetime(2026, 1, 1, tzinfo=UTC))])[0] is not None
            PoisonGuard(user, Settings()).first([(Record("in", 0, 7, None, b"", (), 1), Lease(0, 1))])
        with client_of(server, username="seenit-http", password="A-THIRD") as user:
            window = RedisWindow(user, TRIAL_MODEL, WindowSettings(on_loss="rebuild"), "seenit")
            assert window.look_up([Lookup("t", b"digest", ())])[0].exact is not None
            with pytest.raises(Unavailable):
                window.delete("t", "a")
            with pytest.raises(Unavailable):
                window.store.command("SET", "seenit:starts:seenit", "")
            url = SecretStr(f"redis://seenit-http:A-THIRD@127.0.0.1:{server.ports[0]}/0")
            assert {each.outcome for each in check_serving(RedisSettings(url=url))} == {"ok"}
        with client_of(server, username="operator", password="ANOTHER") as client:
            assert client.hgetall("seenit:starts:seenit") == {b"in/0": b"7 1"}
            assert client.pttl("seenit:starts:seenit") > 0
            # The pattern that the guide gives to remove the windows of a model matches them, and nothing else.
            [pattern] = set(re.findall(r"--pattern '(.*?)'", GUIDE))
            keys = list(client.scan_iter(pattern.replace("image_encoder@VERSION", f"{TRIAL_MODEL.name}@0"), 1000))
            assert {b"seenit:check@0x8:marker", b"seenit:{t}:check@0x8:rows"} <= set(keys)
            assert b"seenit:starts:seenit" not in keys
        with client_of(server) as stranger, pytest.raises(AuthenticationError):
            stranger.ping()


def test_the_redis_user_of_a_cluster_may_do_all_it_has_to(binaries: Binaries, tmp_path: Path) -> None:
    [user] = re.findall(r"^ +user (seenit .*)$", GUIDE, re.MULTILINE)
    [more] = re.findall(r"` (\+cluster.*?)`", GUIDE)
    with serving(redis_like("valkey", binaries, tmp_path, cluster=True)) as server:
        with client_of(server) as client:
            client.config_set("appendonly", "yes")
            client.execute_command("CLUSTER", "ADDSLOTSRANGE", 0, 16383)
            client.execute_command("ACL", "SETUSER", *user.split(), *more.split())
            while client.execute_command("CLUSTER INFO")["cluster_state"] != "ok":
                time.sleep(0.05)
        url = SecretStr(f"redis://seenit:PASSWORD@127.0.0.1:{server.ports[0]}/0")
        findings = {each.what: each.outcome for each in check_redis(RedisSettings(url=url, cluster=True))}
        assert findings == {"redis: server": "ok", "redis: window": "ok"}
