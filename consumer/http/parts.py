"""What the routes work with, put together once for each process."""

import asyncio
from collections.abc import Callable
from dataclasses import dataclass

from starlette.requests import HTTPConnection

from consumer.encoder.contract import ModelInfo, Strictness
from consumer.errors import Unavailable
from consumer.events import Model
from consumer.http.bodies import PictureFile
from consumer.http.encoding import PictureEncoder, hash_content
from consumer.http.matching import FoundMatch, MatchRequest, PictureMatcher
from consumer.images.fetch import Fetcher
from consumer.settings import Settings


@dataclass(slots=True)
class Parts:
    """What the routes work with. `matcher` is None until the encoder and Redis have answered once."""

    settings: Settings
    fetcher: Fetcher
    encoder: PictureEncoder
    model: ModelInfo | None = None
    matcher: PictureMatcher | None = None
    ready: Callable[[], dict[str, str]] = dict

    @property
    def named_model(self) -> Model:
        """The encoder that is served. Raises Unavailable."""
        if self.model is None:
            raise Unavailable("triton", "the model is not known yet")
        return Model(name=self.model.name, version=self.model.version)

    async def look_up(self, file: PictureFile, tenant: str, strictness: Strictness) -> list[FoundMatch]:
        """Find the matches of a picture in a tenant's window. Raises Unprocessable or Unavailable."""
        if self.matcher is None:
            problems = self.ready()
            raise Unavailable("triton" if "triton" in problems else "redis", "it has not answered yet")
        picture = await asyncio.wrap_future(self.encoder.decode(file.data, file.content_type))
        views = await asyncio.wrap_future(self.encoder.encode(picture))
        request = MatchRequest(tenant, hash_content(file.data), views, strictness)
        return await asyncio.wrap_future(self.matcher.match(request))


def parts_of(connection: HTTPConnection) -> Parts:
    """The parts of the application that answers a request."""
    parts: Parts = connection.app.state.parts
    return parts
