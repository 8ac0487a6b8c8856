"""The stages while a dependency is away in mid-batch or a message means harm. Encoder and window are fakes here.

tests/test_service.py tests the stages on real servers, when all is well.
"""

import io
from collections.abc import Iterator
from concurrent.futures import Future
from datetime import UTC, datetime
from hashlib import sha256
from typing import Any, cast

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image
from prometheus_client import CollectorRegistry

from consumer.errors import Unavailable, Unprocessable
from consumer.events import Event, Ignored, ImageUpload, Record
from consumer.images.decode import decode
from consumer.images.fetch import Fetcher
from consumer.images.regions import make_views
from consumer.kafka.leases import Lease
from consumer.pipeline.batch import Batch, Item
from consumer.pipeline.encode import Encode
from consumer.pipeline.ingest import Ingest
from consumer.pipeline.match import Match
from consumer.pipeline.publish import Publish
from consumer.settings import DecodeSettings, FetchSettings, Settings
from consumer.telemetry.metrics import Metrics
from consumer.verification.rerank import Verifier
from consumer.window.records import ExactMatch, Position
from consumer.window.redo_log import RedoLog
from consumer.window.window import RedisWindow
from tests.fakes.encoder import FakeEncoder, FakeEncoderWithFeatures, colours
from tests.fakes.moderation import no_campaigns, no_rejections
from tests.fakes.window import FakeWindow

NOW = datetime(2026, 1, 1, tzinfo=UTC)
AWAY = Unavailable("triton", "away")


class Stages:
    """The stages, on a fake encoder and window."""

    def __init__(self, encoder: FakeEncoder | None = None) -> None:
        self.encoder, self.window = encoder or FakeEncoder(), FakeWindow()
        settings, metrics, model = Settings(), Metrics(CollectorRegistry()), self.encoder.info
        window = cast(RedisWindow, self.window)
        self.ingest = Ingest(settings, model.size, Fetcher(FetchSettings()), window, metrics)
        self.encode = Encode(settings.decode, self.encoder, metrics, self.ingest.read_picture)
        verifier, redo_log, rejections = Verifier(window, model, "balanced"), RedoLog(window), no_rejections(window)
        self.match = Match(model, 5, self.encode, window, verifier, redo_log, rejections, no_campaigns())
        unused = cast(Any, None)
        self.publish = Publish(settings.kafka, model, unused, unused, metrics, unused)

    def begin(self, *uploads: ImageUpload) -> Batch:
        """Make a batch of these uploads, which are fetched already."""
        batch = self.ingest.begin([])
        for offset, upload in enumerate(uploads):
            record = Record("t", 0, offset, None, b"", (), 1)
            item = Item(record, Lease(0, 1), Event(str(offset), upload.image_id, upload.tenant, upload, NOW))
            item.content.fetching = Future()
            item.content.fetching.set_result(upload.data_base64 or b"")
            batch.items.append(item)
        return batch

    def run(self, batch: Batch) -> None:
        self.ingest.run(batch)
        self.encode.run(batch)
        self.match.run(batch)


@pytest.fixture
def stages() -> Iterator[Stages]:
    new = Stages()
    yield new
    new.ingest.close()


@pytest.fixture
def stages_with_features() -> Iterator[Stages]:
    new = Stages(FakeEncoderWithFeatures())
    yield new
    new.ingest.close()


def collage(seed: int) -> bytes:
    """Make a picture of four noisy squares of different colours."""
    rng = np.random.default_rng(seed)
    squares = np.array([[(250, 40, 40), (40, 250, 40)], [(40, 40, 250), (250, 250, 40)]])
    pixels = squares.repeat(24, 0).repeat(24, 1) + rng.integers(-40, 6, (48, 48, 3))
    out = io.BytesIO()
    Image.fromarray(pixels.astype(np.uint8)).save(out, "PNG")
    return out.getvalue()


def within(data: bytes) -> NDArray[np.float32]:
    """Return the vectors that the encoder gives the pictures within a picture."""
    settings = DecodeSettings()
    [views] = make_views([decode(data, FakeEncoderWithFeatures.info.size, settings)], settings.min_detail)
    assert len(views) == 5
    return colours(np.stack([view.pixels for view in views[1:]]))


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


def test_a_batch_with_more_pictures_than_the_model_takes_goes_in_parts(stages: Stages) -> None:
    batch = stages.begin(*(upload(number) for number in range(10)))
    stages.run(batch)
    assert stages.encoder.sizes == [4, 4, 2]
    assert [record.vector is not None for record in stages.window.records] == [True] * 10


def test_only_the_parts_that_failed_are_inferred_again(stages: Stages) -> None:
    batch = stages.begin(*(upload(number) for number in range(6)))
    stages.ingest.run(batch)
    stages.encoder.faults = [None, AWAY]
    stages.encode.run(batch)
    with pytest.raises(Unavailable):
        stages.match.run(batch)
    assert not stages.window.records
    stages.match.run(batch)
    assert stages.encoder.sizes == [4, 2, 2]
    assert len(stages.window.records) == 6


def test_same_bytes_in_a_batch_are_inferred_once(stages: Stages) -> None:
    batch = stages.begin(upload(1), upload(2, data_base64=picture(1)))
    stages.run(batch)
    assert stages.encoder.sizes == [1]
    assert all(record.vector is not None for record in stages.window.records)


