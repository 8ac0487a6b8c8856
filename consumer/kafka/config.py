"""The options of every Kafka client here, and the time-outs that they share."""

import logging
from typing import Any

from consumer.settings import KafkaSettings

# How long one call to the brokers may take before the batch is tried again: longer than a leader's failover.
BROKER_TIMEOUT_S = 15.0
# Brokers answer a fetch as soon as there is something; the embedded one lets new records wait for this time to end.
FETCH_WAIT_MS = 20
# A broker that stands still holds a request until then; with the client's own 60 s a whole transaction would be lost.
SOCKET_TIMEOUT_MS = 10_000
# Dead letters carry the original value: the producer's own bound must not be the narrowest on the way.
MAX_MESSAGE_BYTES = 64 << 20
# A stop is not held up by a consumer that hangs in close(): the group's session time-out does the rest.
CLOSE_TIMEOUT_S = 5.0
# In KIP-848, how long brokers wait for a member to give up what is another's. When the answer that asks for it is lost,
# librdkafka (2.15) never does: nobody has the partition until the brokers throw the member out, and it joins anew.
REVOKED_WITHIN_MS = 45_000


def client_options(settings: KafkaSettings) -> dict[str, Any]:
    """What consumer and producer have in common; the client wants only what is set."""
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


def membership_options(settings: KafkaSettings) -> dict[str, Any]:
    """How the consumer takes part in its group."""
    options = {"group.id": settings.group_id, "group.protocol": settings.group_protocol}
    if settings.instance_id:
        options["group.instance.id"] = settings.instance_id
    if settings.group_protocol == "consumer":  # the rest is the brokers' business
        return {**options, "max.poll.interval.ms": REVOKED_WITHIN_MS}
    # A cooperative rebalance has two rounds. A static member killed between them comes back to its share of the first
    # without a second one, and what it had given up is nobody's from then on.
    strategy = "range" if settings.instance_id else "cooperative-sticky"
    return {
        **options,
        "session.timeout.ms": settings.session_timeout_ms,
        "heartbeat.interval.ms": settings.session_timeout_ms // 10,
        "partition.assignment.strategy": strategy,
    }
