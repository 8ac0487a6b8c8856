"""Where the vectors of windows are searched, by the setting: in replicas in this process, or in slices on servers."""

from collections.abc import Callable
from functools import partial
from typing import NamedTuple

from consumer.encoder.contract import ModelInfo
from consumer.settings import WindowSettings
from consumer.window.index import SearchParams, VectorIndex
from consumer.window.inverted_lists import Effort
from consumer.window.large_index import LargeIndex
from consumer.window.loss_guard import LossGuard
from consumer.window.replica import Replica
from consumer.window.replicas import Replicas
from consumer.window.searcher import WindowSearcher
from consumer.window.slice_filler import SliceFiller
from consumer.window.slice_searcher import SliceSearcher
from consumer.window.slices import Slices
from consumer.window.store import WindowStore
from consumer.window.tail import Tail

# Near matches reported for an upload, beside the earliest one within the threshold. A second look considers eight: that
# leaves as many that people may have rejected.
MAX_NEAREST, MAX_NEAREST_TO_LOOK_AT = 32, 16
# By the setting: how much a search among more than EXACT_ROWS may cost. What each finds: tests/benchmarks/README.md.
EFFORTS = {"thorough": Effort(share=0.6, candidates=500), "fast": Effort(share=0.2, candidates=200)}


class Backend(NamedTuple):
    """The replicas of windows, what searches them, and what moves rows from them into slices, if anything does."""

    replicas: Replicas
    searcher: WindowSearcher | SliceSearcher
    filler: SliceFiller | None


def open_backend(
    store: WindowStore,
    loss_guard: LossGuard,
    model: ModelInfo,
    settings: WindowSettings,
    radius_l2: float | None,
    progress: Callable[[str, int], None] | None,
) -> Backend:
    """Open the back end that the settings name; of the arguments see `RedisWindow`."""
    radius_l2 = model.match_radius_l2 if radius_l2 is None else radius_l2
    nearest = MAX_NEAREST if model.verification_rule is None else MAX_NEAREST_TO_LOOK_AT
    search = SearchParams(radius_l2, model.threshold_l2, max(nearest, settings.others + 1))
    new_index = partial(VectorIndex, model.dim, search, store.retention_ms)
    if settings.backend == "redis-vectors":
        slices = Slices(store, search)
        replicas = Replicas(store, loss_guard, lambda: Tail(new_index, model.dim, slices.ms), progress)
        filler = SliceFiller(replicas, slices)
        replicas.settle = filler.settle
        return Backend(replicas, SliceSearcher(store, replicas, slices, filler, search), filler)
    new_large_index = (
        None
        if model.codebooks is None
        else partial(LargeIndex, model.codebooks, search, store.retention_ms, EFFORTS[settings.search])
    )
    replicas = Replicas(store, loss_guard, lambda: Replica(new_index, model.dim, new_large_index), progress)
    return Backend(replicas, WindowSearcher(store, replicas), None)
