"""How long the steps of the pipeline take."""

import time
from collections.abc import Iterator
from contextlib import contextmanager

from consumer.telemetry.metrics import Metrics
from consumer.telemetry.tracing import NO_TRACE, Trace


@contextmanager
def timed(metrics: Metrics, step: str, trace: Trace = NO_TRACE) -> Iterator[None]:
    """Count the time and the processor time of the block as the step's, and trace it."""
    began_s, cpu_s = time.perf_counter(), time.thread_time()
    try:
        with trace.step(step):
            yield
    finally:
        metrics.step_seconds.labels(step).observe(time.perf_counter() - began_s)
        metrics.step_cpu_seconds.labels(step).inc(time.thread_time() - cpu_s)
