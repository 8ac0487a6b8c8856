"""`seenit serve` as a process, beside a service on the embedded servers."""

import os
import sys
from collections.abc import Mapping
from pathlib import Path

from consumer.local.process import Server, answers


def http_server(environment: Mapping[str, str], folder: Path) -> Server:
    """Make a `seenit serve` with these settings; `ports` is [api, metrics]."""
    return Server(
        "serve",
        lambda _: [sys.executable, "-m", "consumer", "serve"],
        lambda ports: answers(ports[1], "/readyz"),
        log=folder / "serve.log",
        ports=2,
        environment=lambda ports: {
            **os.environ,
            **environment,
            "SEENIT_SERVE_PORT": str(ports[0]),
            "SEENIT_SERVE_PUBLIC_URL": f"http://127.0.0.1:{ports[0]}",
            "SEENIT_HTTP_PORT": str(ports[1]),
        },
    )
