"""The pipeline as a member of a consumer group, on real Apache Kafka."""

import threading
from types import SimpleNamespace
from typing import cast
from unittest.mock import MagicMock

from prometheus_client import CollectorRegistry

from consumer.encoder.contract import ModelInfo
from consumer.encoder.triton import TritonEncoder
from consumer.images.fetch import Fetcher
from consumer.kafka.consumer import UploadsConsumer
from consumer.pipeline.poison import PoisonGuard
from consumer.pipeline.runner import Pipeline
from consumer.settings import FetchSettings, PipelineSettings, Settings
from consumer.telemetry.metrics import Metrics
from consumer.window.window import RedisWindow
from tests.kafka.group import Member, new_topics, wait_for
from tests.kafka_cluster import KafkaCluster

MODEL = ModelInfo(name="m", version="1", size=32, dim=4, threshold_l2=0.5, max_batch_size=4, patches=None)


def test_a_pipeline_without_room_waits_for_its_name_too(kafka_cluster: KafkaCluster) -> None:
    topics = new_topics(kafka_cluster)
    kafka = topics.settings.model_copy(update={"instance_id": "same", "group_protocol": "consumer"})
    first = Member(UploadsConsumer(kafka, lambda: None))
    try:
        wait_for(lambda: first.partitions == {0, 1})
        pipeline = Pipeline(
            Settings(kafka=kafka, pipeline=PipelineSettings(shutdown_timeout_s=0.1)),
            Fetcher(FetchSettings()),
            cast(TritonEncoder, SimpleNamespace(info=MODEL)),
            MagicMock(spec=RedisWindow),
            Metrics(CollectorRegistry()),
            cast(PoisonGuard, None),
        )
        pipeline._in_flight = 99
        running = threading.Thread(target=pipeline.run)
        running.start()
        wait_for(lambda: "kafka" in pipeline.progress.waiting_for or not running.is_alive())
        assert "'same'" in pipeline.progress.waiting_for["kafka"]
        assert running.is_alive()
        pipeline.stop()
        running.join()
    finally:
        first.stop()
