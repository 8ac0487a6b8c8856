"""Lists of hashes in the forms in which exchanges hand them on."""

import io
import json

import pytest

from consumer.errors import Misconfigured
from consumer.moderation.hash_lists import ListedHash, read_hashes, write_hashes

A, B = "0f" * 32, "AB" * 32


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (f"{A}\n\npdq {B}\nvideo_md5 {'0' * 32}\nnothing", [ListedHash(A), ListedHash(B.lower()), None, None]),
        (
            f"collab,signal_type,signal_str,category,tags\nc,pdq,{A},POSITIVE_CLASS,one two=2\nc,url,x,,\n",
            [ListedHash(A, {"one": "yes", "two": "2"}), None],
        ),
        (
            json.dumps(
                {
                    "count": 3,
                    "hashRecords": [
                        {"signalType": "ImagePDQ", "hashValue": A, "hashStatus": "Active"},
                        {"signalType": "ImagePDQ", "hashValue": B, "hashStatus": "Withdrawn"},
                        {"signalType": "VideoMD5", "hashValue": "0" * 32, "hashStatus": "Active"},
                    ],
                }
            ),
            [ListedHash(A), ListedHash(B.lower(), withdrawn=True), None],
        ),
        (json.dumps([{"type": "HASH_PDQ", "indicator": A, "tags": ["x"]}, 7]), [ListedHash(A, {"x": "yes"}), None]),
        (f'{{"pdq": "{A}"}}\n{{"pdq": "short"}}', [ListedHash(A), None]),
    ],
)
def test_each_form_is_read(text: str, expected: list[ListedHash | None]) -> None:
    assert list(read_hashes(text)) == expected


def test_what_was_written_is_read_again() -> None:
    file = io.StringIO()
    assert write_hashes(file, "bank", [(A, {"policy": "a b"}), (B, {})]) == 2
    assert list(read_hashes(file.getvalue())) == [ListedHash(A, {"policy": "a_b"}), ListedHash(B.lower())]


@pytest.mark.parametrize("text", ["[1", '{"hashRecords": 1}'])
def test_what_is_no_list_is_said(text: str) -> None:
    with pytest.raises(Misconfigured, match="the list"):
        list(read_hashes(text))
