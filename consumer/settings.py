"""The configuration: `SEENIT_<SECTION>_<NAME>` variables over an optional TOML file, frozen once read.

`SEENIT_KAFKA_BOOTSTRAP_SERVERS` sets `kafka.bootstrap_servers`; a file named by `SEENIT_CONFIG` holds the same names
as `[kafka]` tables. Secrets are `SecretStr`, so that no log, error or printed configuration shows them.
"""

import os
import tomllib
from ipaddress import IPv4Network, IPv6Network
from pathlib import Path
from typing import Literal, Self

from pydantic import Field, SecretStr, ValidationError
from pydantic_settings import (
    BaseSettings,
    PydanticBaseSettingsSource,
    SettingsConfigDict,
    SettingsError,
    TomlConfigSettingsSource,
)

from consumer.errors import Misconfigured
from consumer.sections import Section, ServeSettings

# Rows stay in Redis for this share of the retention after they are compared for the last time, so that an upload
# repeated within that time gets the same verdict. An exact copy is stored again only when the newest row of its bytes
# is older than this.
GRACE_SHARE = 1 / 24


class KafkaSettings(Section):
    bootstrap_servers: str = Field(default="localhost:9092", description="Brokers, `host:port`, comma-separated.")
    group_id: str = Field(default="seenit", description="Consumer group; processes that share it share the partitions.")
    instance_id: str = Field(
        default="",
        description="Stable name of this process in the group; also names its transactions. Empty: made up at start.",
    )
    input_topic: str = Field(default="image-uploads", description="Topic with upload and deletion events.")
    output_topic: str = Field(default="image-verdicts", description="Topic for verdicts.")
    dead_letter_topic: str = Field(
        default="image-uploads.dlq", description="Topic for events that could not be processed."
    )
    embeddings_topic: str = Field(
        default="",
        description="Topic that each stored embedding is published to as well, in the same transaction, and that a "
        "lost window can be rebuilt from: `image-embeddings`, say. Empty: none.",
    )
    banks_topic: str = Field(
        default="",
        description="Compacted topic with banks of known pictures and their entries: `image-banks`, say. Empty: none.",
    )
    rematches_topic: str = Field(
        default="",
        description="Topic for floods of campaigns and for earlier uploads that a new entry of a bank shows: "
        "`image-rematches`, say. Empty: neither is told.",
    )
    feedback_topic: str = Field(
        default="",
        description="Topic with what people decide about matches: `image-feedback`, say. Empty: none.",
    )
    decisions_topic: str = Field(
        default="image-decisions",
        description="Compacted topic in which these decisions are kept, for all processes; used with a feedback topic.",
    )
    audit_topic: str = Field(
        default="",
        description="Topic that `seenit serve` tells every change to that it was asked for: `image-audit`, say. Empty: "
        "none, and nothing can be changed over HTTP.",
    )
    delivery: Literal["exactly-once", "at-least-once"] = Field(
        default="exactly-once", description="`exactly-once` needs a broker with transactions."
    )
    group_protocol: Literal["classic", "consumer"] = Field(
        default="classic",
        description="How the group shares partitions: `classic` (cooperative-sticky; range for processes with a stable "
        "name), or `consumer` (KIP-848, from Kafka 4.0 on), in which the brokers set the session time-out.",
    )
    session_timeout_ms: int = Field(
        default=45_000, ge=6_000, description="Silence after which the group gives a process up."
    )
    transaction_timeout_ms: int = Field(
        default=20_000,
        ge=15_000,  # the client refuses less than it gives one message
        description="How long a killed process's open transaction holds up readers, at most.",
    )
    security_protocol: Literal["plaintext", "ssl", "sasl_plaintext", "sasl_ssl"] = Field(
        default="plaintext", description="How to talk to the brokers."
    )
    sasl_mechanism: Literal["", "PLAIN", "SCRAM-SHA-256", "SCRAM-SHA-512"] = Field(
        default="", description="SASL mechanism, with a `sasl_*` protocol."
    )
    sasl_username: str = Field(default="", description="SASL user.")
    sasl_password: SecretStr = Field(default=SecretStr(""), description="SASL password.")
    ssl_ca_file: str = Field(
        default="", description="PEM file of the authority that signed the brokers' certificates. Empty: the system's."
    )


