"""Tokens of a provider: only what its present keys have signed, for this service and for now, is taken."""

import asyncio
import json
import socket
import time
from collections.abc import Iterator
from typing import Any

import pytest
from joserfc import jwt
from joserfc.jwk import ECKey, RSAKey

from consumer.errors import Unavailable
from consumer.http import provider as asked
from consumer.http.oidc import TokenVerifier
from consumer.http.problems import Refused
from consumer.http.scopes import Caller
from consumer.sections import ServeSettings
from tests.web import answer, serve

KEY = RSAKey.generate_key(2048, {"kid": "first"})
NOW = int(time.time())


class Provider:
    """Answers with its description and its keys, and counts how often it is asked for these."""

    def __init__(self) -> None:
        self.keys: list[Any] = [KEY]
        self.calls_itself = ""
        self.asked = self.described = 0
        self.url = ""

    def handle(self, path: str, connection: socket.socket) -> bool:
        answered: object = {"issuer": self.calls_itself or self.url, "jwks_uri": f"{self.url}/keys"}
        if path == "/keys":
            self.asked += 1
            answered = {"keys": [key.as_dict(private=False) for key in self.keys]}
        else:
            self.described += 1
        return answer(connection, json.dumps(answered).encode())


@pytest.fixture
def provider() -> Iterator[Provider]:
    new = Provider()
    with serve(new.handle) as server:
        new.url = server.url("")
        yield new


def verifier(provider: Provider) -> TokenVerifier:
    settings = ServeSettings(oidc_issuer=provider.url, oidc_audience="seenit", oidc_client_id="page")
    return TokenVerifier(settings, asked.Provider(provider.url))


def token(provider: Provider, key: Any = KEY, algorithm: str = "RS256", **claims: object) -> str:
    content = {
        "iss": provider.url,
        "aud": "seenit",
        "sub": "ada",
        "exp": int(time.time()) + 600,
        "scope": "read seenit:review",
    }
    content = {**content, "tenants": ["shop"], **claims}
    return jwt.encode(
        {"alg": algorithm, "kid": key.kid}, {name: each for name, each in content.items() if each is not None}, key
    )


def test_scopes_and_tenants_are_those_of_the_claims(provider: Provider) -> None:
    caller = asyncio.run(verifier(provider).verify(token(provider)))
    assert caller == Caller("ada", frozenset(("read", "review")), frozenset(("shop",)))
    caller = asyncio.run(verifier(provider).verify(token(provider, scope=["admin"], tenants="*", aud=["a", "seenit"])))
    assert caller == Caller("ada", frozenset(("admin",)), None)
    caller = asyncio.run(verifier(provider).verify(token(provider, scope=None, tenants=7)))
    assert caller == Caller("ada", frozenset(), frozenset())


@pytest.mark.parametrize(
    "claims",
    [
        {"exp": NOW - 60},
        {"exp": None},
        {"exp": "soon"},
        {"nbf": NOW + 86_400},
        {"aud": "another service"},
        {"aud": None},
        {"iss": "http://127.0.0.1"},
        {"iss": None},
        {"sub": None},
    ],
    ids=",".join,
)
def test_what_does_not_hold_here_and_now_is_refused(provider: Provider, claims: dict[str, object]) -> None:
    with pytest.raises(Refused, match="401"):
        asyncio.run(verifier(provider).verify(token(provider, **claims)))


def test_who_signed_in_is_told_by_the_token_that_was_asked_for(provider: Provider) -> None:
    def identity(**claims: object) -> str:
        return token(provider, **{"aud": "page", "nonce": "n", **claims})

    assert asyncio.run(verifier(provider).verify_identity(identity(), "n")).name == "ada"
    assert asyncio.run(verifier(provider).verify_identity(identity(azp="page", aud=["page", "b"]), "n")).name == "ada"
    for claims in ({"nonce": "another"}, {"nonce": None}, {"aud": "seenit"}, {"azp": "another"}, {"exp": NOW - 60}):
        with pytest.raises(Refused, match="401"):
            asyncio.run(verifier(provider).verify_identity(identity(**claims), "n"))


def test_keys_that_were_changed_are_asked_for(provider: Provider, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(asked, "ASK_AGAIN_S", 0.0)
    second = ECKey.generate_key("P-256", {"kid": "second"})

    async def verify() -> None:
        verifies = verifier(provider)
        await verifies.verify(token(provider))
        provider.keys = [second]
        await verifies.verify(token(provider, second, "ES256"))
        with pytest.raises(Refused):
            await verifies.verify(token(provider))

    asyncio.run(verify())


def test_forged_tokens_do_not_make_the_provider_busy(provider: Provider) -> None:
    async def verify() -> None:
        verifies = verifier(provider)
        forged = token(provider, RSAKey.generate_key(2048, {"kid": "first"}))
        for _ in range(20):
            with pytest.raises(Refused):
                await verifies.verify(forged)

    asyncio.run(verify())
    assert provider.asked == 1


def test_another_provider_is_not_taken_for_it(provider: Provider) -> None:
    provider.calls_itself = "https://another.example"
    with pytest.raises(Unavailable, match="calls itself otherwise"):
        asyncio.run(verifier(provider).verify(token(provider)))


def test_a_provider_that_is_away_is_no_refusal() -> None:
    settings = ServeSettings(oidc_issuer="http://127.0.0.1:9", oidc_audience="seenit")
    away = TokenVerifier(settings, asked.Provider(settings.oidc_issuer))
    with pytest.raises(Unavailable, match="oidc"):
        asyncio.run(away.verify("a.b.c"))


def test_while_the_provider_is_away_known_keys_count_and_it_is_not_asked_by_every_request(
    provider: Provider, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def verify() -> None:
        verifies = verifier(provider)
        await verifies.verify(token(provider))
        monkeypatch.setattr(asked, "KEYS_KEPT_S", 0.0)
        provider.calls_itself = "https://another.example"
        for _ in range(5):
            assert (await verifies.verify(token(provider))).name == "ada"
        assert verifies._provider._problem is not None
        monkeypatch.setattr(asked, "ASK_AGAIN_S", 0.0)
        provider.keys, provider.calls_itself = [KEY], ""
        await verifies.verify(token(provider))
        assert verifies._provider._problem is None

    asyncio.run(verify())
    assert provider.described == 3


def test_a_provider_that_never_answered_is_not_waited_for_by_every_request(provider: Provider) -> None:
    provider.calls_itself = "https://another.example"

    async def verify() -> None:
        verifies = verifier(provider)
        for _ in range(5):
            with pytest.raises(Unavailable, match="calls itself otherwise"):
                await verifies.verify(token(provider))

    asyncio.run(verify())
    assert provider.described == 1
