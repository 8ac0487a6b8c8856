"""Seenit: has this picture been uploaded before?

`ImageEncoder("localhost:8001")("photo.jpg")` is a picture's vector; the service itself is `seenit run`.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from consumer.encoder.contract import ModelInfo
    from consumer.encoder.image_encoder import ImageEncoder
    from consumer.errors import Misconfigured, SeenitError, Unavailable, Unprocessable

__all__ = ["ImageEncoder", "Misconfigured", "ModelInfo", "SeenitError", "Unavailable", "Unprocessable"]

# Imported when first used: the process that decodes suspect pictures imports this package too, and loads no client.
_HOME = {
    "ImageEncoder": "consumer.encoder.image_encoder",
    "Misconfigured": "consumer.errors",
    "ModelInfo": "consumer.encoder.contract",
    "SeenitError": "consumer.errors",
    "Unavailable": "consumer.errors",
    "Unprocessable": "consumer.errors",
}


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(_HOME[name]), name)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
