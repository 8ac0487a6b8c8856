"""The steps where a dependency is away in mid-batch or a message is made to harm. Triton and Redis are played here.

What they do when all is well is held on real servers in tests/integration/test_service.py.
"""

import io
from collections.abc import Iterator, Sequence
from concurrent.futures import Future
from datetime import UTC, datetime
from hashlib import sha256
from types import SimpleNamespace
from typing import Any, cast

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image
from prometheus_client import CollectorRegistry

from consumer.encode import Encoded, Encoder, ModelInfo
from consumer.errors import Unavailable, Unprocessable
from consumer.events import Event, ImageUpload, Record
from consumer.fetch import Fetcher
from consumer.kafka import Lease, UploadsConsumer
from consumer.metrics import Metrics
from consumer.recent import Earlier, NewRow, Placed, Position, RecentWindow
from consumer.settings import FetchSettings, Settings
from consumer.steps import Batch, Item, Steps

NOW = datetime(2026, 1, 1, tzinfo=UTC)
AWAY = Unavailable("triton", "away")


class PlayedEncoder:
    """Gives random vectors; raises what stands in `faults`, one for each request."""

    info = ModelInfo(name="m", version="1", size=32, dim=4, threshold_l2=0.5, max_batch_size=4, patches=None)

    def __init__(self) -> None:
        self.faults: list[Exception | None] = []
        self.sizes: list[int] = []

    def submit(self, pixels: NDArray[np.uint8]) -> Future[Encoded]:
        self.sizes.append(len(pixels))
        future: Future[Encoded] = Future()
        fault = self.faults.pop(0) if self.faults else None
        if len(pixels) > self.info.max_batch_size:
            fault = ValueError("too many at once")
        if fault is not None:
            future.set_exception(fault)
        else:
            future.set_result(Encoded(np.eye(4, dtype=np.float32)[np.arange(len(pixels)) % 4], None))
        return future


class PlayedWindow:
    """Remembers what is appended; says of every content in `known` that it stands before."""

    guard = SimpleNamespace(rebuilds=False)

    def __init__(self) -> None:
        self.known: dict[bytes, Earlier] = {}
        self.rows: list[NewRow] = []

    def exact(self, uploads: Sequence[tuple[str, str, bytes, datetime]]) -> list[Earlier | None]:
        return [self.known.get(digest) for _, _, digest, _ in uploads]

    def add(self, rows: Sequence[NewRow]) -> list[Placed]:
        self.rows += rows
        return [Placed(Position(1, len(self.rows))) for _ in rows]


class Play:
    """Steps on a played encoder and window."""

    def __init__(self) -> None:
        self.encoder, self.window = PlayedEncoder(), PlayedWindow()
        consumer = SimpleNamespace(raw=None)
        fetcher = Fetcher(FetchSettings())
        metrics = Metrics(CollectorRegistry())
        self.steps = Steps(
            Settings(),
            fetcher,
            cast(Encoder, self.encoder),
            cast(RecentWindow, self.window),
            metrics,
            cast(UploadsConsumer, consumer),
        )

    def begin(self, *uploads: ImageUpload) -> Batch:
        batch = self.steps.begin([])
        for offset, upload in enumerate(uploads):
            record = Record("t", 0, offset, None, b"", (), 1)
            item = Item(record, Lease(0, 1), Event(str(offset), upload.image_id, upload.tenant, upload, NOW))
            item.fetching = Future()
            item.fetching.set_result(upload.data_base64 or b"")
            batch.items.append(item)
        return batch

    def run(self, batch: Batch) -> None:
        self.steps.look_up(batch)
        self.steps.encode(batch)
        self.steps.match(batch)


@pytest.fixture
def play() -> Iterator[Play]:
    new = Play()
    yield new
    new.steps.close()


def picture(seed: int) -> bytes:
    out = io.BytesIO()
    Image.fromarray(np.random.default_rng(seed).integers(0, 256, (48, 48, 3), np.uint8)).save(out, "PNG")
    return out.getvalue()


