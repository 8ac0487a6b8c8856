"""What a browser keeps for this service, and cannot change: claims signed with a secret, for one purpose and a time."""

import time
from hashlib import sha256
from typing import Any

from joserfc import jwt
from joserfc.errors import JoseError
from joserfc.jwk import OctKey

ALGORITHM = "HS256"


class Signer:
    """Signs claims, and reads what it signed itself, or another one with the same secret and purpose."""

    def __init__(self, secret: bytes, purpose: str) -> None:
        self._key = OctKey.import_key(sha256(purpose.encode() + secret).digest())

    def sign(self, claims: dict[str, Any], seconds: float) -> str:
        """Sign claims that hold for some seconds."""
        return jwt.encode({"alg": ALGORITHM}, {**claims, "exp": int(time.time() + seconds)}, self._key)

    def read(self, signed: str) -> dict[str, Any] | None:
        """Read the claims; None if they are not ours or too old."""
        try:
            claims = jwt.decode(signed, self._key, algorithms=[ALGORITHM]).claims
            jwt.JWTClaimsRegistry(exp={"essential": True}).validate(claims)
        except (JoseError, ValueError):
            return None
        return claims
