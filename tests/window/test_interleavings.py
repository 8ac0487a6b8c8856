"""The window's own code, with every round trip to a real server in every order that several processes can give them.

Each process is a thread that stops before every round trip. An explorer lets one go at a time, or makes it crash before
or after the round trip, and then runs everything again with the next order, until there is none left. A process that
crashed comes back with an empty replica and begins its upload anew.
"""

import random
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from typing import Any, Literal, NamedTuple

import pytest
from redis import Redis

from consumer.decide import decide
from consumer.errors import Unavailable
from consumer.local.binaries import Binaries
from consumer.settings import WindowSettings
from consumer.window import large_index, replica, replicas, slice_filler
from consumer.window.index import VectorIndex
from consumer.window.records import NewRecord, decode_index_row
from consumer.window.tail import Tail
from consumer.window.window import RedisWindow
from tests.redis_servers import client_of, redis_like
from tests.stack_fixtures import serving
from tests.window.examples import DIM, LARGE_MODEL, MODEL, PREFIX, assert_coherent, upload

Answer = tuple[str, str | None]
SETTINGS = WindowSettings()


class Crash(Exception):
    """The process is gone; what it had sent may have arrived."""


class Deletion(NamedTuple):
    image_id: str


class Loss(NamedTuple):
    """The server of the slices is lost. It comes back empty, or another takes over with what it had at some moment."""

    comes_back: Literal["empty", "behind"]


Task = NewRecord | Deletion | Loss


class Choice(NamedTuple):
    process: int
    crash: str = ""


class Process(threading.Thread):
    """Works through its tasks; `step` lets it make one round trip."""

    def __init__(self, redis: Redis, tasks: Sequence[Task], tenant: str) -> None:
        super().__init__(daemon=True)
        self.answers: dict[str, set[Answer]] = {}
        self.window = self._new_window(redis)
        self.done = False
        self.failure: BaseException | None = None
        self._redis = redis
        self._tasks = tasks
        self._tenant = tenant
        self._crash = ""
        self._go = threading.Semaphore(0)
        self._stopped = threading.Semaphore(0)

    def wait(self) -> None:
        """Until it stands before a round trip, or is done."""
        self._stopped.acquire()
        if self.failure:
            raise self.failure

    def step(self, crash: str) -> None:
        self._crash = crash
        self._go.release()
        self.wait()

    def run(self) -> None:
        try:
            for task in self._tasks:
                while not self._try(task):
                    pass
        except BaseException as error:
            self.failure = error
        self.done = True
        self._stopped.release()

    def _try(self, task: Task) -> bool:
        try:
            if isinstance(task, Deletion):
                self.window.delete(self._tenant, task.image_id)
            elif isinstance(task, Loss):
                had = (
                    {}
                    if task.comes_back == "empty"
                    else self.round_trip(lambda: read_slices(self._redis, self._tenant))
                )
                self.round_trip(lambda: replace_slices(self._redis, self._tenant, had))
            else:
                answer = process(self.window, task._replace(tenant=self._tenant))
                self.answers.setdefault(task.image_id, set()).add(answer)
        except Crash:
            self.window = self._new_window(self._redis)
            return False
        except Unavailable:
            return False
        return True

    def _new_window(self, redis: Redis) -> RedisWindow:
        return RedisWindow(Stepping(redis, self), MODEL, SETTINGS, PREFIX)  # type: ignore[arg-type]

    def round_trip(self, execute: Callable[[], Any]) -> Any:
        self._stopped.release()
        self._go.acquire()
        crash, self._crash = self._crash, ""
        if crash == "before":
            raise Crash
        replies = execute()
        if crash == "after":
            raise Crash
        return replies


class Stepping:
    """A Redis client whose pipelines ask before they go; in a cluster, where commands part, before each command."""

    is_cluster = False

    def __init__(self, redis: Redis, process: Process) -> None:
        self._redis = redis
        self._process = process

    def pipeline(self, transaction: bool) -> Any:
        pipeline = self._redis.pipeline(transaction=transaction)
        execute = pipeline.execute

        def ask_and_execute(**options: bool) -> list[Any]:
            parts = [[command] for command in pipeline.command_stack] if self.is_cluster else [pipeline.command_stack]
            replies: list[Any] = []
            for pipeline.command_stack in parts:
                replies += self._process.round_trip(partial(execute, **options))
            return replies

        pipeline.execute = ask_and_execute  # type: ignore[method-assign]
        return pipeline


