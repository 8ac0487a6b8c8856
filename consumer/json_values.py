"""JSON as it stands on topics, and short texts about what is wrong with it."""

import json
from typing import Any

from consumer.errors import Unprocessable

# Serialisers that work with a registry of schemas put a zero byte and the schema's number before the message.
REGISTRY_PREFIX_BYTES = 5
MAX_WRAPPINGS = 3


def load_json(text: bytes | str) -> Any:
    """Parse JSON, and nothing else. Raises Unprocessable."""
    try:
        return json.loads(text)
    except RecursionError:
        raise Unprocessable("malformed-event", "the JSON is nested too deeply") from None
    except ValueError as error:
        raise Unprocessable("malformed-event", f"not JSON: {short(error)}") from None


def parse_json(value: bytes) -> Any:
    """Parse JSON, and take off what serialisers put around it: a schema's number, a schema, a string.

    Raises Unprocessable.
    """
    try:
        document = load_json(value)
    except Unprocessable:
        if value[:1] != b"\0":
            raise
        document = load_json(value[REGISTRY_PREFIX_BYTES:])
    for _ in range(MAX_WRAPPINGS):
        if isinstance(document, str):
            document = load_json(document)
        elif isinstance(document, dict) and document.keys() == {"schema", "payload"}:
            document = document["payload"]
    return document


def parse_json_or_none(data: bytes | str) -> Any:
    """Parse JSON; None for what is none."""
    try:
        return parse_json(data if isinstance(data, bytes) else data.encode("utf-8", "surrogatepass"))
    except Unprocessable:
        return None


def short(error: BaseException) -> str:
    """Name an error and its message, which may quote the event, at bounded length."""
    return cut(f"{type(error).__name__}: {error}")


def cut(text: str, length: int = 200) -> str:
    """Return a text fit to be sent on as UTF-8, of bounded length."""
    text = text.encode("utf-8", "backslashreplace").decode()
    return text if len(text) <= length else f"{text[:length]}…"
