"""What is published about the interfaces, generated from the code: `python -m deploy.reference` writes it.

The JSON Schemas of the events go to `deploy/schemas`, the table of settings into `README.md`.
"""

import json
from pathlib import Path
from typing import Any

from pydantic import BaseModel, SecretStr

from consumer.events import ImageDeleted, ImageUpload, Verdict
from consumer.settings import Settings

_ROOT = Path(__file__).parent.parent
SCHEMAS = _ROOT / "deploy" / "schemas"
README = _ROOT / "README.md"
_BEGIN, _END = "<!-- settings: written by `make docs` -->", "<!-- end of settings -->"

_MODELS: dict[str, type[BaseModel]] = {
    "image.uploaded": ImageUpload,
    "image.deleted": ImageDeleted,
    "image.verdict": Verdict,
}


def schemas() -> dict[str, str]:
    """File name -> JSON Schema (2020-12) of the data of each event type."""
    texts = {}
    for kind, model in _MODELS.items():
        # What comes in may lack fields with defaults; what goes out always has them all.
        schema = model.model_json_schema(mode="serialization" if model is Verdict else "validation")
        schema = {"$schema": "https://json-schema.org/draft/2020-12/schema", **schema}
        texts[f"{kind}.schema.json"] = json.dumps(schema, indent=2) + "\n"
    return texts


def settings_table() -> str:
    """Every variable with its default and meaning, as Markdown."""
    lines = ["| variable | default | meaning |", "|---|---|---|"]
    for section, field in Settings.model_fields.items():
        assert isinstance(field.annotation, type)  # noqa: S101 (narrows the type)
        assert issubclass(field.annotation, BaseModel)  # noqa: S101
        for name, setting in field.annotation.model_fields.items():
            variable = f"SEENIT_{section}_{name}".upper()
            lines.append(f"| `{variable}` | {_default(setting.default)} | {setting.description} |")
    return "\n".join(lines)


def with_settings(readme: str) -> str:
    """The README with its table of settings made anew."""
    before, _, rest = readme.partition(_BEGIN)
    _, _, after = rest.partition(_END)
    return f"{before}{_BEGIN}\n{settings_table()}\n{_END}{after}"


def _default(value: Any) -> str:
    if isinstance(value, SecretStr):
        value = value.get_secret_value()
    if isinstance(value, tuple):
        value = json.dumps(value)
    return f"`{value}`" if value != "" else ""


if __name__ == "__main__":
    SCHEMAS.mkdir(parents=True, exist_ok=True)
    for name, text in schemas().items():
        (SCHEMAS / name).write_text(text)
    README.write_text(with_settings(README.read_text()))
