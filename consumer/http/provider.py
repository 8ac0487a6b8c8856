"""An OpenID provider: what it says about itself, and the keys that it signs with."""

import asyncio
import logging
import math
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, NamedTuple

import httpx
from joserfc import jwt
from joserfc.errors import JoseError
from joserfc.jwk import KeySet

from consumer.errors import Misconfigured, Unavailable

log = logging.getLogger(__name__)

# No shared secrets, and never none.
ALGORITHMS = ["RS256", "PS256", "ES256", "EdDSA", "Ed25519"]
TIMEOUT_S = 5.0
# How long the provider's keys are taken for current, and how soon it is asked again when a token names another.
KEYS_KEPT_S, ASK_AGAIN_S = 600.0, 10.0
MAX_TOKEN_BYTES = 8192
MAX_DOCUMENT_BYTES = 1 << 20
# How a code is refused, with an `error` in the document.
REFUSALS = (400, 401)


class Described(NamedTuple):
    """What the provider says: its keys, and where people sign in and codes are exchanged, if it does that."""

    keys: KeySet
    authorization_endpoint: str
    token_endpoint: str


class Provider:
    """A provider that is asked when that is first needed; what it said is kept. For one event loop."""

    def __init__(self, issuer: str) -> None:
        """Raises Misconfigured for an issuer without TLS."""
        self.issuer = issuer
        url = httpx.URL(issuer)
        if url.scheme != "https" and url.host not in {"localhost", "127.0.0.1", "::1"}:
            raise Misconfigured("SEENIT_SERVE_OIDC_ISSUER has to be an https address")
        self._described: Described | None = None
        self._asked_at_s = -math.inf
        self._problem: Unavailable | None = None
        self._lock = asyncio.Lock()

    async def verified(self, token: str) -> dict[str, Any] | None:
        """The claims of a token; None if the provider has not signed it. Raises Unavailable."""
        if len(token) > MAX_TOKEN_BYTES or token.count(".") != 2:
            return None
        claims = _decode(token, (await self.describe()).keys)
        if claims is None:  # the provider may have begun to use another key
            claims = _decode(token, (await self.describe(ASK_AGAIN_S)).keys)
        return claims

    async def describe(self, max_age_s: float | None = None) -> Described:
        """What the provider says; while it is away what it said last, and it is not asked by every request.

        Raises Unavailable for one that never answered.
        """
        max_age_s = KEYS_KEPT_S if max_age_s is None else max_age_s
        async with self._lock:
            if time.monotonic() - self._asked_at_s > (max_age_s if self._problem is None else ASK_AGAIN_S):
                try:
                    self._described, self._problem = await self._ask(), None
                except Unavailable as error:
                    log.warning("%s", error)
                    self._problem = error
                self._asked_at_s = time.monotonic()
            if self._described is None:
                raise Unavailable("oidc", "" if self._problem is None else self._problem.detail)
            return self._described

    async def exchange(self, form: dict[str, str], auth: tuple[str, str] | None = None) -> dict[str, Any] | None:
        """Exchange a code for tokens; None if the provider refuses. Raises Unavailable."""
        endpoint = (await self.describe()).token_endpoint
        with self._failures():
            async with httpx.AsyncClient(timeout=TIMEOUT_S) as client:
                tokens = await _json(client, client.build_request("POST", endpoint, data=form), auth)
                if not isinstance(tokens, dict):
                    raise ValueError("it answers with no tokens")
                return None if "error" in tokens else tokens

    async def _ask(self) -> Described:
        with self._failures():
            async with httpx.AsyncClient(timeout=TIMEOUT_S) as client:
                address = self.issuer.rstrip("/") + "/.well-known/openid-configuration"
                about = await _json(client, client.build_request("GET", address))
                if about["issuer"] != self.issuer:
                    raise ValueError("it calls itself otherwise")
                keys = await _json(client, client.build_request("GET", str(about["jwks_uri"])))
                endpoints = (str(about.get(f"{name}_endpoint", "")) for name in ("authorization", "token"))
                return Described(KeySet.import_key_set(keys), *endpoints)

    @contextmanager
    def _failures(self) -> Iterator[None]:
        """Raise Unavailable for whatever goes wrong in the block."""
        try:
            yield
        except (httpx.HTTPError, httpx.InvalidURL, JoseError, ValueError, KeyError, TypeError) as error:
            raise Unavailable("oidc", f"{self.issuer}: {str(error)[:200] or type(error).__name__}") from None


def _decode(token: str, keys: KeySet) -> dict[str, Any] | None:
    try:
        return jwt.decode(token, keys, algorithms=ALGORITHMS).claims
    except (JoseError, ValueError):
        return None


async def _json(client: httpx.AsyncClient, request: httpx.Request, auth: tuple[str, str] | None = None) -> Any:
    """Send a request, and return what is answered: a document, also where the provider refuses a code (RFC 6749)."""
    reply = await client.send(request, auth=auth, stream=True)
    try:
        if request.method != "POST" or reply.status_code not in REFUSALS:
            reply.raise_for_status()
        body = b""
        async for chunk in reply.aiter_bytes():
            body += chunk
            if len(body) > MAX_DOCUMENT_BYTES:
                raise ValueError("it answers with more than a document")
    finally:
        await reply.aclose()
    return httpx.Response(200, content=body).json()
