"""Draw the dashboards as pictures: `make pictures` writes deploy/grafana/pictures/*.png.

A real Prometheus watches a real service under some minutes of varied load. Then the queries of every panel are plotted,
by Matplotlib and not by Grafana; the pictures say so.
"""

import base64
import io
import json
import math
import os
import re
import signal
import tempfile
import time
from collections.abc import Iterator
from contextlib import ExitStack, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import matplotlib as mpl
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator
from numpy.random import Generator
from PIL import Image

from consumer.local.binaries import find_binaries
from consumer.local.pictures import EDITS, edited, photographs
from consumer.local.process import Server
from consumer.local.servers import TritonServer, tansu, valkey
from deploy.grafana.dashboards import FOLDER
from tests.deploy.prometheus import RATE_INTERVAL, server, write_config
from tests.http_fixtures import http_server
from tests.service_fixtures import Service, new_service
from tests.stack_fixtures import serving

PICTURES = FOLDER.parent / "pictures"
LOAD_S = 180.0
TICK_S = 0.5
# When Redis stands still, and when one of the two consumers is stopped, as fractions of the time.
AWAY = (0.45, 0.53)
ONE_CONSUMER = 0.75
CAPTION = (
    "A plot of this dashboard's own queries, not Grafana: {minutes:g} minutes of made-up load on a small machine, "
    "with Redis standing still for a moment and one of two consumers stopped."
)
# Grafana's units -> the label of the axis, and the factor of the values.
UNITS = {
    "ops": ("a second", 1.0),
    "s": ("ms", 1e3),
    "µs": ("ms", 1e-3),
    "bytes": ("MiB", 1 / (1 << 20)),
    "percentunit": ("%", 100.0),
    "bool_yes_no": ("1: yes, 0: no", 1.0),
    "short": ("", 1.0),
    "none": ("", 1.0),
}
PHOTOGRAPHS = [Image.open(io.BytesIO(data)).convert("RGB") for _, data in photographs()]


@dataclass(frozen=True)
class Series:
    """A line of a panel: values at seconds since the load began. A bar shows only the last of them."""

    legend: str
    times_s: list[float]
    values: list[float]


Panels = list[tuple[dict[str, Any], list[Series]]]


class Uploads:
    """Sends varied load: new pictures, near and exact copies, broken ones and deletions, of three tenants.

    Some pictures are looked up over HTTP as well.
    """

    KINDS = ("new", "near", "exact", "junk", "missing", "delete")
    SHARES = (0.5, 0.17, 0.22, 0.05, 0.02, 0.04)
    TENANTS = ("shop", "forum", "archive")

    def __init__(self, service: Service, lookups: httpx.Client) -> None:
        self._service = service
        self._lookups = lookups
        self._rng = np.random.default_rng(0)
        self._count = 0
        self._known: list[tuple[str, str, bytes]] = []

    def send(self, count: int) -> None:
        for kind in self._rng.choice(self.KINDS, count, p=self.SHARES):
            self._count += 1
            tenant = str(self._rng.choice(self.TENANTS, p=(0.6, 0.3, 0.1)))
            self._one(str(kind), f"{kind}-{self._count}", tenant)

    def look_up(self) -> None:
        """Look a picture up, perhaps one that was uploaded before; while Redis is away it is not answered."""
        known = self._known and self._rng.random() < 0.5
        _, tenant, data = self._known[self._rng.integers(len(self._known))] if known else ("", "shop", part(self._rng))
        headers = {"content-type": "image/jpeg"}
        with suppress(httpx.TimeoutException):  # the uploads go on
            self._lookups.post("/v1/lookup", params={"tenant": tenant}, content=data, headers=headers)

    def _one(self, kind: str, image_id: str, tenant: str) -> None:
        if kind in ("near", "exact", "delete") and self._known:
            known_id, tenant, data = self._known[self._rng.integers(len(self._known))]
            if kind == "delete":
                self._event("image.deleted", {"image_id": known_id, "tenant": tenant})
                return
            if kind == "near":
                data = edited(data, str(self._rng.choice(list(EDITS))), self._rng)
        elif kind == "missing":
            self._event("image.uploaded", {"image_id": image_id, "tenant": tenant, "url": "https://127.0.0.1/a.jpg"})
            return
        else:
            data = b"no picture" if kind == "junk" else part(self._rng)
            if kind != "junk":
                self._known.append((image_id, tenant, data))
        encoded = base64.b64encode(data).decode()
        self._event("image.uploaded", {"image_id": image_id, "tenant": tenant, "data_base64": encoded})

    def _event(self, kind: str, data: dict[str, str]) -> None:
        event = {"specversion": "1.0", "id": f"{kind} {self._count}", "source": "/load", "type": kind, "data": data}
        headers = {"content-type": b"application/cloudevents+json"}
        self._service.send(json.dumps(event).encode(), data["image_id"].encode(), headers)


