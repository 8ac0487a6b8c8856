"""Tries what `seenit serve` needs beside the servers: the file of keys, the OpenID provider, the thumbnails."""

import asyncio
import uuid
from collections.abc import Iterator

from consumer.cli.preflight.finding import Finding
from consumer.errors import Misconfigured, Unavailable
from consumer.http.access import Access
from consumer.http.page.provider_sign_in import ProviderSignIn
from consumer.http.thumbnails import ThumbnailStore
from consumer.sections import ServeSettings
from consumer.settings import Settings


def check_access(settings: ServeSettings) -> Iterator[Finding]:
    """Try keys and provider."""
    try:
        access = Access(settings)
        if settings.oidc_client_id:
            ProviderSignIn(settings, access, b"")
    except Misconfigured as error:
        yield Finding("serve: access", "failed", str(error), "see deploy/README.md, Look-ups over HTTP")
        return
    yield Finding("serve: access", "ok", "anybody on this machine" if access.is_open else "with a key or a token")
    if access.provider is not None:
        try:
            described = asyncio.run(access.provider.describe())
        except Unavailable as error:
            yield Finding("serve: provider", "failed", error.detail, "SEENIT_SERVE_OIDC_ISSUER, as its tokens name it")
            return
        if settings.oidc_client_id and not (described.authorization_endpoint and described.token_endpoint):
            detail, remedy = "nobody can sign in there by a browser", "leave SEENIT_SERVE_OIDC_CLIENT_ID empty"
            yield Finding("serve: provider", "failed", detail, remedy)
            return
        yield Finding("serve: provider", "ok", f"{settings.oidc_issuer}: {len(described.keys.keys)} keys")
    if not access.is_open and not settings.session_secret.get_secret_value():
        yield Finding(
            "serve: sessions",
            "warning",
            "each process has a secret of its own, and knows only its own sessions",
            "SEENIT_SERVE_SESSION_SECRET, the same for all behind one address",
        )


def check_thumbnails(settings: Settings) -> Iterator[Finding]:
    """Try the store of thumbnails, if there is one: write, read and delete one."""
    if not settings.serve.thumbnails:
        return
    what, tenant = "serve: thumbnails", f"seenit-check-{uuid.uuid4()}"
    try:
        store = ThumbnailStore(settings)
        store.put(tenant, "a", b"jpeg")
        is_there = store.get(tenant, "a") is not None
        store.delete(tenant, "a")
    except (Unavailable, Misconfigured) as error:
        remedy = (
            "SEENIT_SERVE_THUMBNAILS, SEENIT_FETCH_S3_ENDPOINT, and rights to get, put, delete and list objects there"
        )
        yield Finding(what, "failed", str(error), remedy)
    else:
        yield Finding(what, "ok" if is_there else "failed", f"{settings.serve.thumbnails} can be written and read")
