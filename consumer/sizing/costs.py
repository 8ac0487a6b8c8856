"""What things cost, from `costs.toml`, which says of each cost where it was measured."""

import tomllib
from importlib.resources import files
from typing import NamedTuple

from pydantic import BaseModel, ConfigDict

from consumer.errors import Misconfigured
from consumer.window.large_index import EXACT_ROWS


class Measured(BaseModel):
    """A cost, and the name of the measurement that it is from."""

    model_config = ConfigDict(extra="forbid", frozen=True)
    value: float
    measured: str


class Measurement(BaseModel):
    """How something was measured, at which commit, and on what."""

    model_config = ConfigDict(extra="forbid", frozen=True)
    how: str
    commit: str
    machine: str


class CostsFile(BaseModel):
    """The whole of `costs.toml`."""

    model_config = ConfigDict(extra="forbid", frozen=True)
    measurements: dict[str, Measurement]
    costs: dict[str, Measured]
    encoders: dict[str, dict[str, Measured]]


class Costs(NamedTuple):
    """What an upload costs. `_us` are microseconds of processor time; of the encoder, of an instance's time."""

    poll_us: float
    look_up_us: float
    decode_us: float
    decode_us_per_kb: float
    encode_us: float
    match_us: float
    publish_us: float
    clients_us_per_kb: float
    exact_search_us_per_kilorow: float
    large_search_us_per_kilorow: float
    exact_row_bytes: float
    large_row_bytes: float
    process_bytes: float
    append_us: float
    read_row_us: float
    copy_row_us: float
    append_bytes: float
    read_row_bytes: float
    stored_row_bytes: float
    commit_ms: float
    views: float
    view_bytes: float
    request_us: float
    picture_us: float

    def decoding_us(self, picture_bytes: float) -> float:
        """A picture of so many bytes, decoded."""
        return self.decode_us + self.decode_us_per_kb * picture_bytes / 1e3

    def clients_us(self, picture_bytes: float) -> float:
        """The threads of the clients of Kafka and gRPC: the picture in, its pixels out."""
        return self.clients_us_per_kb * (picture_bytes + self.views * self.view_bytes) / 1e3

    def python_us(self) -> float:
        """What holds the interpreter's lock, so that no two threads of a process do it at once."""
        return self.poll_us + self.look_up_us + self.encode_us + self.match_us + self.publish_us

    def inference_us(self, pictures: float) -> float:
        """A request with so many pictures."""
        return self.request_us + self.picture_us * pictures

    def search_us(self, rows: float) -> float:
        """An upload compared with its tenant's rows; a window grows from nothing, so the dearest size on the way."""
        exact_us = self.exact_search_us_per_kilorow * min(rows, EXACT_ROWS) / 1e3
        return max(exact_us, self.large_search_us_per_kilorow * rows / 1e3)

    def index_bytes(self, rows: float) -> float:
        """A tenant's rows in a process, at the dearest size on the way."""
        return max(self.exact_row_bytes * min(rows, EXACT_ROWS), self.large_row_bytes * rows)


def read_costs_file() -> CostsFile:
    """Read `costs.toml`."""
    return CostsFile.model_validate(tomllib.loads((files("consumer.sizing") / "costs.toml").read_text("utf-8")))


def load_costs(gpu: str | None = None) -> Costs:
    """Load the costs, with the encoder on a kind of GPU, or on processors. Raises Misconfigured for an unknown GPU."""
    file = read_costs_file()
    if gpu is not None and (gpu == "cpu" or gpu not in file.encoders):
        known = ", ".join(name for name in file.encoders if name != "cpu")
        raise Misconfigured(f"--gpu is {gpu[:40]!r}, of which nothing was measured; known: {known}")
    encoder = file.encoders[gpu or "cpu"]
    return Costs(**{name: cost.value for name, cost in (file.costs | encoder).items()})
