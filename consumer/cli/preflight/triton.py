"""Tries Triton: the contract of the model, and a real inference."""

import time
from collections.abc import Iterator

from consumer.cli.preflight.finding import Finding
from consumer.encoder.triton import TritonEncoder
from consumer.errors import Misconfigured, Unavailable
from consumer.settings import Settings


def check_triton(settings: Settings) -> Iterator[Finding]:
    """Try the model's contract, and a real inference."""
    try:
        with TritonEncoder(settings.triton) as encoder:
            info = encoder.info
            threshold = f"threshold_l2 {info.match_radius_l2:g}"
            detail = f"{info.name} {info.version}: {info.size} pixels square to {info.dim} numbers, {threshold}"
            yield Finding("triton: model", "ok", detail)
            limit, batch_size = info.max_batch_size, settings.pipeline.batch_size
            if batch_size > limit:
                yield Finding(
                    "triton: batch size",
                    "warning",
                    f"the model takes {limit} pictures at once: SEENIT_PIPELINE_BATCH_SIZE {batch_size} is cut to that",
                    "raise max_batch_size of the model, or lower the setting",
                )
            began_s = time.perf_counter()
            encoder.check()
            yield Finding("triton: inference", "ok", f"one picture in {(time.perf_counter() - began_s) * 1000:.0f} ms")
    except Unavailable as error:
        yield Finding(
            "triton",
            "failed",
            error.detail,
            "SEENIT_TRITON_URL must be host:port of Triton's gRPC (8001, not the 8000 of HTTP), the model loaded "
            "(/v2/models/image_encoder/ready) and its log free of errors",
        )
    except Misconfigured as error:
        yield Finding(
            "triton: model", "failed", str(error), "serve an encoder that keeps the contract: see deploy/README.md"
        )
