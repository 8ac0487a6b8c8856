"""Who may do what: keys, scopes, tenants, rates, and tokens of an OpenID provider, against the real server."""

import hmac
import json
import sys
import time
from base64 import urlsafe_b64encode
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from joserfc import jwt
from joserfc.jwk import ECKey, RSAKey

from consumer.errors import Misconfigured
from consumer.http.access import Access
from consumer.http.keys import new_key
from consumer.local.process import Server
from consumer.sections import ServeSettings
from tests.http.conftest import serve
from tests.http.keys import entry
from tests.http.pictures import PHOTO, jpeg
from tests.service_fixtures import Service
from tests.stack_fixtures import serving
from tests.web import answer
from tests.web import serve as serve_pictures

READER, REVIEWER, ADMIN, SLOW, OWNER = (new_key() for _ in range(5))
PICTURE = jpeg(PHOTO)
AUDIENCE = "seenit"


@pytest.fixture(scope="module")
def keys_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    file = tmp_path_factory.mktemp("keys") / "keys.toml"
    entries = (
        entry("reader", READER, ["read"], ["shop"]),
        entry("reviewer", REVIEWER, ["read", "review"], ["shop", "blog"]),
        entry("admin", ADMIN, ["read", "review", "admin"], ["*"]),
        entry("owner", OWNER, ["read", "review", "admin"], ["shop"]),
        entry("slow", SLOW, ["read"], ["shop"], "requests_per_s = 0.05"),
    )
    file.write_text("".join(entries))
    return file


