"""Real Apache Kafka for the tests: jars from Maven, KRaft brokers on loopback, and ways to hurt them."""

from tests.kafka_cluster.cluster import KafkaCluster
from tests.kafka_cluster.jars import KafkaMissing
from tests.kafka_cluster.security import Security

__all__ = ["KafkaCluster", "KafkaMissing", "Security"]
