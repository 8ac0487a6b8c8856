"""Dead letters: messages that could not be processed, as they came, with what was wrong with them."""

from consumer.errors import Unprocessable
from consumer.events import Record
from consumer.kafka.messages import OutgoingMessage


def dead_letter(record: Record, error: Unprocessable, image_id: str, topic: str) -> OutgoingMessage:
    """The original message unchanged, with what was wrong and where it stood as further headers.

    It is larger than the original, which may have been as large as the input topic takes.
    """
    about = {
        "seenit-reason": error.reason,
        "seenit-detail": error.detail,
        "seenit-image-id": image_id,
        "seenit-topic": record.topic,
        "seenit-partition": str(record.partition),
        "seenit-offset": str(record.offset),
    }
    added = tuple((name, text.encode("utf-8", "backslashreplace")) for name, text in about.items())
    return OutgoingMessage(topic, record.key, record.value, (*record.headers, *added), may_shrink=True)
