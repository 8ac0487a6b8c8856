"""Seenit: has this picture been uploaded before?

`ImageEncoder("localhost:8001")("photo.jpg")` is a picture's vector; the service itself is `seenit run`.
"""

from consumer.encoder.contract import ModelInfo
from consumer.encoder.image_encoder import ImageEncoder
from consumer.errors import Misconfigured, SeenitError, Unavailable, Unprocessable

__all__ = ["ImageEncoder", "Misconfigured", "ModelInfo", "SeenitError", "Unavailable", "Unprocessable"]
