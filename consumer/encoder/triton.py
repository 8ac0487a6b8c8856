"""The client of the encoder that Triton serves, over gRPC: uint8 [N, S, S, 3] -> float32 [N, D] unit vectors.

It does not retry: an error says whether the same call may succeed later.
"""

import threading
from collections.abc import Callable
from concurrent.futures import Future
from pathlib import Path
from typing import Any, Self

import grpc
import numpy as np
from numpy.typing import NDArray
from tritonclient.grpc import InferenceServerClient, InferInput, InferRequestedOutput, InferResult
from tritonclient.utils import InferenceServerException

from consumer.encoder.contract import Encoded, ModelInfo
from consumer.encoder.model_config import EMBEDDINGS, INPUT, PATCHES, read_model_info
from consumer.errors import Misconfigured, Unavailable
from consumer.settings import TritonSettings

_UNIT_TOLERANCE = 0.01  # on a vector's length; half precision inside the model stays well within
_CHANNEL = [
    ("grpc.max_send_message_length", -1),
    ("grpc.max_receive_message_length", -1),
    # gRPC's own pause between attempts grows to two minutes, long after the server is back.
    ("grpc.initial_reconnect_backoff_ms", 100),
    ("grpc.min_reconnect_backoff_ms", 1_000),
    ("grpc.max_reconnect_backoff_ms", 2_000),
    # A connection that some box on the way forgot looks healthy, until nothing answers a ping.
    ("grpc.keepalive_time_ms", 5_000),
    ("grpc.http2.ping_timeout_ms", 5_000),  # bounds keepalive's pings and others; `keepalive_timeout_ms` did not
    # A name with several addresses, as a headless service in Kubernetes has, is several servers: use them all.
    ("grpc.lb_policy_name", "round_robin"),
]


