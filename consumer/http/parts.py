"""What the routes work with, put together once for each process, and what they ask for as dependencies."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from http import HTTPStatus
from typing import Annotated, Any

from fastapi import Depends, Query
from fastapi.security import HTTPBearer
from starlette.requests import HTTPConnection, Request

from consumer.encoder.contract import ModelInfo, Strictness
from consumer.encoder.views import EncodedViews
from consumer.errors import Unavailable
from consumer.http.access import Access
from consumer.http.addresses import check_address, public_only
from consumer.http.bodies import PictureAddress, PictureFile
from consumer.http.changes import Changes
from consumer.http.encoding import PictureEncoder, hash_content
from consumer.http.matching import Found, MatchRequest, PictureMatcher
from consumer.http.observing import Observer
from consumer.http.problems import Refused
from consumer.http.scopes import Caller, Scope
from consumer.http.shown import ShownPictures
from consumer.http.thumbnails import ThumbnailStore
from consumer.http.verdicts import VerdictLog
from consumer.images.fetch import Fetcher
from consumer.moderation.matching import Banks
from consumer.settings import Settings
from consumer.verdicts import Model
from consumer.window.window import RedisWindow


@dataclass(slots=True)
class Backends:
    """What is known once the encoder and Redis have answered."""

    model: ModelInfo
    window: RedisWindow
    matcher: PictureMatcher
    banks: Banks | None

    @property
    def named_model(self) -> Model:
        """The encoder that is served."""
        return Model(name=self.model.name, version=self.model.version)


@dataclass(slots=True)
class Parts:
    """What the routes work with. `backends` is None until they have answered once, and `waiting_for` says for what."""

    settings: Settings
    access: Access
    fetcher: Fetcher
    encoder: PictureEncoder
    shown: ShownPictures
    thumbnails: ThumbnailStore | None
    changes: Changes
    verdicts: VerdictLog
    observer: Observer
    problems: Callable[[], dict[str, str]]  # what is away, by part
    backends: Backends | None = None
    waiting_for: Unavailable = field(default_factory=lambda: Unavailable("triton", "it has not answered yet"))
    _public_fetcher: Fetcher | None = None
    _fetchers: ThreadPoolExecutor | None = None
    _busy: int = 0

    def ready(self) -> Backends:
        """What look-ups need. Raises Unavailable until it is there."""
        if self.backends is None:
            raise Unavailable(self.waiting_for.dependency, self.waiting_for.detail)
        return self.backends

    def redis_command(self, *words: str | int) -> Any:
        """Run a command of Redis beside the window. Raises Unavailable."""
        return self.ready().window.store.command(*words)

    @asynccontextmanager
    async def slot(self) -> AsyncIterator[None]:
        """Hold one of `max_look_ups` places. Raises Refused when all are taken."""
        if self._busy >= self.settings.serve.max_look_ups:
            raise Refused(HTTPStatus.SERVICE_UNAVAILABLE, "busy", "Too many pictures at once.", retry_after_s=1)
        self._busy += 1
        try:
            yield
        finally:
            self._busy -= 1

    async def picture(self, named: PictureFile | PictureAddress, caller: Caller) -> PictureFile:
        """The picture that a request brings, fetched if it names an address.

        Raises Refused, Unprocessable or Unavailable.
        """
        if isinstance(named, PictureFile):
            return named
        check_address(caller, named.url)
        fetcher = self.fetcher
        if caller.tenants is not None:
            fetcher = self._public_fetcher = self._public_fetcher or Fetcher(public_only(self.settings.fetch))
        if self._fetchers is None:
            self._fetchers = ThreadPoolExecutor(self.settings.fetch.concurrency, "fetch")
        with self.observer.step("fetch"):
            data = await asyncio.get_running_loop().run_in_executor(self._fetchers, fetcher.fetch, named.url)
        return PictureFile(data, None)

    async def encode(self, file: PictureFile) -> EncodedViews | None:
        """Decode and encode a picture; None for one that shows too little. Raises Unprocessable or Unavailable."""
        with self.observer.step("decode"):
            picture = await asyncio.wrap_future(self.encoder.decode(file.data, file.content_type))
        with self.observer.step("encode"):
            return await asyncio.wrap_future(self.encoder.encode(picture))

    async def match(self, file: PictureFile, tenant: str, strictness: Strictness | None) -> Found:
        """Find what is known of a picture for a tenant. Raises Unprocessable or Unavailable."""
        backends, views = self.ready(), await self.encode(file)
        pdq = None
        if backends.banks is not None and backends.banks.compares_pdq(tenant):
            pdq = await asyncio.wrap_future(self.encoder.hash_pdq(file.data))
        chosen = strictness or self.settings.match.strictness
        asked = MatchRequest(tenant, await asyncio.to_thread(hash_content, file.data), views, chosen, pdq)
        with self.observer.step("match"):
            return await asyncio.wrap_future(backends.matcher.match(asked))

    def close(self) -> None:
        """Fetch nothing more."""
        if self._fetchers is not None:
            self._fetchers.shutdown(wait=False, cancel_futures=True)
        if self._public_fetcher is not None:
            self._public_fetcher.close()


def parts_of(connection: HTTPConnection) -> Parts:
    """The parts of the application that answers a request."""
    parts: Parts = connection.app.state.parts
    return parts


def needs(scope: Scope) -> Callable[..., Awaitable[Caller]]:
    """Make a dependency that tells who asks, and refuses who lacks a scope."""

    async def caller(
        request: Request, parts: ThePart, _: Annotated[object, Depends(HTTPBearer(auto_error=False))]
    ) -> Caller:
        known = await parts.access.caller(request)
        known.require(scope)
        return known

    return caller


ThePart = Annotated[Parts, Depends(parts_of)]
Reader = Annotated[Caller, Depends(needs("read"))]
Reviewer = Annotated[Caller, Depends(needs("review"))]
Admin = Annotated[Caller, Depends(needs("admin"))]
Tenant = Annotated[
    str | None,
    Query(
        min_length=1,
        max_length=256,
        description="Whose pictures; the caller's own tenant if there is only one, else `default`.",
    ),
]