def read_slices(redis: Redis, tenant: str) -> dict[bytes, bytes]:
    return {key: redis.dump(key) for key in redis.keys(f"*{{{tenant}/*")}


def replace_slices(redis: Redis, tenant: str, slices: Mapping[bytes, bytes]) -> None:
    for key in redis.keys(f"*{{{tenant}/*"):
        redis.delete(key)
    for key, content in slices.items():
        redis.restore(key, 60_000, content)


def process(window: RedisWindow, record: NewRecord) -> Answer:
    """Decide on an upload as the pipeline does."""
    [exact] = window.find_exact([(record.tenant, record.image_id, record.digest, record.uploaded_at)])
    if exact is not None:
        return "exact", exact.image_id
    decision = decide(window.append([record])[0], MODEL.threshold_l2, 5)
    return decision.kind or "unique", decision.match and decision.match.image_id


def run(
    redis: Redis,
    tenant: str,
    tasks: Sequence[Sequence[Task]],
    faults: int,
    path: list[int],
    pick: Callable[[int], int] = lambda highest: highest,
) -> list[Process]:
    """One order of the round trips: follow `path`, then `pick`, and write down what was left open.

    `path` has, for each choice, how many alternatives are left.
    """
    processes = [Process(redis, mine, tenant) for mine in tasks]
    for one in processes:
        one.start()
        one.wait()
    depth = 0
    while True:
        choices = [Choice(n) for n, one in enumerate(processes) if not one.done]
        if not choices:
            return processes
        if faults:
            choices += [Choice(n, crash) for n, *_ in choices[:] for crash in ("before", "after")]
        if depth == len(path):
            path.append(pick(len(choices) - 1))
        choice = choices[path[depth]]
        depth += 1
        faults -= bool(choice.crash)
        processes[choice.process].step(choice.crash)


def explore(
    redis: Redis, stored: Sequence[NewRecord], tasks: Sequence[Sequence[Task]], faults: int
) -> Iterator[tuple[str, list[Process]]]:
    """Every order, each in a tenant of its own."""
    path: list[int] = []
    number = 0
    while True:
        tenant = f"t{number}"
        window = RedisWindow(redis, MODEL, SETTINGS, PREFIX)
        for record in stored:
            window.append([record._replace(tenant=tenant)])
        yield tenant, run(redis, tenant, tasks, faults, path)
        number += 1
        while path and path[-1] == 0:
            path.pop()
        if not path:
            return
        path[-1] -= 1


def sample(
    redis: Redis, stored: Sequence[NewRecord], tasks: Sequence[Sequence[Task]], faults: int, orders: int
) -> Iterator[tuple[str, list[Process]]]:
    """Some orders, drawn by chance, where there are too many; each in a tenant of its own."""
    draw = random.Random(f"{len(tasks)} {faults}")
    for number in range(orders):
        tenant = f"t{number}"
        RedisWindow(redis, MODEL, SETTINGS, PREFIX).append([record._replace(tenant=tenant) for record in stored])
        yield tenant, run(redis, tenant, tasks, faults, [], lambda highest: draw.randint(0, highest))


@pytest.fixture(scope="module")
def redis(binaries: Binaries, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Redis]:
    with (
        serving(redis_like("valkey", binaries, tmp_path_factory.mktemp("interleavings"))) as server,
        client_of(server) as client,
    ):
        yield client


@pytest.fixture(autouse=True)
def _empty(redis: Redis) -> None:
    redis.flushall()
    window = RedisWindow(redis, MODEL, SETTINGS, PREFIX)
    window.find_exact([("scripts", "a", b"", upload("a", 1).uploaded_at)])
    window.append([upload("a", 1, tenant="scripts")])
    window.delete("scripts", "a")


