"""A pure model of append-and-compare, and an explorer that walks through every interleaving of it.

Consumers share a stream in Redis and the partitions of the input topic. Each takes one upload after the other through
four steps, and between any two of them another consumer may step, crash, or lose its partition without noticing:

    look up    is the content known already?                         (exact copies end here)
    append     put the record into the stream, unless the image stands there already
    compare    which record before one's own is a copy?
    publish    verdict and offset in one transaction, refused when the partition has gone to somebody else

`Rules` can be broken one by one: an explorer that does not notice proves nothing.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import NamedTuple, TypeVar

T = TypeVar("T")

LOOK_UP, APPEND, COMPARE, PUBLISH = range(4)


class Upload(NamedTuple):
    """`content` names the bytes, `picture` what they show: same content is an exact copy, same picture a near one."""

    partition: int
    content: int
    picture: int


class Answer(NamedTuple):
    """The content of a verdict: its kind, and the matched upload, or None for a unique one."""

    kind: str
    match: int | None


class Task(NamedTuple):
    """An upload that a consumer is working on, polled under the partition's `epoch`; `stage` is the step to come."""

    upload: int
    epoch: int
    stage: int = LOOK_UP
    answer: Answer | None = None


class Partition(NamedTuple):
    """A partition of the input topic. Each change of its owner begins an epoch; `committed` is the group's offset."""

    owner: int
    epoch: int = 0
    committed: int = 0


class State(NamedTuple):
    """Everything that the consumers share or hold; uploads are named by their numbers."""

    stream: tuple[int, ...]
    partitions: tuple[Partition, ...]
    tasks: tuple[Task | None, ...]  # of each consumer
    answers: tuple[tuple[Answer, ...], ...]  # decided for each upload, whether published or not
    published: tuple[tuple[Answer, ...], ...]
    faults_left: int


@dataclass(frozen=True)
class Rules:
    """The rules that the protocol relies on."""

    append_before_compare: bool = True
    append_once: bool = True
    only_earlier_records: bool = True
    atomic_exact: bool = True
    commit_with_verdict: bool = True
    fence: bool = True


class Violation(Exception):
    """Raised for a broken invariant; the message has the uploads and the steps that led there."""


def explore(uploads: Sequence[Upload], consumers: int, faults: int, rules: Rules | None = None) -> int:
    """Walk through every state that can be reached; return how many there are.

    Raises Violation for the first state that breaks an invariant.
    """
    world = _World(uploads, consumers, rules or Rules())
    start = world.start(faults)
    visited = {start}
    path: list[tuple[str, Iterator[tuple[str, State]]]] = [("start", world.successors(start))]
    while path:
        successor = next(path[-1][1], None)
        if successor is None:
            path.pop()
            continue
        step, state = successor
        if state in visited:
            continue
        visited.add(state)
        steps = [name for name, _ in path[1:]] + [step]
        world.check(state, steps)
        path.append((step, world.successors(state)))
    return len(visited)


