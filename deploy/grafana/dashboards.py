"""The Grafana dashboards as code: `python deploy/grafana/dashboards.py` writes dashboards/*.json, which Grafana loads.

A dashboard is a list of rows, a row a list of panels, a panel its title, its unit and its queries by legend.
"""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

FOLDER = Path(__file__).parent / "dashboards"
DATASOURCE = {"type": "prometheus", "uid": "${datasource}"}
WIDTH, HEIGHT = 24, 8
RATE = "[$__rate_interval]"


@dataclass(frozen=True)
class Panel:
    """`queries` maps a legend, which may name labels as {{label}}, to an expression."""

    title: str
    unit: str
    queries: dict[str, str]
    description: str = ""
    stacked: bool = False
    kind: str = "timeseries"


def quantile(q: float, metric: str, by: str = "le", labels: str = "") -> str:
    return f"histogram_quantile({q}, sum by ({by}) (rate({metric}_bucket{labels}{RATE})))"


VERDICTS = f"sum(rate(seenit_verdicts_total{RATE}))"

OVERVIEW = [
    [
        Panel(
            "Verdicts",
            "ops",
            {"{{verdict}} {{kind}}": f"sum by (verdict, kind) (rate(seenit_verdicts_total{RATE}))"},
            "Uploads decided, each second.",
            stacked=True,
        ),
        Panel(
            "Uploads waiting",
            "short",
            {
                "all partitions": "sum(seenit_consumer_lag_messages)",
                "longest partition": "max(seenit_consumer_lag_messages)",
            },
            "Messages between the committed offset and the end. One partition alone: one key has most of the uploads.",
        ),
        Panel(
            "From the topic to the verdict",
            "s",
            {f"p{100 * q:g}": quantile(q, "seenit_end_to_end_seconds") for q in (0.5, 0.95, 0.99)},
            "From the event's arrival on the topic to the commit of its verdict.",
        ),
    ],
    [
        Panel(
            "Dependencies",
            "bool_yes_no",
            {"{{dependency}}": "min by (dependency) (seenit_dependency_up)"},
            "No: at least one consumer cannot ask it. /readyz says why.",
        ),
        Panel(
            "Consumers ready",
            "short",
            {"ready": "sum(seenit_ready)", "running": 'count(up{job="seenit"} == 1)'},
        ),
        Panel(
            "Retries",
            "ops",
            {"{{dependency}}": f"sum by (dependency) (rate(seenit_retries_total{RATE}))"},
            "Calls repeated because a dependency could not be asked.",
        ),
    ],
    [
        Panel(
            "Time of a step, p95",
            "s",
            {"{{step}}": quantile(0.95, "seenit_step_seconds", "le, step")},
            "fetch and decode for a picture, infer for a request, the others for a batch. publish includes the commit.",
        ),
        Panel(
            "Dead letters",
            "ops",
            {"{{reason}}": f"sum by (reason) (rate(seenit_unprocessable_total{RATE})) > 0 or vector(0)"},
            stacked=True,
        ),
        Panel(
            "Rebalances",
            "short",
            {"{{change}}": "sum by (change) (increase(seenit_rebalances_total[5m]))"},
            "In five minutes. Lost: a consumer was given up while it ran.",
        ),
    ],
]

