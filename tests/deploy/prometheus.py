"""A real Prometheus with the deployed configuration."""

from collections.abc import Mapping, Sequence
from pathlib import Path

import yaml

from consumer.local.process import Server, answers
from tests.deploy.tools import needed

DEPLOY = Path(__file__).parent.parent.parent / "deploy"
RULES = DEPLOY / "prometheus" / "rules.yml"
# Grafana's value of $__rate_interval at a scrape every second.
RATE_INTERVAL = "20s"


def write_config(folder: Path, ports: Mapping[str, Sequence[int]]) -> Path:
    """Write the deployed configuration, changed only in the servers' addresses and in how often they are scraped."""
    config = yaml.safe_load((DEPLOY / "prometheus" / "prometheus.yml").read_text())
    config["global"] = {"scrape_interval": "1s", "evaluation_interval": "1s"}
    for job in config["scrape_configs"]:
        del job["dns_sd_configs"]
        job["static_configs"] = [{"targets": [f"127.0.0.1:{port}" for port in ports[job["job_name"]]]}]
    (folder / "rules.yml").write_text(RULES.read_text())
    path = folder / "prometheus.yml"
    path.write_text(yaml.safe_dump(config))
    return path


def server(config: Path, folder: Path) -> Server:
    return Server(
        "prometheus",
        lambda ports: [
            needed("prometheus", "prometheus"),
            f"--config.file={config}",
            f"--storage.tsdb.path={folder / 'data'}",
            f"--web.listen-address=127.0.0.1:{ports[0]}",
        ],
        lambda ports: answers(ports[0], "/-/ready"),
        log=folder / "prometheus.log",
    )
