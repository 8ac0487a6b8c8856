"""Log lines: what they tell of an upload, for machines and for people."""

import json
import logging
import sys

from consumer.telemetry.logs import JsonFormatter, TextFormatter

ABOUT = {"image_id": "a", "tenant": "\x1b[31m", "partition": 1, "offset": 7, "match": None}


def record() -> logging.LogRecord:
    return logging.makeLogRecord({"name": "consumer.pipeline", "msg": "unprocessable: %r", "args": ("a",), **ABOUT})


def test_a_line_for_machines_is_an_object() -> None:
    line = json.loads(JsonFormatter().format(record()))
    assert line["message"] == "unprocessable: 'a'"
    assert {name: line[name] for name in ABOUT} == ABOUT


def test_a_line_for_people_says_the_same() -> None:
    line = TextFormatter().format(record())
    assert line == r"consumer.pipeline: unprocessable: 'a' image_id='a' tenant='\x1b[31m' partition=1 offset=7"


def test_an_exception_is_below_its_line() -> None:
    failed = record()
    try:
        raise ValueError("no")
    except ValueError:
        failed.exc_info = sys.exc_info()
    first, *rest = TextFormatter().format(failed).splitlines()
    assert first.endswith("offset=7")
    assert rest[-1] == "ValueError: no"
