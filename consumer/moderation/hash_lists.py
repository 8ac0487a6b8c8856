"""Lists of PDQ hashes as exchanges of hashes hand them on, read and written.

Three forms are read, told apart by what they begin with: the CSV that `threatexchange dataset -P --csv` prints; JSON of
records, alone or within `hashRecords` as StopNCII answers; and lines with a hash, perhaps behind the word `pdq`.
"""

import csv
import io
import json
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import Any, TextIO

from consumer.errors import Misconfigured
from consumer.json_values import cut

COLUMNS = ("collab", "signal_type", "signal_str", "category", "tags")
# What the kinds of signals are called that are PDQ hashes of pictures, and fields of records that hold these.
PDQ_TYPES = {"pdq", "imagepdq", "hash_pdq"}
TYPE_FIELDS = ("signal_type", "signalType", "type")
HASH_FIELDS = ("signal_str", "hashValue", "indicator", "value", "pdq")
STATUS_FIELDS = ("hashStatus", "status", "category")
WITHDRAWN = {"withdrawn", "deleted", "negative_class"}
_PDQ = re.compile(r"[0-9a-fA-F]{64}")


@dataclass(frozen=True, slots=True)
class ListedHash:
    """A hash of a list; one that is `withdrawn` there is no entry any more."""

    pdq: str
    labels: dict[str, str] = field(default_factory=dict)
    withdrawn: bool = False


def read_hashes(text: str) -> Iterator[ListedHash | None]:
    """Yield the hashes of a list, and None for each line or record that is none of PDQ.

    Raises Misconfigured for what is no such list.
    """
    start = text.lstrip()[:1]
    if start in ("[", "{"):
        yield from map(_of_record, _records(text))
    elif "signal_str" in text.partition("\n")[0]:
        yield from map(_of_record, csv.DictReader(io.StringIO(text)))
    else:
        for line in text.splitlines():
            kind, _, value = line.strip().rpartition(" ")
            if line.strip():
                yield _of_record({"signal_type": kind or "pdq", "signal_str": value})


def write_hashes(file: TextIO, name: str, hashes: Iterable[tuple[str, dict[str, str]]]) -> int:
    """Write hashes with their labels as CSV, as a collaboration of this name. Returns how many these are."""
    writer = csv.writer(file)
    writer.writerow(COLUMNS)
    rows = []
    for pdq, labels in hashes:
        tags = " ".join(f"{label}={value}".replace(" ", "_") for label, value in labels.items())
        rows.append((name, "pdq", pdq, "POSITIVE_CLASS", tags))
    writer.writerows(rows)
    return len(rows)


def _records(text: str) -> list[Any]:
    """Read the records of a JSON document, or of one a line."""
    try:
        document = json.loads(text)
    except ValueError:
        try:
            document = [json.loads(line) for line in text.splitlines() if line.strip()]
        except ValueError as error:
            raise Misconfigured(f"the list is neither JSON nor JSON lines: {cut(str(error))}") from None
    if isinstance(document, dict):
        document = document.get("hashRecords", document.get("data", [document]))
    if not isinstance(document, list):
        raise Misconfigured("the list has no records: an array is wanted, or an object with `hashRecords`")
    return document


def _of_record(record: Any) -> ListedHash | None:
    if not isinstance(record, dict):
        return None
    kind = _first(record, TYPE_FIELDS) or "pdq"
    pdq = _first(record, HASH_FIELDS)
    if kind.lower() not in PDQ_TYPES or not _PDQ.fullmatch(pdq):
        return None
    tags = record.get("tags") or ()
    words = tags.split() if isinstance(tags, str) else [tag for tag in tags if isinstance(tag, str)]
    pairs = (word.partition("=") for word in words)
    labels = {name: value or "yes" for name, _, value in pairs if name}
    withdrawn = any(str(record.get(name, "")).lower() in WITHDRAWN for name in STATUS_FIELDS)
    return ListedHash(pdq.lower(), labels, withdrawn)


def _first(record: dict[str, Any], names: Iterable[str]) -> str:
    """The first of these fields that is a text."""
    return next((record[name] for name in names if isinstance(record.get(name), str)), "")
