"""Who visits the page: signed in with a key or a token, in a signed cookie; and a proof that the page sent a request.

Every visitor has a random id. Forms carry a token made of it, which no other web site can know.

Redis knows which sessions are open: one that was signed out opens nothing more, in whichever browser its cookie is. Nor
does one that Redis has lost; the cookie alone would outlive what was said about it.
"""

import asyncio
import hmac
import json
import secrets
import time
from base64 import urlsafe_b64decode
from collections.abc import Callable
from dataclasses import dataclass, field
from hashlib import sha256
from typing import Any

from fastapi import Response

from consumer.http.access import Access
from consumer.http.keys import KEY_PREFIX, hash_key
from consumer.http.page.signed import Signer
from consumer.http.scopes import Caller, Scope

SESSION_COOKIE, ID_COOKIE, FLOW_COOKIE = "seenit-session", "seenit-id", "seenit-sign-in"
TOKEN_HEADER, TOKEN_FIELD = "X-Seenit-Token", "token"
SESSION_S = 8 * 3600


@dataclass(slots=True)
class Visitor:
    """Somebody who looks at the page; `tenant` is the one whose pictures are shown."""

    caller: Caller
    tenant: str
    token: str
    is_signed_in: bool
    new_id: str | None = None
    tenants: list[str] = field(default_factory=list)

    def may(self, scope: Scope) -> bool:
        """Whether the visitor has a scope."""
        return scope in self.caller.scopes

    def keep(self, response: Response) -> None:
        """Let the browser keep the id of a new visitor."""
        if self.new_id is not None:
            set_cookie(response, ID_COOKIE, self.new_id, secure=self.is_signed_in)


class Sessions:
    """Opens sessions and recognises them, by cookies that this process and others with the same secret have signed.

    What asks Redis raises Unavailable where it cannot be asked.
    """

    def __init__(self, secret: bytes, redis_command: Callable[..., Any], prefix: str) -> None:
        self._secret = secret
        self._signer = Signer(secret, "session")
        self._command = redis_command
        self._prefix = prefix

    async def open(self, caller: Caller, credential: str = "") -> str:
        """Make the cookie of somebody who signed in; a session by a key or a token does not outlive that."""
        seconds = SESSION_S
        if credential.startswith(KEY_PREFIX):
            claims: dict[str, Any] = {"key": hash_key(credential)}
        else:
            tenants = None if caller.tenants is None else sorted(caller.tenants)
            claims = {"sub": caller.name, "scopes": sorted(caller.scopes), "tenants": tenants}
            if credential:
                seconds = max(1, min(seconds, _expiry(credential) - int(time.time())))
        claims["jti"] = secrets.token_urlsafe()
        await asyncio.to_thread(self._command, "SET", self._name(claims), "", "EX", seconds)
        return self._signer.sign(claims, seconds)

    async def recognise(self, cookie: str, access: Access) -> Caller | None:
        """Tell whose cookie this is; None if it is not ours, too old or signed out, or its key has been taken away."""
        claims = self._signer.read(cookie)
        if claims is None or await asyncio.to_thread(self._command, "GET", self._name(claims)) is None:
            return None
        if "key" in claims:
            return access.holder(claims["key"])
        tenants = claims["tenants"]
        return Caller(claims["sub"], frozenset(claims["scopes"]), None if tenants is None else frozenset(tenants))

    async def close(self, cookie: str) -> None:
        """End the session of a cookie, wherever it was copied to."""
        if claims := self._signer.read(cookie):
            await asyncio.to_thread(self._command, "DEL", self._name(claims))

    def token(self, visitor_id: str) -> str:
        """Make the token that proves that the page of this visitor sent a form."""
        return hmac.new(self._secret, visitor_id.encode(), sha256).hexdigest()

    def _name(self, claims: dict[str, Any]) -> str:
        return f"{self._prefix}:session:{claims['jti']}"


def set_cookie(response: Response, name: str, value: str, *, secure: bool, lax: bool = False) -> None:
    """Set a cookie that scripts cannot read and other sites cannot send; it ends with the browser.

    A lax one is sent as well where another site leads here.
    """
    response.set_cookie(name, value, path="/", httponly=True, samesite="lax" if lax else "strict", secure=secure)


def _expiry(token: str) -> int:
    """When a token ends, which was verified before, in seconds since 1970."""
    payload = token.split(".")[1]
    return int(json.loads(urlsafe_b64decode(payload + "=" * (-len(payload) % 4)))["exp"])