class TritonSettings(Section):
    url: str = Field(default="localhost:8001", description="gRPC address, `host:port`.")
    model: str = Field(default="image_encoder", description="Name of the served encoder.")
    timeout_s: float = Field(default=10.0, gt=0, description="Deadline of one inference.")
    max_in_flight: int = Field(default=4, ge=1, description="Requests to Triton under way at once.")
    ssl: bool = Field(default=False, description="Talk TLS.")
    ssl_ca_file: str = Field(
        default="", description="PEM file of the authority that signed Triton's certificate. Empty: the system's."
    )
    ssl_cert_file: str = Field(default="", description="PEM file of this client's certificate, for mutual TLS.")
    ssl_key_file: str = Field(default="", description="PEM file of this client's key, for mutual TLS.")


class RedisSettings(Section):
    url: SecretStr = Field(
        default=SecretStr("redis://localhost:6379/0"),
        description="`redis://` or `rediss://` (TLS) address, may hold user and password.",
    )
    timeout_s: float = Field(default=5.0, gt=0, description="Deadline of one command.")
    cluster: bool = Field(default=False, description="The address is a Redis Cluster.")
    ssl_ca_file: str = Field(
        default="", description="PEM file of the authority that signed the server's certificate. Empty: the system's."
    )
    key_prefix: str = Field(default="seenit", description="First part of every key.")


WindowBackend = Literal["replica", "redis-vectors"]


class WindowSettings(Section):
    retention_s: float = Field(default=86_400.0, gt=0, description="How long an upload is remembered, in seconds.")
    max_bytes: int = Field(
        default=1 << 30,
        ge=1 << 20,
        description="Bound on Redis memory for one tenant's window, in bytes; the oldest go first.",
    )
    on_loss: Literal["continue", "rebuild"] = Field(
        default="continue",
        description="When Redis comes back without the window: `continue` with an empty one, or `rebuild` it from "
        "`SEENIT_KAFKA_EMBEDDINGS_TOPIC` before any further verdict.",
    )
    search: Literal["thorough", "fast"] = Field(
        default="thorough",
        description="How windows of more than 100,000 uploads are searched: `thorough` finds 998 of 1000 copies that "
        "an exact search finds, `fast` about 985 in less time. Smaller windows are always searched exactly.",
    )
    backend: WindowBackend = Field(
        default="replica",
        description="Where windows are searched: in a `replica` in each process, or in `redis-vectors`, vector sets of "
        "Redis 8, for windows too large for a process.",
    )
    others: int = Field(default=5, ge=0, le=100, description="Further matches listed in a verdict, at most.")


class MatchSettings(Section):
    strictness: Literal["strict", "balanced", "eager"] = Field(
        default="balanced",
        description="How sure the second look has to be of a duplicate: `strict` accuses the innocent least, `eager` "
        "misses fewest copies. What each costs stands in the model's README.",
    )


class CampaignsSettings(Section):
    flood_uploads_per_hour: float = Field(
        default=1000.0, gt=0, description="Uploads of one campaign within an hour beyond which they are a flood."
    )
    tenant_flood_uploads_per_hour: dict[str, float] = Field(
        default={}, description='The same for single tenants, as `{"a-tenant": 50}`.'
    )


class FetchSettings(Section):
    timeout_s: float = Field(default=10.0, gt=0, description="Bound on fetching one picture, all of it, in seconds.")
    max_bytes: int = Field(default=32 << 20, ge=1, description="Largest file accepted, in bytes.")
    concurrency: int = Field(default=16, ge=1, description="Fetches under way at once.")
    schemes: tuple[Literal["https", "http", "s3", "gs", "az"], ...] = Field(
        default=("https",),
        description="Address schemes that may be fetched, of `https`, `http`, `s3`, `gs` and `az`. Name a store only "
        "where it is set up: an upload from a store that cannot be asked waits until it can.",
    )
    hosts: tuple[str, ...] = Field(
        default=(),
        description="Hosts that `http(s)` may be fetched from, `*.example.org` for subdomains. Empty: any public host.",
    )
    networks: tuple[IPv4Network | IPv6Network, ...] = Field(
        default=(),
        description='Networks that `http(s)` may reach though they are not public, as `["10.2.0.0/16"]`. Empty: none.',
    )
    buckets: tuple[str, ...] = Field(
        default=(), description="Buckets that may be read. Empty: any that the credentials allow."
    )
    folders: tuple[Path, ...] = Field(default=(), description="Folders that `file://` may be read from. Empty: none.")
    s3_endpoint: str = Field(
        default="",
        description="Address of an S3-compatible store; turns `s3` on. Empty: AWS, if `s3` is among the schemes.",
    )
    s3_region: str = Field(default="us-east-1", description="Region of the S3 store.")


