"""Signing in at an OpenID provider: its code flow (RFC 6749), with PKCE (RFC 7636), a state and a nonce.

What has to be known when the visitor comes back is in a signed cookie until then: any process can go on with it.
"""

import hmac
import secrets
from base64 import urlsafe_b64encode
from hashlib import sha256
from http import HTTPStatus
from typing import NamedTuple
from urllib.parse import quote_plus

import httpx
from starlette.datastructures import QueryParams

from consumer.errors import Misconfigured
from consumer.http.access import Access, is_loopback
from consumer.http.page.signed import Signer
from consumer.http.problems import Refused
from consumer.http.scopes import Caller
from consumer.sections import ServeSettings

BACK = "/sign-in/back"
# How long somebody may take at the provider.
FLOW_S = 600


class Flow(NamedTuple):
    """Where to send a visitor, and what its browser has to keep until it comes back."""

    url: str
    cookie: str


class ProviderSignIn:
    """Sends visitors to the provider, and finds out who came back."""

    def __init__(self, settings: ServeSettings, access: Access, secret: bytes) -> None:
        """Raises Misconfigured where a setting is missing, or the page has an address without TLS."""
        public = httpx.URL(settings.public_url)
        if access.provider is None or not public.host:
            raise Misconfigured(
                "SEENIT_SERVE_OIDC_CLIENT_ID needs SEENIT_SERVE_OIDC_ISSUER, the provider, and "
                "SEENIT_SERVE_PUBLIC_URL, the address of the page to which it sends people back"
            )
        if public.scheme != "https" and not is_loopback(public.host):
            raise Misconfigured("SEENIT_SERVE_PUBLIC_URL has to be an https address")
        self._settings = settings
        self._access = access
        self._provider = access.provider
        self._signer = Signer(secret, "sign-in")
        self._back = settings.public_url.rstrip("/") + BACK

    async def begin(self, next_page: str) -> Flow:
        """Begin to sign somebody in. Raises Unavailable."""
        endpoint = (await self._provider.describe()).authorization_endpoint
        kept = {name: secrets.token_urlsafe() for name in ("state", "nonce", "verifier")}
        asked = {
            "response_type": "code",
            "client_id": self._settings.oidc_client_id,
            "redirect_uri": self._back,
            "scope": self._settings.oidc_request,
            "state": kept["state"],
            "nonce": kept["nonce"],
            "code_challenge": urlsafe_b64encode(sha256(kept["verifier"].encode()).digest()).rstrip(b"=").decode(),
            "code_challenge_method": "S256",
        }
        url = str(httpx.URL(endpoint).copy_merge_params(asked))
        return Flow(url, self._signer.sign({**kept, "next": next_page}, FLOW_S))

    async def finish(self, query: QueryParams, cookie: str) -> tuple[Caller, str]:
        """Tell who came back, and which page was asked for. Raises Refused or Unavailable."""
        kept = self._signer.read(cookie)
        if kept is None or not hmac.compare_digest(query.get("state", "").encode(), kept["state"].encode()):
            raise _refused("This sign-in was begun elsewhere, or too long ago.")
        if query.get("iss", self._provider.issuer) != self._provider.issuer or "code" not in query:
            raise _refused("The provider did not let you in.")
        tokens = await self._exchange(query["code"], kept["verifier"])
        if tokens is None:
            raise _refused("The provider does not know this sign-in, or not any more.")
        return await self._access.identity(str(tokens.get("id_token")), kept["nonce"]), kept["next"]

    async def _exchange(self, code: str, verifier: str) -> dict[str, object] | None:
        client_id, secret = self._settings.oidc_client_id, self._settings.oidc_client_secret.get_secret_value()
        form = {"grant_type": "authorization_code", "code": code, "redirect_uri": self._back, "code_verifier": verifier}
        if secret:
            return await self._provider.exchange(form, (quote_plus(client_id), quote_plus(secret)))
        return await self._provider.exchange({**form, "client_id": client_id})


def _refused(detail: str) -> Refused:
    return Refused(HTTPStatus.FORBIDDEN, "not-signed-in", f"{detail} Sign in again.")
