"""A copy of the banks in Redis, as the process with the lease writes it."""

import uuid

from redis import Redis

from consumer.encoder.contract import ModelInfo
from consumer.moderation.replica import BankReplica
from consumer.moderation.shelf import Shelf
from consumer.moderation.store import BankStore, NewRow
from consumer.settings import WindowSettings
from consumer.window.index import SearchParams, VectorIndex
from consumer.window.store import WindowStore

TOPIC = "id of a topic"


class Copy:
    """A copy of its own, with a lease that is held."""

    def __init__(self, redis: Redis, model: ModelInfo) -> None:
        self.redis = redis
        self.model = model
        self.windows = WindowStore(redis, model, WindowSettings(), uuid.uuid4().hex)
        self.store = BankStore(self.windows)
        self.lease = self.store.lease()
        assert self.lease.hold()
        self.epoch, self.offsets = self.store.begin(self.lease, TOPIC)

    def write(self, *rows: NewRow, offset: int = 1) -> None:
        self.lease.hold()  # still, if it is: a busy machine may take longer than it lasts
        self.store.write(self.lease, self.epoch, rows, {0: offset})

    def replica(self) -> BankReplica:
        search = SearchParams(2.0, 0.5, 32)
        return BankReplica(self.store, lambda: Shelf(lambda: VectorIndex(self.model.dim, search, 1), None))

    def key(self, kind: str) -> str:
        return self.windows.key("", f"bank-{kind}")
