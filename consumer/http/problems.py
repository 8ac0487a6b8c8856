"""What goes wrong, as the client is told: a status, and problem+json with a reason and what to do."""

import logging
import math
from collections.abc import Mapping
from http import HTTPStatus

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse, Response
from starlette.exceptions import HTTPException

from consumer.errors import Reason, Unavailable, Unprocessable
from consumer.http.models import Problem

log = logging.getLogger(__name__)

# What an upload's fault is over HTTP, where it is not a picture that is bad (400).
STATUSES: Mapping[Reason, HTTPStatus] = {
    "too-large": HTTPStatus.REQUEST_ENTITY_TOO_LARGE,
    "wrong-content-type": HTTPStatus.UNSUPPORTED_MEDIA_TYPE,
    "malformed-event": HTTPStatus.UNPROCESSABLE_ENTITY,
}
# When to come back while a part is away.
AWAY_RETRY_S = 2


class Refused(HTTPException):
    """A request that is not carried out: a status, a reason of one word, and a sentence that says what to do."""

    def __init__(
        self,
        status: HTTPStatus,
        reason: str,
        detail: str,
        *,
        retry_after_s: float | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> None:
        wait = {} if retry_after_s is None else {"Retry-After": str(max(1, math.ceil(retry_after_s)))}
        super().__init__(status, detail, {**(headers or {}), **wait})
        self.reason = reason

    def response(self) -> Response:
        """Make the response that says so."""
        return problem(self.status_code, self.reason, str(self.detail), self.headers)


def problem(status: int, reason: str, detail: str, headers: Mapping[str, str] | None = None) -> JSONResponse:
    """Make the response that says what is wrong."""
    content = Problem(title=HTTPStatus(status).phrase, status=status, reason=reason, detail=detail)
    return JSONResponse(content.model_dump(), status, headers, "application/problem+json")


def say_away(error: Unavailable) -> str:
    """Say that a part is away, without where it is."""
    return f"{error.dependency} cannot be asked at the moment; try again."


def answer_problems(app: FastAPI) -> None:
    """Let an application answer everything that can go wrong with problem+json."""

    @app.exception_handler(HTTPException)
    async def refused(_: Request, error: HTTPException) -> Response:
        if isinstance(error, Refused):
            return error.response()
        reason = HTTPStatus(error.status_code).phrase.lower().replace(" ", "-")
        return problem(error.status_code, reason, str(error.detail), error.headers)

    @app.exception_handler(Unprocessable)
    async def unprocessable(_: Request, error: Unprocessable) -> Response:
        return problem(STATUSES.get(error.reason, HTTPStatus.BAD_REQUEST), error.reason, error.detail)

    @app.exception_handler(Unavailable)
    async def unavailable(_: Request, error: Unavailable) -> Response:
        log.warning("%s", error)
        headers = {"Retry-After": str(AWAY_RETRY_S)}
        return problem(503, f"{error.dependency}-unavailable", say_away(error), headers)

    @app.exception_handler(RequestValidationError)
    async def invalid(_: Request, error: RequestValidationError) -> Response:
        faults = [f"{'.'.join(map(str, each['loc']))}: {each['msg']}" for each in error.errors()]
        return problem(422, "invalid-request", "; ".join(faults)[:1000])

    @app.exception_handler(Exception)
    async def unexpected(_: Request, __: Exception) -> Response:
        return problem(500, "internal-error", "Something went wrong here, not with the request; the log tells what.")
