"""URLs, schemes, hosts, buckets and folders that are refused before any server is asked; the messages of errors."""

import contextlib
import gc
import ipaddress
import os
import socket
import threading
import time
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from consumer.errors import Unprocessable
from consumer.images import fetch_http
from consumer.images.egress_guard import is_public
from consumer.images.fetch import Fetcher
from consumer.images.fetch_rules import redacted
from consumer.settings import FetchSettings
from tests.addresses import PRIVATE_HOSTS, REFUSED_URLS


def refused(url: str, settings: FetchSettings | None = None) -> Unprocessable:
    with Fetcher(settings or FetchSettings()) as fetcher, pytest.raises(Unprocessable) as caught:
        fetcher.fetch(url)
    assert caught.value.detail.endswith(".")
    assert caught.value.detail.isprintable()
    return caught.value


class TestPublicAddresses:
    @pytest.mark.parametrize("address", ["8.8.8.8", "1.1.1.1", "93.184.215.14", "2606:4700::1111", "2a00:1450::8a"])
    def test_public(self, address: str) -> None:
        assert is_public(ipaddress.ip_address(address))

    @pytest.mark.parametrize(
        "address",
        [
            *("0.0.0.0", "0.1.2.3", "10.0.0.1", "100.64.0.1", "127.0.0.1", "127.9.9.9", "169.254.169.254"),  # noqa: S104
            *("172.16.0.1", "172.31.255.255", "192.0.0.1", "192.0.0.170", "192.0.2.1", "192.88.99.1", "192.168.1.1"),
            *("198.18.0.1", "198.51.100.1", "203.0.113.1", "224.0.0.1", "239.1.1.1", "240.0.0.1", "255.255.255.255"),
            *("::", "::1", "::8.8.8.8", "::ffff:8.8.8.8", "::ffff:127.0.0.1", "64:ff9b::8.8.8.8", "64:ff9b:1::1"),
            *("100::1", "2001::1", "2001:2::1", "2001:db8::1", "2002:7f00:1::", "2002:808:808::", "3fff::1"),
            *("5f00::1", "fc00::1", "fd12:3456::1", "fe80::1", "fe80::1%lo", "fec0::1", "ff02::1"),
        ],
    )
    def test_not_public(self, address: str) -> None:
        assert not is_public(ipaddress.ip_address(address))

    @settings(deadline=None)
    @given(st.ip_addresses())
    def test_no_private_address_passes(self, address: ipaddress.IPv4Address | ipaddress.IPv6Address) -> None:
        special = (
            address.is_private,
            address.is_loopback,
            address.is_link_local,
            address.is_multicast,
            address.is_reserved,
        )
        if is_public(address):
            assert not any(special)
            assert not (isinstance(address, ipaddress.IPv6Address) and (address.ipv4_mapped or address.sixtofour))


class TestForbiddenAddresses:
    @pytest.mark.parametrize("host", PRIVATE_HOSTS)
    def test_private_hosts(self, host: str) -> None:
        error = refused(f"https://{host}/picture.jpg?token=secret")
        assert error.reason == "forbidden-address"
        assert "secret" not in error.detail

    @pytest.mark.parametrize("url", REFUSED_URLS)
    def test_schemes_and_malformed_addresses(self, url: str) -> None:
        assert refused(url).reason == "forbidden-address"

    def test_only_listed_hosts(self) -> None:
        settings = FetchSettings(hosts=("pictures.example.org", "*.cdn.example"))
        for host in ("example.org", "evil-pictures.example.org", "pictures.example.org.evil.example", "cdn.example"):
            error = refused(f"https://{host}/a.jpg", settings)
            assert error.reason == "forbidden-address"
            assert "SEENIT_FETCH_HOSTS" in error.detail

    def test_any_text_ends_as_a_reason(self, monkeypatch: pytest.MonkeyPatch) -> None:
        def no_names(*_: object, **__: object) -> list[object]:
            raise socket.gaierror("nothing is looked up here")

        monkeypatch.setattr(socket, "getaddrinfo", no_names)
        monkeypatch.setattr(fetch_http, "ATTEMPTS", 1)
        with Fetcher(FetchSettings(schemes=("https", "http"))) as fetcher:

            @given(
                st.text(), st.sampled_from(["", "https:", "https://", "http://xn--", "http://a/", "file:", "file:///"])
            )
            @settings(max_examples=500, deadline=None)
            def check(text: str, start: str) -> None:
                with pytest.raises(Unprocessable):
                    fetcher.fetch(start + text)

            check()

    @pytest.mark.parametrize("bucket", ["", "a@b", "a:b", "a b", "..", "a..b", "-a", "ä", "a#", "a?b", "x" * 300, "."])
    def test_names_that_are_no_buckets(self, bucket: str) -> None:
        assert refused(f"s3://{bucket}/key", FetchSettings(schemes=("s3",))).reason == "forbidden-address"

    def test_only_listed_buckets(self) -> None:
        error = refused("s3://other/key", FetchSettings(schemes=("s3",), buckets=("pictures",)))
        assert error.reason == "forbidden-address"
        assert "SEENIT_FETCH_BUCKETS" in error.detail

    @pytest.mark.parametrize("url", ["s3://bucket/../a", "s3://bucket/a/..", "s3://bucket/\ud800", "gs://bucket/a//b"])
    def test_names_that_cannot_be_asked_for(self, url: str) -> None:
        settings = FetchSettings(s3_endpoint="http://127.0.0.1:9", schemes=("gs",))
        assert refused(url, settings).reason == "not-supported"

    def test_no_name(self) -> None:
        assert refused("s3://bucket/", FetchSettings(schemes=("s3",))).reason == "not-found"


