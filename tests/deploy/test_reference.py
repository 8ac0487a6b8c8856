"""The published reference of the interfaces agrees with the code."""

import json

from jsonschema import Draft202012Validator

from deploy.reference import SCHEMAS, SETTINGS, schemas, settings_page


def test_published_schemas_are_current() -> None:
    published = {path.name: path.read_text() for path in SCHEMAS.glob("*.json")}
    assert published == schemas(), "run `make docs` and commit what it writes"


def test_schemas_are_valid() -> None:
    for text in schemas().values():
        Draft202012Validator.check_schema(json.loads(text))


def test_the_published_table_of_settings_is_current() -> None:
    assert SETTINGS.read_text() == settings_page(), "run `make docs` and commit what it writes"