DUPLICATES = 'seenit_verdicts_total{verdict="duplicate"}'
MODERATION = [
    [
        Panel(
            "Duplicates among uploads",
            "percentunit",
            {"{{kind}}": f"sum by (kind) (rate({DUPLICATES}{RATE})) / scalar({VERDICTS})"},
            stacked=True,
        ),
        Panel(
            "Distance of near matches",
            "none",
            {
                **{f"p{100 * q:g}": quantile(q, "seenit_match_l2") for q in (0.1, 0.5, 0.9)},
                "threshold": "max(seenit_model_threshold_l2)",
            },
            "Euclidean distance of unit vectors; beyond the threshold by the second look. Drifting upwards: other "
            "pictures than it was set for.",
        ),
        Panel(
            "Near matches by distance",
            "short",
            {"{{le}}": "sum by (le) (increase(seenit_match_l2_bucket[1h]))"},
            "In an hour, cumulative.",
            kind="bargauge",
        ),
    ],
    [
        Panel(
            "Duplicates",
            "ops",
            {"{{kind}}": f"sum by (kind) (rate({DUPLICATES}{RATE}))"},
        ),
        Panel(
            "Unprocessable by reason, an hour",
            "short",
            {"{{reason}}": "sum by (reason) (increase(seenit_unprocessable_total[1h]))"},
            kind="bargauge",
        ),
        Panel("Deletions", "ops", {"deleted": f"sum(rate(seenit_deleted_total{RATE}))"}),
    ],
    [
        Panel(
            "Campaigns",
            "short",
            {"{{tenant}}: {{campaign}}": "max by (tenant, campaign) (seenit_campaign_uploads_per_hour)"},
            "Uploads of one picture and its copies in the last hour: those campaigns that have most.",
        ),
        Panel(
            "Floods",
            "short",
            {"{{state}}": "sum by (state) (increase(seenit_floods_total[1h]))"},
            "In an hour: campaigns that went beyond their tenant's bound, and that came back to half of it.",
        ),
        Panel(
            "Feedback",
            "short",
            {"{{decision}}": "sum by (decision) (increase(seenit_feedback_total[1h]))"},
            "What people decided about matches, in an hour. Refused: the dead letters say why.",
            stacked=True,
        ),
    ],
    [
        Panel(
            "Known pictures, by kind of bank",
            "ops",
            {
                "{{kind}}": f"sum by (kind) (rate(seenit_bank_hits_total{RATE}))",
                "silenced": f"sum(rate(seenit_silenced_total{RATE}))",
            },
        ),
        Panel(
            "Known pictures, by bank",
            "ops",
            {"{{bank}}": f"topk(10, sum by (bank) (rate(seenit_bank_hits_total{RATE})))"},
            "The ten banks with most hits. Each process counts the first 50 by name, and the others as one.",
        ),
        Panel(
            "Entries refused by reason, an hour",
            "short",
            {"{{reason}}": "sum by (reason) (increase(seenit_refused_entries_total[1h]))"},
            kind="bargauge",
        ),
        Panel(
            "Earlier uploads found, and entries searched for",
            "short",
            {
                "found in an hour": "sum(increase(seenit_rematches_total[1h]))",
                "entries under way": "sum(seenit_rematches_under_way)",
            },
        ),
    ],
    [
        Panel(
            "Pictures remembered, by tenant",
            "short",
            {"{{tenant}}": "max by (tenant) (seenit_window_embeddings)"},
            "The largest tenants; all others together as (others).",
            stacked=True,
        ),
        Panel(
            "Age of the oldest picture remembered",
            "s",
            {"{{tenant}}": "max by (tenant) (seenit_window_age_seconds)"},
            "Less than the retention in a busy window: SEENIT_WINDOW_MAX_BYTES has cut it short.",
        ),
        Panel(
            "Entries of banks",
            "short",
            {"{{bank}}": "max by (bank) (seenit_bank_entries)"},
            "The 50 banks with most entries by name; all others together as (others).",
            stacked=True,
        ),
        Panel(
            "Model",
            "none",
            {"{{name}} {{version}}": "count by (name, version) (seenit_model_info)"},
            "Consumers by encoder version. Those of different versions do not see each other's uploads.",
        ),
    ],
]

REQUESTS = f"sum(rate(nv_inference_request_success{RATE}))"
CAPACITY = [
    [
        Panel(
            "Verdicts by consumer", "ops", {"{{instance}}": f"sum by (instance) (rate(seenit_verdicts_total{RATE}))"}
        ),
        Panel(
            "Processor by consumer",
            "none",
            {"{{instance}}": f'rate(process_cpu_seconds_total{{job="seenit"}}{RATE})'},
            "Cores in use. At the limit of its container: more consumers.",
        ),
        Panel(
            "Processor time of an upload, by step",
            "s",
            {"{{step}}": f"sum by (step) (rate(seenit_step_cpu_seconds_total{RATE})) / scalar({VERDICTS})"},
            "Of the steps' Python threads; what libraries do on threads of their own is only in the panel beside.",
            stacked=True,
        ),
    ],
    [
        Panel(
            "Uploads in a batch",
            "short",
            {
                "mean": f"sum(rate(seenit_batch_uploads_sum{RATE})) / sum(rate(seenit_batch_uploads_count{RATE}))",
            },
        ),
        Panel(
            "Batches by what closed them",
            "ops",
            {"{{closed_by}}": f"sum by (closed_by) (rate(seenit_batch_uploads_count{RATE}))"},
            "Mostly size: the service is at its limit, or near it.",
            stacked=True,
        ),
        Panel(
            "Batches under way",
            "percentunit",
            {"{{instance}}": "seenit_batches_in_flight / seenit_batches_in_flight_limit"},
            "Of the most allowed. At one: some step is slower than polling.",
        ),
    ],
    [
        Panel(
            "Inference, seen by consumers",
            "s",
            {f"p{100 * q:g}": quantile(q, "seenit_step_seconds", labels='{step="infer"}') for q in (0.5, 0.95)},
        ),
        Panel(
            "Triton: time of a request",
            "µs",
            {
                what: f"sum(rate(nv_inference_{what}_duration_us{RATE})) / {REQUESTS}"
                for what in ("queue", "compute_infer")
            },
            "Queue longer than compute: more Triton instances.",
        ),
        Panel(
            "Triton: pictures a second, and in a batch",
            "short",
            {
                "pictures a second": f"sum(rate(nv_inference_count{RATE}))",
                "in a batch": f"sum(rate(nv_inference_count{RATE})) / sum(rate(nv_inference_exec_count{RATE}))",
            },
        ),
    ],
    [
        Panel("Memory", "bytes", {"{{instance}}": 'process_resident_memory_bytes{job="seenit"}'}),
        Panel("Mirrored windows", "bytes", {"{{instance}}": "sum by (instance) (seenit_window_bytes)"}),
        Panel(
            "GPU",
            "percentunit",
            {"{{gpu_uuid}}": "nv_gpu_utilization"},
            "Only where Triton has one.",
        ),
    ],
]