class DecodeSettings(Section):
    max_pixels: int = Field(
        default=100_000_000,
        ge=1,
        le=178_956_970,
        description="Most pixels a picture may claim, all of its width times height. A JPEG, decoded small, may "
        "have 2.5 times as many.",
    )
    min_side: int = Field(default=8, ge=1, description="Shortest side accepted, in pixels.")
    min_detail: float = Field(default=0.7, ge=0, description="Detail score under which a picture matches only exactly.")
    frames: bool = Field(
        default=True, description="Also look at pictures within a picture: collages, screenshots, one upon another."
    )
    threads: int = Field(default=0, ge=0, description="Decoding threads. 0: one for each core.")


class PipelineSettings(Section):
    batch_size: int = Field(default=32, ge=1, description="Uploads a batch, at most; the model's own limit holds too.")
    batch_wait_ms: float = Field(
        default=5.0, ge=0, description="How long an incomplete batch waits for more, in milliseconds."
    )
    batches_in_flight: int = Field(default=4, ge=1, description="Batches between poll and commit at once.")
    revoke_timeout_s: float = Field(
        default=10.0,
        gt=0,
        description="Bound on finishing work in flight when partitions are taken away (not in a cooperative group).",
    )
    shutdown_timeout_s: float = Field(default=15.0, gt=0, description="Bound on a graceful stop.")


class HttpSettings(Section):
    host: str = Field(default="127.0.0.1", description="Address that `/livez`, `/readyz` and `/metrics` listen on.")
    port: int = Field(default=9464, ge=0, le=65_535, description="Their port. 0: any free one.")


class LogSettings(Section):
    level: Literal["debug", "info", "warning", "error"] = Field(
        default="info", description="Least severe level logged."
    )
    format: Literal["auto", "json", "text"] = Field(
        default="auto", description="`auto`: text on a terminal, JSON lines elsewhere."
    )


class TracingSettings(Section):
    enabled: bool = Field(
        default=False,
        description="Send traces; the standard `OTEL_*` variables say where to (`OTEL_EXPORTER_OTLP_ENDPOINT`) and how "
        "many (`OTEL_TRACES_SAMPLER`).",
    )


class Settings(BaseSettings):
    """All sections. Use `load`, which says in one sentence what is wrong."""

    model_config = SettingsConfigDict(
        env_prefix="SEENIT_", env_nested_delimiter="_", env_nested_max_split=1, frozen=True, extra="forbid"
    )

    kafka: KafkaSettings = KafkaSettings()
    triton: TritonSettings = TritonSettings()
    redis: RedisSettings = RedisSettings()
    window: WindowSettings = WindowSettings()
    match: MatchSettings = MatchSettings()
    campaigns: CampaignsSettings = CampaignsSettings()
    fetch: FetchSettings = FetchSettings()
    decode: DecodeSettings = DecodeSettings()
    pipeline: PipelineSettings = PipelineSettings()
    http: HttpSettings = HttpSettings()
    serve: ServeSettings = ServeSettings()
    log: LogSettings = LogSettings()
    tracing: TracingSettings = TracingSettings()

    @classmethod
    def load(cls) -> Self:
        """The settings of this process. Raises Misconfigured that names the variables and what is wrong with each."""
        try:
            settings = cls()
        except ValidationError as error:
            problems = [
                f"SEENIT_{'_'.join(str(part) for part in problem['loc']).upper()}: {problem['msg']}"
                for problem in error.errors(include_input=False, include_url=False)
            ]
            raise Misconfigured("; ".join(problems)) from None
        except SettingsError as error:
            raise Misconfigured(f'{error}; lists are given as JSON, as ["a", "b"]') from None
        if settings.window.on_loss == "rebuild" and not settings.kafka.embeddings_topic:
            raise Misconfigured("SEENIT_WINDOW_ON_LOSS=rebuild needs SEENIT_KAFKA_EMBEDDINGS_TOPIC to rebuild from")
        return settings

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,
        file_secret_settings: PydanticBaseSettingsSource,
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        sources = (init_settings, env_settings)
        name = os.environ.get("SEENIT_CONFIG")
        if not name:
            return sources
        file = Path(name)
        if not file.is_file():
            raise Misconfigured(f"SEENIT_CONFIG names {file}, and there is no such file")
        try:
            return (*sources, TomlConfigSettingsSource(settings_cls, file))
        except tomllib.TOMLDecodeError as error:
            raise Misconfigured(f"SEENIT_CONFIG names {file}, which is not TOML: {error}") from None