def part(rng: Generator) -> bytes:
    """Make a JPEG of a part of some photograph, 128 x 128."""
    photograph = PHOTOGRAPHS[rng.integers(len(PHOTOGRAPHS))]
    side = int(rng.uniform(0.25, 0.5) * min(photograph.size))
    left, top = (int(rng.integers(0, length - side)) for length in photograph.size)
    out = io.BytesIO()
    photograph.resize((128, 128), box=(left, top, left + side, top + side)).save(out, "JPEG")
    return out.getvalue()


def work(service: Service, second: Server, redis: Server, lookups: httpx.Client) -> None:
    """Put the load on the service: waves of uploads, look-ups, an outage, and a consumer that stops."""
    uploads, began_s, frozen, stopped = Uploads(service, lookups), time.monotonic(), False, False
    while (elapsed := (time.monotonic() - began_s) / LOAD_S) < 1:
        wave = 1 + math.sin(elapsed * 5 * math.pi)
        uploads.send(round(TICK_S * (2 + 6 * wave)))
        uploads.look_up()
        if (AWAY[0] <= elapsed < AWAY[1]) is not frozen:
            frozen = not frozen
            os.kill(redis.pid, signal.SIGSTOP if frozen else signal.SIGCONT)
        if elapsed > ONE_CONSUMER and not stopped:
            stopped = True
            second.stop(timeout_s=20)
        time.sleep(max(0.0, TICK_S - (time.monotonic() - began_s) % TICK_S))


def measure(folder: Path) -> dict[str, Panels]:
    """Run the service under load; map each dashboard to its panels with Prometheus' answers to their queries."""
    binaries = find_binaries()
    with ExitStack() as stack:
        broker, redis, triton = (
            stack.enter_context(serving(each))
            for each in (tansu(binaries, folder), valkey(binaries, folder), TritonServer(binaries, folder))
        )
        addresses = (f"127.0.0.1:{broker.ports[0]}", f"redis://127.0.0.1:{redis.ports[0]}/0")
        quick = {"SEENIT_REDIS_TIMEOUT_S": "2", "SEENIT_FETCH_TIMEOUT_S": "2"}
        service = stack.enter_context(new_service(*addresses, f"127.0.0.1:{triton.ports[0]}", folder, **quick))
        first, second = service.consumer(), service.consumer()
        http = stack.enter_context(serving(http_server(service.environment, folder)))
        targets = {
            "seenit": [first.ports[0], second.ports[0]],
            "seenit-http": [http.ports[1]],
            "triton": [triton.ports[2]],
        }
        prometheus = stack.enter_context(serving(server(write_config(folder, targets), folder)))
        client = stack.enter_context(
            httpx.Client(base_url=f"http://127.0.0.1:{prometheus.ports[0]}/api/v1", trust_env=False)
        )
        lookups = stack.enter_context(
            httpx.Client(base_url=f"http://127.0.0.1:{http.ports[0]}", trust_env=False, timeout=1)
        )
        began_s = time.time()
        work(service, second, redis, lookups)
        names = {f"127.0.0.1:{port}": f"consumer {n}" for n, port in enumerate(targets["seenit"], 1)}
        return {
            file.stem: [
                (panel, list(ask(client, panel, began_s, names))) for panel in json.loads(file.read_text())["panels"]
            ]
            for file in sorted(FOLDER.glob("*.json"))
        }


def ask(client: httpx.Client, panel: dict[str, Any], began_s: float, names: dict[str, str]) -> Iterator[Series]:
    """Query the lines of a panel, named by its legends; `names` replaces a legend that is in it."""
    for target in panel["targets"]:
        query = target["expr"].replace("$__rate_interval", RATE_INTERVAL)
        params = {"query": query, "start": f"{began_s}", "end": f"{began_s + LOAD_S}", "step": "1"}
        answer = client.get("/query_range", params=params, timeout=30).raise_for_status().json()
        for line in answer["data"]["result"]:
            legend = named(target["legendFormat"], line["metric"])
            points = [
                (time_s - began_s, float(value)) for time_s, value in line["values"] if math.isfinite(float(value))
            ]
            if points:
                times_s, values = zip(*points, strict=True)
                yield Series(names.get(legend, legend).strip(), list(times_s), list(values))


