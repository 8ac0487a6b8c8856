"""Wraps prometheus/rules.yml for the Prometheus operator: `python deploy/kubernetes/prometheus_rule.py` writes it."""

from pathlib import Path

DEPLOY = Path(__file__).parent.parent
FILE = DEPLOY / "kubernetes" / "base" / "prometheus-rule.yaml"
HEAD = """\
# Written by prometheus_rule.py from prometheus/rules.yml: change it there.
apiVersion: monitoring.coreos.com/v1
kind: PrometheusRule
metadata:
  name: seenit
spec:
"""


def prometheus_rule() -> str:
    """The manifest: the same groups, one level deeper."""
    rules = (DEPLOY / "prometheus" / "rules.yml").read_text()
    groups = rules[rules.index("groups:") :]
    return HEAD + "".join(f"  {line}" if line.strip() else line for line in groups.splitlines(keepends=True))


if __name__ == "__main__":
    FILE.write_text(prometheus_rule())