def test_what_a_neighbour_is_announced_as_does_not_matter(stages: Stages) -> None:
    batch = stages.begin(
        upload(1, content_type="text/html"), upload(2, data_base64=picture(1), content_type="image/png")
    )
    stages.run(batch)
    first, second = batch.items
    assert first.failure is not None
    assert first.failure.reason == "wrong-content-type"
    assert second.failure is None
    assert second.decision is not None


def exact_copy(stages: Stages, **more: Any) -> Batch:
    """Make a batch of one exact copy, whose original is deleted after it was looked up."""
    batch = stages.begin(upload(1, **more))
    original = ExactMatch("original", Position(1, 1), NOW)
    stages.window.known = {sha256(picture(1)).digest(): original}
    stages.ingest.run(batch)
    stages.encode.run(batch)
    assert not stages.encoder.sizes
    stages.window.known = {}
    return batch


def test_a_copy_whose_original_is_gone_is_encoded_before_it_counts_as_new(stages: Stages) -> None:
    batch = exact_copy(stages)
    stages.encoder.faults = [AWAY]
    with pytest.raises(Unavailable):
        stages.match.run(batch)
    stages.match.run(batch)
    [record] = stages.window.records
    assert record.vector is not None


def test_a_copy_whose_original_is_gone_may_be_unprocessable(stages: Stages) -> None:
    batch = exact_copy(stages, content_type="text/html")
    stages.match.run(batch)
    [item] = batch.items
    assert isinstance(item.failure, Unprocessable)
    assert item.decision is None
    assert not stages.window.records


def test_all_fetches_that_a_store_did_not_answer_are_tried_again_at_once(stages: Stages) -> None:
    batch = stages.begin(*(upload(number) for number in range(3)))
    for item in batch.items:
        item.content.fetching = Future()
        item.content.fetching.set_exception(Unavailable("object-store", "away"))
    with pytest.raises(Unavailable):
        stages.ingest.run(batch)
    stages.run(batch)
    assert len(stages.window.records) == 3


def test_bytes_are_let_go_once_they_are_decoded(stages: Stages) -> None:
    batch = stages.begin(upload(1), upload(2))
    stages.run(batch)
    assert [item.content.data for item in batch.items] == [b"", b""]
    assert all(item.content.fetching is None for item in batch.items)


def test_one_letter_for_a_message_however_many_of_its_uploads_fail(stages: Stages) -> None:
    batch = stages.begin(upload(1), upload(2))
    record = batch.items[0].record
    for item in batch.items:
        item.record, item.failure = record, Unprocessable("not-found", "gone")
    topics = [message.topic for message in stages.publish.messages(batch.items, NOW, {})]
    assert topics == ["image-verdicts", "image-uploads.dlq", "image-verdicts"]


def test_each_upload_gets_what_is_within_it_and_no_other(stages_with_features: Stages) -> None:
    contents = [collage(1), picture(2), collage(3), collage(1), blank()]
    batch = stages_with_features.begin(*(upload(number, data_base64=data) for number, data in enumerate(contents)))
    stages_with_features.ingest.run(batch)
    stages_with_features.encoder.faults = [None, AWAY]
    stages_with_features.encode.run(batch)
    with pytest.raises(Unavailable):
        stages_with_features.match.run(batch)
    stages_with_features.match.run(batch)
    assert stages_with_features.encoder.sizes == [
        4,
        4,
        3,
        4,
    ]
    for data, record in zip(contents, stages_with_features.window.records, strict=True):
        if data in {picture(2), blank()}:
            assert record.region_vectors == ()
            assert (record.vector is None) == (data == blank())
        else:
            np.testing.assert_allclose(record.region_vectors, within(data), atol=1e-6)
    assert all(item.content.decoding is None for item in batch.items)
    assert not batch.requests


def test_a_copy_whose_original_is_gone_is_looked_into(stages_with_features: Stages) -> None:
    batch = stages_with_features.begin(upload(1, data_base64=collage(1)))
    stages_with_features.window.known = {sha256(collage(1)).digest(): ExactMatch("original", Position(1, 1), NOW)}
    stages_with_features.ingest.run(batch)
    stages_with_features.encode.run(batch)
    stages_with_features.window.known = {}
    stages_with_features.match.run(batch)
    assert stages_with_features.encoder.sizes == [4, 1]
    [record] = stages_with_features.window.records
    np.testing.assert_allclose(record.region_vectors, within(collage(1)), atol=1e-6)


def test_what_asks_for_nothing_goes_through_in_silence(stages: Stages) -> None:
    batch = stages.begin(upload(1))
    record = Record("t", 0, 1, None, b"", (), 1)
    batch.items.insert(0, Item(record, Lease(0, 1), Event("e", "nothing", "default", Ignored(), NOW)))
    stages.run(batch)
    [verdict] = stages.publish.messages(batch.items, NOW, {})
    assert verdict.topic == "image-verdicts"
    assert [stored.image_id for stored in stages.window.records] == [batch.items[1].event.image_id]


def test_what_shows_too_little_has_no_vector(stages_with_features: Stages) -> None:
    out = io.BytesIO()
    Image.new("RGB", (48, 48), "red").save(out, "PNG")
    stages_with_features.run(stages_with_features.begin(upload(1, data_base64=out.getvalue()), upload(2)))
    assert [record.vector is None for record in stages_with_features.window.records] == [True, False]
    assert stages_with_features.encoder.sizes == [1]
