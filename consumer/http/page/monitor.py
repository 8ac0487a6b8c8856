"""How the parts are, for the page Now: asked at most once a second, however many look."""

import asyncio
import time
from typing import NamedTuple

from confluent_kafka import KafkaException

from consumer.errors import Unavailable
from consumer.http.parts import Parts
from consumer.kafka.lag import LagReader

SAMPLE_EVERY_S = 1.0


class Health(NamedTuple):
    """What is wrong, by part, "" where nothing is; and the consumers' lag in messages, None while it is not known."""

    problems: dict[str, str]
    lag: int | None


class Monitor:
    """Asks the parts. For one event loop."""

    def __init__(self, parts: Parts) -> None:
        self._parts = parts
        self._lags: LagReader | None = None
        self._sample: tuple[float, Health] | None = None
        self._lock = asyncio.Lock()

    async def health(self) -> Health:
        """How the parts are now, or were within the last second."""
        async with self._lock:
            if self._sample is None or time.monotonic() - self._sample[0] > SAMPLE_EVERY_S:
                asked = await asyncio.to_thread(self._ask)  # takes long while a part is away
                self._sample = (time.monotonic(), asked)
            return self._sample[1]

    def _ask(self) -> Health:
        problems = self._parts.problems()
        lag = None
        try:
            self._lags = self._lags or LagReader(self._parts.settings.kafka)
            lag = self._lags.total()
            kafka = self._parts.verdicts.problem
        except (Unavailable, KafkaException) as error:
            kafka = str(error)
        return Health({"kafka": kafka, "redis": problems.get("redis", ""), "triton": problems.get("triton", "")}, lag)

    def close(self) -> None:
        """Let go of the brokers."""
        if self._lags is not None:
            self._lags.close()
