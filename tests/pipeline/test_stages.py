"""The steps where a dependency is away in mid-batch or a message is made to harm. Triton and Redis are played here.

What they do when all is well is held on real servers in tests/test_service.py.
"""

import io
from collections.abc import Iterator, Sequence
from concurrent.futures import Future
from dataclasses import replace
from datetime import UTC, datetime
from hashlib import sha256
from types import SimpleNamespace
from typing import Any, cast

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image
from prometheus_client import CollectorRegistry

from consumer.encoder.contract import Encoded, ModelInfo, VerificationRule
from consumer.encoder.triton import TritonEncoder
from consumer.errors import Unavailable, Unprocessable
from consumer.events import Event, ImageUpload, Record
from consumer.images.decode import decode
from consumer.images.fetch import Fetcher
from consumer.images.regions import make_views
from consumer.kafka.consumer import UploadsConsumer
from consumer.kafka.leases import Lease
from consumer.pipeline.steps import Batch, Item, Steps
from consumer.settings import DecodeSettings, FetchSettings, Settings
from consumer.telemetry.metrics import Metrics
from consumer.window.records import AppendResult, ExactMatch, NewRecord, Position
from consumer.window.window import RedisWindow

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


class SeeingEncoder(PlayedEncoder):
    """Its vectors tell the mean colour of each picture, and it has a second look."""

    info = replace(PlayedEncoder.info, patches=(2, 3), verification_rule=VerificationRule(1.0, 0.3, 0.5))

    def submit(self, pixels: NDArray[np.uint8]) -> Future[Encoded]:
        future = super().submit(pixels)
        if future.exception() is None:
            future = Future()
            future.set_result(Encoded(colours(pixels), np.ones((len(pixels), 2, 3), np.int8)))
        return future


def colours(pixels: NDArray[np.uint8]) -> NDArray[np.float32]:
    means = np.concatenate([pixels.mean(axis=(1, 2)), np.full((len(pixels), 1), 40.0)], axis=1)
    return (means / np.linalg.norm(means, axis=1, keepdims=True)).astype(np.float32)


class PlayedWindow:
    """Remembers what is appended; says of every content in `known` that it stands before."""

    loss_guard = SimpleNamespace(recovers=False)

    def __init__(self) -> None:
        self.known: dict[bytes, ExactMatch] = {}
        self.rows: list[NewRecord] = []

    def find_exact(self, uploads: Sequence[tuple[str, str, bytes, datetime]]) -> list[ExactMatch | None]:
        return [self.known.get(digest) for _, _, digest, _ in uploads]

    def append(self, rows: Sequence[NewRecord]) -> list[AppendResult]:
        self.rows += rows
        return [
            AppendResult(Position(1, len(self.rows)), region_matches=((),) * len(row.region_vectors)) for row in rows
        ]

    def read_patches(self, rows: Sequence[tuple[str, Position]]) -> list[bytes | None]:
        return [None] * len(rows)


class Play:
    """Steps on a played encoder and window."""

    def __init__(self, encoder: PlayedEncoder | None = None) -> None:
        self.encoder, self.window = encoder or PlayedEncoder(), PlayedWindow()

        consumer = SimpleNamespace(raw=None)
        fetcher = Fetcher(FetchSettings())
        metrics = Metrics(CollectorRegistry())
        self.steps = Steps(
            Settings(),
            fetcher,
            cast(TritonEncoder, self.encoder),
            cast(RedisWindow, self.window),
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


@pytest.fixture
def seeing() -> Iterator[Play]:
    new = Play(SeeingEncoder())
    yield new
    new.steps.close()


def collage(seed: int) -> bytes:
    """Four noisy squares of different colours."""
    rng = np.random.default_rng(seed)
    squares = np.array([[(250, 40, 40), (40, 250, 40)], [(40, 40, 250), (250, 250, 40)]])
    pixels = squares.repeat(24, 0).repeat(24, 1) + rng.integers(-40, 6, (48, 48, 3))
    out = io.BytesIO()
    Image.fromarray(pixels.astype(np.uint8)).save(out, "PNG")
    return out.getvalue()


def within(data: bytes) -> NDArray[np.float32]:
    """The vectors of the pictures within a picture, as the encoder tells them."""
    settings = DecodeSettings()
    [seen] = make_views([decode(data, SeeingEncoder.info.size, settings).pixels], settings.min_detail)
    assert len(seen) == 5
    return colours(np.stack([view.pixels for view in seen[1:]]))


def picture(seed: int) -> bytes:
    out = io.BytesIO()
    Image.fromarray(np.random.default_rng(seed).integers(0, 256, (48, 48, 3), np.uint8)).save(out, "PNG")
    return out.getvalue()


def blank() -> bytes:
    out = io.BytesIO()
    Image.new("RGB", (48, 48), (200, 200, 200)).save(out, "PNG")
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
    original = ExactMatch("original", Position(1, 1), NOW)
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


def test_each_upload_gets_what_is_within_it_and_no_other(seeing: Play) -> None:
    contents = [collage(1), picture(2), collage(3), collage(1), blank()]
    batch = seeing.begin(*(upload(number, data_base64=data) for number, data in enumerate(contents)))
    seeing.steps.look_up(batch)
    seeing.encoder.faults = [None, AWAY]
    seeing.steps.encode(batch)
    with pytest.raises(Unavailable):
        seeing.steps.match(batch)
    seeing.steps.match(batch)
    assert seeing.encoder.sizes == [4, 4, 3, 4]  # eleven views, the same bytes once; the second request again
    for data, row in zip(contents, seeing.window.rows, strict=True):
        if data in {picture(2), blank()}:
            assert row.region_vectors == ()
            assert (row.vector is None) == (data == blank())
        else:
            np.testing.assert_allclose(row.region_vectors, within(data), atol=1e-6)
    assert all(item.decoding is None for item in batch.items)
    assert not batch.views


def test_a_copy_whose_original_is_gone_is_looked_into(seeing: Play) -> None:
    batch = seeing.begin(upload(1, data_base64=collage(1)))
    seeing.window.known = {sha256(collage(1)).digest(): ExactMatch("original", Position(1, 1), NOW)}
    seeing.steps.look_up(batch)
    seeing.steps.encode(batch)
    seeing.window.known = {}
    seeing.steps.match(batch)
    assert seeing.encoder.sizes == [4, 1]
    [row] = seeing.window.rows
    np.testing.assert_allclose(row.region_vectors, within(collage(1)), atol=1e-6)


def test_what_shows_too_little_has_no_vector(seeing: Play) -> None:
    out = io.BytesIO()
    Image.new("RGB", (48, 48), "red").save(out, "PNG")
    seeing.run(seeing.begin(upload(1, data_base64=out.getvalue()), upload(2)))
    assert [row.vector is None for row in seeing.window.rows] == [True, False]
    assert seeing.encoder.sizes == [1]
