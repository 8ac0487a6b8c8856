"""The command line, as a user types it."""

import inspect
import json
import subprocess
import sys
import time
from collections.abc import Iterator
from importlib import import_module
from pathlib import Path

import numpy as np
import pytest
import typer

from consumer.cli.app import COMMANDS
from consumer.cli.bank import BankGroup
from consumer.local.pictures import edited, photographs
from tests.commands import seenit

PHOTOGRAPHS = dict(photographs())


@pytest.fixture
def pictures(tmp_path: Path) -> Path:
    """A cat, the cat re-compressed, and a pagoda."""
    cat, folder = PHOTOGRAPHS["chelsea.png"], tmp_path / "pictures"
    folder.mkdir()
    (folder / "cat.png").write_bytes(cat)
    (folder / "cat-again.jpg").write_bytes(edited(cat, "re-compressed", np.random.default_rng(0)))
    (folder / "pagoda.jpg").write_bytes(PHOTOGRAPHS["china.jpg"])
    return folder


@pytest.mark.parametrize("command", [*COMMANDS, *(f"bank {name}" for name in BankGroup.entries)])
def test_help_shows_an_example(command: str) -> None:
    result = seenit(*command.split(), "--help")
    assert result.returncode == 0
    assert f"seenit {command}" in " ".join(result.stdout.partition("Example:")[2].split())


def test_the_list_shows_the_first_paragraph_of_each_help_text() -> None:
    for name, entry in [*COMMANDS.items(), *BankGroup.entries.items()]:
        module, _, function = entry.function.partition(":")
        command = getattr(import_module(module), function)
        text = command.info.help if isinstance(command, typer.Typer) else inspect.getdoc(command)
        assert text is not None
        assert entry.summary == text.partition("\n\n")[0], name


def test_a_service_at_work_loads_nothing_of_the_embedded_stack() -> None:
    code = "import sys, consumer.cli.app, consumer.cli.service; print(*sys.modules)"
    loaded = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.split()
    assert "consumer.service" in loaded
    assert [name for name in loaded if name.startswith(("consumer.local", "triton_models"))] == []


def test_compare_tells_copies_from_others(pictures: Path, triton: str) -> None:
    same = seenit("compare", str(pictures / "cat.png"), str(pictures / "cat-again.jpg"), SEENIT_TRITON_URL=triton)
    assert (same.returncode, same.stdout.split(":")[0]) == (0, "duplicates"), same.stderr
    other = seenit("compare", str(pictures / "cat.png"), str(pictures / "pagoda.jpg"), SEENIT_TRITON_URL=triton)
    assert (other.returncode, other.stdout.split(":")[0]) == (1, "different"), other.stderr


def test_embed_gives_a_unit_vector(pictures: Path, triton: str, tmp_path: Path) -> None:
    printed = seenit("embed", str(pictures / "cat.png"), SEENIT_TRITON_URL=triton)
    vector = np.array(json.loads(printed.stdout)["embedding"], np.float32)
    assert np.linalg.norm(vector) == pytest.approx(1, abs=1e-3)
    written = seenit("embed", str(pictures / "cat.png"), "--out", str(tmp_path / "cat.npy"), SEENIT_TRITON_URL=triton)
    assert written.returncode == 0, written.stderr
    np.testing.assert_allclose(np.load(tmp_path / "cat.npy"), vector, atol=1e-5)


def test_calibrate_writes_least_scores_or_says_what_it_would_take(pictures: Path, triton: str, tmp_path: Path) -> None:
    (pictures / "cat-again.jpg").unlink()  # all are to be different
    for name, picture in PHOTOGRAPHS.items():
        if name not in ("chelsea.png", "china.jpg"):
            (pictures / name).write_bytes(picture)
    arguments = ["calibrate", "--images", str(pictures), "--out", str(tmp_path / "out"), "--pictures", "2"]
    done = seenit(*arguments, "--accused-share", "0.3", SEENIT_TRITON_URL=triton)
    assert done.returncode == 0, done.stderr
    points = json.loads((tmp_path / "out" / "calibration.json").read_text())["points"]
    for strictness in ("strict", "balanced", "eager"):
        least = points[strictness]["min_score"]
        assert f"min_score_{strictness} {least:.4f}" in " ".join(done.stdout.split())
        assert f'"{least:.4f}"' in (tmp_path / "out" / "config.pbtxt").read_text()
    refused = seenit(*arguments, SEENIT_TRITON_URL=triton)
    assert refused.returncode != 0
    assert "more pictures" in " ".join((refused.stderr + refused.stdout).split())


