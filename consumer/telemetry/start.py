"""Chooses between tracing and none."""

from consumer.errors import Misconfigured
from consumer.settings import Settings
from consumer.telemetry.tracing import NO_TRACING, Tracing


def start_tracing(settings: Settings) -> Tracing:
    """Tracing as the settings say. Raises Misconfigured when it cannot be done."""
    if not settings.tracing.enabled:
        return NO_TRACING
    try:
        from consumer.telemetry.otel import OpenTelemetry  # noqa: PLC0415  # an optional dependency
    except ModuleNotFoundError as error:
        if (error.name or "").partition(".")[0] != "opentelemetry":
            raise
        raise Misconfigured(
            "SEENIT_TRACING_ENABLED is set, but OpenTelemetry is not installed: pip install '.[tracing]'"
        ) from None
    return OpenTelemetry(settings.kafka)
