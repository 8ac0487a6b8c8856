"""Settings come from the environment over a file, and keep secrets to themselves."""

from pathlib import Path

import pytest

from consumer.errors import Misconfigured
from consumer.settings import Settings


def test_environment_goes_before_the_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = tmp_path / "seenit.toml"
    file.write_text('[kafka]\ngroup_id = "file"\ninput_topic = "from-file"\n[window]\nretention_s = 60\n')
    monkeypatch.setenv("SEENIT_CONFIG", str(file))
    monkeypatch.setenv("SEENIT_KAFKA_GROUP_ID", "environment")
    settings = Settings()
    assert settings.kafka.group_id == "environment"
    assert settings.kafka.input_topic == "from-file"
    assert settings.window.retention_s == 60


def test_lists_are_given_as_json(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SEENIT_FETCH_FOLDERS", '["/pictures"]')
    assert Settings().fetch.folders == (Path("/pictures"),)


@pytest.mark.parametrize(("name", "value"), [("SEENIT_KAFKA_DELIVERY", "twice"), ("SEENIT_PIPELINE_BATCH_SIZE", "0")])
def test_a_wrong_value_is_refused_by_name(name: str, value: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(name, value)
    with pytest.raises(Misconfigured, match=name):
        Settings.load()


def test_a_misspelt_name_in_the_file_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = tmp_path / "seenit.toml"
    file.write_text('[kafka]\ngroup = "x"\n')
    monkeypatch.setenv("SEENIT_CONFIG", str(file))
    with pytest.raises(Misconfigured, match="SEENIT_KAFKA_GROUP: "):
        Settings.load()


def test_a_file_that_is_not_there_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SEENIT_CONFIG", str(tmp_path / "none.toml"))
    with pytest.raises(Misconfigured, match=r"none\.toml"):
        Settings.load()


def test_a_file_that_is_not_toml_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = tmp_path / "seenit.toml"
    file.write_text("kafka: yaml")
    monkeypatch.setenv("SEENIT_CONFIG", str(file))
    with pytest.raises(Misconfigured, match="not TOML"):
        Settings.load()


def test_secrets_are_masked(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SEENIT_REDIS_URL", "rediss://user:hunter2@redis:6379")
    monkeypatch.setenv("SEENIT_KAFKA_SASL_PASSWORD", "hunter2")
    settings = Settings()
    assert "hunter2" not in f"{settings!r} {settings.model_dump_json()}"
