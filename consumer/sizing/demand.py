"""What a workload asks of each part: so many cores, bytes, and bytes a second."""

from dataclasses import dataclass

from consumer.settings import PipelineSettings
from consumer.sizing.costs import Costs

FULL_BATCH = PipelineSettings().batch_size
DECODING_CORES = 2  # of a process, at least
# How much longer batches take than their steps, since they wait for each other; so the simulation says, at full load.
WAITING = 1.6


@dataclass(frozen=True, slots=True)
class Workload:
    """What comes in: uploads a second at the busiest time, of pictures of so many bytes, for tenants of equal size."""

    rate: float
    window_s: float
    picture_bytes: float
    tenants: int = 1
    gpu: str | None = None

    @property
    def rows(self) -> float:
        """Uploads in the window, of all tenants."""
        return self.rate * self.window_s


@dataclass(frozen=True, slots=True)
class Demand:
    """What a workload asks of each part, a second."""

    workload: Workload
    costs: Costs
    processes: int

    @property
    def rate(self) -> float:
        return self.workload.rate

    @property
    def search_us(self) -> float:
        """The search of an upload."""
        return self.costs.search_us(self.workload.rows / self.workload.tenants)

    @property
    def copying(self) -> float:
        """The share of a core with which each process follows what the others append."""
        return self.rate * (1 - 1 / self.processes) * self.costs.copy_row_us / 1e6

    @property
    def following(self) -> float:
        """The share of time for which each process does so, or waits for Redis to send it."""
        return self.rate * (1 - 1 / self.processes) * self.costs.read_row_us / 1e6 + self.copying

    @property
    def consumer_cores(self) -> float:
        """The cores that all processes together keep busy."""
        costs, size = self.costs, self.workload.picture_bytes
        upload_us = costs.python_us() + costs.decoding_us(size) + costs.clients_us(size) + self.search_us
        return self.rate * upload_us / 1e6 + self.processes * self.copying

    @property
    def python(self) -> float:
        """The share of time in which the interpreter's lock of a process is held."""
        return self.rate / self.processes * self.costs.python_us() / 1e6 + self.copying

    @property
    def matching(self) -> float:
        """The share of time in which the thread of a process that matches uploads works or waits for Redis."""
        own_us = self.costs.match_us + self.search_us + self.costs.append_us
        return self.rate / self.processes * own_us / 1e6 + self.following

    @property
    def in_flight(self) -> float:
        """The share of a process's batches that are under way, when they are full."""
        costs = self.costs
        encoding_us = costs.inference_us(FULL_BATCH * costs.views) / FULL_BATCH
        upload_us = (
            costs.python_us() + costs.append_us + self.search_us + encoding_us + 1e3 * costs.commit_ms / FULL_BATCH
        )
        upload_us += costs.decoding_us(self.workload.picture_bytes) / DECODING_CORES
        under_way = self.rate / self.processes * upload_us / 1e6 + self.following
        return WAITING * under_way / PipelineSettings().batches_in_flight

    @property
    def encoder_instances(self) -> float:
        """The instances that are busy, with full requests."""
        return self.rate * self.costs.views * self.costs.inference_us(FULL_BATCH) / FULL_BATCH / 1e6

    @property
    def process_bytes(self) -> float:
        """The memory of a process."""
        tenants = self.workload.tenants
        return self.costs.process_bytes + tenants * self.costs.index_bytes(self.workload.rows / tenants)

    @property
    def redis_bytes(self) -> float:
        """The memory of all servers of Redis."""
        return self.workload.rows * self.costs.stored_row_bytes

    @property
    def redis_cores(self) -> float:
        """The cores of Redis that are busy; a server has one."""
        return self.rate * (self.costs.append_us + (self.processes - 1) * self.costs.read_row_us) / 1e6

    @property
    def encoder_bytes_per_s(self) -> float:
        """What is sent to all encoders and back."""
        return self.rate * self.costs.views * self.costs.view_bytes

    @property
    def redis_bytes_per_s(self) -> float:
        """What Redis sends to all processes, and takes from them."""
        return self.rate * (self.costs.append_bytes + self.processes * self.costs.read_row_bytes)

    @property
    def process_bytes_per_s(self) -> float:
        """What a process takes in: pictures, and rows of the window."""
        own = self.rate / self.processes * (self.workload.picture_bytes + self.costs.views * self.costs.view_bytes)
        return own + self.rate * self.costs.read_row_bytes
