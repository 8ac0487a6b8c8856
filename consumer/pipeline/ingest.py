"""The first stage: parse records, fetch the pictures, find exact copies by their bytes, decode the rest."""

import os
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import replace
from datetime import UTC, datetime
from hashlib import sha256

from consumer.errors import Unavailable, Unprocessable
from consumer.events import ImageUpload
from consumer.images.decode import Picture, decode
from consumer.images.fetch import Fetcher
from consumer.images.pdq import pdq_hash
from consumer.images.sandbox import DecodeSandbox
from consumer.kafka.leases import Leased
from consumer.parse import parse
from consumer.pipeline.bank_step import NO_BANKS, BankStep
from consumer.pipeline.batch import Batch, Item
from consumer.pipeline.timing import timed
from consumer.settings import Settings
from consumer.telemetry.metrics import Metrics
from consumer.telemetry.tracing import NO_TRACING, Trace, Tracing
from consumer.window.contract import Window


class Ingest:
    """Turns polled records into batches, and gives each upload its bytes, its exact match or its decoded picture."""

    def __init__(
        self,
        settings: Settings,
        image_size: int,
        fetcher: Fetcher,
        window: Window,
        metrics: Metrics,
        tracing: Tracing = NO_TRACING,
        banks: BankStep = NO_BANKS,
    ) -> None:
        """`image_size` is the side of the square that the encoder takes, in pixels."""
        self._settings = settings.decode
        self._image_size = image_size
        self._fetcher = fetcher
        self._window = window
        self._metrics = metrics
        self._tracing = tracing
        self._banks = banks
        self._sandbox = DecodeSandbox(image_size, settings)
        self._fetchers = ThreadPoolExecutor(settings.fetch.concurrency, "fetch")
        self._decoders = ThreadPoolExecutor(settings.decode.threads or os.cpu_count() or 1, "decode")

    def close(self) -> None:
        """Take on nothing more."""
        self._fetchers.shutdown(wait=False, cancel_futures=True)
        self._decoders.shutdown(wait=False, cancel_futures=True)
        self._sandbox.close()

    def begin(self, leased: list[Leased], suspect: bool = False) -> Batch:
        """Parse what was polled, and begin to fetch its pictures; those of suspect records wait for the sandbox."""
        with timed(self._metrics, "poll"):
            items = [Item(record, lease, event, suspect) for record, lease in leased for event in parse(record)]
            trace = self._tracing.begin(items)
            for item in items:
                if isinstance(item.event.body, Unprocessable):
                    item.failure = item.event.body
                elif isinstance(item.event.body, ImageUpload) and not suspect:
                    self._begin_fetch(item)
        return Batch(items, datetime.now(UTC), trace)

    def run(self, batch: Batch) -> None:
        """Await the bytes, find exact copies, and begin to decode the rest.

        Exact copies are found first because they need neither decoding nor inference.
        """
        self._decode_in_sandbox([item for item in batch.uploads() if item.suspect])
        self._await_bytes(batch.uploads())
        uploads = batch.uploads()
        matches = self._window.find_exact([item.content_key for item in uploads])
        same_content: dict[tuple[str, bytes, str | None], Future[Picture]] = {}
        for item, match in zip(uploads, matches, strict=True):
            content = item.content
            content.exact_match = match
            content.encode_copy = match is not None and self._banks.wants_views(item)
            if content.takes_no_inference:
                content.data = b""
                continue
            if content.decoding is not None:
                continue
            # A wrong content type makes an upload unprocessable, so only the same one makes it the same work.
            # What an exact copy is announced as does not matter.
            content_type = item.upload.content_type if match is None else None
            key = (item.event.tenant, content.digest, content_type)
            if key not in same_content:
                same_content[key] = self._decoders.submit(self._decode, content.data, content_type, item)
            content.decoding = same_content[key]

    def read_picture(self, item: Item) -> Picture:
        """The decoded picture of an upload, fetched once more if need be. Raises Unprocessable or Unavailable."""
        if item.content.decoding is not None:
            return item.content.decoding.result()
        return self._decode(self._fetch(item.upload, item.trace), item.upload.content_type, item)

    def _begin_fetch(self, item: Item) -> None:
        if item.upload.data_base64 is None:
            item.content.fetching = self._fetchers.submit(self._fetch, item.upload, item.trace)
        else:  # waking a thread would take longer
            item.content.fetching = Future()
            item.content.fetching.set_result(item.upload.data_base64)

    def _await_bytes(self, items: list[Item]) -> None:
        """Take over the fetched bytes. Fetch again what a store that is away did not give, and raise Unavailable."""
        away: Unavailable | None = None
        for item in items:
            content = item.content
            if content.fetching is None:
                continue
            try:
                content.data = content.fetching.result()
                content.digest = sha256(content.data).digest()
                content.fetching = None
            except Unprocessable as error:
                item.failure = error
            except Unavailable as error:
                away = error
                self._begin_fetch(item)
        if away is not None:
            raise away

    def _decode_in_sandbox(self, suspects: list[Item]) -> None:
        """Fetch and decode suspect items in the sandbox; what cannot be tried there takes the ordinary way."""
        if not suspects:
            self._sandbox.close()
        for item in suspects:
            if item.content.digest or item.content.fetching is not None:
                continue
            try:
                with item.trace.step("quarantine"):
                    result = self._sandbox.decode(item.upload)
            except Unprocessable as error:
                item.failure = error
                continue
            if result is None:
                self._begin_fetch(item)
            else:
                item.content.digest, item.content.decoding = result.digest, result.decoding

    def _fetch(self, upload: ImageUpload, trace: Trace) -> bytes:
        if upload.data_base64 is not None:
            return upload.data_base64
        with timed(self._metrics, "fetch", trace):
            return self._fetcher.fetch(upload.url or "", upload.version_id)

    def _decode(self, data: bytes, content_type: str | None, item: Item) -> Picture:
        with timed(self._metrics, "decode", item.trace):
            picture = decode(data, self._image_size, self._settings, content_type)
            return replace(picture, pdq=pdq_hash(data)) if self._banks.wants_pdq(item.event.tenant) else picture
