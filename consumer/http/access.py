"""Who asks, and what they may: bearer keys from a file, tokens of an OpenID provider, or anybody on loopback."""

import ipaddress
from http import HTTPStatus

from starlette.requests import HTTPConnection

from consumer.errors import Misconfigured
from consumer.http.keys import KeyRing
from consumer.http.oidc import TokenVerifier
from consumer.http.problems import Refused
from consumer.http.provider import Provider
from consumer.http.rates import RateLimiter
from consumer.http.scopes import SCOPES, Caller
from consumer.sections import ServeSettings

ANYBODY = Caller("anybody", frozenset(SCOPES), None)
LOOPBACK_NAMES = ("localhost", "127.0.0.1", "[::1]")


class Access:
    """Tells who sends a request. Raises Misconfigured where anybody could reach a service without keys."""

    def __init__(self, settings: ServeSettings) -> None:
        self._keys = KeyRing(settings.keys_file) if settings.keys_file else None
        self.provider = Provider(settings.oidc_issuer) if settings.oidc_issuer else None
        self._tokens = TokenVerifier(settings, self.provider) if self.provider else None
        self._rates = RateLimiter(settings.requests_per_s)
        self.is_open = self._keys is None and self._tokens is None
        if self.is_open and not is_loopback(settings.host):
            raise Misconfigured(
                f"SEENIT_SERVE_HOST={settings.host} can be reached from elsewhere, and there are no keys: name a file "
                "of keys in SEENIT_SERVE_KEYS_FILE (`seenit key` writes its lines) or a provider in "
                "SEENIT_SERVE_OIDC_ISSUER, or listen on 127.0.0.1"
            )

    async def caller(self, connection: HTTPConnection) -> Caller:
        """Tell who sends a request, and count it. Raises Refused: who is it, or too many requests."""
        if self.is_open:
            caller = ANYBODY
        else:
            kind, _, token = connection.headers.get("authorization", "").partition(" ")
            if kind.lower() != "bearer" or not token:
                raise unauthorized("Send a key or a token: Authorization: Bearer ...")
            caller = await self.bearer(token.strip())
        self.count(caller)
        return caller

    def count(self, caller: Caller) -> None:
        """Count a request. Raises Refused for one too many."""
        self._rates.count(caller)

    def holder(self, key_hash: str) -> Caller | None:
        """Tell who holds the key of this hash; None if it has been taken away."""
        return None if self._keys is None else self._keys.holder(key_hash)

    async def bearer(self, token: str) -> Caller:
        """Tell whose key or token this is. Raises Refused."""
        if self._keys is not None and (caller := self._keys.find(token)) is not None:
            return caller
        if self._tokens is not None:
            return await self._tokens.verify(token)
        raise unauthorized("This key is not known here, or not any more.")

    async def identity(self, token: str, nonce: str) -> Caller:
        """Tell who signed in at the provider, by an ID token. Raises Refused or Unavailable."""
        if self._tokens is None:
            raise unauthorized("There is no provider.")
        return await self._tokens.verify_identity(token, nonce)


def unauthorized(detail: str) -> Refused:
    """Make the refusal of somebody unknown."""
    return Refused(HTTPStatus.UNAUTHORIZED, "unauthorized", detail, headers={"WWW-Authenticate": "Bearer"})


def is_loopback(host: str) -> bool:
    """Tell whether only this machine can connect to an address that is listened on."""
    try:
        return ipaddress.ip_address(host.strip("[]")).is_loopback
    except ValueError:
        return host == "localhost"
