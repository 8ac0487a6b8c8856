"""Sends single messages, and tells of each when the brokers have it."""

import threading
from concurrent.futures import Future
from typing import NamedTuple

from confluent_kafka import KafkaError, KafkaException, Message, Producer

from consumer.errors import Unavailable, Unprocessable
from consumer.kafka.config import CLOSE_TIMEOUT_S, MAX_MESSAGE_BYTES, client_options
from consumer.kafka.messages import OutgoingMessage
from consumer.settings import KafkaSettings

# How long the brokers may take; whoever asked for it is waiting.
SEND_TIMEOUT_MS = 10_000
# Messages that wait for the brokers at once.
MAX_WAITING = 10_000
_POLL_S = 0.1


class Sent(NamedTuple):
    """Where a message stands on its topic."""

    partition: int
    offset: int


class Sender:
    """Sends messages of many requests at once. Thread-safe."""

    def __init__(self, settings: KafkaSettings) -> None:
        """Does not connect yet."""
        self._producer = Producer(
            {
                **client_options(settings),
                "message.max.bytes": MAX_MESSAGE_BYTES,
                "message.timeout.ms": SEND_TIMEOUT_MS,
                "queue.buffering.max.messages": MAX_WAITING,
                "linger.ms": 1,
                "enable.idempotence": settings.delivery == "exactly-once",
                "acks": "all",
            }
        )
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._poll, name="sender", daemon=True)
        self._thread.start()

    def send(self, message: OutgoingMessage) -> Future[Sent]:
        """Send a message. The future fails with Unavailable, or with Unprocessable for one that no topic takes."""
        sent: Future[Sent] = Future()
        sent.set_running_or_notify_cancel()

        def delivered(error: KafkaError | None, delivered: Message) -> None:
            if error is None:
                sent.set_result(Sent(delivered.partition() or 0, delivered.offset() or 0))
            else:
                sent.set_exception(_translate(message.topic, error))

        try:
            self._producer.produce(
                message.topic, message.value, message.key, headers=[*message.headers], on_delivery=delivered
            )
        except BufferError:
            sent.set_exception(Unavailable("kafka", f"{MAX_WAITING} messages are waiting for the brokers"))
        except KafkaException as error:
            sent.set_exception(_translate(message.topic, error.args[0]))
        return sent

    def close(self) -> None:
        """Send what waits, for CLOSE_TIMEOUT_S at most."""
        self._stop.set()
        self._thread.join()
        self._producer.flush(CLOSE_TIMEOUT_S)

    def _poll(self) -> None:
        while not self._stop.is_set():
            self._producer.poll(_POLL_S)


def _translate(topic: str, error: KafkaError) -> Exception:
    if error.code() == KafkaError.MSG_SIZE_TOO_LARGE:
        return Unprocessable(
            "too-large", f"The event is larger than the topic {topic!r} takes; give the picture's address instead."
        )
    return Unavailable("kafka", f"topic {topic!r}: {error.str()}")
