"""Which servers a command talks to: the ones that the settings name, else the ones that `seenit up` left running."""

from collections.abc import Iterator
from contextlib import contextmanager

from pydantic import SecretStr

from consumer.encoder.image_encoder import ImageEncoder
from consumer.encoder.triton import TritonEncoder
from consumer.errors import Misconfigured
from consumer.local import stack, state
from consumer.settings import KafkaSettings, RedisSettings, Settings, TritonSettings
from consumer.window.connection import connect
from consumer.window.window import RedisWindow


def kafka_settings() -> KafkaSettings:
    """Return the broker of the settings, or the one that `seenit up` left running when the settings name none."""
    settings = Settings.load().kafka
    running = state.load()
    if "bootstrap_servers" in settings.model_fields_set or running is None or not running.alive:
        return settings
    addresses = running.addresses
    of_stack = {
        "bootstrap_servers": addresses.kafka,
        "banks_topic": settings.banks_topic or addresses.banks_topic,
        "rematches_topic": settings.rematches_topic or addresses.rematches_topic,
        "feedback_topic": settings.feedback_topic or addresses.feedback_topic,
    }
    return settings.model_copy(update=of_stack)


def bank_settings() -> KafkaSettings:
    """Return the broker as `kafka_settings` does. Raises Misconfigured where no topic has banks."""
    settings = kafka_settings()
    if not settings.banks_topic:
        raise Misconfigured("there are no banks: SEENIT_KAFKA_BANKS_TOPIC names no topic, and no `seenit up` runs")
    return settings


def redis_settings() -> RedisSettings:
    """Return the Redis of the settings, or the one that `seenit up` left running when the settings name none."""
    settings = Settings.load().redis
    running = state.load()
    if "url" in settings.model_fields_set or running is None or not running.alive:
        return settings
    return settings.model_copy(update={"url": SecretStr(running.addresses.redis)})


@contextmanager
def open_window() -> Iterator[RedisWindow]:
    """Give the window of the Redis and the model of the settings, else of the running stack."""
    settings, redis = Settings.load(), redis_settings()
    with triton_settings() as triton, TritonEncoder(triton) as encoder:
        model = encoder.info
    client = connect(redis)
    try:
        yield RedisWindow(client, model, settings.window, redis.key_prefix)
    finally:
        client.close()


@contextmanager
def triton_settings() -> Iterator[TritonSettings]:
    """Give the encoder of the settings, else of the running stack, else one started for this command."""
    settings = Settings.load().triton
    running = state.load()
    if "url" in settings.model_fields_set:
        yield settings
    elif running is not None and running.alive:
        yield TritonSettings(url=running.addresses.triton_grpc)
    else:
        with stack.triton() as url:
            yield TritonSettings(url=url)


@contextmanager
def open_encoder() -> Iterator[ImageEncoder]:
    """Give a client of the encoder that `triton_settings` names, for as long as the block lasts."""
    with triton_settings() as settings, ImageEncoder(settings=settings) as encoder:
        yield encoder
