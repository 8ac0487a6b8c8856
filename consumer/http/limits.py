"""What every request goes through before its route: bounds on its body, and the guard against other web sites."""

import asyncio
from collections.abc import Mapping
from http import HTTPStatus

from starlette.datastructures import Headers, MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from consumer.http.problems import Refused

# A client has this long to send a body, and as long again for each further MiB.
BODY_TIMEOUT_S = 10.0
# Bodies that are no pictures.
MAX_TEXT_BYTES = 2 << 20
# Around a picture in a form.
FORM_BYTES = 64 << 10
# Memory of the bodies of all requests, in pictures of the largest size.
HELD_PICTURES = 8
SAFE_METHODS = frozenset(("GET", "HEAD", "OPTIONS"))
# Of every answer that does not say otherwise.
HEADERS: Mapping[str, str] = {
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Content-Security-Policy": "default-src 'none'; frame-ancestors 'none'",
    "Cache-Control": "no-store",
}


class Limits:
    """An ASGI middleware that bounds bodies by size, time and memory, and refuses what other web sites send."""

    def __init__(self, app: ASGIApp, max_picture_bytes: int, hosts: frozenset[str] | None) -> None:
        """`hosts` are the names under which a service without keys answers; None for one that has keys."""
        self._app = app
        self._max_picture_bytes = max_picture_bytes
        self._max_held_bytes = HELD_PICTURES * max_picture_bytes
        self._hosts = hosts
        self._held_bytes = 0

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        headers = Headers(scope=scope)

        async def send_with_headers(message: Message) -> None:
            if message["type"] == "http.response.start":
                answered = MutableHeaders(scope=message)
                for name, value in HEADERS.items():
                    answered.setdefault(name, value)
            await send(message)

        body = _Body(self, receive, self._limit(headers))
        try:
            self._check_origin(scope["method"], headers)
            body.check_announced(headers.get("content-length"))
            await self._app(scope, body.receive, send_with_headers)
        except Refused as refused:
            await refused.response()(scope, receive, send_with_headers)
        finally:
            self._held_bytes -= body.size

    def hold(self, size: int) -> None:
        """Take memory for a part of a body. Raises Refused when there is none left."""
        if self._held_bytes + size > self._max_held_bytes:
            raise Refused(HTTPStatus.SERVICE_UNAVAILABLE, "busy", "Too many large pictures at once.", retry_after_s=1)
        self._held_bytes += size

    def _limit(self, headers: Headers) -> int:
        kind = headers.get("content-type", "").partition(";")[0].strip().lower()
        if kind.startswith("image/") or kind == "application/octet-stream":
            return self._max_picture_bytes
        return self._max_picture_bytes + FORM_BYTES if kind == "multipart/form-data" else MAX_TEXT_BYTES

    def _check_origin(self, method: str, headers: Headers) -> None:
        """Refuse what a browser sends for another web site, where no key proves that its user wants it."""
        if self._hosts is None:
            return
        host = headers.get("host", "")
        name = host[: host.rindex(":")] if ":" in host.rpartition("]")[2] else host
        if name.lower() not in self._hosts:  # a web site may have its name lead to this machine
            raise Refused(HTTPStatus.FORBIDDEN, "other-host", "This service answers under the name of loopback only.")
        site, origin = headers.get("sec-fetch-site"), headers.get("origin")
        foreign = site not in {None, "same-origin", "none"} or (origin is not None and origin != f"http://{host}")
        if foreign and method not in SAFE_METHODS:
            raise Refused(HTTPStatus.FORBIDDEN, "other-site", "Another web site may not change anything here.")


class _Body:
    """The body of one request as it is received."""

    def __init__(self, limits: Limits, receive: Receive, limit: int) -> None:
        self.size = 0
        self._limits = limits
        self._receive = receive
        self._limit = limit
        self._began_s = asyncio.get_running_loop().time()
        self._complete = False

    def check_announced(self, length: str | None) -> None:
        """Refuse a body that is announced as too large, before it is sent."""
        if length is not None and length.isdigit() and int(length) > self._limit:
            raise self._too_large()

    async def receive(self) -> Message:
        """Receive the next part. Raises Refused."""
        if self._complete:
            return await self._receive()
        deadline_s = self._began_s + BODY_TIMEOUT_S * (1 + (self.size >> 20))
        try:
            async with asyncio.timeout_at(deadline_s):
                message = await self._receive()
        except TimeoutError:
            raise Refused(HTTPStatus.REQUEST_TIMEOUT, "too-slow", "The body did not come in time.") from None
        if message["type"] == "http.request":
            part = len(message.get("body", b""))
            if self.size + part > self._limit:
                raise self._too_large()
            self._limits.hold(part)
            self.size += part
            self._complete = not message.get("more_body", False)
        return message

    def _too_large(self) -> Refused:
        detail = f"The body has more than {self._limit} bytes; send a smaller one."
        return Refused(HTTPStatus.REQUEST_ENTITY_TOO_LARGE, "too-large", detail)