def upload(number: int, **more: Any) -> ImageUpload:
    return ImageUpload(image_id=f"image {number}", **{"data_base64": picture(number), **more})


def test_a_batch_with_more_pictures_than_the_model_takes_goes_in_parts(play: Play) -> None:
    batch = play.begin(*(upload(number) for number in range(10)))
    play.run(batch)
    assert play.encoder.sizes == [4, 4, 2]
    assert [row.vector is not None for row in play.window.rows] == [True] * 10


def test_only_the_parts_that_failed_are_inferred_again(play: Play) -> None:
    batch = play.begin(*(upload(number) for number in range(6)))
    play.steps.look_up(batch)
    play.encoder.faults = [None, AWAY]
    play.steps.encode(batch)
    with pytest.raises(Unavailable):
        play.steps.match(batch)
    assert not play.window.rows
    play.steps.match(batch)
    assert play.encoder.sizes == [4, 2, 2]
    assert len(play.window.rows) == 6


def test_same_bytes_in_a_batch_are_inferred_once(play: Play) -> None:
    batch = play.begin(upload(1), upload(2, data_base64=picture(1)))
    play.run(batch)
    assert play.encoder.sizes == [1]
    assert all(row.vector is not None for row in play.window.rows)


def test_what_a_neighbour_is_announced_as_does_not_matter(play: Play) -> None:
    batch = play.begin(upload(1, content_type="text/html"), upload(2, data_base64=picture(1), content_type="image/png"))
    play.run(batch)
    first, second = batch.items
    assert first.failure is not None
    assert first.failure.reason == "wrong-content-type"
    assert second.failure is None
    assert second.decision is not None


def exact_copy(play: Play, **more: Any) -> Batch:
    """A batch of one exact copy, whose original is deleted after it was looked up."""
    batch = play.begin(upload(1, **more))
    original = Earlier("original", Position(1, 1), NOW)
    play.window.known = {sha256(picture(1)).digest(): original}
    play.steps.look_up(batch)
    play.steps.encode(batch)
    assert not play.encoder.sizes
    play.window.known = {}
    return batch


def test_a_copy_whose_original_is_gone_is_encoded_before_it_counts_as_new(play: Play) -> None:
    batch = exact_copy(play)
    play.encoder.faults = [AWAY]
    with pytest.raises(Unavailable):
        play.steps.match(batch)
    play.steps.match(batch)
    [row] = play.window.rows
    assert row.vector is not None


def test_a_copy_whose_original_is_gone_may_be_unprocessable(play: Play) -> None:
    batch = exact_copy(play, content_type="text/html")
    play.steps.match(batch)
    [item] = batch.items
    assert isinstance(item.failure, Unprocessable)
    assert item.decision is None
    assert not play.window.rows


def test_all_fetches_that_a_store_did_not_answer_are_tried_again_at_once(play: Play) -> None:
    batch = play.begin(*(upload(number) for number in range(3)))
    for item in batch.items:
        item.fetching = Future()
        item.fetching.set_exception(Unavailable("object-store", "away"))
    with pytest.raises(Unavailable):
        play.steps.look_up(batch)
    play.run(batch)
    assert len(play.window.rows) == 3


def test_bytes_are_let_go_once_they_are_decoded(play: Play) -> None:
    batch = play.begin(upload(1), upload(2))
    play.run(batch)
    assert [item.data for item in batch.items] == [b"", b""]
    assert all(item.fetching is None for item in batch.items)


def test_one_letter_for_a_message_however_many_of_its_uploads_fail(play: Play) -> None:
    batch = play.begin(upload(1), upload(2))
    record = batch.items[0].record
    for item in batch.items:
        item.record, item.failure = record, Unprocessable("not-found", "gone")
    topics = [message.topic for message in play.steps._messages(batch.items, NOW)]
    assert topics == ["image-verdicts", "image-uploads.dlq", "image-verdicts"]
