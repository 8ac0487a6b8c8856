"""Who may see and change what on the page: sessions, tokens of forms, scopes and tenants, against the real server."""

import json
import re
import time
from base64 import urlsafe_b64decode
from collections.abc import Iterator, Mapping
from pathlib import Path

import httpx
import pytest
from joserfc import jwt
from joserfc.jwk import OctKey

from consumer.http.keys import new_key
from consumer.http.page.rendering import own_page
from consumer.http.page.sessions import ID_COOKIE, SESSION_COOKIE, TOKEN_HEADER
from consumer.http.server import STOP_TIMEOUT_S
from tests.http.conftest import serve
from tests.http.keys import entry
from tests.http.page.conftest import HOSTILE_ID, Site
from tests.http.pictures import PHOTO, jpeg
from tests.http.routes import changing
from tests.http_fixtures import http_server
from tests.processes import until
from tests.stack_fixtures import serving

READER, REVIEWER, ADMIN, BANKLESS = new_key(), new_key(), new_key(), new_key()
OF_PAGES = [(method, path) for method, path, is_page in changing() if is_page]
OF_PROGRAMS = [(method, path) for method, path, is_page in changing() if not is_page]


@pytest.fixture(scope="module")
def keys_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    file = tmp_path_factory.mktemp("keys") / "keys.toml"
    file.write_text(
        entry("reader", READER, ["read"], ["default"])
        + entry("reviewer", REVIEWER, ["read", "review"], ["default"])
        + entry("admin", ADMIN, ["read", "review", "admin"], ["*"])
        + entry("bankless", BANKLESS, ["read", "review"], ["bankless"])
    )
    return file


