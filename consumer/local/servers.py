"""The three servers of the embedded stack: how each is started, and when it counts as ready."""

import secrets
from collections.abc import Sequence
from contextlib import suppress
from importlib import resources
from pathlib import Path

from consumer.local.binaries import Binaries
from consumer.local.process import SERVERS_STOP_S, Server, answers

REPOSITORY = Path(str(resources.files("triton_models") / "repository"))
MODEL = "image_encoder"
_SHARED_MEMORY = Path("/dev/shm")  # noqa: S108  # where Triton's Python backend keeps its regions


def tansu(binaries: Binaries, folder: Path, *, detached: bool = False) -> Server:
    """Make a broker that speaks Kafka's protocol and keeps its topics in memory; `ports` is [kafka]."""

    def command(ports: Sequence[int]) -> list[str]:
        url = f"tcp://127.0.0.1:{ports[0]}"
        engine = ["--storage-engine", "memory://tansu/"]
        return [str(binaries.tansu), "broker", "--listener-url", url, "--advertised-listener-url", url, *engine]

    return Server("tansu", command, log=folder / "tansu.log", detached=detached)


def valkey(binaries: Binaries, folder: Path, *, detached: bool = False) -> Server:
    """Make a server that speaks Redis's protocol, without persistence; `ports` is [redis]."""

    def command(ports: Sequence[int]) -> list[str]:
        address = ["--bind", "127.0.0.1", "--port", str(ports[0])]
        return [str(binaries.valkey), *address, "--save", "", "--appendonly", "no", "--dir", str(folder)]

    return Server("valkey", command, log=folder / "valkey.log", detached=detached)


class TritonServer(Server):
    """Triton with the CPU configuration of `repository`; `ports` is [grpc, http, metrics].

    Its models are under explicit control, so that one whose Python process died can be unloaded and loaded again.
    `arguments` are added to the command line.
    """

    def __init__(
        self,
        binaries: Binaries,
        folder: Path,
        *,
        repository: Path = REPOSITORY,
        arguments: Sequence[str] = (),
        detached: bool = False,
    ) -> None:
        # Shared memory of a server that was killed stays behind; the name says whose it was.
        self.shared_memory_prefix = f"seenit_{secrets.token_hex(4)}"

        def command(ports: Sequence[int]) -> list[str]:
            grpc, http, metrics = map(str, ports)
            return [
                str(binaries.triton),
                f"--model-repository={repository}",
                "--model-config-name=cpu",
                "--model-control-mode=explicit",
                "--load-model=*",
                f"--backend-directory={binaries.triton_backends}",
                f"--backend-config=python,shm-region-prefix-name={self.shared_memory_prefix}",
                *("--grpc-address=127.0.0.1", "--http-address=127.0.0.1", "--metrics-address=127.0.0.1"),
                *(f"--grpc-port={grpc}", f"--http-port={http}", f"--metrics-port={metrics}"),
                "--log-info=false",  # leaves what went wrong
                "--exit-timeout-secs=5",
                *arguments,
            ]

        super().__init__(
            "triton",
            command,
            lambda ports: answers(ports[1], "/v2/health/ready"),  # all models, warmed up
            log=folder / "triton.log",
            ports=3,
            environment=lambda _: binaries.triton_environment,
            detached=detached,
        )

    def stop(self, timeout_s: float = SERVERS_STOP_S) -> None:
        """Stop it and its children, and free the shared memory that they held."""
        super().stop(timeout_s)
        remove_shared_memory(self.shared_memory_prefix)


def remove_shared_memory(prefix: str) -> None:
    """Remove the regions of shared memory whose names begin with `prefix`."""
    for region in _SHARED_MEMORY.glob(f"{prefix}*"):
        with suppress(FileNotFoundError):
            region.unlink()
