"""uint8 [N, S, S, 3] -> float32 [N, D] unit vectors, through Triton.

What there is to know of the encoder (S, D, its version and threshold) is read from the served model's configuration,
nowhere else. Retries are the caller's business: an error says whether the same call may succeed later.
"""

import base64
import io
import math
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Self, TypeVar

import grpc
import numpy as np
import numpy.typing as npt
from PIL import Image, ImageOps
from tritonclient.grpc import InferenceServerClient, InferInput, InferRequestedOutput, InferResult
from tritonclient.grpc.model_config_pb2 import DataType, ModelConfig
from tritonclient.utils import InferenceServerException

from consumer.errors import Misconfigured, Unavailable
from consumer.images.decode import decode
from consumer.images.regions import Frame, views
from consumer.settings import DecodeSettings, TritonSettings
from consumer.verification.registration import thumbnail_bytes

_Number = TypeVar("_Number", int, float)
_INPUT, _EMBEDDINGS, _PATCHES = "images", "embeddings", "patches"
LEAST_PATCHES, LEAST_CHANNELS = 2, 3  # two places of features make a transformation, and two channels are the place
TURNS = 3  # by one, two and three quarters
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


@dataclass(frozen=True, slots=True)
class SecondLook:
    """When a look at local features makes two pictures duplicates that are farther apart than `threshold_l2`.

    Up to `candidate_l2` it is worth looking; the score asked for there is `min_score`, and less the nearer they are: by
    `score_per_l2` for each unit of distance. `turn_bytes` are int8 [T, C - 2, C - 2] in 1/64, row by row: what
    `consumer.verification` has to know to see through turns of the encoder's pictures. The last rows of its `patches`
    are a thumbnail of `thumbnail_side` x `thumbnail_side` pixels, unless that is 0, as for models that do not say it.
    """

    candidate_l2: float
    min_score: float
    score_per_l2: float
    turn_bytes: bytes = b""
    thumbnail_side: int = 0

    @property
    def turns(self) -> npt.NDArray[np.float32] | None:
        return turns_of(self.turn_bytes)

    def accepts(self, l2: float, score: float) -> bool:
        return l2 <= self.candidate_l2 and score >= self.min_score - self.score_per_l2 * (self.candidate_l2 - l2)


