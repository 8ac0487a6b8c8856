"""Everything that the torture test runs: three brokers, Redis, Triton, an object store and consumers.

Consumers reach each server through a link; the harness asks it directly.
"""

import contextlib
import json
import os
import shutil
import sys
import tempfile
import urllib.error
import urllib.request
from collections.abc import Callable, Mapping
from pathlib import Path
from types import TracebackType
from typing import Self

import numpy as np
import redis
from tritonclient.grpc import InferenceServerClient, InferInput
from tritonclient.utils import InferenceServerException

from consumer.local.binaries import find_binaries
from tests import clocks
from tests.kafka_cluster import KafkaCluster
from tests.kafka_cluster.requests import Requests
from tests.network import Link
from tests.processes import Child, Reaper, free_ports, listens, until
from tests.torture.encoder import MODEL, SIZE, write_repository
from tests.torture.store import ObjectStore

SHARED_MEMORY = Path("/dev/shm")  # noqa: S108  # where Triton's Python backend keeps its regions
READY_TIMEOUT_S = 60.0
LOAD_TIMEOUT_S = 15.0
# Runs a consumer whose windows outgrow the exact index after so many rows.
OUTGROWS = """
import sys
from consumer.window import large_index, replica
large_index.EXACT_ROWS = replica.EXACT_ROWS = int(sys.argv.pop(1))
from consumer.cli.app import main
main()
"""