def test_what_is_wrong_is_said_in_a_sentence(tmp_path: Path, triton: str) -> None:
    (tmp_path / "no.jpg").write_text("no picture")
    for result, sentence in [
        (
            seenit("compare", str(tmp_path / "no.jpg"), str(tmp_path / "no.jpg"), SEENIT_TRITON_URL=triton),
            "not-an-image",
        ),
        (seenit("upload", str(tmp_path / "none.jpg")), "there is no file or folder"),
        (seenit("run", SEENIT_PIPELINE_BATCH_SIZE="many"), "SEENIT_PIPELINE_BATCH_SIZE"),
        (seenit("run", SEENIT_CONFIG=str(tmp_path / "none.toml")), "none.toml"),
    ]:
        assert result.returncode != 0
        assert sentence in result.stderr
        assert "Traceback" not in result.stderr


@pytest.fixture
def up(tmp_path: Path) -> Iterator[dict[str, str]]:
    """A stack that `seenit up` left running; where its state is kept is this test's own."""
    environment = {"XDG_STATE_HOME": str(tmp_path / "state")}
    started = seenit("up", "--json", **environment)
    assert started.returncode == 0, started.stderr
    yield environment | {"addresses": started.stdout}
    assert seenit("down", **environment).returncode == 0


def test_upload_and_watch_on_a_stack_left_running(up: dict[str, str], pictures: Path) -> None:
    addresses = json.loads(up.pop("addresses"))
    names = {"kafka", "triton_grpc", "redis", "metrics_url", "input_topic", "output_topic", "dead_letter_topic"}
    assert names <= set(addresses)
    assert seenit("status", **up).returncode == 0
    status = seenit("status", "--json", **up)
    running = json.loads(status.stdout)
    assert (status.returncode, running["addresses"]) == (0, addresses)
    assert {"tansu", "http"} <= {each["name"] for each in running["processes"] if each["alive"]}
    sent = seenit("upload", str(pictures), **up)
    assert "sent 3 uploads" in sent.stdout, sent.stderr
    watched = seenit("watch", "--json", "--from-beginning", "--count", "3", **up)
    verdicts = {Path(each["image_id"]).name: each for each in map(json.loads, watched.stdout.splitlines())}
    assert verdicts["pagoda.jpg"]["verdict"] == "unique"
    assert sorted(verdicts[name]["verdict"] for name in ("cat.png", "cat-again.jpg")) == ["duplicate", "unique"]


@pytest.mark.timeout(300)  # a dozen commands
def test_a_bank_is_made_filled_and_asked_by_command(up: dict[str, str], pictures: Path, tmp_path: Path) -> None:
    addresses = json.loads(up.pop("addresses"))
    assert {"banks_topic", "rematches_topic"} <= set(addresses)

    def run(*arguments: str) -> str:
        result = seenit(*arguments, **up)
        assert result.returncode == 0, result.stderr
        return result.stdout

    run("bank", "create", "cats", "--kind", "block", "--action", "remove")
    run("bank", "add", "cats", str(pictures / "cat.png"), "--label", "policy=pets")
    hashes = tmp_path / "hashes.csv"
    hashes.write_text(f"collab,signal_type,signal_str,category,tags\nc,pdq,{'0f' * 32},POSITIVE_CLASS,a b=c\n")
    assert "1 added, 0 removed" in run("bank", "import", "cats", str(hashes))
    piped = seenit("bank", "import", "cats", "-", "--source", hashes.name, stdin=hashes.read_text(), **up)
    assert "0 added, 0 removed" in piped.stdout, piped.stderr
    assert f"pdq,{'0f' * 32},POSITIVE_CLASS,a=yes b=c" in run("bank", "export", "cats")
    entries = [json.loads(line)["entry_id"] for line in run("bank", "list", "cats", "--json").splitlines()]
    assert sorted(entries) == sorted(["cat.png", "0f" * 32])
    began_s = time.monotonic()
    while (found := seenit("bank", "check", str(pictures / "cat-again.jpg"), "--json", **up)).returncode:
        assert time.monotonic() < began_s + 60, found.stderr
    [hit] = json.loads(found.stdout)["banks"]
    assert (hit["bank"], hit["entry_id"], hit["labels"]) == ("cats", "cat.png", {"policy": "pets"})
    assert seenit("bank", "check", str(pictures / "pagoda.jpg"), **up).returncode == 1
    allow = seenit("bank", "create", "pets", "--kind", "allow", "--silences", "cats", "--silences", "dogs", **up)
    assert "dogs" in allow.stderr
    assert "cats" not in allow.stderr
    run("bank", "remove", "pets", "--all")
    run("bank", "remove", "cats", "--all")
    assert run("bank", "list", "--json") == ""
    assert "there is no bank 'cats'" in seenit("bank", "add", "cats", "a.jpg", **up).stderr


def test_demo(tmp_path: Path) -> None:
    result = seenit("demo", "--out", str(tmp_path))
    assert result.returncode == 0, result.stdout[-2000:] + result.stderr
    assert "0 of 18 unrelated pictures wrongly called duplicates" in " ".join(result.stdout.split())
    assert (tmp_path / "contact-sheet.png").stat().st_size > 100_000
