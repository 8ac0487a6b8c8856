"""Notifications of SeaweedFS's filer: which file of which bucket was written, removed or renamed.

The key is the path, the value an `EventNotification` of SeaweedFS's `filer.proto`. Of that message little is needed, so
that it is read field by field.
"""

from consumer.notifications import Change

BUCKETS = "/buckets/"
# Fields of EventNotification and of Entry.
OLD_ENTRY, NEW_ENTRY, NEW_PARENT_PATH = 1, 2, 4
NAME, IS_DIRECTORY, CHUNKS, CONTENT = 1, 2, 3, 9
# Wire types of protocol buffers.
VARINT, FIXED64, LENGTH_DELIMITED, FIXED32 = 0, 1, 2, 5

Fields = dict[int, list[bytes | int]]


def read_filer_event(path: str, value: bytes) -> list[Change]:
    """Read what happened to the file at `path`; nothing for folders, parts of uploads, and changes of attributes alone.

    Raises ValueError for bytes that are no such message.
    """
    event = _fields(value)
    old, new = (_entry(event, field) for field in (OLD_ENTRY, NEW_ENTRY))
    if not old and not new:
        raise ValueError("a message of SeaweedFS's filer has an entry")
    if any(entry.get(IS_DIRECTORY) == [1] for entry in (old, new)):
        return []
    removed = _address(path) if old else None
    created = _address(f"{_text(event, NEW_PARENT_PATH)}/{_text(new, NAME)}") if new else None
    if created == removed:
        same_content = all(old.get(field) == new.get(field) for field in (CHUNKS, CONTENT))
        removed, created = None, None if same_content else created
    changes = [Change("removed", removed, None, None, ())] if removed else []
    return changes + ([Change("created", created, None, None, ())] if created else [])


def _address(path: str) -> str | None:
    """The address of the object at a path; None outside of buckets, and for what the S3 gateway keeps for itself."""
    bucket, _, key = path.removeprefix(BUCKETS).partition("/")
    if not path.startswith(BUCKETS) or not key or key.startswith(".uploads/"):
        return None
    return f"s3://{bucket}/{key}"


def _entry(event: Fields, field: int) -> Fields:
    return _group(event[field][-1]) if field in event else {}


def _group(message: bytes | int) -> Fields:
    if not isinstance(message, bytes):
        raise ValueError("an entry is a message of its own")
    return _fields(message)


def _text(fields: Fields, field: int) -> str:
    value = fields.get(field, [b""])[-1]
    if not isinstance(value, bytes):
        raise ValueError("a name is a text")
    return value.decode()


def _fields(message: bytes) -> Fields:
    """Read the fields of a message, each with its values in order. Raises ValueError."""
    fields: Fields = {}
    offset = 0
    while offset < len(message):
        tag, offset = _varint(message, offset)
        value: bytes | int
        if tag & 7 == VARINT:
            value, offset = _varint(message, offset)
        else:
            if tag & 7 == LENGTH_DELIMITED:
                length, offset = _varint(message, offset)
            else:
                length = {FIXED64: 8, FIXED32: 4}.get(tag & 7, len(message))
            value, offset = message[offset : offset + length], offset + length
        if offset > len(message):
            raise ValueError("the message is cut short")
        fields.setdefault(tag >> 3, []).append(value)
    return fields


def _varint(message: bytes, offset: int) -> tuple[int, int]:
    """Read a number of variable length; return it and where it ends."""
    number = 0
    for count, byte in enumerate(message[offset : offset + 10]):
        number |= (byte & 127) << 7 * count
        if byte < 128:
            return number, offset + count + 1
    raise ValueError("a number without end")
