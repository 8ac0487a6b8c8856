"""The topic of banks is deleted and made again: consumers follow the new one, though its offsets begin anew."""

from itertools import count
from pathlib import Path

import pytest
from confluent_kafka.admin import AdminClient
from confluent_kafka.cimpl import NewTopic

from consumer.local.pictures import photographs
from consumer.moderation.banks import BankDefined, BankEntry, change_message
from tests.kafka_cluster import KafkaCluster
from tests.processes import until
from tests.service_fixtures import Service, new_service

CHINA = dict(photographs())["china.jpg"]
PATIENCE_S = 120.0


@pytest.mark.timeout(400)
def test_banks_are_those_of_the_topic_that_is_there(
    kafka_cluster: KafkaCluster, redis_server: str, triton: str, tmp_path: Path
) -> None:
    servers, numbers = kafka_cluster.bootstrap_servers, count()

    def banks_of_an_upload(service: Service) -> list[str]:
        name = f"upload {next(numbers)}"
        service.picture(name, CHINA)
        return [hit.bank for hit in service.await_verdict(name).banks]

    def define(service: Service, *banks: str) -> None:
        for bank in banks:
            for change in (BankDefined(bank=bank, kind="block"), BankEntry(bank=bank, entry_id="c", data_base64=CHINA)):
                service.send_message(change_message(service.kafka.banks_topic, change))

    with new_service(servers, redis_server, triton, tmp_path, banks=True) as service:
        service.consumer()
        define(service, "first", "second", "third")
        until(lambda: len(banks_of_an_upload(service)) == 3, PATIENCE_S, "no verdict with hits", 0.2)
        admin = AdminClient({"bootstrap.servers": servers})
        topic = service.kafka.banks_topic
        admin.delete_topics([topic])[topic].result()
        until(lambda: topic not in admin.list_topics().topics, PATIENCE_S, "the topic is still there", 0.2)
        admin.create_topics([NewTopic(topic, 1, 1)])[topic].result()
        define(service, "after")
        until(lambda: banks_of_an_upload(service) == ["after"], PATIENCE_S, "the banks are those of before", 0.5)
