"""Tokens of an OpenID provider: signed by its keys, meant for this service, and not expired."""

import asyncio
import logging
import math
import time
from http import HTTPStatus
from typing import Any

import httpx
from joserfc import jwt
from joserfc.errors import JoseError
from joserfc.jwk import KeySet

from consumer.errors import Misconfigured, Unavailable
from consumer.http.problems import Refused
from consumer.http.scopes import SCOPES, Caller
from consumer.settings import ServeSettings

log = logging.getLogger(__name__)

# No shared secrets, and never none.
ALGORITHMS = ["RS256", "PS256", "ES256", "EdDSA", "Ed25519"]
KEYS_TIMEOUT_S = 5.0
# How long the provider's keys are taken for current, and how soon it is asked again when a token names another.
KEYS_KEPT_S, ASK_AGAIN_S = 600.0, 10.0
CLOCK_LEEWAY_S = 30
MAX_TOKEN_BYTES = 8192
MAX_KEYS_BYTES = 1 << 20


class TokenVerifier:
    """Verifies access tokens of one issuer. Its keys are asked for when they are first needed, and kept."""

    def __init__(self, settings: ServeSettings) -> None:
        """Raises Misconfigured for an issuer without TLS, or without an audience to compare with."""
        self._issuer = settings.oidc_issuer
        url = httpx.URL(self._issuer)
        if url.scheme != "https" and url.host not in {"localhost", "127.0.0.1", "::1"}:
            raise Misconfigured("SEENIT_SERVE_OIDC_ISSUER has to be an https address")
        if not settings.oidc_audience:
            raise Misconfigured(
                "SEENIT_SERVE_OIDC_ISSUER needs SEENIT_SERVE_OIDC_AUDIENCE: whom its tokens are meant for"
            )
        self._settings = settings
        self._claims = jwt.JWTClaimsRegistry(
            leeway=CLOCK_LEEWAY_S,
            iss={"essential": True, "value": self._issuer},
            aud={"essential": True, "value": settings.oidc_audience},
            sub={"essential": True},
            exp={"essential": True},
        )
        self._keys: KeySet | None = None
        self._asked_at_s = -math.inf
        self._problem: Unavailable | None = None
        self._lock = asyncio.Lock()

    async def verify(self, token: str) -> Caller:
        """Tell whom a token speaks for. Raises Refused, or Unavailable while the provider cannot be asked."""
        if len(token) > MAX_TOKEN_BYTES or token.count(".") != 2:
            raise _refused("It is no token of the provider.")
        claims = self._decode(token, await self._current_keys(KEYS_KEPT_S))
        if claims is None:  # the provider may have begun to use another key
            claims = self._decode(token, await self._current_keys(ASK_AGAIN_S))
        if claims is None:
            raise _refused("It is not signed by the provider.")
        try:
            self._claims.validate(claims)
        except JoseError as error:
            raise _refused(f"The token does not hold here and now: {error.error}.") from None
        return self._caller(claims)

    def _decode(self, token: str, keys: KeySet) -> dict[str, Any] | None:
        try:
            return jwt.decode(token, keys, algorithms=ALGORITHMS).claims
        except (JoseError, ValueError):
            return None

    def _caller(self, claims: dict[str, Any]) -> Caller:
        scopes = _words(claims.get(self._settings.oidc_scopes_claim))
        tenants = _words(claims.get(self._settings.oidc_tenants_claim))
        return Caller(
            f"{claims['sub']}"[:256],
            frozenset(scope for scope in SCOPES if scope in scopes or f"seenit:{scope}" in scopes),
            None if "*" in tenants else tenants,
        )

    async def _current_keys(self, max_age_s: float) -> KeySet:
        """The provider's keys; while it is away those that are known, and it is not asked again by every request."""
        async with self._lock:
            if time.monotonic() - self._asked_at_s > (max_age_s if self._problem is None else ASK_AGAIN_S):
                try:
                    self._keys, self._problem = await self._fetch_keys(), None
                except Unavailable as error:
                    log.warning("%s", error)
                    self._problem = error
                self._asked_at_s = time.monotonic()
            if self._keys is None:
                raise Unavailable("oidc", "" if self._problem is None else self._problem.detail)
            return self._keys

    async def _fetch_keys(self) -> KeySet:
        try:
            async with httpx.AsyncClient(timeout=KEYS_TIMEOUT_S, trust_env=True) as client:
                about = await _get_json(client, self._issuer.rstrip("/") + "/.well-known/openid-configuration")
                if about["issuer"] != self._issuer:
                    raise ValueError("it calls itself otherwise")
                return KeySet.import_key_set(await _get_json(client, str(about["jwks_uri"])))
        except (httpx.HTTPError, httpx.InvalidURL, JoseError, ValueError, KeyError, TypeError) as error:
            raise Unavailable("oidc", f"{self._issuer}: {str(error)[:200] or type(error).__name__}") from None


async def _get_json(client: httpx.AsyncClient, url: str) -> Any:
    async with client.stream("GET", url) as reply:
        reply.raise_for_status()
        body = b""
        async for chunk in reply.aiter_bytes():
            body += chunk
            if len(body) > MAX_KEYS_BYTES:
                raise ValueError("it answers with more than a document")
    return httpx.Response(200, content=body).json()


def _words(claim: object) -> frozenset[str]:
    """The words of a claim, which is a list of them or one text with spaces between."""
    if isinstance(claim, str):
        return frozenset(claim.split())
    return frozenset(each for each in claim if isinstance(each, str)) if isinstance(claim, list) else frozenset()


def _refused(detail: str) -> Refused:
    return Refused(HTTPStatus.UNAUTHORIZED, "unauthorized", detail, headers={"WWW-Authenticate": "Bearer"})