@pytest.fixture
def large(monkeypatch: pytest.MonkeyPatch) -> None:
    """Windows that are large with their second row, and searched by likely rows: one round trip more."""
    monkeypatch.setitem(globals(), "MODEL", LARGE_MODEL)
    monkeypatch.setattr(replica, "EXACT_ROWS", 1)
    monkeypatch.setattr(large_index, "EXACT_ROWS", 0)


def stored_order(redis: Redis, tenant: str) -> list[str]:
    """Image ids in the order of the log."""
    key = f"{PREFIX}:{{{tenant}}}:encoder@1x64:"
    positions = [position for position, fields in redis.xrange(f"{key}log") if b"row" in fields]
    records = redis.hmget(f"{key}rows", positions) if positions else []
    pairs = zip(positions, records, strict=True)
    return [decode_index_row(position, record).image_id.decode() for position, record in pairs if record]


def check_copies(redis: Redis, tenant: str, processes: list[Process]) -> None:
    """Check what the window guarantees about copies, for uploads of which nothing was deleted."""
    answers: dict[str, set[Answer]] = {}
    for one in processes:
        for image_id, given in one.answers.items():
            answers.setdefault(image_id, set()).update(given)
    order = stored_order(redis, tenant)
    assert len(order) == len(set(order))
    for image_id, given in answers.items():
        assert len(given) == 1, f"{image_id} is decided in two ways: {given}"
        assert next(iter(given))[1] != image_id, f"{image_id} matches itself"
    for picture in {PICTURES[image_id] for image_id in answers}:
        copies = [image_id for image_id in answers if PICTURES[image_id] == picture]
        unique = [image_id for image_id in copies if ("unique", None) in answers[image_id]]
        first = [image_id for image_id in order if image_id in copies][:1]
        assert unique == first, f"of {copies}, {unique} are unique, and {first} came first"
        assert all(match == unique[0] for copy in copies for kind, match in answers[copy] if kind == "near")


PICTURES = {"a": 1, "b": 1, "c": 1, "p": 2, "q": 2}

NEAR_PAIR = [[upload("a", 1, 0)], [upload("b", 1, 1)]]
EXACT_PAIR = [[upload("a", 1, 0)], [upload("b", 1, 0)]]
CROSSWISE = [[upload("a", 1, 0), upload("p", 2, 0)], [upload("q", 2, 1), upload("b", 1, 1)]]
A_ZOMBIE = [[upload("a", 1, 0), upload("b", 1, 1)], [upload("a", 1, 0)]]
THREE = [[upload("a", 1, 0)], [upload("b", 1, 1)], [upload("c", 1, 2)]]
COPY_OF_A_COPY = [[upload("a", 1, 0)], [upload("b", 1, 1)], [upload("c", 1, 1)]]


@pytest.mark.parametrize(
    ("tasks", "faults", "orders"),
    [
        (NEAR_PAIR, 1, 100),
        (EXACT_PAIR, 1, 80),
        (CROSSWISE, 0, 60),
        (A_ZOMBIE, 0, 10),
        (A_ZOMBIE, 1, 200),
        (THREE, 0, 80),
        (COPY_OF_A_COPY, 0, 70),
    ],
)
def test_of_copies_one_is_unique_in_every_order(
    redis: Redis, tasks: list[list[NewRecord]], faults: int, orders: int
) -> None:
    number = 0
    for tenant, processes in explore(redis, [], tasks, faults):
        number += 1
        check_copies(redis, tenant, processes)
        # The same uploads long after, by a process that has read nothing of the window before.
        fresh = RedisWindow(redis, MODEL, SETTINGS, PREFIX)
        for one, mine in zip(processes, tasks, strict=True):
            for record in mine:
                assert {process(fresh, record._replace(tenant=tenant))} == one.answers[record.image_id]
    assert number >= orders, number
    assert_coherent(redis)


@pytest.mark.parametrize(("tasks", "orders"), [(NEAR_PAIR, 20)])
@pytest.mark.usefixtures("large")
def test_of_copies_one_is_unique_in_every_order_in_a_large_window(
    redis: Redis, tasks: list[list[NewRecord]], orders: int
) -> None:
    number = 0
    for tenant, processes in explore(redis, [upload("x", 5), upload("y", 6)], tasks, 0):
        number += 1
        check_copies(redis, tenant, processes)
        fresh = RedisWindow(redis, MODEL, SETTINGS, PREFIX)
        for one, mine in zip(processes, tasks, strict=True):
            for record in mine:
                assert {process(fresh, record._replace(tenant=tenant))} == one.answers[record.image_id]
    assert number >= orders, number
    assert_coherent(redis)


