"""Pictures decoded in a real process of their own, which dies of some."""

import os
import resource
import signal
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest

from consumer.errors import Unavailable, Unprocessable
from consumer.events import ImageUpload
from consumer.images import sandbox as quarantine
from consumer.images.decode import decode
from consumer.images.sandbox import DecodeSandbox
from consumer.local.pictures import photographs
from consumer.local.process import free_ports
from consumer.settings import DecodeSettings, FetchSettings, Settings
from tests.faults.deadly_decoder import deadly_picture, python_path
from tests.processes import until

SIZE = 64
CAT = dict(photographs())["chelsea.png"]


@pytest.fixture(autouse=True)
def _deadly(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("PYTHONPATH", python_path())
    monkeypatch.setenv("DEADLY_DECODER_MARK", str(tmp_path / "mark"))


@contextmanager
def opened(fetch: FetchSettings | None = None) -> Iterator[DecodeSandbox]:
    new = DecodeSandbox(SIZE, Settings(fetch=fetch or FetchSettings()))
    try:
        yield new
    finally:
        new.close()


@pytest.fixture
def apart() -> Iterator[DecodeSandbox]:
    with opened() as new:
        yield new


def upload(data: bytes, content_type: str | None = None) -> ImageUpload:
    return ImageUpload(image_id="a", data_base64=data, content_type=content_type)


def works(apart: DecodeSandbox) -> bool:
    found = apart.decode(upload(CAT))
    return found is not None and found[1].result().format == "PNG"


def runs(pid: int) -> bool:
    """Whether there is such a process, dead ones that nobody buried left aside."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


def test_pictures_are_what_they_are_here(apart: DecodeSandbox) -> None:
    for name, data in photographs():
        found = apart.decode(upload(data))
        assert found is not None
        digest, decoding = found
        here, there = decode(data, SIZE, DecodeSettings()), decoding.result()
        assert np.array_equal(here.pixels, there.pixels), name
        assert (here.detail, here.width, here.height, here.format) == (
            there.detail,
            there.width,
            there.height,
            there.format,
        )
        assert len(digest) == 32


def test_what_is_no_picture_says_why(apart: DecodeSandbox) -> None:
    for bad, reason in ((upload(b"text"), "not-an-image"), (upload(CAT, "text/html"), "wrong-content-type")):
        found = apart.decode(bad)
        assert found is not None
        with pytest.raises(Unprocessable, match=reason):
            found[1].result()


def test_what_cannot_be_fetched_says_why() -> None:
    [port] = free_ports(1)
    settings = FetchSettings(s3_endpoint=f"http://127.0.0.1:{port}", timeout_s=1)
    with opened(settings) as apart:
        with pytest.raises(Unprocessable, match="forbidden-address"):
            apart.decode(ImageUpload(image_id="a", url="file:///etc/passwd"))
        with pytest.raises(Unavailable, match="object-store"):
            apart.decode(ImageUpload(image_id="a", url="s3://bucket/key"))
        assert works(apart)


@pytest.mark.parametrize("deed", ["abrt", "kill"])
def test_a_deadly_picture_is_poison_and_the_next_is_not(apart: DecodeSandbox, deed: str) -> None:
    with pytest.raises(Unprocessable, match=r"poison: .*SIG(ABRT|KILL)"):
        apart.decode(upload(deadly_picture(deed)))
    assert works(apart)


def test_a_picture_that_takes_all_memory_is_poison(apart: DecodeSandbox) -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_DATA)
    resource.setrlimit(resource.RLIMIT_DATA, (4 << 30, hard))
    try:
        with pytest.raises(Unprocessable, match=r"poison: .*SIGABRT"):
            apart.decode(upload(deadly_picture("grow")))
        assert works(apart)
    finally:
        resource.setrlimit(resource.RLIMIT_DATA, (soft, hard))


def test_one_death_may_be_a_mistake(apart: DecodeSandbox) -> None:
    found = apart.decode(upload(deadly_picture("once")))
    assert found is not None
    assert found[1].result().format == "BMP"


def test_a_decoder_that_hangs_proves_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(quarantine, "DECODE_TIMEOUT_S", 1)
    with opened(FetchSettings(timeout_s=0.5)) as apart:
        assert apart.decode(upload(deadly_picture("hang"))) is None
        assert works(apart)


def test_without_a_process_nothing_is_proved(apart: DecodeSandbox, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "executable", "/bin/false")
    assert apart.decode(upload(CAT)) is None
    monkeypatch.setattr(sys, "executable", "/nowhere")
    assert apart.decode(upload(CAT)) is None


def test_a_stop_of_everybody_does_not_look_like_poison(apart: DecodeSandbox) -> None:
    assert works(apart)
    assert apart._child is not None
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGUSR1):
        os.kill(apart._child.pid, number)
    assert works(apart)
    assert Path(f"/proc/{apart._child.pid}/oom_score_adj").read_text().strip() == "1000"


def test_nothing_is_left_after_closing(apart: DecodeSandbox) -> None:
    assert works(apart)
    assert apart._child is not None
    pid = apart._child.pid
    apart.close()
    assert not Path(f"/proc/{pid}").exists()


def test_closing_does_not_disturb_it_at_work(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """A stop that has waited long enough must not make an upload look like poison."""
    monkeypatch.setattr(quarantine, "DECODE_TIMEOUT_S", 1)
    with opened(FetchSettings(timeout_s=0.5)) as apart, ThreadPoolExecutor() as pool:
        found = pool.submit(apart.decode, upload(deadly_picture("hang")))
        until((tmp_path / "mark").exists, 20, "the child does not decode")
        apart.close()
        assert found.result() is None


PARENT = """
import sys
from consumer.images import sandbox as quarantine
from consumer.events import ImageUpload
from consumer.settings import FetchSettings, Settings
quarantine.DECODE_TIMEOUT_S = 2
apart = quarantine.DecodeSandbox(64, Settings(fetch=FetchSettings(timeout_s=0.5)))
print(apart._start().pid, flush=True)
if len(sys.argv) > 1:
    apart.decode(ImageUpload(image_id="a", data_base64=open(sys.argv[1], "rb").read()))
sys.stdin.read()
"""


@pytest.mark.parametrize("busy", [False, True])
def test_it_ends_with_its_parent_however_that_ends(tmp_path: Path, busy: bool) -> None:
    (tmp_path / "hangs.bmp").write_bytes(deadly_picture("hang"))
    with subprocess.Popen(
        [sys.executable, "-c", PARENT, *([str(tmp_path / "hangs.bmp")] if busy else [])],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    ) as parent:
        assert parent.stdout is not None
        pid = int(parent.stdout.readline())
        assert runs(pid)
        if busy:
            until((tmp_path / "mark").exists, 20, "the child does not decode")
        parent.kill()
    until(lambda: not runs(pid), 10, "the child outlives its parent")
