"""`seenit sizing`, as a user types it."""

import json

import pytest

from tests.commands import seenit


def test_sizing_says_in_words_what_is_needed() -> None:
    done = seenit("sizing", "--rate", "200", "--window", "2h", "--bytes", "300k", "--tenants", "20", COLUMNS="160")
    assert done.returncode == 0, done.stderr
    for words in ("consumer processes", "Triton servers", "Redis memory", "20 slots", "480 Mbit/s", "Too small first:"):
        assert words in done.stdout
    assert "p99" in done.stdout


def test_sizing_tells_programs_the_same_with_its_costs() -> None:
    done = seenit("sizing", "--rate", "200", "--window", "1h", "--gpu", "h200", "--tenants", "5", "--json")
    assert done.returncode == 0, done.stderr
    answer = json.loads(done.stdout)
    assert answer["group"]["workload"] == {
        "rate": 200.0,
        "window_s": 3600.0,
        "picture_bytes": 300_000.0,
        "tenants": 5,
        "gpu": "h200",
    }
    assert answer["bottleneck"] in {part["name"] for part in answer["group"]["parts"]}
    assert answer["costs"]["decode_us"]["measured"] in answer["measurements"]
    assert answer["simulated"]["p99_ms"] > answer["simulated"]["p50_ms"] > 0


def test_sizing_names_what_no_number_of_machines_mends() -> None:
    done = seenit("sizing", "--rate", "1000", "--window", "24h", COLUMNS="160")
    assert done.returncode == 1
    assert "Too small: memory of Redis" in done.stdout
    assert "--memory" in done.stdout


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["--rate", "many"], "--rate is 'many'"),
        (["--rate", "-5"], "--rate is '-5'"),
        (["--rate", "1000", "--window", "24"], "--window is '24'"),
        (["--rate", "1000", "--window", "nand"], "--window is 'nand'"),
        (["--rate", "1000", "--bytes", "9" * 500], "--bytes is"),
        (["--rate", "1000", "--gpu", "\x1b[31mabacus"], "--gpu is"),
        (["--rate", "1000", "--tenants", "0"], "--tenants"),
    ],
)
def test_sizing_refuses_what_makes_no_sense(arguments: list[str], sentence: str) -> None:
    refused = seenit("sizing", *arguments)
    assert refused.returncode in (1, 2)
    assert sentence in " ".join(refused.stderr.split())
    assert "Traceback" not in refused.stderr
    assert "\x1b[31mabacus" not in refused.stderr
