"""Signing in at a real OpenID provider, which asks for PKCE, by a real browser; and what is not taken for it."""

import re
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import parse_qs, urlsplit

import httpx
import pytest
from playwright.sync_api import Browser, Page, expect

from consumer.errors import Misconfigured
from consumer.http.access import Access
from consumer.http.page.provider_sign_in import ProviderSignIn
from consumer.http.page.sessions import FLOW_COOKIE, SESSION_COOKIE
from consumer.local.process import Server, answers
from consumer.sections import ServeSettings
from tests.deploy.tools import needed, node_packages
from tests.http.conftest import serve
from tests.http.page.conftest import Site, window
from tests.stack_fixtures import serving

HERE = Path(__file__).parent / "provider"


@pytest.fixture(scope="module")
def provider(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The address of a provider; it is of another site than the page, which has the name 127.0.0.1."""
    node, folder = needed("node", "nodejs"), node_packages("provider", HERE)
    server = Server(
        "provider",
        lambda ports: [node, str(HERE / "provider.mjs"), str(folder), str(ports[0])],
        lambda ports: answers(ports[0], "/.well-known/openid-configuration"),
        log=tmp_path_factory.mktemp("provider") / "log",
    )
    with serving(server):
        yield f"http://localhost:{server.ports[0]}"


@pytest.fixture(scope="module")
def guarded(site: Site, provider: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[httpx.Client]:
    """A page for those whom the provider knows, on the same service."""
    settings = {
        "SEENIT_SERVE_OIDC_ISSUER": provider,
        "SEENIT_SERVE_OIDC_AUDIENCE": "seenit",
        "SEENIT_SERVE_OIDC_CLIENT_ID": "seenit-page",
        "SEENIT_SERVE_OIDC_CLIENT_SECRET": "a secret: with % and +",
        "SEENIT_SERVE_OIDC_SCOPES_CLAIM": "roles",
    }
    with serve(site.service.environment, tmp_path_factory.mktemp("guarded"), **settings) as client:
        yield client


def sign_in(page: Page, name: str) -> None:
    """Sign in at the provider, from the page that asks for it; a font that its own page wants is left out."""
    page.route(re.compile("fonts"), lambda route: route.fulfill(body=""))
    page.get_by_role("button", name="Sign in at your provider").click()
    page.get_by_placeholder("Enter any login").fill(name)
    page.get_by_placeholder("and password").fill("any")
    page.get_by_role("button", name="Sign-in").click()
    page.get_by_role("button", name="Continue").click()


def test_who_signs_in_at_the_provider_sees_the_page_asked_for(browser: Browser, guarded: httpx.Client) -> None:
    address = str(guarded.base_url).rstrip("/")
    with window(browser) as page:
        asked = []
        page.on("request", lambda request: asked.append(request.url))
        page.goto(f"{address}/campaigns?tenant=default")
        sign_in(page, "ada")
        expect(page.get_by_role("heading", level=1)).to_have_text("Campaigns")
        expect(page.get_by_text("ada")).to_be_visible()
        [back] = [url for url in asked if "/sign-in/back" in url]
        # The address that led here leads nobody else in.
        assert guarded.get(back).status_code == 403
        cookies = {each["name"]: each for each in page.context.cookies(address)}
        assert FLOW_COOKIE not in cookies
        assert cookies[SESSION_COOKIE]["sameSite"] == "Strict"
        page.get_by_role("button", name="Sign out").click()
        expect(page.get_by_role("heading", level=1)).to_have_text("Sign in")


def test_who_may_not_read_is_let_in_by_no_provider(browser: Browser, guarded: httpx.Client) -> None:
    with window(browser, expected="403") as page:
        page.goto(str(guarded.base_url))
        sign_in(page, "eve")
        expect(page.get_by_text("This needs the scope 'read'.")).to_be_visible()
        assert SESSION_COOKIE not in {each["name"] for each in page.context.cookies()}


def test_what_the_provider_did_not_send_back_is_refused(guarded: httpx.Client, provider: str) -> None:
    begun = guarded.get("/sign-in/provider", params={"next": "//evil.example"})
    assert begun.status_code == 303
    location = urlsplit(begun.headers["location"])
    assert f"{location.scheme}://{location.netloc}" == provider
    asked = {name: value for name, [value] in parse_qs(location.query).items()}
    assert (asked["response_type"], asked["code_challenge_method"]) == ("code", "S256")
    kept, state = begun.cookies[FLOW_COOKIE], asked["state"]
    assert "SameSite=lax" in begun.headers["set-cookie"]
    for query, cookie in (
        ({"code": "a", "state": state}, ""),
        ({"code": "a", "state": state}, kept[:-2]),
        ({"code": "a", "state": "another"}, kept),
        ({"code": "a"}, kept),
        ({"error": "access_denied", "state": state}, kept),
        ({"code": "a", "state": state, "iss": "https://another.example"}, kept),
        ({"code": "of nobody", "state": state}, kept),  # the provider itself refuses that
    ):
        reply = guarded.get("/sign-in/back", params=query, headers={"cookie": f"{FLOW_COOKIE}={cookie}"})
        assert (reply.status_code, reply.json()["reason"]) == (403, "not-signed-in"), query
        assert SESSION_COOKIE not in reply.cookies


@pytest.mark.parametrize(
    ("settings", "problem"),
    [
        ({}, "SEENIT_SERVE_PUBLIC_URL"),
        ({"public_url": "http://page.example"}, "https"),
        ({"public_url": "https://page.example", "oidc_issuer": ""}, "SEENIT_SERVE_OIDC_ISSUER"),
    ],
)
def test_what_the_provider_needs_to_know_is_asked_for(settings: dict[str, str], problem: str) -> None:
    known = {"oidc_issuer": "https://provider.example", "oidc_audience": "seenit", "oidc_client_id": "page"}
    serve_settings = ServeSettings.model_validate(known | settings)
    with pytest.raises(Misconfigured, match=problem):
        ProviderSignIn(serve_settings, Access(serve_settings), b"secret")