def turns_of(data: bytes) -> npt.NDArray[np.float32] | None:
    """float32 [T, C - 2, C - 2] as `verification.features.verify` takes them; None when nothing is known of turns."""
    side = math.isqrt(len(data) // TURNS)
    return np.frombuffer(data, np.int8).astype(np.float32).reshape(TURNS, side, side) / np.float32(64) if side else None


@dataclass(frozen=True, slots=True)
class ModelInfo:
    """The served encoder, in its own words."""

    name: str
    version: str
    size: int  # S: side of the square it takes, in pixels
    dim: int  # D
    threshold_l2: float  # distance of unit vectors up to which two pictures are duplicates
    max_batch_size: int
    patches: tuple[int, int] | None  # (P, C) of the local features, with the thumbnail, if it gives any
    second_look: SecondLook | None = None  # None: distance alone decides

    @classmethod
    def from_config(cls, config: ModelConfig) -> Self:
        """Read the encoder's contract from its Triton configuration. Raises Misconfigured, naming what does not fit."""
        inputs = {tensor.name: tensor for tensor in config.input}
        outputs = {tensor.name: tensor for tensor in config.output}
        size = _number(config, "input_size", int)
        dim = _number(config, "embedding_dim", int)
        patches = outputs.get(_PATCHES)
        _expect(config, _INPUT, inputs.get(_INPUT), "TYPE_UINT8", [size, size, 3])
        _expect(config, _EMBEDDINGS, outputs.get(_EMBEDDINGS), "TYPE_FP32", [dim])
        if patches is not None:
            _expect(config, _PATCHES, patches, "TYPE_INT8", [*patches.dims, 0, 0][:2])
            if patches.dims[0] < LEAST_PATCHES or patches.dims[1] < LEAST_CHANNELS:
                raise Misconfigured(f"The local features of model {config.name!r} are too few: {list(patches.dims)}")
        if config.max_batch_size < 1:
            raise Misconfigured(f"Model {config.name!r} should take batches: its max_batch_size is 0")
        return cls(
            name=config.name,
            version=_parameter(config, "model_version"),
            size=size,
            dim=dim,
            threshold_l2=_number(config, "threshold_l2", float),
            max_batch_size=config.max_batch_size,
            patches=None if patches is None else (patches.dims[0], patches.dims[1]),
            second_look=None if patches is None else _second_look(config, *patches.dims),
        )


@dataclass(frozen=True, slots=True)
class Encoded:
    embeddings: npt.NDArray[np.float32]  # [N, D], unit length
    patches: npt.NDArray[np.int8] | None  # [N, P, C]

    @classmethod
    def joined(cls, parts: Sequence[Self]) -> Self:
        """One after another, as if encoded at once."""
        patches = [part.patches for part in parts if part.patches is not None]
        return cls(np.concatenate([part.embeddings for part in parts]), np.concatenate(patches) if patches else None)

    def __getitem__(self, rows: slice) -> "Encoded":
        return Encoded(self.embeddings[rows], None if self.patches is None else self.patches[rows])


class Encoder:
    """A client of the served encoder. Thread-safe; several requests may be under way at once."""

    def __init__(self, settings: TritonSettings) -> None:
        """Does not connect yet. Raises Misconfigured when a certificate or key cannot be read."""
        self._settings = settings
        self._client = _client(settings)
        self._slots = threading.BoundedSemaphore(settings.max_in_flight)
        self._info: ModelInfo | None = None

    @property
    def info(self) -> ModelInfo:
        """The encoder served when this was first asked. Raises Unavailable; Misconfigured for one that does not fit."""
        if self._info is None:
            self._info = self._served()
        return self._info

    def submit(self, pixels: npt.NDArray[np.uint8]) -> Future[Encoded]:
        """Send [N, S, S, 3], N up to `info.max_batch_size`; waits while `max_in_flight` requests are under way.

        The future ends within `timeout_s`: with vectors, with Unavailable, with ValueError for pixels that do not fit
        the model, or with Misconfigured when what comes back is not what the model promised.
        """
        self._slots.acquire()
        future = self._infer(pixels)
        future.add_done_callback(lambda _: self._slots.release())
        return future

    def check(self) -> None:
        """Encode one picture. Triton's own readiness stays true when the process behind a model has died.

        Raises Unavailable, or Misconfigured when another model is served by now: its vectors are not comparable.
        """
        served = self._served()
        if served != self.info:
            raise Misconfigured(
                f"Triton at {self._settings.url} now serves {served.name} {served.version}, and this process began "
                f"with {self.info.version}: restart it to go on with the new one."
            )
        pixels = np.arange(served.size * served.size * 3, dtype=np.uint8)
        self._infer(pixels.reshape(1, served.size, served.size, 3)).result()

    def close(self) -> None:
        """Cancel what is under way and disconnect."""
        self._client.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _served(self) -> ModelInfo:
        try:
            response = self._client.get_model_config(self._settings.model, client_timeout=self._settings.timeout_s)
        except InferenceServerException as error:
            raise self._translate(error) from None
        return ModelInfo.from_config(response.config)

    def _infer(self, pixels: npt.NDArray[np.uint8]) -> Future[Encoded]:
        future: Future[Encoded] = Future()
        future.set_running_or_notify_cancel()

        # tritonclient passes both by these very names; what is raised in here would be lost.
        def callback(result: InferResult | None, error: InferenceServerException | None) -> None:
            try:
                if error is not None:
                    raise self._translate(error)
                future.set_result(self._read(result, len(pixels)))
            except Exception as failure:
                future.set_exception(failure)

        try:
            self._send(pixels, callback)
        except Exception as failure:
            future.set_exception(failure)
        return future

    def _send(self, pixels: npt.NDArray[np.uint8], callback: Callable[..., None]) -> None:
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
        outputs = [_EMBEDDINGS] if info.patches is None else [_EMBEDDINGS, _PATCHES]
        timeout_s = self._settings.timeout_s
        try:
            self._client.async_infer(
                info.name,
                [InferInput(_INPUT, list(pixels.shape), "UINT8").set_data_from_numpy(pixels)],
                callback,
                outputs=[InferRequestedOutput(name) for name in outputs],
                timeout=int(timeout_s * 1e6),  # microseconds; the server drops from its queue what nobody waits for
                client_timeout=timeout_s,
            )
        except ValueError:  # how gRPC says that the channel is closed
            raise Unavailable("triton", f"the connection to {self._settings.url} was closed") from None

    def _read(self, result: Any, count: int) -> Encoded:
        info = self.info
        embeddings = result.as_numpy(_EMBEDDINGS)
        patches = None if info.patches is None else result.as_numpy(_PATCHES)
        if embeddings is None or embeddings.shape != (count, info.dim):
            raise Misconfigured(f"{info.name} gave no [{count}, {info.dim}] {_EMBEDDINGS} for {count} pictures")
        if info.patches is not None and (patches is None or patches.shape != (count, *info.patches)):
            raise Misconfigured(f"{info.name} gave no {[count, *info.patches]} {_PATCHES} for {count} pictures")
        lengths = np.linalg.norm(embeddings, axis=1)
        if not (np.abs(lengths - 1.0) < _UNIT_TOLERANCE).all():  # also true of NaN
            raise Misconfigured(f"{info.name} gave vectors of length {lengths.min():g} to {lengths.max():g}, not 1")
        return Encoded(embeddings, patches)

    def _translate(self, error: InferenceServerException) -> Exception:
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


class ImageEncoder:
    """Turns one picture into its vector: `ImageEncoder("localhost:8001")("photo.jpg")`.

    Decoding is the service's own, so that vectors compare with those in the window by Euclidean distance.
    """

    def __init__(self, url: str = "localhost:8001", settings: TritonSettings | None = None) -> None:
        self._encoder = Encoder(settings or TritonSettings(url=url))

    @property
    def info(self) -> ModelInfo:
        return self._encoder.info

    def __call__(self, image: str | Path | bytes | Image.Image) -> npt.NDArray[np.float32]:
        """The unit vector, float32 [D], of a file, of a file's bytes or of a PIL image.

        Raises OSError, Unprocessable for what is not a picture, Unavailable, Misconfigured.
        """
        vector: npt.NDArray[np.float32] = self.encode(image).embeddings[0]
        return vector

    def encode(self, image: str | Path | bytes | Image.Image) -> Encoded:
        """The same with the local features, for `consumer.verification.features`: [1, D] and [1, P, C]."""
        picture = decode(_bytes(image), self.info.size, DecodeSettings())
        return self._encoder.submit(picture.pixels[np.newaxis]).result()

    def encode_within(
        self, image: str | Path | bytes | Image.Image, settings: DecodeSettings
    ) -> tuple[list[Frame], Encoded]:
        """The same of the picture and of those within it: [N, D] and [N, P, C], the whole first, and where they are.

        As in the service, there are none within it if the settings say so, or if the encoder has no second look.
        """
        picture = decode(_bytes(image), self.info.size, settings)
        within = settings.frames and self.info.second_look is not None
        [seen] = views([picture.pixels], settings.min_detail, within)
        parts = [self._encoder.submit(view.pixels[np.newaxis]) for view in seen]
        return [view.frame for view in seen], Encoded.joined([part.result() for part in parts])

    def close(self) -> None:
        self._encoder.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def _bytes(image: str | Path | bytes | Image.Image) -> bytes:
    if isinstance(image, bytes):
        return image
    if isinstance(image, Image.Image):
        upright = ImageOps.exif_transpose(image)
        file = io.BytesIO()
        # Both without loss; TIFF also holds the modes that PNG does not know, such as CMYK.
        if upright.mode in {"1", "L", "LA", "P", "RGB", "RGBA"}:
            upright.save(file, "PNG", compress_level=1)
        else:
            upright.save(file, "TIFF")
        return file.getvalue()
    return Path(image).read_bytes()


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


def _parameter(config: ModelConfig, name: str) -> str:
    value: str = config.parameters[name].string_value if name in config.parameters else ""
    if not value:
        raise Misconfigured(f"The configuration of model {config.name!r} lacks the parameter {name!r}")
    return value


def _second_look(config: ModelConfig, count: int, channels: int) -> SecondLook | None:
    if "candidate_l2" not in config.parameters:
        return None
    candidate_l2, min_score, score_per_l2 = (
        _number(config, name, float) for name in ("candidate_l2", "min_score", "score_per_l2")
    )
    side = _number(config, "thumbnail_side", int) if "thumbnail_side" in config.parameters else 0
    rows, left = divmod(thumbnail_bytes(side), channels)
    if side % 2 or left or rows > count - LEAST_PATCHES:
        raise Misconfigured(
            f"Thumbnails of {side} x {side} pixels do not fit into the local features of model {config.name!r}, "
            f"{[count, channels]}: see its parameter 'thumbnail_side'"
        )
    look = SecondLook(candidate_l2, min_score, score_per_l2, _turn_bytes(config, channels), side)
    if look.candidate_l2 < _number(config, "threshold_l2", float):
        raise Misconfigured(f"The parameter 'candidate_l2' of model {config.name!r} is below its 'threshold_l2'")
    return look


def _turn_bytes(config: ModelConfig, channels: int) -> bytes:
    said = config.parameters["turns"].string_value if "turns" in config.parameters else ""
    if not said:
        return b""
    try:
        turns = base64.b64decode(said, validate=True)
    except ValueError:
        turns = b""
    if len(turns) != TURNS * (channels - 2) ** 2:
        raise Misconfigured(
            f"The parameter 'turns' of model {config.name!r} should be {TURNS} x {channels - 2} x {channels - 2} bytes "
            "in base64"
        )
    return turns


def _number(config: ModelConfig, name: str, kind: Callable[[str], _Number]) -> _Number:
    value = _parameter(config, name)
    with suppress(ValueError):
        number = kind(value)
        if 0 < number < math.inf:
            return number
    raise Misconfigured(f"The parameter {name!r} of model {config.name!r} should be a number, not {value!r}")


def _expect(config: ModelConfig, name: str, tensor: Any, kind: str, dims: list[int]) -> None:
    found = None if tensor is None else (DataType.Name(tensor.data_type), list(tensor.dims))
    if found != (kind, dims):
        raise Misconfigured(f"Model {config.name!r} should have a tensor {name!r} {kind} {dims}, and has {found}")