@pytest.mark.usefixtures("large")
def test_what_is_deleted_while_a_large_window_is_searched_is_not_found(redis: Redis) -> None:
    tasks: list[list[Task]] = [[upload("b", 1, 1)], [Deletion("a")]]
    answers: set[Answer] = set()
    for tenant, processes in explore(redis, [upload("a", 1), upload("x", 5), upload("y", 6)], tasks, 0):
        answers |= processes[0].answers["b"]
        # Also where the deletion came between the search and the reading of what it found.
        assert processes[0].answers["b"] <= {("near", "a"), ("unique", None)}
        assert "b" in stored_order(redis, tenant)
    assert answers == {("near", "a"), ("unique", None)}


@pytest.mark.timeout(300)
@pytest.mark.parametrize("page_entries", [1, 2])
def test_a_replica_that_is_read_page_by_page_is_searched_only_once_it_is_complete(
    redis: Redis, monkeypatch: pytest.MonkeyPatch, page_entries: int
) -> None:
    monkeypatch.setattr(replica, "PAGE_ENTRIES", page_entries)
    stored = [upload("x", 5), upload("y", 6)]
    number = 0
    for tenant, processes in explore(redis, stored, NEAR_PAIR, 0):
        number += 1
        check_copies(redis, tenant, processes)
    assert number >= 40, number


