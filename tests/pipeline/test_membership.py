"""The pipeline as a member of a consumer group, on real Apache Kafka."""

import threading
from typing import Any, cast

from prometheus_client import CollectorRegistry

from consumer.kafka.consumer import UploadsConsumer
from consumer.pipeline.progress import InFlight, Progress
from consumer.pipeline.runner import Pipeline, Stage
from consumer.settings import PipelineSettings
from consumer.telemetry.metrics import Metrics
from tests.kafka.group import Member, new_topics, wait_for
from tests.kafka_cluster import KafkaCluster


def test_a_pipeline_without_room_waits_for_its_name_too(kafka_cluster: KafkaCluster) -> None:
    topics = new_topics(kafka_cluster)
    kafka = topics.settings.model_copy(update={"instance_id": "same", "group_protocol": "consumer"})
    first = Member(UploadsConsumer(kafka, lambda: None))
    try:
        wait_for(lambda: first.partitions == {0, 1})
        settings = PipelineSettings(shutdown_timeout_s=0.1, batches_in_flight=1)
        metrics, unused = Metrics(CollectorRegistry()), cast(Any, None)
        progress, in_flight = Progress(metrics), InFlight(settings, metrics)
        in_flight.begin()  # there is no room for another batch
        stage = Stage("look_up", lambda batch: None)
        consumer = UploadsConsumer(kafka, in_flight.drain_revoked, progress.rebalanced)
        pipeline = Pipeline(settings, 4, consumer, unused, [stage], unused, progress, in_flight, metrics)
        running = threading.Thread(target=pipeline.run)
        running.start()
        wait_for(lambda: "kafka" in pipeline.progress.waiting_for or not running.is_alive())
        assert "'same'" in pipeline.progress.waiting_for["kafka"]
        assert running.is_alive()
        pipeline.stop()
        running.join()
        consumer.close()
    finally:
        first.stop()
