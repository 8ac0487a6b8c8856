"""Tries the places that pictures are fetched from: folders and buckets."""

import uuid
from collections.abc import Iterator

from consumer.cli.preflight.finding import Finding, one_line
from consumer.errors import Unavailable, Unprocessable
from consumer.images.fetch import Fetcher
from consumer.images.fetch_stores import STORES
from consumer.settings import FetchSettings


def check_fetch(settings: FetchSettings) -> Iterator[Finding]:
    """Try the folders and buckets that pictures may be read from."""
    schemes = sorted({*settings.schemes, *(["s3"] if settings.s3_endpoint else [])})
    hosts = ", ".join(settings.hosts) or "any public host"
    yield Finding("fetch: addresses", "ok", f"{', '.join(schemes)}; http(s) from {hosts}")
    for folder in settings.folders:
        try:
            next(folder.iterdir(), None)
            yield Finding(f"fetch: {folder}", "ok", "can be read")
        except OSError as error:
            yield Finding(
                f"fetch: {folder}", "failed", one_line(error), "SEENIT_FETCH_FOLDERS, and the user's rights there"
            )
    stores = [scheme for scheme in schemes if scheme in STORES]
    if stores and not settings.buckets:
        yield Finding(
            "fetch: buckets",
            "warning",
            f"any bucket of {', '.join(stores)} that the credentials allow may be read; none was tried",
            'name them, as SEENIT_FETCH_BUCKETS=["uploads"]',
        )
    with Fetcher(settings) as fetcher:
        for bucket in settings.buckets:
            for scheme in stores:
                yield _bucket(fetcher, scheme, bucket)


def _bucket(fetcher: Fetcher, scheme: str, bucket: str) -> Finding:
    """Ask for an object that is not there: the answer shows whether the store is there and knows the credentials."""
    what = f"fetch: {scheme}://{bucket}"
    try:
        fetcher.fetch(f"{scheme}://{bucket}/seenit-check-{uuid.uuid4()}")
    except Unprocessable as error:
        if "may not be read" not in error.detail:
            return Finding(what, "ok", "the store answers")
        return Finding(
            what,
            "warning",
            error.detail,
            "for an object that does not exist this is how a store answers without the right to list; if uploads end "
            "as not-found too, grant the right to get objects (s3:GetObject)",
        )
    except Unavailable as error:
        return Finding(
            what,
            "failed",
            error.detail,
            "SEENIT_FETCH_S3_ENDPOINT and _S3_REGION, and the store's own credential variables",
        )
    return Finding(what, "ok", "the store answers")
