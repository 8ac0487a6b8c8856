"""What the topic keeps of entries that are uploads: uploads leave the window, and banks are made again from the topic.

The process that makes such an entry from the window also publishes what it made, under the entry's key with `picture`
for `entry`, and the entry's message behind it. So a tombstone can only ever be about that message's picture. It stands
behind the entry's message; when the entry is replaced or removed, the same process removes it.
"""

import re
from typing import NamedTuple

from pydantic import ValidationError

from consumer.encoder.contract import ModelInfo
from consumer.errors import Unprocessable
from consumer.events import Record
from consumer.json_values import cut
from consumer.kafka.messages import Headers
from consumer.moderation.store import EntryRow, NewRow

_DIGEST = re.compile(r"[0-9a-f]{64}")


class KeptPicture(NamedTuple):
    """The row of an entry, and what one model made of its picture."""

    row: EntryRow
    model: tuple[str, str, int]  # name, version, length of vectors
    vector: bytes
    features: bytes

    @classmethod
    def of(cls, new: NewRow, row: EntryRow, model: ModelInfo) -> "KeptPicture":
        return cls(row, (model.name, model.version, model.dim), new.vector, new.features)

    @classmethod
    def read(cls, record: Record) -> "KeptPicture":
        """Read what `value` and `headers` wrote. Raises Unprocessable."""
        headers = dict(record.headers)
        try:
            row = EntryRow.model_validate_json(record.value or b"")
            model = (_text(headers["model"]), _text(headers["model-version"]), int(headers["dim"] or b""))
            vector, features = headers["vector"] or b"", headers["features"] or b""
        except KeyError as missing:
            raise Unprocessable("malformed-event", f"the header {missing} of a kept picture is missing") from None
        except ValidationError as error:
            first = error.errors(include_input=False, include_url=False)[0]
            raise Unprocessable("malformed-event", cut(f"{first['loc']}: {first['msg']}")) from None
        except ValueError:
            raise Unprocessable("malformed-event", "the header dim of a kept picture is no number") from None
        if row.of_image is None or not _DIGEST.fullmatch(row.digest or "") or len(vector) not in (0, 2 * model[2]):
            raise Unprocessable("malformed-event", "a kept picture has an upload, its digest and a whole vector")
        return cls(row, model, vector, features)

    @property
    def value(self) -> bytes:
        return self.row.model_dump_json(exclude_defaults=True).encode()

    @property
    def headers(self) -> Headers:
        name, version, dim = self.model
        of_model = (("model", name.encode()), ("model-version", version.encode()), ("dim", str(dim).encode()))
        return (*of_model, ("vector", self.vector), ("features", self.features))

    def new_row(self, name: bytes, model: ModelInfo) -> NewRow:
        """Make the row of the entry again; one of another model matches the same bytes alone."""
        is_comparable = self.model == (model.name, model.version, model.dim)
        return NewRow(name, self.row, self.vector, self.features) if is_comparable else NewRow(name, self.row)


def _text(header: bytes | None) -> str:
    return (header or b"").decode("utf-8", "replace")
