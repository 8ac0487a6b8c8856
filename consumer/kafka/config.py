"""The options of the Kafka clients, and the time-outs that they share."""

import logging
from typing import Any

from consumer.settings import KafkaSettings

# Limit of one call to the brokers, after which the batch is tried again: longer than a leader's failover.
BROKER_TIMEOUT_S = 15.0
# A probe has to answer before the one who probes gives up, usually after some seconds.
CHECK_TIMEOUT_S = 2.0
# Brokers answer a fetch as soon as there is something; the embedded one holds new records back until this time is over.
FETCH_WAIT_MS = 20
# A broker that stands still holds a request for this long; the client's default, 60 s, would lose a whole transaction.
SOCKET_TIMEOUT_MS = 10_000
# The client's pause before it repeats a request of a transaction that got no answer. It draws up to a fifth less, and
# takes 500 ms for TxnOffsetCommit, whatever this says. So what is answered within SENT_ONCE_S was sent once.
RETRY_PAUSE_MS = 500
SENT_ONCE_S = 0.8 * RETRY_PAUSE_MS / 1000
# Brokers refuse a transaction while they write the last one's markers. The client tries again after 20 ms where the new
# one begins with a message, but after RETRY_PAUSE_MS where it begins with offsets.
MARKERS_S = 0.02
# Dead letters carry the original value: the producer's limit must not be the smallest on the way.
MAX_MESSAGE_BYTES = 64 << 20
# A consumer that hangs in close() delays a stop by this much at most: the group's session time-out does the rest.
CLOSE_TIMEOUT_S = 5.0
# In KIP-848, how long brokers wait for a member to give up a partition that goes to another. When the answer that asks
# for it is lost, librdkafka (2.15) never gives it up: nobody has the partition until the brokers remove the member, and
# it joins again.
REVOKED_WITHIN_MS = 45_000
# In KIP-848, how often the client says whether its coordinator answers.
STATISTICS_EVERY_MS = 2_000
# In a classic group, how long the client waits for the answer to its joining. When the connection dies without a word
# meanwhile, it knows only then; with the client's default, 300 s, nobody would have its partitions for so long.
JOINED_WITHIN_MS = 45_000


def client_options(settings: KafkaSettings) -> dict[str, Any]:
    """Options that every client has in common; empty settings are left out, for the client refuses them."""
    options = {
        "bootstrap.servers": settings.bootstrap_servers,
        "security.protocol": settings.security_protocol,
        "sasl.mechanism": settings.sasl_mechanism,
        "sasl.username": settings.sasl_username,
        "sasl.password": settings.sasl_password.get_secret_value(),
        "ssl.ca.location": settings.ssl_ca_file,
        "socket.timeout.ms": SOCKET_TIMEOUT_MS,
        "reconnect.backoff.max.ms": 2_000,
        "logger": logging.getLogger("kafka.client"),
    }
    return {name: value for name, value in options.items() if value != ""}


def consumer_options(settings: KafkaSettings) -> dict[str, Any]:
    """Options of the consumer that reads the input topic as a member of the group."""
    return {
        **client_options(settings),
        **_membership_options(settings),
        "isolation.level": "read_committed",
        "auto.offset.reset": "earliest",
        "fetch.wait.max.ms": FETCH_WAIT_MS,
        "enable.auto.commit": False,
        "enable.auto.offset.store": False,
    }


def _membership_options(settings: KafkaSettings) -> dict[str, Any]:
    options = {"group.id": settings.group_id, "group.protocol": settings.group_protocol}
    if settings.instance_id:
        options["group.instance.id"] = settings.instance_id
    if settings.group_protocol == "consumer":  # the brokers set the rest
        return {
            **options,
            "max.poll.interval.ms": REVOKED_WITHIN_MS,
            "statistics.interval.ms": STATISTICS_EVERY_MS,
        }
    # A cooperative rebalance has two rounds. A static member killed between them returns to its share of the first
    # round without a second one, and nobody has the partitions that it had given up from then on.
    strategy = "range" if settings.instance_id else "cooperative-sticky"
    return {
        **options,
        "session.timeout.ms": settings.session_timeout_ms,
        "max.poll.interval.ms": max(JOINED_WITHIN_MS, settings.session_timeout_ms),
        "heartbeat.interval.ms": settings.session_timeout_ms // 10,
        "partition.assignment.strategy": strategy,
    }