def test_a_deleted_picture_comes_back_nowhere(redis: Redis, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(replica, "PAGE_ENTRIES", 2)
    stored = [upload("a", 1, 0), upload("x", 5)]
    tasks: list[list[Task]] = [[upload("b", 1, 1)], [Deletion("a")], [upload("c", 1, 0)]]
    number = 0
    for tenant, processes in explore(redis, stored, tasks, 0):
        number += 1
        monkeypatch.setattr(replicas, "STALE_S", -1.0)
        fresh = RedisWindow(redis, MODEL, SETTINGS, PREFIX)
        assert process(fresh, upload("d", 1, 3, tenant))[1] in ("b", "c")
        living = len(stored_order(redis, tenant))
        for one in processes:
            window = one.window
            window.store.redis = redis
            window.refresh()
            assert window.stats().rows in (0, living)
        assert "a" not in stored_order(redis, tenant)
    assert number >= 40, number
    assert_coherent(redis)


def test_the_explorer_notices_a_search_before_the_append(redis: Redis, monkeypatch: pytest.MonkeyPatch) -> None:
    """With a search before the append instead of after it, two copies miss each other, which the explorer finds."""

    def search_then_append(window: RedisWindow, record: NewRecord) -> Answer:
        probe = record._replace(image_id=f"probe of {record.image_id}", digest=b"probe" + record.digest)
        decision = decide(window.append([probe])[0], MODEL.threshold_l2, 5)
        window.delete(record.tenant, probe.image_id)
        window.append([record])
        return decision.kind or "unique", decision.match and decision.match.image_id

    monkeypatch.setitem(globals(), "process", search_then_append)
    with pytest.raises(AssertionError, match="unique"):
        check_all(redis, explore(redis, [], NEAR_PAIR, faults=0))


def check_all(redis: Redis, orders: Iterator[tuple[str, list[Process]]]) -> None:
    for tenant, processes in orders:
        check_copies(redis, tenant, processes)


@pytest.fixture(scope="module")
def redis_vectors(binaries: Binaries, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Redis]:
    with (
        serving(redis_like("redis-vectors", binaries, tmp_path_factory.mktemp("slices"))) as server,
        client_of(server) as client,
    ):
        yield client


@pytest.fixture
def sliced(redis_vectors: Redis, monkeypatch: pytest.MonkeyPatch) -> Redis:
    """Windows in slices, to which every row is moved at once: ten round trips for each upload."""
    monkeypatch.setitem(globals(), "SETTINGS", WindowSettings(backend="redis-vectors"))
    monkeypatch.setattr(slice_filler, "TAIL_ROWS", 0)
    monkeypatch.setattr(slice_filler, "SURPLUS_ROWS", 0)
    monkeypatch.setattr(slice_filler, "CLAIM_MS", 0)  # others never wait for it: more is done at once
    redis_vectors.flushall()
    return redis_vectors


@pytest.mark.parametrize(
    ("tasks", "faults"),
    [(NEAR_PAIR, 0), (NEAR_PAIR, 2), (CROSSWISE, 1), (A_ZOMBIE, 2), (THREE, 1), (COPY_OF_A_COPY, 1)],
)
def test_of_copies_in_slices_one_is_unique(sliced: Redis, tasks: list[list[NewRecord]], faults: int) -> None:
    for tenant, processes in sample(sliced, [upload("x", 5)], tasks, faults, 60):
        check_copies(sliced, tenant, processes)
        fresh = RedisWindow(sliced, MODEL, SETTINGS, PREFIX)
        for one, mine in zip(processes, tasks, strict=True):
            for record in mine:
                assert {process(fresh, record._replace(tenant=tenant))} == one.answers[record.image_id]
    assert_coherent(sliced)
    assert members_of_slices(sliced) <= stored_positions(sliced)


@pytest.mark.parametrize("losses", [[Loss("empty")], [Loss("behind")], [Loss("empty"), Loss("behind")]])
def test_copies_are_found_whenever_slices_are_lost(
    sliced: Redis, monkeypatch: pytest.MonkeyPatch, losses: list[Loss]
) -> None:
    monkeypatch.setattr(Stepping, "is_cluster", True)
    tasks: list[list[Task]] = [[upload("b", 1, 1)], [upload("c", 1, 2)], [*losses]]
    for _, processes in sample(sliced, [upload("a", 1), upload("x", 5)], tasks, 0, 150):
        assert [one.answers for one in processes] == [{"b": {("near", "a")}}, {"c": {("near", "a")}}, {}]
    assert_coherent(sliced)


@pytest.mark.parametrize("faults", [0, 2])
@pytest.mark.parametrize("stored", [[upload("a", 1), upload("x", 5)], [upload("x", 5)]])
def test_of_a_deleted_picture_nothing_is_left_in_slices(sliced: Redis, stored: list[NewRecord], faults: int) -> None:
    """Also where it is deleted while it is moved."""
    tasks: list[list[Task]] = [[upload("b", 1, 1)], [Deletion("a")], [upload("c", 2)]]
    if len(stored) == 1:
        tasks[0] = [upload("a", 1)]
    for tenant, _ in sample(sliced, stored, tasks, faults, 60):
        fresh = RedisWindow(sliced, MODEL, SETTINGS, PREFIX)
        is_stored = "a" in stored_order(sliced, tenant)
        assert (process(fresh, upload("d", 1, 3, tenant))[1] == "a") == is_stored
        assert not is_stored or len(stored) == 1
    assert_coherent(sliced)
    assert members_of_slices(sliced) <= stored_positions(sliced)
    assert members_of_slices(sliced)


def test_the_sampled_orders_notice_a_search_of_slices_without_the_tail(
    sliced: Redis, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where a process trusts that others have moved what they appended, two copies miss each other."""
    monkeypatch.setattr(Tail, "first_rows", lambda tail, count: [])
    monkeypatch.setattr(VectorIndex, "search", lambda index, queries: [[] for _ in queries])
    with pytest.raises(AssertionError, match="unique"):
        check_all(sliced, sample(sliced, [], NEAR_PAIR, 0, 60))


def members_of_slices(redis: Redis) -> set[tuple[bytes, bytes]]:
    """All rows in slices: tenant and position."""
    return {
        (key.split(b"{")[1].split(b"/")[0], member)
        for key in redis.keys("*:vectors:*")
        for member in redis.execute_command("VSIM", key, "FP32", bytes(4 * DIM), "COUNT", 10_000, "TRUTH")
    }


def stored_positions(redis: Redis) -> set[tuple[bytes, bytes]]:
    return {
        (key.split(b"{")[1].split(b"}")[0], position) for key in redis.keys("*:rows") for position in redis.hkeys(key)
    }
