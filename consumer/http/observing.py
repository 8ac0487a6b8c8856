"""What is counted, timed and traced of every request."""

import time
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar

from starlette.datastructures import Headers
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from consumer.telemetry.metrics import HttpMetrics
from consumer.telemetry.tracing import NO_TRACE, NO_TRACING, Trace, Tracing

# Of requests that no route was found for: their paths come from strangers.
NO_ROUTE = "(none)"

_trace: ContextVar[Trace] = ContextVar("trace", default=NO_TRACE)


class Observer:
    """Counts, times and traces requests and their steps."""

    def __init__(self, metrics: HttpMetrics, tracing: Tracing = NO_TRACING) -> None:
        self.metrics = metrics
        self.tracing = tracing

    @contextmanager
    def step(self, name: str) -> Iterator[None]:
        """Time and trace the block as a step of the request that is being answered."""
        with self.metrics.step_seconds.labels(name).time(), _trace.get().step(name):
            yield


class Observed:
    """An ASGI middleware that lets an observer see every request."""

    def __init__(self, app: ASGIApp, observer: Observer) -> None:
        self._app = app
        self._observer = observer

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        metrics, status, began_s = self._observer.metrics, 500, time.perf_counter()

        async def send_and_note(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
            await send(message)

        with (
            metrics.requests_in_flight.track_inprogress(),
            self._observer.tracing.request(scope["method"], Headers(scope=scope)) as trace,
        ):
            token = _trace.set(trace)
            try:
                await self._app(scope, receive, send_and_note)
            finally:
                _trace.reset(token)
                route = getattr(scope.get("route"), "path", NO_ROUTE)
                metrics.requests.labels(route, status).inc()
                metrics.failures.inc(status >= 500)
                metrics.request_seconds.labels(route).observe(time.perf_counter() - began_s)