def named(legend: str, labels: dict[str, str]) -> str:
    """Replace each {{label}} in a legend by the label's value."""
    return re.sub(r"{{(\w+)}}", lambda name: labels.get(name[1], ""), legend)


def draw(title: str, panels: Panels) -> Figure:
    """Draw all panels of a dashboard, each at its place."""
    columns = len({panel["gridPos"]["x"] for panel, _ in panels})
    rows = len(panels) // columns
    figure = Figure(figsize=(5.2 * columns, 3.1 * rows + 0.6), layout="constrained")
    figure.suptitle(title, fontsize=15, fontweight="bold")
    figure.supxlabel(CAPTION.format(minutes=LOAD_S / 60), fontsize=10, color="dimgray")
    for axes, (panel, series) in zip(figure.subplots(rows, columns).flat, panels, strict=True):
        draw_panel(axes, panel, series)
    return figure


def draw_panel(axes: Axes, panel: dict[str, Any], series: list[Series]) -> None:
    unit, factor = UNITS[panel["fieldConfig"]["defaults"]["unit"]]
    if unit == "ms" and max((max(one.values) for one in series), default=0) * factor > 1e3:
        unit, factor = "s", factor / 1e3
    series = sorted(series, key=lambda one: one.legend)
    axes.set_title(panel["title"], fontsize=11, loc="left")
    if not series:
        axes.set_axis_off()
        axes.text(0.5, 0.5, f"no data here\n{panel['description']}", ha="center", va="center", color="dimgray")
        return
    if panel["type"] == "bargauge":
        draw_bars(axes, series)
        return
    if panel["fieldConfig"]["defaults"]["custom"].get("stacking"):
        times_s = sorted({time_s for one in series for time_s in one.times_s})
        heights = [np.interp(times_s, one.times_s, one.values, left=0, right=0) * factor for one in series]
        axes.stackplot(np.array(times_s) / 60, heights, labels=[one.legend for one in series], alpha=0.7)
    else:
        for one in series:
            axes.plot(np.array(one.times_s) / 60, np.array(one.values) * factor, label=one.legend, linewidth=1.3)
    axes.set_xlim(0, LOAD_S / 60)
    axes.set_ylim(bottom=0, top=max(axes.get_ylim()[1], 1e-9) * 1.05)
    axes.set_ylabel(unit, fontsize=9)
    axes.xaxis.set_major_formatter("{x:g} min")
    axes.tick_params(labelsize=8)
    axes.grid(alpha=0.3)
    axes.legend(loc="upper center", bbox_to_anchor=(0.5, -0.12), ncols=4, fontsize=7, frameon=False, columnspacing=1)


def draw_bars(axes: Axes, series: list[Series]) -> None:
    """Draw bars: lying ones by name, but upright ones by bound for the buckets of a histogram."""
    lasts = {one.legend: one.values[-1] for one in series}
    if "+Inf" in lasts:
        bounds = sorted(lasts, key=float)
        axes.bar(bounds, [lasts[bound] for bound in bounds])
        axes.tick_params(axis="x", labelsize=7, rotation=90)
        axes.grid(axis="y", alpha=0.3)
        return
    names = sorted(lasts, reverse=True)
    axes.barh(names, [lasts[name] for name in names])
    axes.tick_params(labelsize=8)
    axes.xaxis.set_major_locator(MaxNLocator(5, integer=True))
    axes.grid(axis="x", alpha=0.3)


def main() -> None:
    """Measure, draw, and write the pictures."""
    mpl.use("Agg")
    with tempfile.TemporaryDirectory(prefix="seenit-pictures-") as folder:
        measured = measure(Path(folder))
    PICTURES.mkdir(exist_ok=True)
    for name, panels in measured.items():
        title = json.loads((FOLDER / f"{name}.json").read_text())["title"]
        write(draw(title, panels), PICTURES / f"{name}.png")


def write(figure: Figure, path: Path) -> None:
    """Write a PNG of few colours, which is a third as large."""
    out = io.BytesIO()
    figure.savefig(out, format="png", dpi=80)
    Image.open(out).convert("RGB").quantize(128, dither=Image.Dither.NONE).save(path, optimize=True)


if __name__ == "__main__":
    main()
