"""What is published about the interfaces is what the code has."""

import json

from jsonschema import Draft202012Validator

from deploy.reference import README, SCHEMAS, schemas, with_settings


def test_published_schemas_are_current() -> None:
    published = {path.name: path.read_text() for path in SCHEMAS.glob("*.json")}
    assert published == schemas(), "run `make docs` and commit what it writes"


def test_schemas_are_valid() -> None:
    for text in schemas().values():
        Draft202012Validator.check_schema(json.loads(text))


def test_readme_lists_the_settings() -> None:
    assert README.read_text() == with_settings(README.read_text()), "run `make docs` and commit what it writes"
