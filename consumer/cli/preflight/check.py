"""Everything that `seenit check` tries, in the order in which it is shown."""

from collections.abc import Iterator

from consumer.cli.preflight.fetch import check_fetch
from consumer.cli.preflight.finding import Finding
from consumer.cli.preflight.kafka import check_kafka
from consumer.cli.preflight.redis import check_redis
from consumer.cli.preflight.triton import check_triton
from consumer.settings import Settings


def check_all(settings: Settings) -> Iterator[Finding]:
    """Try brokers, Redis, Triton and object stores. Harmless to a service that runs with the same settings."""
    yield from check_kafka(settings.kafka, settings.window.retention_s)
    yield from check_redis(settings.redis)
    yield from check_triton(settings)
    yield from check_fetch(settings.fetch)
