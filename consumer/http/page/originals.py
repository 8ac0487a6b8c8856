"""Gets the pictures of uploads once more, to be shown: their thumbnails, or else by the upload's event.

What is stored of a picture for comparing is never shown, nor is a picture that the window knows to be deleted.
"""

import asyncio
import threading
from http import HTTPStatus

from consumer.errors import Unprocessable
from consumer.events import ImageUpload
from consumer.http.parts import Parts
from consumer.http.problems import Refused
from consumer.http.verdicts import is_gone
from consumer.kafka.clients import RecordReader
from consumer.moderation.pictures import KnownPictures
from consumer.parse import parse


class Originals:
    """Reads thumbnails, or the events of uploads again, and gets their pictures."""

    def __init__(self, parts: Parts) -> None:
        self._parts = parts
        self._reader: RecordReader | None = None
        self._lock = threading.Lock()

    async def jpeg(self, tenant: str, image_id: str) -> bytes:
        """Get the picture of an upload, as a small JPEG.

        Raises Refused where it is not to be had any more, and Unavailable, also while Redis cannot tell that.
        """
        async with self._parts.slot():
            return await asyncio.to_thread(self._jpeg, tenant, image_id)

    def _jpeg(self, tenant: str, image_id: str) -> bytes:
        window, store = self._parts.ready().window, self._parts.thumbnails
        if store is not None:
            # Deletions reach the store, so that a thumbnail may be older than what the window remembers.
            if KnownPictures(window).find(tenant, image_id).is_deleted:
                raise _gone("It was deleted.")
            if (thumbnail := store.get(tenant, image_id)) is not None:
                return thumbnail
        verdict = self._parts.verdicts.find(tenant, image_id)
        if verdict is not None and is_gone(window, verdict):
            raise _gone("It was deleted, or uploaded longer ago than the window reaches.")
        upload = self._upload(tenant, image_id)
        if upload is None:
            raise _gone("Its upload cannot be read any more.")
        try:
            return self._parts.shown.jpeg(upload)
        except Unprocessable as error:
            raise _gone(error.detail) from None

    def _upload(self, tenant: str, image_id: str) -> ImageUpload | None:
        """Read the event of an upload; None if its verdict or its message is gone. Raises Unavailable."""
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

    def close(self) -> None:
        """Read nothing more."""
        with self._lock:
            if self._reader is not None:
                self._reader.close()


def _gone(detail: str) -> Refused:
    return Refused(HTTPStatus.NOT_FOUND, "picture-gone", detail)
