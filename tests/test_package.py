"""What the package exports, and what importing a part of it does not load."""

import subprocess
import sys
from pathlib import Path

import pytest

import consumer
from consumer import errors

CLIENTS = ("grpc", "tritonclient", "redis", "confluent_kafka")
# What a newcomer sees first: files for people, for git, and for the tools that look for them here.
TOP_LEVEL = {
    *("README.md", "CHANGELOG.md", "SECURITY.md", "LICENSE", "Makefile", ".gitignore", ".ci"),
    *("pyproject.toml", "requirements.lock", "consumer", "deploy", "tests", "triton_models"),
}
EXPORTED = ["ImageEncoder", "Misconfigured", "ModelInfo", "SeenitError", "Unavailable", "Unprocessable"]


def loaded(statement: str, packages: tuple[str, ...]) -> str:
    """Return which of the packages a fresh interpreter has loaded after the statement, as a printed list."""
    code = f"{statement}; import sys; print(sorted({{m.split('.')[0] for m in sys.modules}} & set({packages!r})))"
    return subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.strip()


def test_the_exported_names_are_there() -> None:
    assert consumer.__all__ == EXPORTED
    for name in EXPORTED:
        assert getattr(consumer, name).__name__ == name
        assert name in dir(consumer)


def test_the_exported_errors_are_those_that_the_service_raises() -> None:
    assert consumer.Unavailable is errors.Unavailable
    assert issubclass(consumer.Misconfigured, consumer.SeenitError)


@pytest.mark.parametrize("name", ["Encoder", "nothing"])
def test_other_names_are_no_attributes(name: str) -> None:
    with pytest.raises(AttributeError, match=f"no attribute '{name}'"):
        getattr(consumer, name)


def test_importing_the_package_loads_no_client() -> None:
    assert loaded("import consumer", CLIENTS) == "[]"
    assert loaded("from consumer import Unprocessable", CLIENTS) == "[]"
    assert loaded("from consumer import ImageEncoder", CLIENTS) == "['grpc', 'tritonclient']"


@pytest.mark.parametrize("module", ["contract", "patches"])
def test_the_encoders_contract_loads_neither_a_client_nor_a_decoder(module: str) -> None:
    assert loaded(f"import consumer.encoder.{module}", (*CLIENTS, "PIL")) == "[]"


def test_nothing_more_stands_at_the_top() -> None:
    root = Path(__file__).parents[1]
    tracked = subprocess.run(["git", "ls-files"], cwd=root, capture_output=True, text=True, check=True).stdout  # noqa: S607
    assert {path.partition("/")[0] for path in tracked.splitlines()} == TOP_LEVEL
