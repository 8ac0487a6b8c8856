"""Gets the pictures of uploads once more, to be shown: by the upload's event, which its verdict says where to find.

What is stored of a picture for comparing is never shown, nor is a picture that the window knows to be deleted. A
picture is decoded with all bounds of an upload, made small and encoded anew, so that nothing of the file itself reaches
the browser.
"""

import asyncio
import io
import threading
from http import HTTPStatus

import numpy as np
from PIL import Image

from consumer.errors import Unprocessable
from consumer.events import ImageUpload
from consumer.http.bodies import PictureFile
from consumer.http.parts import Parts
from consumer.http.problems import Refused
from consumer.http.verdicts import is_gone
from consumer.images.decode import decode
from consumer.kafka.clients import RecordReader
from consumer.parse import parse

# Longest side of a picture that is shown.
SIDE_PX = 640
QUALITY = 80


class Originals:
    """Reads the events of uploads again, and gets their pictures."""

    def __init__(self, parts: Parts) -> None:
        self._parts = parts
        self._reader: RecordReader | None = None
        self._lock = threading.Lock()

    async def jpeg(self, tenant: str, image_id: str) -> bytes:
        """Get the picture of an upload, as a small JPEG. Raises Refused where it is not to be had any more."""
        async with self._parts.slot():
            upload = await asyncio.to_thread(self._upload, tenant, image_id)
            if upload is None:
                raise _gone("Its upload cannot be read any more.")
            try:
                file = await self._file(upload)
                return await asyncio.to_thread(self._shown, file)
            except Unprocessable as error:
                raise _gone(error.detail) from None

    async def _file(self, upload: ImageUpload) -> PictureFile:
        if upload.data_base64 is not None:
            return PictureFile(upload.data_base64, upload.content_type)
        assert upload.url is not None  # noqa: S101 (narrows the type)
        return await self._parts.fetch(upload.url, upload.version_id)

    def _upload(self, tenant: str, image_id: str) -> ImageUpload | None:
        """Read the event of an upload; None if its verdict or its message is gone.

        Raises Refused for a picture that was deleted, and Unavailable, also while Redis cannot tell that.
        """
        verdict = self._parts.verdicts.find(tenant, image_id)
        if verdict is not None and is_gone(self._parts.ready().window, verdict):
            raise _gone("It was deleted, or uploaded longer ago than the window reaches.")
        event_id, address = self._parts.verdicts.upload_of(tenant, image_id) or ("", None)
        if address is None:
            return None
        with self._lock:
            if self._reader is None:
                self._reader = RecordReader(self._parts.settings.kafka)
            record = self._reader.read(address)
        for event in [] if record is None else parse(record):
            if (event.id, event.tenant) == (event_id, tenant) and isinstance(event.body, ImageUpload):
                return event.body
        return None

    def _shown(self, file: PictureFile) -> bytes:
        picture = decode(file.data, SIDE_PX, self._parts.settings.decode, file.content_type)
        aspect = picture.thumbnail.aspect
        size = round(SIDE_PX * min(1.0, aspect)), round(SIDE_PX * min(1.0, 1 / aspect))
        image = Image.fromarray(np.asarray(picture.pixels)).resize((max(1, size[0]), max(1, size[1])))
        out = io.BytesIO()
        image.save(out, "JPEG", quality=QUALITY)
        return out.getvalue()

    def close(self) -> None:
        """Read nothing more."""
        with self._lock:
            if self._reader is not None:
                self._reader.close()


def _gone(detail: str) -> Refused:
    return Refused(HTTPStatus.NOT_FOUND, "picture-gone", detail)
