"""The service's stages on a real window and the real encoder, in one process, without Kafka and Triton."""

from concurrent.futures import Future
from datetime import UTC, datetime
from typing import Any, cast

import numpy as np
import onnxruntime
from google.protobuf import text_format
from numpy.typing import NDArray
from prometheus_client import CollectorRegistry
from redis import Redis
from tritonclient.grpc.model_config_pb2 import ModelConfig

from consumer.encoder.contract import Encoded, Strictness
from consumer.encoder.model_config import read_model_info
from consumer.events import Event, ImageUpload, Record
from consumer.images.fetch import Fetcher
from consumer.kafka.leases import Lease
from consumer.local.servers import MODEL, REPOSITORY
from consumer.moderation.campaigns import Campaigns
from consumer.pipeline.batch import Item
from consumer.pipeline.encode import Encode
from consumer.pipeline.ingest import Ingest
from consumer.pipeline.match import Match
from consumer.pipeline.publish import Publish
from consumer.settings import FetchSettings, Settings
from consumer.telemetry.metrics import Metrics
from consumer.verdicts import Verdict
from consumer.verification.rerank import Verifier
from consumer.window.redo_log import RedoLog
from consumer.window.window import RedisWindow
from tests.fakes.moderation import no_rejections
from tests.stack_fixtures import served_graph

OUTPUTS = ("embeddings", "patches")


class OnnxEncoder:
    """The encoder that Triton serves, run by ONNX Runtime."""

    def __init__(self) -> None:
        config = (REPOSITORY / MODEL / "configs" / "cpu.pbtxt").read_text()
        self.info = read_model_info(text_format.Parse(config, ModelConfig()))
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = 1
        self._session = onnxruntime.InferenceSession(str(served_graph()), options, providers=["CPUExecutionProvider"])

    def submit(self, pixels: NDArray[np.uint8]) -> Future[Encoded]:
        """Encode uint8 [N, S, S, 3]."""
        future: Future[Encoded] = Future()
        future.set_result(Encoded(*self._session.run(OUTPUTS, {"images": pixels})))
        return future

    def check(self) -> None:
        """Nothing can be away."""


class OnnxStages:
    """Decides on uploads one by one, as the service does. Its window is the one under `prefix` in Redis."""

    def __init__(self, redis: Redis, prefix: str, encoder: OnnxEncoder, strictness: Strictness = "balanced") -> None:
        settings, metrics, model = Settings(), Metrics(CollectorRegistry()), encoder.info
        window = RedisWindow(redis, model, settings.window, prefix)
        unused = cast(Any, None)
        self._ingest = Ingest(settings, model.size, Fetcher(FetchSettings()), window, metrics)
        self._encode = Encode(settings.decode, encoder, metrics, self._ingest.read_picture)
        verifier, redo_log = Verifier(window, model, strictness), RedoLog(window)
        rejections, campaigns = no_rejections(window), Campaigns(window, verifier, settings.campaigns)
        others, encode = settings.window.others, self._encode
        self._match = Match(model, others, encode, window, verifier, redo_log, rejections, campaigns)
        self._publish = Publish(settings.kafka, model, unused, unused, metrics, unused)
        self._count = 0

    def upload(self, image_id: str, data: bytes, tenant: str = "default") -> Verdict:
        """Decide on one upload."""
        now = datetime.now(UTC)
        upload = ImageUpload(image_id=image_id, tenant=tenant, data_base64=data)
        batch = self._ingest.begin([])
        record = Record("t", 0, self._count, None, b"", (), 1)
        item = Item(record, Lease(0, self._count), Event(str(self._count), image_id, tenant, upload, now))
        item.content.fetching = Future()
        item.content.fetching.set_result(data)
        batch.items.append(item)
        self._count += 1
        for stage in (self._ingest, self._encode, self._match):
            stage.run(batch)
        [message, *_] = self._publish.messages(batch.items, now, {})
        return Verdict.model_validate_json(cast(bytes, message.value))

    def close(self) -> None:
        """End its threads."""
        self._ingest.close()