def dashboard(uid: str, title: str, rows: list[list[Panel]]) -> dict[str, Any]:
    """As Grafana 10 and newer load it from a file."""
    panels = [
        panel_json(panel, 100 * y + x, x * WIDTH // len(row), y * HEIGHT, WIDTH // len(row))
        for y, row in enumerate(rows)
        for x, panel in enumerate(row)
    ]
    datasource = {"name": "datasource", "type": "datasource", "query": "prometheus", "label": "Prometheus"}
    return {
        "uid": uid,
        "title": title,
        "tags": ["seenit"],
        "schemaVersion": 39,
        "editable": False,
        "refresh": "30s",
        "time": {"from": "now-3h", "to": "now"},
        "templating": {"list": [datasource]},
        "links": [{"type": "dashboards", "tags": ["seenit"], "title": "Seenit", "asDropdown": False, "keepTime": True}],
        "panels": panels,
    }


def panel_json(panel: Panel, number: int, x: int, y: int, width: int) -> dict[str, Any]:
    """One panel at its place."""
    custom = {"stacking": {"mode": "normal"}, "fillOpacity": 30} if panel.stacked else {}
    targets = [
        {
            "refId": chr(ord("A") + n),
            "datasource": DATASOURCE,
            "expr": expression,
            "legendFormat": legend,
            "instant": panel.kind == "bargauge",
        }
        for n, (legend, expression) in enumerate(panel.queries.items())
    ]
    return {
        "id": number,
        "type": panel.kind,
        "title": panel.title,
        "description": panel.description,
        "datasource": DATASOURCE,
        "gridPos": {"x": x, "y": y, "w": width, "h": HEIGHT},
        "fieldConfig": {"defaults": {"unit": panel.unit, "min": 0, "custom": custom}, "overrides": []},
        "options": {"legend": {"displayMode": "list", "placement": "bottom"}} if panel.kind == "timeseries" else {},
        "targets": targets,
    }


HTTP = [
    [
        Panel(
            "Requests",
            "ops",
            {"{{route}}": f"sum by (route) (rate(seenit_http_requests_total{RATE}))"},
            "Answered, each second.",
            stacked=True,
        ),
        Panel(
            "Answers by status",
            "ops",
            {"{{status}}": f"sum by (status) (rate(seenit_http_requests_total{RATE}))"},
            "4xx is what clients did wrong, 429 a key beyond its rate, 503 a part that is away or too much at once.",
            stacked=True,
        ),
        Panel("Requests in flight", "short", {"all": "sum(seenit_http_requests_in_flight)"}),
    ],
    [
        Panel(
            "Look-ups",
            "s",
            {
                f"p{100 * q:g}": quantile(q, "seenit_http_request_seconds", labels='{route="/v1/lookup"}')
                for q in (0.5, 0.95, 0.99)
            },
            "From the first byte of the request to the answer.",
        ),
        Panel(
            "Time of a step, p95",
            "s",
            {"{{step}}": quantile(0.95, "seenit_http_step_seconds", "le, step")},
            "Each with its waiting: decode for a processor, encode for Triton, match for Redis.",
        ),
        Panel(
            "Dependencies",
            "bool_yes_no",
            {"{{dependency}}": "min by (dependency) (seenit_http_dependency_up)"},
            "No: at least one instance cannot ask it. /readyz says why.",
        ),
    ],
]


def dashboards() -> dict[str, str]:
    """File name -> JSON."""
    made = (
        ("overview", "Seenit / Overview", OVERVIEW),
        ("moderation", "Seenit / Moderation", MODERATION),
        ("capacity", "Seenit / Capacity", CAPACITY),
        ("http", "Seenit / Look-ups over HTTP", HTTP),
    )
    return {
        f"{name}.json": json.dumps(dashboard(f"seenit-{name}", title, rows), indent=1, ensure_ascii=False) + "\n"
        for name, title, rows in made
    }


if __name__ == "__main__":
    FOLDER.mkdir(exist_ok=True)
    for name, text in dashboards().items():
        (FOLDER / name).write_text(text)
