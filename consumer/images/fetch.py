"""The bytes of a picture by its URL: https, http, s3, gs, az and file, within limits of bytes and time.

URLs come from strangers. What no setting allows is refused before any server is asked; `images.egress_guard` says which
network addresses http(s) may connect to.
"""

from typing import Self

from consumer.errors import Unprocessable
from consumer.images.fetch_files import FileFetcher
from consumer.images.fetch_http import HttpFetcher
from consumer.images.fetch_stores import STORES, StoreFetcher
from consumer.settings import FetchSettings


class Fetcher:
    """Fetches pictures by URL; safe to use from many threads, which share its connections.

    A context manager; `close` drops the connections.
    """

    def __init__(self, settings: FetchSettings) -> None:
        self._schemes = {*settings.schemes, *(["s3"] if settings.s3_endpoint else [])}
        self._http = HttpFetcher(settings)
        self._stores = StoreFetcher(settings)
        self._files = FileFetcher(settings)

    def fetch(self, url: str, version: str | None = None) -> bytes:
        """Return the bytes at `url`, of one version of an object if that is named.

        Blocks for `timeout_s` at most (for object stores, up to twice that).

        Raises Unprocessable for what is the upload's own fault, Unavailable("object-store", ...) when a store cannot be
        asked at the moment.
        """
        scheme = url.partition(":")[0].lower()
        if version is not None and scheme not in STORES:
            raise Unprocessable("forbidden-address", "Only objects of stores have versions; leave version_id out.")
        if scheme == "file":
            return self._files.fetch(url)
        if scheme not in self._schemes:
            raise Unprocessable(
                "forbidden-address",
                f"Addresses of the form {scheme[:20]!r} are not fetched; send the picture itself, or have the operator "
                "add the scheme to SEENIT_FETCH_SCHEMES.",
            )
        return self._stores.fetch(scheme, url, version) if scheme in STORES else self._http.fetch(url)

    def close(self) -> None:
        """Drop the connections."""
        self._http.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()
