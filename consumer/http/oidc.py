"""Tokens of an OpenID provider: signed by its keys, meant for this service, and not expired."""

from http import HTTPStatus
from typing import Any

from joserfc import jwt
from joserfc.errors import JoseError

from consumer.errors import Misconfigured
from consumer.http.problems import Refused
from consumer.http.provider import Provider
from consumer.http.scopes import SCOPES, Caller
from consumer.sections import ServeSettings

CLOCK_LEEWAY_S = 30


class TokenVerifier:
    """Verifies tokens of one issuer."""

    def __init__(self, settings: ServeSettings, provider: Provider) -> None:
        """Raises Misconfigured without an audience to compare with."""
        if not settings.oidc_audience:
            raise Misconfigured(
                "SEENIT_SERVE_OIDC_ISSUER needs SEENIT_SERVE_OIDC_AUDIENCE: whom its tokens are meant for"
            )
        self._settings = settings
        self._provider = provider

    async def verify(self, token: str) -> Caller:
        """Tell whom an access token speaks for. Raises Refused, or Unavailable while the provider cannot be asked."""
        return self._caller(await self._claims(token, self._settings.oidc_audience))

    async def verify_identity(self, token: str, nonce: str) -> Caller:
        """Tell who signed in, by the ID token that was asked for with a nonce. Raises Refused or Unavailable."""
        client_id = self._settings.oidc_client_id
        claims = await self._claims(token, client_id, nonce={"essential": True, "value": nonce})
        if claims.get("azp", client_id) != client_id:
            raise _refused("The token was made for another client.")
        return self._caller(claims)

    async def _claims(self, token: str, audience: str, **more: Any) -> dict[str, Any]:
        claims = await self._provider.verified(token)
        if claims is None:
            raise _refused("It is no token of the provider, or not signed by it.")
        expected = jwt.JWTClaimsRegistry(
            leeway=CLOCK_LEEWAY_S,
            iss={"essential": True, "value": self._provider.issuer},
            aud={"essential": True, "value": audience},
            sub={"essential": True},
            exp={"essential": True},
            **more,
        )
        try:
            expected.validate(claims)
        except JoseError as error:
            raise _refused(f"The token does not hold here and now: {error.error}.") from None
        return claims

    def _caller(self, claims: dict[str, Any]) -> Caller:
        scopes = _words(claims.get(self._settings.oidc_scopes_claim))
        tenants = _words(claims.get(self._settings.oidc_tenants_claim))
        return Caller(
            f"{claims['sub']}"[:256],
            frozenset(scope for scope in SCOPES if scope in scopes or f"seenit:{scope}" in scopes),
            None if "*" in tenants else tenants,
        )


def _words(claim: object) -> frozenset[str]:
    """The words of a claim, which is a list of them or one text with spaces between."""
    if isinstance(claim, str):
        return frozenset(claim.split())
    return frozenset(each for each in claim if isinstance(each, str)) if isinstance(claim, list) else frozenset()


def _refused(detail: str) -> Refused:
    return Refused(HTTPStatus.UNAUTHORIZED, "unauthorized", detail, headers={"WWW-Authenticate": "Bearer"})
