"""Everything that `seenit check` tries, in the order in which it is shown."""

from collections.abc import Iterator

from consumer.cli.preflight import kafka, redis
from consumer.cli.preflight.fetch import check_fetch
from consumer.cli.preflight.finding import Finding
from consumer.cli.preflight.triton import check_triton
from consumer.settings import Settings


def check_all(settings: Settings) -> Iterator[Finding]:
    """Try brokers, Redis, Triton and object stores. Harmless to a service that runs with the same settings."""
    yield from kafka.check_kafka(settings.kafka, settings.window.retention_s)
    yield from redis.check_redis(settings.redis, settings.window.backend)
    yield from check_triton(settings)
    yield from check_fetch(settings.fetch)


def check_serving(settings: Settings) -> Iterator[Finding]:
    """Try the same for `seenit serve`, which needs fewer rights, and who may ask it."""
    # They need what only the extra `serve` installs.
    from consumer.cli.preflight.access import check_access, check_thumbnails  # noqa: PLC0415

    yield from kafka.check_serving(settings.kafka, thumbnails=bool(settings.serve.thumbnails))
    yield from redis.check_serving(settings.redis)
    yield from check_triton(settings)
    yield from check_fetch(settings.fetch)
    yield from check_access(settings.serve)
    yield from check_thumbnails(settings)
