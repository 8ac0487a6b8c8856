"""Pictures are decoded in a real child process, which dies of some."""

import os
import resource
import signal
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

import landlockpy
import numpy as np
import pytest

from consumer.errors import Unavailable, Unprocessable
from consumer.events import ImageUpload
from consumer.images import rights
from consumer.images import sandbox as sandbox_module
from consumer.images.decode import decode
from consumer.images.sandbox import DecodeSandbox
from consumer.local.pictures import photographs
from consumer.local.process import free_ports
from consumer.settings import DecodeSettings, FetchSettings, Settings
from tests.faults.deadly_decoder import deadly_picture, python_path
from tests.processes import until

SIZE = 64
CLIENTS = ("grpc", "tritonclient", "redis", "confluent_kafka")
CAT = dict(photographs())["chelsea.png"]
# From which version of Landlock on the deeds of `overreach` are denied.
DENIED_FROM_ABI = {"w": 1, "d": 1, "x": 1, "l": 4, "k": 6}


@pytest.fixture(autouse=True)
def _deadly(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("PYTHONPATH", python_path())
    monkeypatch.setenv("DEADLY_DECODER_MARK", str(tmp_path / "mark"))


@pytest.fixture
def landlock() -> None:
    """Skip the test, or with `CI=true` fail it, where the kernel has no Landlock."""
    if not landlockpy.supported():
        missing = "The kernel has no Landlock: no process can give up its rights."
        if os.environ.get("CI") == "true":
            pytest.fail(missing)
        pytest.skip(missing)


@contextmanager
def opened(fetch: FetchSettings | None = None) -> Iterator[DecodeSandbox]:
    new = DecodeSandbox(SIZE, Settings(fetch=fetch or FetchSettings()))
    try:
        yield new
    finally:
        new.close()


@pytest.fixture
def sandbox() -> Iterator[DecodeSandbox]:
    with opened() as new:
        yield new


def upload(data: bytes, content_type: str | None = None) -> ImageUpload:
    return ImageUpload(image_id="a", data_base64=data, content_type=content_type)


def read_mark(folder: Path) -> bytes:
    """Return what deeds left in the mark."""
    mark = folder / "mark"
    return mark.read_bytes() if mark.exists() else b""


def works(sandbox: DecodeSandbox) -> bool:
    result = sandbox.decode(upload(CAT))
    return result is not None and result.decoding.result().format == "PNG"


def child_of(parent: int) -> int:
    """Return the process id of the one sandbox that a process runs."""
    children = " ".join(task.read_text() for task in Path(f"/proc/{parent}/task").glob("*/children")).split()
    [pid] = [int(pid) for pid in children if b"consumer.images.sandbox" in Path(f"/proc/{pid}/cmdline").read_bytes()]
    return pid


def runs(pid: int) -> bool:
    """Tell whether there is such a process, other than a zombie."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


def test_pictures_are_what_they_are_here(sandbox: DecodeSandbox) -> None:
    for name, data in photographs():
        result = sandbox.decode(upload(data))
        assert result is not None
        digest, decoding = result.digest, result.decoding
        here, there = decode(data, SIZE, DecodeSettings()), decoding.result()
        assert np.array_equal(here.pixels, there.pixels), name
        assert here.thumbnail.to_bytes() == there.thumbnail.to_bytes(), name
        assert np.array_equal(here.thumbnail.levels, there.thumbnail.levels), name
        assert (here.detail, here.width, here.height, here.format) == (
            there.detail,
            there.width,
            there.height,
            there.format,
        )
        assert len(digest) == 32


def test_what_is_no_picture_says_why(sandbox: DecodeSandbox) -> None:
    for bad, reason in ((upload(b"text"), "not-an-image"), (upload(CAT, "text/html"), "wrong-content-type")):
        result = sandbox.decode(bad)
        assert result is not None
        with pytest.raises(Unprocessable, match=reason):
            result.decoding.result()


def test_what_cannot_be_fetched_says_why() -> None:
    [port] = free_ports(1)
    settings = FetchSettings(s3_endpoint=f"http://127.0.0.1:{port}", timeout_s=1)
    with opened(settings) as sandbox:
        for version in (None, "1"):
            with pytest.raises(Unprocessable, match="versions" if version else "forbidden-address"):
                sandbox.decode(ImageUpload(image_id="a", url="file:///etc/passwd", version_id=version))
        with pytest.raises(Unavailable, match="object-store"):
            sandbox.decode(ImageUpload(image_id="a", url="s3://bucket/key"))
        assert works(sandbox)


@pytest.mark.parametrize("deed", ["abrt", "kill"])
def test_a_deadly_picture_is_poison_and_the_next_is_not(sandbox: DecodeSandbox, deed: str) -> None:
    with pytest.raises(Unprocessable, match=r"poison: .*SIG(ABRT|KILL)"):
        sandbox.decode(upload(deadly_picture(deed)))
    assert works(sandbox)


def test_a_picture_that_takes_all_memory_is_poison(sandbox: DecodeSandbox) -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_DATA)
    resource.setrlimit(resource.RLIMIT_DATA, (4 << 30, hard))
    try:
        with pytest.raises(Unprocessable, match=r"poison: .*SIGABRT"):
            sandbox.decode(upload(deadly_picture("grow")))
        assert works(sandbox)
    finally:
        resource.setrlimit(resource.RLIMIT_DATA, (soft, hard))


def test_the_child_loads_no_client_of_a_server() -> None:
    """A client would take memory from the pictures, and time at each start."""
    code = "import consumer.images.sandbox, sys; print([m for m in sys.modules if m.split('.')[0] in sys.argv[1:]])"
    process = subprocess.run([sys.executable, "-P", "-c", code, *CLIENTS], capture_output=True, text=True, check=True)
    assert process.stdout.strip() == "[]"


def test_one_death_may_be_a_mistake(sandbox: DecodeSandbox) -> None:
    result = sandbox.decode(upload(deadly_picture("once")))
    assert result is not None
    assert result.decoding.result().format == "BMP"


def test_a_decoder_that_hangs_proves_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sandbox_module, "DECODE_TIMEOUT_S", 4)
    with opened(FetchSettings(timeout_s=0.5)) as sandbox:
        assert sandbox.decode(upload(deadly_picture("hang"))) is None
        assert works(sandbox)


def test_without_a_process_nothing_is_proved(sandbox: DecodeSandbox, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "executable", "/bin/false")
    assert sandbox.decode(upload(CAT)) is None
    monkeypatch.setattr(sys, "executable", "/nowhere")
    assert sandbox.decode(upload(CAT)) is None


def test_a_stop_of_everybody_does_not_look_like_poison(sandbox: DecodeSandbox) -> None:
    assert works(sandbox)
    pid = child_of(os.getpid())
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGUSR1):
        os.kill(pid, number)
    assert works(sandbox)
    assert Path(f"/proc/{child_of(os.getpid())}/oom_score_adj").read_text().strip() == "1000"


def test_nothing_is_left_after_closing(sandbox: DecodeSandbox) -> None:
    assert works(sandbox)
    pid = child_of(os.getpid())
    sandbox.close()
    assert not Path(f"/proc/{pid}").exists()


@pytest.mark.usefixtures("landlock")
def test_code_in_a_decoder_can_do_hardly_anything(sandbox: DecodeSandbox, tmp_path: Path) -> None:
    result = sandbox.decode(upload(deadly_picture("bold")))
    assert result is not None
    assert result.decoding.result().format == "BMP"
    allowed = {letter for letter, abi in DENIED_FROM_ABI.items() if landlockpy.abi_version() < abi}
    assert set(read_mark(tmp_path).decode()) == allowed
    assert sorted(path.name for path in tmp_path.iterdir()) == ["mark"]


@pytest.mark.usefixtures("landlock")
def test_no_thread_keeps_its_rights(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENBLAS_NUM_THREADS", "2")  # as for the service
    with opened() as sandbox:
        assert works(sandbox)
        for task in Path(f"/proc/{child_of(os.getpid())}/task").iterdir():
            assert "NoNewPrivs:\t1\n" in (task / "status").read_text()


def give_up(log: Path, before: str = "pass") -> str:
    """Give up the rights of a process after some other code; return what it adds to a log that is long already."""
    code = f"import logging; from consumer.images import rights; {before}; rights.give_up(); logging.error('goes on')"
    log.write_bytes(bytes(2 * rights.MAX_FILE_BYTES))
    with log.open("ab") as stderr:
        subprocess.run([sys.executable, "-P", "-c", code], stderr=stderr, check=True)
    return log.read_bytes()[2 * rights.MAX_FILE_BYTES :].decode()


@pytest.mark.usefixtures("landlock")
def test_a_long_log_goes_on_where_rights_are_given_up(tmp_path: Path) -> None:
    assert give_up(tmp_path / "log") == "ERROR:root:goes on\n"


def test_threads_that_keep_their_rights_are_warned_of(tmp_path: Path) -> None:
    thread = "import threading; threading.Thread(target=threading.Event().wait, daemon=True).start()"
    assert "beside 1 threads with all rights" in give_up(tmp_path / "log", thread)


def test_a_kernel_without_landlock_is_warned_of_and_no_disk_is_filled(tmp_path: Path) -> None:
    """A kernel cannot be made to lose it: the library says so."""
    missing = "rights.Ruleset = lambda **_: (_ for _ in ()).throw(rights.LandlockError('played'))"
    warning = "pictures are tried out with all rights of the service: the kernel has no Landlock: played\n"
    assert give_up(tmp_path / "log", missing) == warning


def test_closing_does_not_disturb_it_at_work(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """A stop that waits no longer must not make the upload at work count as poison."""
    monkeypatch.setattr(sandbox_module, "DECODE_TIMEOUT_S", 1)
    with opened(FetchSettings(timeout_s=0.5)) as sandbox, ThreadPoolExecutor() as pool:
        decoding = pool.submit(sandbox.decode, upload(deadly_picture("hang")))
        until(lambda: read_mark(tmp_path), 20, "the child does not decode")
        sandbox.close()
        assert decoding.result() is None


# Prints a line once its sandbox runs.
PARENT = """
import sys
from consumer.images import sandbox as sandbox_module
from consumer.events import ImageUpload
from consumer.settings import FetchSettings, Settings
sandbox_module.DECODE_TIMEOUT_S = 2
sandbox = sandbox_module.DecodeSandbox(64, Settings(fetch=FetchSettings(timeout_s=0.5)))
assert sandbox.decode(ImageUpload(image_id="a", data_base64=b"text")) is not None
print(flush=True)
if len(sys.argv) > 1:
    sandbox.decode(ImageUpload(image_id="a", data_base64=open(sys.argv[1], "rb").read()))
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
        assert parent.stdout.readline() == b"\n"
        pid = child_of(parent.pid)
        assert runs(pid)
        if busy:
            until(lambda: read_mark(tmp_path), 20, "the child does not decode")
        parent.kill()
    until(lambda: not runs(pid), 10, "the child outlives its parent")
