"""The published reference of the interfaces agrees with the code."""

import json

from jsonschema import Draft202012Validator
from openapi_spec_validator import OpenAPIV31SpecValidator

from deploy.reference import OPENAPI, SCHEMAS, SETTINGS, openapi_document, schemas, settings_page


def test_published_schemas_are_current() -> None:
    published = {path.name: path.read_text() for path in SCHEMAS.glob("*.json")}
    assert published == schemas(), "run `make docs` and commit what it writes"


def test_schemas_are_valid() -> None:
    for text in schemas().values():
        Draft202012Validator.check_schema(json.loads(text))


def test_the_published_table_of_settings_is_current() -> None:
    assert SETTINGS.read_text() == settings_page(), "run `make docs` and commit what it writes"


def test_the_published_openapi_document_is_current_and_valid() -> None:
    text = openapi_document()
    assert OPENAPI.read_text() == text, "run `make docs` and commit what it writes"
    document = json.loads(text)
    OpenAPIV31SpecValidator(document).validate()
    operations = [operation for path in document["paths"].values() for operation in path.values()]
    names = [operation["operationId"] for operation in operations]
    assert len(names) == len(set(names))
    for operation in operations:
        assert operation["summary"]
        assert operation["description"]
        assert operation["tags"]