class World:
    """The servers, which run on from seed to seed, and a source of consumers; a context manager.

    The consumers' windows are searched exactly up to `exact_rows` rows, by default as many as those of the service.
    """

    def __init__(self, brokers: int = 3, exact_rows: int | None = None) -> None:
        self._program = ["-m", "consumer"] if exact_rows is None else ["-c", OUTGROWS, str(exact_rows)]
        self.kafka = KafkaCluster(brokers)  # before anything that would stay where it cannot run
        self.folder = Path(tempfile.mkdtemp(prefix="seenit-torture-"))
        self.reaper = Reaper()
        self.store = ObjectStore()
        self.redis_port, self._grpc_port, self._http_port, metrics_port = free_ports(4)
        servers = {"redis": self.redis_port, "triton": self._grpc_port, "object store": self.store.port}
        self._links = {name: [Link(free_ports(1)[0], port)] for name, port in servers.items()}
        self.kafka_requests = Requests()
        self._links["kafka"] = self.kafka_requests.links(self.kafka)
        self._shared_memory = f"seenit_torture_{os.getpid()}"
        self.redis = self._redis()
        self.triton = self._triton(metrics_port)

    def links(self, name: str) -> list[Link]:
        """Return the links to a dependency: "kafka" (one for each broker), "redis", "triton" or "object store"."""
        return self._links[name]

    def _each_link(self, do: Callable[[Link], None]) -> None:
        for links in self._links.values():
            for link in links:
                do(link)

    @property
    def redis_data(self) -> Path:
        """The folder in which Redis keeps its append-only file."""
        return self.folder / "redis"

    def __enter__(self) -> Self:
        self.reaper.__enter__()
        try:
            write_repository(self.folder / "models")
            self.redis_data.mkdir()
            self.redis.start()
            self.triton.start()
            self.store.start()
            self._each_link(Link.start)
            self.kafka.__enter__()
            self.heal()
        except BaseException:
            self.close()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """End everything and remove what it left behind."""
        self._each_link(Link.close)
        self.kafka.close()
        self.redis.kill()
        self.kill_triton()
        self.store.stop()
        self.reaper.__exit__(None, None, None)
        shutil.rmtree(self.folder, ignore_errors=True)

    def heal(self) -> None:
        """Start, thaw and heal whatever was hurt, and wait until all of it answers."""
        self.kafka_requests.forget()
        self._each_link(Link.heal)
        self.limit_disk(None)
        for child in (self.redis, self.triton):
            child.thaw()
            child.start()
        self.store.start()
        self.kafka.heal()
        until(lambda: listens(self.redis_port), READY_TIMEOUT_S, "Redis is not there")
        with contextlib.suppress(TimeoutError):
            until(self.model_ready, LOAD_TIMEOUT_S, "Triton has not loaded the model by itself")
        try:
            until(self._encodes_after_reload, READY_TIMEOUT_S, "Triton does not encode", 1)
        except TimeoutError:  # a load cut short can leave it so for good
            self.kill_triton()
            self.triton.start()
            until(
                self._encodes_after_reload, READY_TIMEOUT_S, f"{self.triton.latest_output}\nTriton does not encode", 1
            )

    def _encodes_after_reload(self) -> bool:
        """Load the model again unless it encodes: a load can fail, or meet a Triton that is only starting."""
        if not self.encodes():
            self.reload_model()
        return self.encodes()

    @property
    def scratch(self) -> Path:
        """The temporary folder of all consumers."""
        return self.folder / "scratch"

    def consumers(self) -> list[str]:
        """Return process id and command of each consumer of this world, and of each process that one has started."""
        marker = f"TMPDIR={self.scratch}".encode()
        processes = []
        for process in Path("/proc").glob("[0-9]*"):
            with contextlib.suppress(OSError):
                if marker in (process / "environ").read_bytes():
                    command = (process / "cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
                    processes.append(f"{process.name} {command}")
        return processes

    def consumer(self, number: int, environment: Mapping[str, str]) -> Child:
        """Make a consumer process, not started yet. What it leaves in its temporary folder stays for `leftovers`."""
        self.scratch.mkdir(exist_ok=True)
        others = {name: value for name, value in os.environ.items() if not name.startswith("SEENIT_")}
        clock = clocks.environment(self._clock(number)) if clocks.COMPILER else {}
        own = {
            "SEENIT_KAFKA_BOOTSTRAP_SERVERS": self.kafka.proxied_servers,
            "SEENIT_TRITON_URL": f"127.0.0.1:{self._links['triton'][0].port}",
            "SEENIT_REDIS_URL": f"redis://127.0.0.1:{self._links['redis'][0].port}/0",
            "SEENIT_FETCH_S3_ENDPOINT": f"http://127.0.0.1:{self._links['object store'][0].port}",
            "AWS_ACCESS_KEY_ID": "torture",
            "AWS_SECRET_ACCESS_KEY": "torture",
            "SEENIT_HTTP_PORT": "0",
            "SEENIT_LOG_FORMAT": "json",
            "PYTHONFAULTHANDLER": "1",  # SIGABRT shows where each thread stands
            "TMPDIR": str(self.scratch),
        }
        return Child(
            f"consumer-{number}",
            [sys.executable, *self._program, "run"],
            self.folder / f"consumer-{number}.log",
            self.reaper,
            {**others, **own, **clock, **environment},
        )

    def redis_client(self) -> redis.Redis:
        """Make a client of the harness, for faults and checks."""
        return redis.Redis(port=self.redis_port, socket_timeout=5, socket_connect_timeout=5)

    def wipe_redis(self) -> None:
        """Restart Redis without its data."""
        self.redis.kill()
        shutil.rmtree(self.redis_data)
        self.redis_data.mkdir()
        self.redis.start()

    def limit_disk(self, room_bytes: int | None) -> None:
        """Leave Redis so much room for its append-only file, and any room again with None.

        It is a limit on the size of files, for which one need not be root: a write beyond it fails, as on a full disk
        or one that has become read-only.
        """
        largest = max((path.stat().st_size for path in self.redis_data.rglob("*.aof")), default=0)
        self.redis.limit_files(None if room_bytes is None else largest + room_bytes)

    def set_clock(self, number: int, ahead_hours: float) -> None:
        """Set the clock of a consumer; it goes on from there, within a second, whether it runs or starts later."""
        clocks.set_clock(self._clock(number), ahead_hours)

    def _clock(self, number: int) -> Path:
        return self.folder / f"clock-{number}"

    # Triton and the process behind its model.

    def stub_pids(self) -> list[int]:
        """Return the processes of the Python backend that serve the model."""
        if not self.triton.alive:
            return []
        tasks = Path(f"/proc/{self.triton.pid}/task").iterdir()
        pids = {int(pid) for task in tasks for pid in _read(task / "children").split()}
        return [pid for pid in pids if "python" in _read(Path(f"/proc/{pid}/comm"))]

    def encodes(self) -> bool:
        """Tell whether a real inference succeeds; Triton calls the model ready even when its process has died."""
        images = InferInput("images", [1, SIZE, SIZE, 3], "UINT8")
        images.set_data_from_numpy(np.zeros((1, SIZE, SIZE, 3), np.uint8))
        with contextlib.closing(InferenceServerClient(f"127.0.0.1:{self._grpc_port}")) as client:
            try:
                client.infer(MODEL, [images], client_timeout=5)
            except InferenceServerException:
                return False
        return True

    def model_ready(self) -> bool:
        """Tell whether Triton calls the model ready."""
        return self._triton_http("GET", f"/v2/models/{MODEL}/ready")

    def reload_model(self) -> None:
        """Load the model again, in a new process, as a restart by an operator's liveness probe would."""
        self._triton_http("POST", f"/v2/repository/models/{MODEL}/unload")
        with contextlib.suppress(TimeoutError):
            until(lambda: not self.model_ready(), 5, "the model is still there")
        self._triton_http("POST", f"/v2/repository/models/{MODEL}/load")

    def kill_triton(self) -> None:
        """Kill Triton and remove the shared memory that it can no longer remove."""
        self.triton.kill()
        for region in SHARED_MEMORY.glob(f"{self._shared_memory}*"):
            region.unlink(missing_ok=True)

    def _triton_http(self, method: str, path: str) -> bool:
        request = urllib.request.Request(f"http://127.0.0.1:{self._http_port}{path}", method=method)
        opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
        try:
            with opener.open(request, data=b"{}" if method == "POST" else None, timeout=20) as reply:
                return bool(reply.status == 200)
        except (urllib.error.URLError, OSError):
            return False

    def _triton(self, metrics_port: int) -> Child:
        binaries = find_binaries()
        command = [
            str(binaries.triton),
            f"--model-repository={self.folder / 'models'}",
            "--model-control-mode=explicit",
            f"--load-model={MODEL}",
            f"--backend-directory={binaries.triton_backends}",
            f"--backend-config=python,shm-region-prefix-name={self._shared_memory}",
            *("--grpc-address=127.0.0.1", "--http-address=127.0.0.1", "--metrics-address=127.0.0.1"),
            *(f"--grpc-port={self._grpc_port}", f"--http-port={self._http_port}", f"--metrics-port={metrics_port}"),
            "--exit-timeout-secs=5",
        ]
        return Child("triton", command, self.folder / "triton.log", self.reaper, binaries.triton_environment)

    def _redis(self) -> Child:
        program = shutil.which("redis-server") or str(find_binaries().valkey)
        command = [program, "--bind", "127.0.0.1", "--port", str(self.redis_port), "--dir", str(self.redis_data)]
        command += ["--save", "", "--appendonly", "yes", "--appendfsync", "everysec"]
        return Child("redis", command, self.folder / "redis.log", self.reaper)


def log_lines(child: Child) -> list[dict[str, object]]:
    """Parse a consumer's log; lines that are not JSON become {"text": ...}."""
    lines: list[dict[str, object]] = []
    for line in child.output.splitlines():
        try:
            parsed = json.loads(line)
        except ValueError:
            parsed = None
        lines.append(parsed if isinstance(parsed, dict) else {"text": line})
    return lines


def _read(path: Path) -> str:
    try:
        return path.read_text()
    except OSError:
        return ""
