"""Who visits the page: signed in with a key or a token, in a signed cookie; and a proof that the page sent a request.

Every visitor has a random session id. Forms carry a token made of it, which no other web site can know.
"""

import hmac
import json
import secrets
import time
from base64 import urlsafe_b64decode
from dataclasses import dataclass, field
from hashlib import sha256
from typing import Any

from fastapi import Response
from joserfc import jwt
from joserfc.errors import JoseError
from joserfc.jwk import OctKey

from consumer.http.access import Access
from consumer.http.keys import KEY_PREFIX, hash_key
from consumer.http.scopes import Caller, Scope

SESSION_COOKIE, ID_COOKIE = "seenit-session", "seenit-id"
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
    """Opens sessions and recognises them, by cookies that this process and others with the same secret have signed."""

    def __init__(self, secret: str) -> None:
        """Without a secret, a random one: then sessions are known to this process alone."""
        self._secret = secret.encode() or secrets.token_bytes(32)
        self._key = OctKey.import_key(sha256(b"session" + self._secret).digest())

    def open(self, credential: str, caller: Caller) -> str:
        """Make the cookie of somebody who has shown a key, or a token, which the session does not outlive."""
        if credential.startswith(KEY_PREFIX):
            claims: dict[str, Any] = {"key": hash_key(credential), "exp": int(time.time()) + SESSION_S}
        else:
            tenants = None if caller.tenants is None else sorted(caller.tenants)
            claims = {"sub": caller.name, "scopes": sorted(caller.scopes), "tenants": tenants}
            claims["exp"] = min(int(time.time()) + SESSION_S, _expiry(credential))
        return jwt.encode({"alg": "HS256"}, claims, self._key)

    def recognise(self, cookie: str, access: Access) -> Caller | None:
        """Tell whose cookie this is; None if it is not ours or too old, or its key has been taken away."""
        try:
            claims = jwt.decode(cookie, self._key, algorithms=["HS256"]).claims
            jwt.JWTClaimsRegistry(exp={"essential": True}).validate(claims)
        except (JoseError, ValueError):
            return None
        if "key" in claims:
            return access.holder(claims["key"])
        tenants = claims["tenants"]
        return Caller(claims["sub"], frozenset(claims["scopes"]), None if tenants is None else frozenset(tenants))

    def token(self, visitor_id: str) -> str:
        """Make the token that proves that the page of this visitor sent a form."""
        return hmac.new(self._secret, visitor_id.encode(), sha256).hexdigest()


def set_cookie(response: Response, name: str, value: str, *, secure: bool) -> None:
    """Set a cookie that scripts cannot read and other sites cannot send; it ends with the browser."""
    response.set_cookie(name, value, path="/", httponly=True, samesite="strict", secure=secure)


def _expiry(token: str) -> int:
    """When a token ends, which was verified before, in seconds since 1970."""
    payload = token.split(".")[1]
    return int(json.loads(urlsafe_b64decode(payload + "=" * (-len(payload) % 4)))["exp"])