class _World:
    """The uploads, consumers and rules of one exploration, and what can follow each state."""

    def __init__(self, uploads: Sequence[Upload], consumers: int, rules: Rules) -> None:
        self.uploads = tuple(uploads)
        self.consumers = consumers
        self.rules = rules
        count = 1 + max(upload.partition for upload in uploads)
        self.logs = [[n for n, upload in enumerate(uploads) if upload.partition == p] for p in range(count)]

    def start(self, faults: int) -> State:
        partitions = tuple(Partition(owner=p % self.consumers) for p in range(len(self.logs)))
        nothing: tuple[tuple[Answer, ...], ...] = ((),) * len(self.uploads)
        return State((), partitions, (None,) * self.consumers, nothing, nothing, faults)

    def successors(self, state: State) -> Iterator[tuple[str, State]]:
        for consumer, task in enumerate(state.tasks):
            if task is not None:
                yield from self._step(state, consumer, task)
            else:
                yield from self._poll(state, consumer)
        if state.faults_left:
            yield from self._faults(state)

    def _poll(self, state: State, consumer: int) -> Iterator[tuple[str, State]]:
        for number, partition in enumerate(state.partitions):
            if partition.owner == consumer and partition.committed < len(self.logs[number]):
                task = Task(self.logs[number][partition.committed], partition.epoch)
                yield f"{consumer} polls {task.upload}", self._with_task(state, consumer, task)

    def _step(self, state: State, consumer: int, task: Task) -> Iterator[tuple[str, State]]:
        name = f"{consumer} {('looks up', 'appends', 'compares', 'publishes')[task.stage]} {task.upload}"
        if task.stage == PUBLISH:
            yield from self._publish(name, state, consumer, task)
        else:
            act = (self._look_up, self._append, self._compare)[task.stage]
            yield name, act(state, consumer, task)

    def _look_up(self, state: State, consumer: int, task: Task) -> State:
        known = self._holder(state, task.upload)
        if known is not None and known != task.upload:
            return self._decide(state, consumer, task, Answer("exact", known))
        if not self.rules.append_before_compare:
            near = self._earliest(state.stream, task.upload)
            return self._with_task(state, consumer, task._replace(stage=APPEND, answer=near))
        return self._with_task(state, consumer, task._replace(stage=APPEND))

    def _append(self, state: State, consumer: int, task: Task) -> State:
        known = self._holder(state, task.upload)
        if self.rules.atomic_exact and known is not None and known != task.upload:
            return self._decide(state, consumer, task, Answer("exact", known))
        if task.upload not in state.stream or not self.rules.append_once:
            state = state._replace(stream=(*state.stream, task.upload))
        if task.answer is not None:
            return self._decide(state, consumer, task, task.answer)
        return self._with_task(state, consumer, task._replace(stage=COMPARE))

    def _compare(self, state: State, consumer: int, task: Task) -> State:
        records = state.stream
        if self.rules.only_earlier_records:
            own = len(records) - 1 - records[::-1].index(task.upload)
            records = records[:own]
        else:
            records = tuple(record for record in records if record != task.upload)
        return self._decide(state, consumer, task, self._earliest(records, task.upload))

    def _publish(self, name: str, state: State, consumer: int, task: Task) -> Iterator[tuple[str, State]]:
        assert task.answer is not None
        number = self.uploads[task.upload].partition
        partition = state.partitions[number]
        done = self._with_task(state, consumer, None)
        if partition.epoch != task.epoch and self.rules.fence:
            yield f"{name}, refused", done
            return
        published = done._replace(published=_add(state.published, task.upload, task.answer))
        after = self.logs[number].index(task.upload) + 1
        committed = partition._replace(committed=max(after, partition.committed))
        yield name, published._replace(partitions=_put(state.partitions, number, committed))
        if not self.rules.commit_with_verdict and state.faults_left:
            yield f"{name}, crashes before the commit", published._replace(faults_left=state.faults_left - 1)

    def _faults(self, state: State) -> Iterator[tuple[str, State]]:
        fewer = state._replace(faults_left=state.faults_left - 1)
        for consumer, task in enumerate(state.tasks):
            if task is not None:
                yield f"{consumer} crashes", self._with_task(fewer, consumer, None)
        for number, partition in enumerate(state.partitions):
            for heir in range(self.consumers):
                if heir != partition.owner:
                    taken = Partition(heir, partition.epoch + 1, partition.committed)
                    yield (
                        f"{heir} takes partition {number}",
                        fewer._replace(partitions=_put(state.partitions, number, taken)),
                    )

    def check(self, state: State, steps: list[str]) -> None:
        """Raise Violation unless every invariant that can be judged in this state holds."""
        for upload, answers in enumerate(state.answers):
            if len(set(answers)) > 1:
                self._fail(f"upload {upload} is decided in two ways: {answers}", steps)
            if any(answer.match == upload for answer in answers):
                self._fail(f"upload {upload} matches itself", steps)
        for upload, answers in enumerate(state.published):
            if len(answers) > 1:
                self._fail(f"upload {upload} has {len(answers)} verdicts", steps)
        if any(p.committed < len(log) for p, log in zip(state.partitions, self.logs, strict=True)):
            return
        missing = [upload for upload, answers in enumerate(state.published) if not answers]
        if missing:
            self._fail(f"uploads {missing} have no verdict", steps)
        for picture in {upload.picture for upload in self.uploads}:
            copies = [n for n, upload in enumerate(self.uploads) if upload.picture == picture]
            unique = [n for n in copies if state.published[n][0].match is None]
            first = next(n for n in state.stream if n in copies)
            if unique != [first]:
                self._fail(f"of the copies {copies}, {unique} are unique, and {first} came first", steps)

    def _fail(self, what: str, steps: list[str]) -> None:
        raise Violation(f"{what}\nuploads: {self.uploads}\nsteps: {'; '.join(steps)}")

    def _holder(self, state: State, upload: int) -> int | None:
        """Return the upload that the map of contents, which stands beside the stream, has for this upload's content."""
        content = self.uploads[upload].content
        return next((record for record in state.stream if self.uploads[record].content == content), None)

    def _earliest(self, records: tuple[int, ...], upload: int) -> Answer:
        """Compare the upload with these records; the first copy is the match."""
        picture = self.uploads[upload].picture
        match = next((record for record in records if self.uploads[record].picture == picture), None)
        return Answer("unique" if match is None else "near", match)

    def _decide(self, state: State, consumer: int, task: Task, answer: Answer) -> State:
        state = state._replace(answers=_add(state.answers, task.upload, answer))
        return self._with_task(state, consumer, task._replace(stage=PUBLISH, answer=answer))

    def _with_task(self, state: State, consumer: int, task: Task | None) -> State:
        return state._replace(tasks=_put(state.tasks, consumer, task))


def _put(values: tuple[T, ...], index: int, value: T) -> tuple[T, ...]:
    return (*values[:index], value, *values[index + 1 :])


def _add(values: tuple[tuple[Answer, ...], ...], index: int, answer: Answer) -> tuple[tuple[Answer, ...], ...]:
    return _put(values, index, (*values[index], answer))