class TestFiles:
    @pytest.fixture
    def folder(self, tmp_path: Path) -> Path:
        (tmp_path / "secret.jpg").write_bytes(b"secret")
        folder = tmp_path / "pictures"
        (folder / "inner" / "pictures").mkdir(parents=True)
        (folder / "a b ä%.jpg").write_bytes(b"1")
        (folder / "inner" / "pictures" / "pictures").write_bytes(b"2")
        return folder

    def test_off_unless_a_folder_is_allowed(self, folder: Path) -> None:
        error = refused((folder / "a b ä%.jpg").as_uri())
        assert error.reason == "forbidden-address"
        assert "SEENIT_FETCH_FOLDERS" in error.detail

    def test_reads_what_lies_inside(self, folder: Path) -> None:
        (folder / "link.jpg").symlink_to(folder / "inner" / "pictures" / "pictures")
        (folder / "turn").symlink_to("inner", target_is_directory=True)
        with Fetcher(FetchSettings(folders=(folder,))) as fetcher:
            assert fetcher.fetch((folder / "a b ä%.jpg").as_uri()) == b"1"
            assert fetcher.fetch(f"file://localhost{folder}/inner/pictures/pictures") == b"2"
            assert fetcher.fetch(f"file:{folder}/inner/../inner/pictures/pictures") == b"2"
            assert fetcher.fetch(f"file://{folder}/link.jpg") == b"2"
            assert fetcher.fetch(f"file://{folder}/turn/pictures/pictures") == b"2"

    def test_a_folder_reached_by_a_link_is_what_the_link_names(self, folder: Path, tmp_path: Path) -> None:
        (tmp_path / "alias").symlink_to(folder, target_is_directory=True)
        with Fetcher(FetchSettings(folders=(tmp_path / "alias",))) as fetcher:
            assert fetcher.fetch(f"file://{tmp_path}/alias/inner/pictures/pictures") == b"2"

    @pytest.mark.parametrize(
        "path",
        ["../secret.jpg", "%2e%2e/secret.jpg", "inner/../../secret.jpg", "..%2fsecret.jpg", "../pictures2/x", "/../.."],
    )
    def test_no_escape_by_dots(self, folder: Path, path: str) -> None:
        assert refused(f"file://{folder}/{path}", FetchSettings(folders=(folder,))).reason == "forbidden-address"

    def test_no_escape_by_links(self, folder: Path, tmp_path: Path) -> None:
        (folder / "file.jpg").symlink_to(tmp_path / "secret.jpg")
        (folder / "up").symlink_to(tmp_path, target_is_directory=True)
        (folder / "relative").symlink_to("../..", target_is_directory=True)
        for path in ("file.jpg", "up/secret.jpg", f"relative/{tmp_path.name}/secret.jpg"):
            assert refused(f"file://{folder}/{path}", FetchSettings(folders=(folder,))).reason == "forbidden-address"

    def test_no_escape_by_a_link_put_there_between_check_and_use(self, folder: Path, tmp_path: Path) -> None:
        """One thread swaps a folder for a link to the outside and back; no read ever reaches the outside."""
        inside = folder / "swap"
        aside, link = tmp_path / "aside", tmp_path / "link"
        inside.mkdir()
        (inside / "secret.jpg").write_bytes(b"harmless")
        link.symlink_to(tmp_path, target_is_directory=True)
        stop = threading.Event()

        def swap() -> None:
            while not stop.is_set():
                inside.rename(aside)
                link.rename(inside)
                inside.rename(link)
                aside.rename(inside)

        swapper = threading.Thread(target=swap)
        swapper.start()
        outcomes: dict[str, int] = {}
        try:
            with Fetcher(FetchSettings(folders=(folder,))) as fetcher:
                until = time.monotonic() + 2
                while time.monotonic() < until:
                    try:
                        outcome = fetcher.fetch(f"file://{inside}/secret.jpg").decode()
                    except Unprocessable as error:
                        outcome = error.reason
                    outcomes[outcome] = outcomes.get(outcome, 0) + 1
        finally:
            stop.set()
            swapper.join()
        assert set(outcomes) <= {"harmless", "not-found", "forbidden-address"}
        assert len(outcomes) >= 2, "no read met the swapping"

    def test_only_regular_files(self, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        os.mkfifo(folder / "pipe")
        listener = socket.socket(socket.AF_UNIX)
        monkeypatch.chdir(folder)  # the path of a socket must be short
        listener.bind("socket")
        settings = FetchSettings(folders=(folder, Path("/dev")))
        for path in (
            folder / "pipe",
            folder / "socket",
            folder / "inner",
            folder,
            Path("/dev/zero"),
            Path("/dev/null"),
        ):
            assert refused(f"file://{path}", settings).reason == "not-found"
        listener.close()

    def test_missing_looping_unreadable_and_overlong(self, folder: Path) -> None:
        (folder / "loop").symlink_to("loop")
        settings = FetchSettings(folders=(folder, Path("/no/such/folder")))
        for path in (f"{folder}/no", f"{folder}/loop", f"{folder}/{'x' * 300}", f"{folder}/a/b", "/no/such/folder/a"):
            assert refused(f"file://{path}", settings).reason == "not-found"

    def test_too_large(self, folder: Path) -> None:
        with (folder / "large").open("wb") as file:
            file.truncate(1 << 40)
        assert refused(f"file://{folder}/large", FetchSettings(folders=(folder,), max_bytes=1000)).reason == "too-large"

    @pytest.mark.parametrize("url", ["file://evil.example{}/a", "file://{}%00/a", "file:///proc/self/environ"])
    def test_other_hosts_and_nul(self, folder: Path, url: str) -> None:
        assert refused(url.format(folder), FetchSettings(folders=(folder,))).reason == "forbidden-address"

    def test_no_descriptor_is_left_open(self, folder: Path) -> None:
        settings = FetchSettings(folders=(folder,))
        with Fetcher(settings) as fetcher:
            gc.collect()  # so that what earlier tests left open is not closed meanwhile; a thread of theirs may do that
            before = len(os.listdir("/proc/self/fd"))  # noqa: PTH208
            for _ in range(20):
                for path in ("a b ä%25.jpg", "no", "inner", "inner/no", "a b ä%25.jpg/x"):
                    with contextlib.suppress(Unprocessable):
                        fetcher.fetch(f"file://{folder}/{path}")
            assert len(os.listdir("/proc/self/fd")) <= before  # noqa: PTH208


class TestWhatErrorsSay:
    @pytest.mark.parametrize(
        ("url", "shown"),
        [
            ("https://user:secret@host/a.jpg?X-Amz-Signature=secret#secret", "https://host/a.jpg"),
            ("https://host?secret", "https://host"),
            ("https://us@er:secret@host/a@b", "https://host/a@b"),
            ("https://host/a\r\nb\x1b[31m\u202e", "https://host/a��b�[31m�"),
            ("s3://bucket/a b/ä.jpg", "s3://bucket/a b/ä.jpg"),
            ("no address", "no address"),
            ("https://host/" + "x" * 10_000, "https://host/" + "x" * 287),
        ],
    )
    def test_an_address_is_shown_without_secrets_in_one_bounded_line(self, url: str, shown: str) -> None:
        assert redacted(url) == shown