@pytest.fixture(scope="module")
def issuer(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The address of an OpenID provider."""
    ada = json.dumps({"sub": "ada", "scope": "seenit:read", "tenants": ["shop"]})
    provider = Server(
        "provider",
        # Its package warns of what will be removed from others.
        lambda ports: [
            sys.executable,
            "-W",
            "ignore",
            "-m",
            "oidc_provider_mock",
            f"--port={ports[0]}",
            "--user-claims",
            ada,
        ],
        log=tmp_path_factory.mktemp("provider") / "log",
    )
    with serving(provider):
        yield f"http://127.0.0.1:{provider.ports[0]}"


@pytest.fixture(scope="module")
def guarded(
    uploads: Service, keys_file: Path, issuer: str, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[httpx.Client]:
    """A client of a `seenit serve` that asks for keys."""
    settings = {
        "SEENIT_SERVE_KEYS_FILE": str(keys_file),
        "SEENIT_SERVE_OIDC_ISSUER": issuer,
        "SEENIT_SERVE_OIDC_AUDIENCE": AUDIENCE,
        "SEENIT_FETCH_SCHEMES": '["https", "http", "s3"]',
        "SEENIT_FETCH_NETWORKS": '["127.0.0.0/8"]',
    }
    with serve(uploads.environment, tmp_path_factory.mktemp("guarded"), **settings) as client:
        yield client


def look_up(client: httpx.Client, key: str | None, **params: str) -> httpx.Response:
    headers = {"content-type": "image/jpeg", **({} if key is None else {"authorization": f"Bearer {key}"})}
    return client.post("/v1/lookup", content=PICTURE, params=params, headers=headers)


def refusal(reply: httpx.Response) -> tuple[int, str]:
    return reply.status_code, reply.json()["reason"]


def test_nobody_is_answered_without_a_key(guarded: httpx.Client) -> None:
    for key in (None, "seenit_", new_key(), READER[:-1], "a.b.c", "x" * 60_000):
        reply = look_up(guarded, key)
        assert refusal(reply) == (401, "unauthorized")
        assert reply.headers["www-authenticate"] == "Bearer"
    assert guarded.get("/v1/images/a", headers={"authorization": f"Basic {READER}"}).status_code == 401


def test_a_key_opens_its_own_tenants_only(guarded: httpx.Client) -> None:
    assert look_up(guarded, READER).status_code == 200  # its only tenant, unless another is named
    assert look_up(guarded, READER, tenant="shop").status_code == 200
    for tenant in ("default", "blog", "*", "shop "):
        assert refusal(look_up(guarded, READER, tenant=tenant)) == (403, "other-tenant")
    assert refusal(look_up(guarded, REVIEWER)) == (403, "other-tenant")  # it has two, and neither is `default`
    assert look_up(guarded, ADMIN, tenant="anybody's").status_code == 200


def test_another_tenants_image_is_not_read_forgotten_or_made(guarded: httpx.Client, uploads: Service) -> None:
    as_reviewer, as_admin = ({"authorization": f"Bearer {key}"} for key in (REVIEWER, ADMIN))
    upload = {"image_id": "mine", "tenant": "bank", "url": "https://example.org/a.png"}
    assert refusal(guarded.get("/v1/images/mine", params={"tenant": "bank"}, headers=as_reviewer))[0] == 403
    assert refusal(guarded.delete("/v1/images/mine", params={"tenant": "shop"}, headers=as_reviewer)) == (
        403,
        "missing-scope",
    )
    assert refusal(guarded.post("/v1/uploads", json=upload, headers=as_reviewer)) == (403, "missing-scope")
    assert guarded.post("/v1/uploads", json=upload, headers=as_admin).status_code == 202


def test_a_tenants_key_names_no_address_that_leads_to_others_pictures(uploads: Service, guarded: httpx.Client) -> None:
    as_admin, as_owner = ({"authorization": f"Bearer {key}"} for key in (ADMIN, OWNER))
    with serve_pictures(lambda _, connection: answer(connection, PICTURE)) as inside:
        own, stored = inside.url(), "s3://bucket/of another tenant.jpg"
        assert guarded.post("/v1/lookup", json={"url": own}, headers=as_admin).status_code == 200
        before = inside.connections
        for url, status, reason in ((own, 400, "forbidden-address"), (stored, 403, "other-tenant")):
            pair = {"original": {"url": url}, "upload": {"url": url}}
            for path, body in (("/v1/lookup", {"url": url}), ("/v1/compare", pair)):
                assert refusal(guarded.post(path, json=body, headers=as_owner)) == (status, reason)
            for path in ("/h/hash", "/m/lookup"):
                assert refusal(guarded.get(path, params={"url": url}, headers=as_owner)) == (status, reason)
            # Consumers fetch what events name, with all the rights of the service.
            upload = {"image_id": "a", "url": url}
            assert refusal(guarded.post("/v1/uploads", json=upload, headers=as_owner)) == (403, "other-tenant")
            entry_path = "/v1/banks/bank/entries/a"
            assert refusal(guarded.put(entry_path, json={"url": url}, headers=as_owner)) == (403, "other-tenant")
        assert inside.connections == before
    assert guarded.post("/v1/uploads", json={"image_id": "a", "url": stored}, headers=as_admin).status_code == 202


def test_too_many_requests_are_told_when_to_come_back(guarded: httpx.Client) -> None:
    replies = [look_up(guarded, SLOW) for _ in range(3)]
    assert [reply.status_code for reply in replies] == [200, 429, 429]
    assert replies[1].json()["reason"] == "too-many-requests"
    assert 10 <= int(replies[1].headers["retry-after"]) <= 20
    assert look_up(guarded, READER).status_code == 200  # others are not held up


def token(issuer: str, key: Any, algorithm: str = "RS256", **claims: object) -> str:
    now = int(time.time())
    content = {"iss": issuer, "aud": AUDIENCE, "sub": "ada", "exp": now + 60, "scope": "read", "tenants": "shop"}
    return jwt.encode({"alg": algorithm, "kid": "test"}, {**content, **claims}, key, algorithms=[algorithm])


def hmac_token(body: str, secret: bytes) -> str:
    head = json.dumps({"alg": "HS256", "typ": "JWT"}).encode()
    signed = f"{encode(head)}.{body}"
    return f"{signed}.{encode(hmac.digest(secret, signed.encode(), 'sha256'))}"


def encode(part: bytes) -> str:
    return urlsafe_b64encode(part).rstrip(b"=").decode()


def provider_token(issuer: str) -> str:
    """A token for Ada, as a browser gets one: by the code flow."""
    redirect = "http://localhost/back"
    with httpx.Client(base_url=issuer) as client:
        asked = {
            "client_id": AUDIENCE,
            "response_type": "code",
            "scope": "openid",
            "redirect_uri": redirect,
            "state": "s",
        }
        location = client.post("/oauth2/authorize", params=asked, data={"sub": "ada"}).headers["location"]
        code = httpx.URL(location).params["code"]
        given = {"grant_type": "authorization_code", "code": code, "redirect_uri": redirect}
        reply = client.post("/oauth2/token", data=given, auth=(AUDIENCE, "secret"))
        answer: str = reply.json()["id_token"]
        return answer


def test_a_token_of_the_provider_is_taken(guarded: httpx.Client, issuer: str) -> None:
    assert look_up(guarded, provider_token(issuer)).status_code == 200
    assert refusal(look_up(guarded, provider_token(issuer), tenant="blog")) == (403, "other-tenant")


def test_forged_and_tampered_tokens_are_refused(guarded: httpx.Client, issuer: str) -> None:
    head, body, signature = provider_token(issuer).split(".")
    keys = httpx.get(f"{issuer}/jwks").json()["keys"]
    public = RSAKey.import_key({name: value for name, value in keys[0].items() if name != "alg"})
    forged = [
        token(issuer, RSAKey.generate_key(2048)),
        token(issuer, ECKey.generate_key("P-256"), "ES256"),
        # The public key, which everybody has, taken for a shared secret.
        hmac_token(body, public.as_pem(private=False)),
        f"{head}.{body}.",
        f"{head}.{body[:-8]}AAAAAAAA.{signature}",
        "eyJhbGciOiJub25lIn0." + body + ".",
    ]
    for each in forged:
        assert refusal(look_up(guarded, each)) == (401, "unauthorized")


@pytest.mark.parametrize(
    "url", ["http://provider.example", "ftp://provider.example"], ids=["without TLS", "no web address"]
)
def test_an_issuer_has_to_be_reached_by_tls(url: str) -> None:
    with pytest.raises(Misconfigured, match="https"):
        Access(ServeSettings(oidc_issuer=url, oidc_audience="a"))


def test_a_service_that_others_can_reach_needs_keys() -> None:
    for host in ("0.0.0.0", "::", "10.0.0.1", "example.org"):  # noqa: S104
        with pytest.raises(Misconfigured, match="SEENIT_SERVE_KEYS_FILE"):
            Access(ServeSettings(host=host))
    assert Access(ServeSettings(host="::1")).is_open


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("keys = 3", "keys"),
        ("[keys.a]\nsha256 = 'abc'\nscopes = ['read']\ntenants = ['a']", "keys.a.sha256"),
        (entry("a", READER, ["write"], ["a"]), "keys.a.scopes"),
        (entry("a", READER, ["read"], []), "keys.a.tenants"),
        ("[keys", "not TOML"),
    ],
)
def test_a_file_of_keys_that_is_wrong_says_where(tmp_path: Path, text: str, problem: str) -> None:
    file = tmp_path / "keys.toml"
    file.write_text(text)
    with pytest.raises(Misconfigured, match=problem):
        Access(ServeSettings(keys_file=file))


def test_a_key_that_is_taken_out_of_the_file_opens_nothing_any_more(guarded: httpx.Client, keys_file: Path) -> None:
    new, before = new_key(), keys_file.read_text()
    try:
        keys_file.write_text(before + entry("new", new, ["read"], ["shop"]))
        deadline_s = time.monotonic() + 20
        while look_up(guarded, new).status_code == 401:
            assert time.monotonic() < deadline_s
            time.sleep(0.2)
        keys_file.write_text(before)
        while look_up(guarded, new).status_code == 200:
            assert time.monotonic() < deadline_s
            time.sleep(0.2)
    finally:
        keys_file.write_text(before)


def test_no_key_or_token_is_in_the_log(guarded: httpx.Client, issuer: str, keys_file: Path) -> None:
    given = provider_token(issuer)
    look_up(guarded, given)
    look_up(guarded, "seenit_wrong")
    log = next(keys_file.parent.parent.glob("guarded*/serve.log")).read_text()
    assert "seenit_wrong" not in log
    for secret in (given, READER, ADMIN):
        assert secret not in log


def test_other_web_sites_can_do_nothing_on_loopback(http: httpx.Client) -> None:
    """A page in the browser of whoever runs the service without keys may send requests to it."""
    host = http.base_url.netloc.decode()
    foreign = [
        {"host": f"evil.example:{http.base_url.port}"},
        {"host": "evil.example"},
        {"origin": "https://evil.example"},
        {"origin": "null"},
        {"sec-fetch-site": "cross-site"},
        {"sec-fetch-site": "same-site"},
    ]
    for headers in foreign:
        reply = http.post(
            "/v1/uploads", params={"image_id": "a"}, content=PICTURE, headers={**headers, "content-type": "image/jpeg"}
        )
        assert reply.status_code == 403, headers
    own = {"origin": f"http://{host}", "sec-fetch-site": "same-origin", "content-type": "image/jpeg"}
    assert http.post("/v1/lookup", content=PICTURE, headers=own).status_code == 200
