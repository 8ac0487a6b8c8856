"""Redis-compatible servers for one test or module alone, which may empty, fill and reconfigure them."""

import shutil
from collections.abc import Sequence
from pathlib import Path

import pytest
from redis import Redis

from consumer.local.binaries import Binaries
from consumer.local.process import Server

KINDS = ("valkey", "redis")


def redis_like(kind: str, binaries: Binaries, folder: Path, *, cluster: bool = False) -> Server:
    """A server of the embedded Valkey, or of the `redis-server` on the PATH; where there is none, the test is skipped.

    With `cluster` it is a node of a cluster, without slots, whose second port is for the other nodes.
    """
    program = str(binaries.valkey) if kind == "valkey" else shutil.which("redis-server")
    if program is None:
        pytest.skip("there is no redis-server on the PATH (on Debian: apt-get install redis-server)")

    def command(ports: Sequence[int]) -> list[str]:
        address = ["--bind", "127.0.0.1", "--port", str(ports[0])]
        persistence = ["--save", "", "--appendonly", "no", "--dir", str(folder)]
        bus = ["--cluster-enabled", "yes", "--cluster-port", str(ports[1])] if cluster else []
        return [program, *address, *persistence, *bus]

    return Server(kind, command, log=folder / f"{kind}.log", ports=1 + cluster)


def client_of(server: Server, **options: str) -> Redis:
    """Open a client of a server's first port."""
    return Redis(port=server.ports[0], **options)  # type: ignore[arg-type]
