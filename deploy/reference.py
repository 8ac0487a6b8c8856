"""The reference of the interfaces, generated from the code: `python -m deploy.reference` writes it.

The JSON Schemas of the events go to `deploy/schemas`, the table of settings to `deploy/settings.md`, and the OpenAPI
document of `seenit serve` to `deploy/openapi.json`.
"""

import json
from pathlib import Path
from typing import Any

from pydantic import BaseModel, SecretStr

from consumer.events import ImageDeleted, ImageUpload
from consumer.http.app import describe
from consumer.http.changes import AuditedChange
from consumer.moderation.banks import BankDefined, BankEntry
from consumer.settings import Settings
from consumer.verdicts import ImageRematched, Verdict

SCHEMAS = Path(__file__).with_name("schemas")
SETTINGS = Path(__file__).with_name("settings.md")
OPENAPI = Path(__file__).with_name("openapi.json")

_MODELS: dict[str, type[BaseModel]] = {
    "image.uploaded": ImageUpload,
    "image.deleted": ImageDeleted,
    "image.verdict": Verdict,
    "image.rematched": ImageRematched,
    "bank.defined": BankDefined,
    "bank.entry": BankEntry,
    "audit.change": AuditedChange,
}
_OUTGOING = (Verdict, ImageRematched, AuditedChange)
_SETTINGS_INTRODUCTION = """\
# Settings

<!-- written by `make docs` -->

Each is an environment variable, or a line of the TOML file that `SEENIT_CONFIG` names, where `SEENIT_KAFKA_GROUP_ID` is
`group_id` in the table `[kafka]`; the variable counts where both are set. Lists are given as JSON.
"""


def schemas() -> dict[str, str]:
    """Return the JSON Schema (2020-12) of the data of each event type, by file name."""
    texts = {}
    for kind, model in _MODELS.items():
        # What comes in may lack fields with defaults; what goes out always has them all.
        schema = model.model_json_schema(mode="serialization" if model in _OUTGOING else "validation")
        schema = {"$schema": "https://json-schema.org/draft/2020-12/schema", **schema}
        texts[f"{kind}.schema.json"] = json.dumps(schema, indent=2) + "\n"
    return texts


def settings_page() -> str:
    """Return a Markdown page with the default and the meaning of every setting."""
    lines = [_SETTINGS_INTRODUCTION, "| variable | default | meaning |", "|---|---|---|"]
    for section, field in Settings.model_fields.items():
        assert isinstance(field.annotation, type)  # noqa: S101 (narrows the type)
        assert issubclass(field.annotation, BaseModel)  # noqa: S101
        for name, setting in field.annotation.model_fields.items():
            variable = f"SEENIT_{section}_{name}".upper()
            lines.append(f"| `{variable}` | {_default(setting.default)} | {setting.description} |")
    return "\n".join(lines) + "\n"


def openapi_document() -> str:
    """Return the OpenAPI document of the HTTP interface."""
    return json.dumps(describe(), indent=2) + "\n"


def _default(value: Any) -> str:
    if isinstance(value, SecretStr):
        value = value.get_secret_value()
    if isinstance(value, tuple):
        value = json.dumps(value)
    return f"`{value}`" if value != "" else ""


if __name__ == "__main__":
    SCHEMAS.mkdir(exist_ok=True)
    for name, text in schemas().items():
        (SCHEMAS / name).write_text(text)
    SETTINGS.write_text(settings_page())
    OPENAPI.write_text(openapi_document())