@pytest.fixture(scope="module")
def guarded(site: Site, keys_file: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[httpx.Client]:
    """A page that is for those with a key, on the same service."""
    folder = tmp_path_factory.mktemp("guarded")
    with serve(site.service.environment, folder, SEENIT_SERVE_KEYS_FILE=str(keys_file)) as client:
        yield client


class Browser:
    """Somebody with cookies, which are sent over http as well, as browsers do on loopback."""

    def __init__(self, client: httpx.Client) -> None:
        self._client = client
        self.cookies: dict[str, str] = {}

    def send(
        self, method: str, path: str, headers: Mapping[str, str] | None = None, data: dict[str, str] | None = None
    ) -> httpx.Response:
        cookies = "; ".join(f"{name}={value}" for name, value in self.cookies.items())
        headers = {"cookie": cookies, "accept": "text/html", **(headers or {})}
        reply = self._client.request(method, path, headers=headers, data=data)
        for line in reply.headers.get_list("set-cookie"):
            assert "HttpOnly" in line
            assert "SameSite=strict" in line
            name, value = line.split(";")[0].split("=", 1)
            self.cookies[name] = value.strip('"')
        return reply

    def token(self) -> str:
        found = re.search(r'name="token" value="([0-9a-f]{64})"', self.send("GET", "/sign-in").text)
        assert found is not None
        return found[1]

    def sign_in(self, key: str, back_to: str = "/") -> httpx.Response:
        return self.send("POST", "/sign-in", data={"token": self.token(), "key": key, "next": back_to})


def test_a_key_opens_a_session_and_its_loss_ends_it(guarded: httpx.Client, keys_file: Path) -> None:
    somebody, key = Browser(guarded), new_key()
    reply = somebody.send("GET", "/review?campaign=a")
    assert (reply.status_code, reply.headers["location"]) == (303, "/sign-in?next=%2Freview%3Fcampaign%3Da")
    assert somebody.sign_in("seenit_wrong").status_code == 403
    assert SESSION_COOKIE not in somebody.cookies
    before = keys_file.read_text()
    keys_file.write_text(before + entry("short", key, ["read"], ["default"]))
    for _ in range(100):  # the file is read again within seconds
        if (reply := somebody.sign_in(key, "/campaigns")).status_code == 303:
            break
        time.sleep(0.2)
    assert reply.headers["location"] == "/campaigns"
    assert "Secure" in reply.headers["set-cookie"]
    assert key not in "".join(somebody.cookies.values())
    assert somebody.send("GET", "/campaigns").status_code == 200
    keys_file.write_text(before)
    for _ in range(100):
        if somebody.send("GET", "/campaigns").status_code == 303:
            return
        time.sleep(0.2)
    pytest.fail("the session has outlived its key")


def test_no_cookie_but_ours_opens_the_page(guarded: httpx.Client) -> None:
    somebody = Browser(guarded)
    somebody.sign_in(READER)
    own = somebody.cookies[SESSION_COOKIE]
    header, claims, signature = own.split(".")
    known = json.loads(urlsafe_b64decode(claims + "=" * (-len(claims) % 4)))
    other = jwt.encode({"alg": "HS256"}, known, OctKey.import_key("another secret of the same length"))
    unsigned = "eyJhbGciOiJub25lIn0." + claims + "."
    for cookie in ("", "a.b.c", f"{header}.{claims}.{signature[::-1]}", other, unsigned):
        somebody.cookies[SESSION_COOKIE] = cookie
        assert somebody.send("GET", "/").status_code == 303
    somebody.cookies[SESSION_COOKIE] = own
    assert somebody.send("GET", "/").status_code == 200
    assert somebody.send("POST", "/sign-out", data={"token": somebody.token()}).status_code == 303
    assert somebody.cookies[SESSION_COOKIE] == ""
    somebody.cookies[SESSION_COOKIE] = own
    assert somebody.send("GET", "/").status_code == 303  # a copy of the cookie opens nothing either


def test_who_looks_at_the_page_does_not_hold_up_the_end_of_the_process(site: Site, tmp_path: Path) -> None:
    server = http_server(site.service.environment, tmp_path)
    with serving(server):
        address = f"http://127.0.0.1:{server.ports[0]}/now/events"
        with httpx.stream("GET", address, timeout=30, trust_env=False) as stream:
            lines = stream.iter_lines()  # the stream ends with it
            assert next(lines) == "event: tiles"
            began_s = time.monotonic()
            server.stop(timeout_s=30)
    assert time.monotonic() - began_s < STOP_TIMEOUT_S


@pytest.mark.parametrize("next_page", ["https://evil.example/", "//evil.example", "/\\evil.example"])
def test_signing_in_leads_to_no_other_site(guarded: httpx.Client, next_page: str) -> None:
    assert Browser(guarded).sign_in(READER, next_page).headers["location"] == "/"


@pytest.mark.parametrize(("method", "path"), OF_PAGES)
def test_nothing_is_changed_without_the_token_of_the_page(
    site: Site, guarded: httpx.Client, method: str, path: str
) -> None:
    for client in (site.client, guarded):
        somebody = Browser(client)
        token = somebody.token()
        somebody.send("POST", "/sign-in", data={"token": token, "key": ADMIN})
        stranger = Browser(client)
        foreign = stranger.token()
        for sent in ("", "0" * 64, foreign):
            reply = somebody.send(method, path, headers={TOKEN_HEADER: sent} if sent else {}, data={"key": ADMIN})
            assert (reply.status_code, "session has ended" in reply.text) == (403, True)
        reply = somebody.send(method, path, headers={TOKEN_HEADER: token, "sec-fetch-site": "cross-site"})
        assert reply.status_code == 403
        del somebody.cookies[ID_COOKIE]
        assert somebody.send(method, path, headers={TOKEN_HEADER: token}).status_code == 403


@pytest.mark.parametrize(("method", "path"), OF_PROGRAMS)
def test_other_sites_change_nothing_by_the_routes_for_programs(
    site: Site, guarded: httpx.Client, method: str, path: str
) -> None:
    for headers in ({"sec-fetch-site": "cross-site"}, {"origin": "https://evil.example"}, {"origin": "null"}):
        reply = site.client.request(method, path, headers=headers)
        assert (reply.status_code, reply.json()["reason"]) == (403, "other-site")
    assert site.client.request(method, path, headers={"host": "evil.example"}).json()["reason"] == "other-host"
    # Where there are keys, what a browser sends by itself opens nothing.
    somebody = Browser(guarded)
    assert somebody.sign_in(ADMIN).status_code == 303
    assert somebody.send(method, path, headers={"accept": "*/*"}).status_code == 401


def test_scopes_and_tenants_hold_on_the_page(site: Site, guarded: httpx.Client) -> None:
    reader, reviewer, admin = Browser(guarded), Browser(guarded), Browser(guarded)
    for who, key in ((reader, READER), (reviewer, REVIEWER), (admin, ADMIN)):
        assert who.sign_in(key).status_code == 303
    copy = {"campaign": "tall", "image_id": "tall / zoom"}
    decide = {**copy, "choice": "confirm"}

    def post(who: Browser, path: str, data: dict[str, str]) -> int:
        return who.send("POST", path, data={**data, "token": who.token()}).status_code

    assert post(reader, "/review", decide) == 403
    assert post(reviewer, "/review", decide) == 200
    assert post(reader, "/review/undo", copy) == 403
    assert post(reviewer, "/review/undo", copy) == 200
    assert post(reviewer, "/banks", {"name": "a", "kind": "block"}) == 403
    assert post(admin, "/banks", {"name": "a", "kind": "block"}) == 303
    removed = {"entry_id": "unknown"}
    assert post(reader, "/banks/entries/remove?bank=fine", removed) == 403
    assert post(reviewer, "/banks/entries/remove?bank=fine", removed) == 200
    for path in ("/", "/now/events", "/campaigns", "/review", "/pictures?image_id=tall"):
        other = path + ("&" if "?" in path else "?") + "tenant=other"
        assert reader.send("GET", other).status_code == 403
    assert post(reviewer, "/review?tenant=other", decide) == 403
    for who, disabled in ((reader, True), (reviewer, False)):
        text = who.send("GET", "/review?campaign=coffee.png").text
        assert ('<fieldset class="decisions" disabled>' in text) is disabled


def test_who_may_create_no_bank_is_led_to_none(site: Site, guarded: httpx.Client) -> None:
    site.upload("bankless", "first", jpeg(PHOTO))
    site.upload("bankless", "copy", jpeg(PHOTO, 40))
    reviewer = Browser(guarded)
    assert reviewer.sign_in(BANKLESS).status_code == 303

    def shown() -> str:
        return reviewer.send("GET", "/review").text

    until(lambda: "0 of 1 decided" in shown(), 30, "the campaign is not shown")
    assert shown().count("There is no bank for this yet.") == 2
    assert "No bank yet: create one." not in shown()
    form = {"campaign": "first", "image_id": "copy", "choice": "bank", "bank": "unknown", "token": reviewer.token()}
    reply = reviewer.send("POST", "/review", data=form)
    assert (reply.status_code, "There is no such bank" in reply.text) == (404, True)


@pytest.mark.parametrize(
    ("page", "own"),
    [
        ("/review?tenant=a&campaign=b%2Fc#d", True),
        ("https://example.org/", False),
        ("//example.org/", False),
        ("/\\example.org/", False),
        ("/\t/example.org/", False),
        ("\n//example.org/", False),
        ("javascript:alert(1)", False),
        ("", False),
    ],
)
def test_nobody_is_led_back_to_another_site(page: str, own: bool) -> None:
    assert own_page(page) == (page if own else "/")


def test_pages_allow_no_foreign_script_or_style(site: Site) -> None:
    for path in ("/", "/try", "/review", "/campaigns", "/banks", "/calibration", "/sign-in"):
        reply = site.client.get(path)
        assert reply.status_code == 200
        policy = reply.headers["content-security-policy"]
        assert "unsafe" not in policy
        assert "default-src 'none'" in policy
        assert not re.search(r"<script(?![^>]* src=\"/static/)|<style| style=| on[a-z]+=\"", reply.text)
        assert not re.search(r"(?:src|href)=\"(?:https?:)?//", reply.text)
        assert HOSTILE_ID not in reply.text


def test_a_picture_is_shown_small_and_encoded_anew(site: Site) -> None:
    reply = site.client.get("/pictures", params={"image_id": "tall"})
    assert (reply.status_code, reply.headers["content-type"]) == (200, "image/jpeg")
    assert reply.headers["cache-control"] == "no-store"
    assert b"Exif" not in reply.content
    for image_id, tenant in (("unknown", "default"), ("tall", "other"), ("no picture", "default")):
        reply = site.client.get("/pictures", params={"image_id": image_id, "tenant": tenant})
        assert (reply.status_code, reply.json()["reason"]) == (404, "picture-gone")