class TritonEncoder:
    """An `Encoder` served by Triton. Thread-safe; several requests may be under way at once."""

    def __init__(self, settings: TritonSettings) -> None:
        """Does not connect yet. Raises Misconfigured when a certificate or key cannot be read."""
        self._settings = settings
        self._client = _client(settings)
        self._slots = threading.BoundedSemaphore(settings.max_in_flight)
        self._info: ModelInfo | None = None

    @property
    def info(self) -> ModelInfo:
        """The model that was served when this was first read. Raises Unavailable; Misconfigured if it does not fit."""
        if self._info is None:
            self._info = self._read_info()
        return self._info

    def submit(self, pixels: NDArray[np.uint8]) -> Future[Encoded]:
        """Encode uint8 [N, S, S, 3], N up to `info.max_batch_size`; waits while `max_in_flight` requests are under way.

        The future ends within `timeout_s`: with vectors, with Unavailable, with ValueError for pixels that do not fit
        the model, or with Misconfigured when the reply breaks the model's contract.
        """
        self._slots.acquire()
        future = self._infer(pixels)
        future.add_done_callback(lambda _: self._slots.release())
        return future

    def check(self) -> None:
        """Encode one picture, since Triton's own readiness stays true when the process behind a model has died.

        Raises Unavailable, or Misconfigured when another model is served by now: its vectors are not comparable.
        """
        served = self._read_info()
        if served != self.info:
            raise Misconfigured(
                f"Triton at {self._settings.url} now serves {served.name} {served.version}, and this process began "
                f"with {self.info.version}: restart it to go on with the new one."
            )
        pixels = np.arange(served.size * served.size * 3, dtype=np.uint8)
        self._infer(pixels.reshape(1, served.size, served.size, 3)).result()

    def close(self) -> None:
        """Cancel the requests under way and disconnect."""
        self._client.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _read_info(self) -> ModelInfo:
        try:
            response = self._client.get_model_config(self._settings.model, client_timeout=self._settings.timeout_s)
        except InferenceServerException as error:
            raise self._translate(error) from None
        return read_model_info(response.config)

    def _infer(self, pixels: NDArray[np.uint8]) -> Future[Encoded]:
        """Send one request; every error ends in the future."""
        future: Future[Encoded] = Future()
        future.set_running_or_notify_cancel()

        # tritonclient passes both by these very names, and drops what is raised in here.
        def callback(result: InferResult | None, error: InferenceServerException | None) -> None:
            try:
                if error is not None:
                    raise self._translate(error)
                future.set_result(self._read_result(result, len(pixels)))
            except Exception as failure:
                future.set_exception(failure)

        try:
            self._send(pixels, callback)
        except Exception as failure:
            future.set_exception(failure)
        return future

    def _send(self, pixels: NDArray[np.uint8], callback: Callable[..., None]) -> None:
        info = self.info
        if (
            pixels.dtype != np.uint8
            or pixels.shape[1:] != (info.size, info.size, 3)
            or not 1 <= len(pixels) <= info.max_batch_size
        ):
            raise ValueError(
                f"{info.name} takes uint8 [1..{info.max_batch_size}, {info.size}, {info.size}, 3], "
                f"not {pixels.dtype} {list(pixels.shape)}"
            )
        outputs = [EMBEDDINGS] if info.patches is None else [EMBEDDINGS, PATCHES]
        timeout_s = self._settings.timeout_s
        try:
            self._client.async_infer(
                info.name,
                [InferInput(INPUT, list(pixels.shape), "UINT8").set_data_from_numpy(pixels)],
                callback,
                outputs=[InferRequestedOutput(name) for name in outputs],
                timeout=int(timeout_s * 1e6),  # microseconds; the server drops from its queue what nobody waits for
                client_timeout=timeout_s,
            )
        except ValueError:  # how gRPC says that the channel is closed
            raise Unavailable("triton", f"the connection to {self._settings.url} was closed") from None

    def _read_result(self, result: Any, count: int) -> Encoded:
        """Check the model's reply for `count` pictures against its contract."""
        info = self.info
        embeddings = result.as_numpy(EMBEDDINGS)
        patches = None if info.patches is None else result.as_numpy(PATCHES)
        if embeddings is None or embeddings.shape != (count, info.dim):
            raise Misconfigured(f"{info.name} gave no [{count}, {info.dim}] {EMBEDDINGS} for {count} pictures")
        if info.patches is not None and (patches is None or patches.shape != (count, *info.patches)):
            raise Misconfigured(f"{info.name} gave no {[count, *info.patches]} {PATCHES} for {count} pictures")
        lengths = np.linalg.norm(embeddings, axis=1)
        if not (np.abs(lengths - 1.0) < _UNIT_TOLERANCE).all():  # also true of NaN
            raise Misconfigured(f"{info.name} gave vectors of length {lengths.min():g} to {lengths.max():g}, not 1")
        return Encoded(embeddings, patches)

    def _translate(self, error: InferenceServerException) -> Exception:
        """Return the error as the contract names it, by who has to act."""
        code = (error.status() or "").removeprefix("StatusCode.")
        detail = f"{self._settings.url}: {' '.join(error.message().split())} ({code or 'no status'})"
        if code == "INVALID_ARGUMENT":
            return ValueError(detail)
        # A model that is known but not loaded, as while it is loaded again, has "no available versions".
        unloaded = self._info is not None or "no available versions" in detail
        unknown = code == "NOT_FOUND" and not unloaded
        if unknown or code in {"UNAUTHENTICATED", "PERMISSION_DENIED", "UNIMPLEMENTED"}:
            return Misconfigured(f"Triton at {detail}")
        # The rest may pass: a server away, slow or full, and INTERNAL for a model whose process died.
        return Unavailable("triton", detail)


def _client(settings: TritonSettings) -> InferenceServerClient:
    credentials = None
    if settings.ssl:
        credentials = grpc.ssl_channel_credentials(
            root_certificates=_pem("SSL_CA_FILE", settings.ssl_ca_file),
            private_key=_pem("SSL_KEY_FILE", settings.ssl_key_file),
            certificate_chain=_pem("SSL_CERT_FILE", settings.ssl_cert_file),
        )
    return InferenceServerClient(settings.url, creds=credentials, channel_args=_CHANNEL)


def _pem(setting: str, path: str) -> bytes | None:
    if not path:
        return None
    try:
        return Path(path).read_bytes()
    except OSError as error:
        raise Misconfigured(f"SEENIT_TRITON_{setting} cannot be read: {error}") from None
