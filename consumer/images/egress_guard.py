"""Which network addresses an upload may make this service connect to, and connections that keep to that.

A name is resolved once, each of its addresses is checked, and the connection goes to exactly one that passed: a name
that resolves to a public address when it is checked and to a private one when it is used gains nothing. TLS still
verifies the name, and `Host` still carries it.
"""

import ipaddress
import socket
import ssl
import time
from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import httpcore

from consumer.errors import Unprocessable

IPAddress = ipaddress.IPv4Address | ipaddress.IPv6Address
IPNetwork = ipaddress.IPv4Network | ipaddress.IPv6Network

# Networks that some versions of the standard library call global, and that are not: protocol assignments and relays
# into other networks. Of IPv6 only global unicast is public, which leaves out the forms that hold an IPv4 address
# (mapped, compatible, NAT64); within it, the other forms that do (Teredo, 6to4) and documentation are not.
NOT_PUBLIC_V4 = tuple(map(ipaddress.IPv4Network, ("192.0.0.0/24", "192.88.99.0/24", "224.0.0.0/4")))
GLOBAL_UNICAST_V6 = ipaddress.IPv6Network("2000::/3")
NOT_PUBLIC_V6 = tuple(map(ipaddress.IPv6Network, ("2001::/23", "2002::/16", "3fff::/20")))


def is_public(address: IPAddress) -> bool:
    """Tell whether the address belongs to the public Internet: one host, nothing special about it."""
    if isinstance(address, ipaddress.IPv4Address):
        return address.is_global and not any(address in network for network in NOT_PUBLIC_V4)
    return (
        address in GLOBAL_UNICAST_V6 and address.is_global and not any(address in network for network in NOT_PUBLIC_V6)
    )


class GuardedNetworkBackend(httpcore.NetworkBackend):
    """Connects to public addresses and to addresses in `networks`, and to no others.

    The time-outs that httpcore passes on are deadlines here: the moment, by `time.monotonic`, by which all has to be
    done. So a server that sends a byte now and then cannot draw a request out, neither in the handshake, the headers
    nor the body.
    """

    def __init__(self, networks: Sequence[IPNetwork], resolver_threads: int) -> None:
        self._networks = networks
        self._backend = httpcore.SyncBackend()
        # getaddrinfo knows no time-out; a thread that waits for it can be left behind.
        self._resolvers = ThreadPoolExecutor(resolver_threads, "resolve")

    def connect_tcp(
        self,
        host: str,
        port: int,
        timeout: float | None = None,
        local_address: str | None = None,
        socket_options: Iterable[Any] | None = None,
    ) -> httpcore.NetworkStream:
        """Connect by the deadline `timeout`, a moment of `time.monotonic`.

        Raises Unprocessable when no address of the host is allowed, else what httpcore documents.
        """
        addresses = self._resolve(host, port, timeout)
        allowed = [
            address
            for address in addresses
            if is_public(address) or any(address in network for network in self._networks)
        ]
        if not allowed:
            raise Unprocessable(
                "forbidden-address",
                f"The host {host!r} has no public address ({addresses[0]}); send the picture itself, or have the "
                "operator allow its network.",
            )
        for position, address in enumerate(allowed):
            share_s = seconds_left(timeout) / (len(allowed) - position)  # a silent address leaves time for the next
            try:
                stream = self._backend.connect_tcp(str(address), port, share_s, local_address, socket_options)
            except (httpcore.ConnectError, httpcore.ConnectTimeout):
                if position == len(allowed) - 1:
                    raise
            else:
                return _DeadlineStream(stream)
        raise AssertionError("unreachable: the last address returns or raises")

    def sleep(self, seconds: float) -> None:
        self._backend.sleep(seconds)

    def close(self) -> None:
        """Give up the names that are being resolved."""
        self._resolvers.shutdown(wait=False, cancel_futures=True)

    def _resolve(self, host: str, port: int, deadline: float | None) -> list[IPAddress]:
        """Return all addresses of the host, in the order of preference, without repeats."""
        lookup = self._resolvers.submit(socket.getaddrinfo, host, port, type=socket.SOCK_STREAM)
        try:
            answers = lookup.result(seconds_left(deadline))
        except TimeoutError:
            raise httpcore.ConnectTimeout(f"no name server told the address of {host!r} in time") from None
        except (OSError, UnicodeError) as error:
            raise httpcore.ConnectError(f"{host!r} has no address: {error}") from error
        return list(dict.fromkeys(ipaddress.ip_address(sockaddr[0]) for *_, sockaddr in answers))


class _DeadlineStream(httpcore.NetworkStream):
    """A stream whose time-outs are deadlines, moments of `time.monotonic`, not durations."""

    def __init__(self, stream: httpcore.NetworkStream) -> None:
        self._stream = stream

    def read(self, max_bytes: int, timeout: float | None = None) -> bytes:
        return self._stream.read(max_bytes, seconds_left(timeout))

    def write(self, buffer: bytes, timeout: float | None = None) -> None:
        self._stream.write(buffer, seconds_left(timeout))

    def start_tls(
        self, ssl_context: ssl.SSLContext, server_hostname: str | None = None, timeout: float | None = None
    ) -> httpcore.NetworkStream:
        return _DeadlineStream(self._stream.start_tls(ssl_context, server_hostname, seconds_left(timeout)))

    def get_extra_info(self, info: str) -> Any:
        return self._stream.get_extra_info(info)

    def close(self) -> None:
        self._stream.close()


def seconds_left(deadline: float | None) -> float:
    """Return the seconds until a moment of `time.monotonic`. Raises `httpcore.ReadTimeout` when it has passed."""
    if deadline is None:
        raise ValueError("every request here has a deadline")
    remaining_s = deadline - time.monotonic()
    if remaining_s <= 0:
        raise httpcore.ReadTimeout("the deadline has passed")
    return remaining_s
