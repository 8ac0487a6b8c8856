"""Dead letters: messages that could not be processed, unchanged, with the reason added as headers."""

from consumer.errors import Unprocessable
from consumer.events import Record
from consumer.kafka.messages import OutgoingMessage


def dead_letter(record: Record, error: Unprocessable, image_id: str, topic: str) -> OutgoingMessage:
    """Make a dead letter of a record: the original message unchanged, with the reason and its position as headers.

    The letter is larger than the original, which may have been as large as the input topic takes.
    """
    explanation = {
        "seenit-reason": error.reason,
        "seenit-detail": error.detail,
        "seenit-image-id": image_id,
        "seenit-topic": record.topic,
        "seenit-partition": str(record.partition),
        "seenit-offset": str(record.offset),
    }
    added = tuple((name, text.encode("utf-8", "backslashreplace")) for name, text in explanation.items())
    return OutgoingMessage(topic, record.key, record.value, (*record.headers, *added), may_shrink=True, added=added)
