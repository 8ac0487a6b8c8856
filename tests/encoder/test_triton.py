"""The encoder's client against real Triton servers, healthy and hurt."""

import contextlib
import io
import os
import re
import shutil
import signal
import socket
import threading
import time
from collections.abc import Iterator
from concurrent.futures import wait
from pathlib import Path
from typing import Any, Self

import numpy as np
import onnxruntime
import pytest
import trustme
from PIL import Image
from tritonclient.grpc import InferenceServerClient

from consumer import ImageEncoder
from consumer.encoder.triton import TritonEncoder
from consumer.errors import Misconfigured, Unavailable, Unprocessable
from consumer.local.binaries import Binaries
from consumer.local.process import free_ports, wait_until_ready
from consumer.local.servers import MODEL, REPOSITORY, TritonServer
from consumer.settings import TritonSettings
from tests.stack_fixtures import served_graph, serving


def address(server: TritonServer) -> str:
    return f"127.0.0.1:{server.ports[0]}"


def noise(count: int, size: int) -> Any:
    return np.random.default_rng(count).integers(0, 256, (count, size, size, 3), dtype=np.uint8)


@pytest.fixture
def encoder(triton: str) -> Iterator[TritonEncoder]:
    with TritonEncoder(TritonSettings(url=triton)) as encoder:
        yield encoder


@pytest.fixture(scope="module")
def session() -> onnxruntime.InferenceSession:
    return onnxruntime.InferenceSession(served_graph())


@pytest.mark.parametrize("count", [1, 3, 40])
def test_vectors_are_those_of_the_model_file(
    encoder: TritonEncoder, session: onnxruntime.InferenceSession, count: int
) -> None:
    pixels = noise(count, encoder.info.size)
    encoded = encoder.submit(pixels).result()
    (expected,) = session.run(["embeddings"], {"images": pixels})
    assert encoded.embeddings.dtype == np.float32
    np.testing.assert_allclose(encoded.embeddings, expected, atol=1e-4)
    np.testing.assert_allclose(np.linalg.norm(encoded.embeddings, axis=1), 1, atol=1e-4)


def test_batches_that_triton_joins_come_back_apart(
    encoder: TritonEncoder, session: onnxruntime.InferenceSession
) -> None:
    batches = [noise(count, encoder.info.size) for count in (1, 2, 3, 4, 5, 6, 7, 8)]
    futures = [encoder.submit(pixels) for pixels in batches]
    for pixels, future in zip(batches, futures, strict=True):
        (expected,) = session.run(["embeddings"], {"images": pixels})
        np.testing.assert_allclose(future.result().embeddings, expected, atol=1e-4)


def test_encoding_leaves_nothing_in_the_servers_log(encoder: TritonEncoder, log_dir: Path) -> None:
    log = log_dir / "triton.log"
    before_bytes = log.stat().st_size
    for count in (1, 8):
        encoder.submit(noise(count, encoder.info.size)).result()
    assert log.stat().st_size == before_bytes


def test_what_the_model_does_not_take_is_refused_with_both_shapes(encoder: TritonEncoder) -> None:
    size, max_batch_size = encoder.info.size, encoder.info.max_batch_size
    wrong = [
        np.zeros((max_batch_size + 1, size, size, 3), np.uint8),
        np.zeros((0, size, size, 3), np.uint8),
        np.zeros((1, size, size + 1, 3), np.uint8),
        np.zeros((size, size, 3), np.uint8),
        np.zeros((1, size, size, 3), np.float32),
    ]
    for pixels in wrong:
        takes = rf"uint8 \[1\.\.{max_batch_size}, {size}, {size}, 3\]"
        with pytest.raises(ValueError, match=rf"{takes}, not {pixels.dtype}"):
            encoder.submit(pixels).result()
    encoder.submit(noise(1, size)).result()  # and no slot was lost


def test_an_unknown_model_is_an_operators_fault(triton: str) -> None:
    with (
        TritonEncoder(TritonSettings(url=triton, model="nobody")) as encoder,
        pytest.raises(Misconfigured, match="nobody"),
    ):
        encoder.check()


def test_a_server_that_is_away_is_unavailable_at_once_and_found_when_it_comes(
    binaries: Binaries, tmp_path: Path
) -> None:
    server = TritonServer(binaries, tmp_path)
    ports = free_ports(3)
    with TritonEncoder(TritonSettings(url=f"127.0.0.1:{ports[0]}", timeout_s=30)) as encoder:
        began = time.monotonic()
        for ask in (encoder.check, lambda: encoder.info, encoder.submit(noise(1, 8)).result):
            with pytest.raises(Unavailable, match=str(ports[0])):
                ask()
        assert time.monotonic() - began < 5
        try:
            server.start(ports)
            wait_until_ready([server])
            soon(encoder.check)
            server.stop()
            with pytest.raises(Unavailable):
                encoder.check()
            with pytest.raises(Unavailable):
                encoder.submit(noise(1, encoder.info.size)).result()
            server.start(ports)
            wait_until_ready([server])
            soon(encoder.check)
            encoder.submit(noise(1, encoder.info.size)).result()
        finally:
            server.stop()


def test_a_frozen_server_meets_the_deadline(own_triton: TritonServer) -> None:
    with TritonEncoder(TritonSettings(url=address(own_triton), timeout_s=1)) as encoder:
        pixels = noise(1, encoder.info.size)
        os.kill(own_triton.pid, signal.SIGSTOP)
        try:
            began = time.monotonic()
            with pytest.raises(Unavailable, match="DEADLINE_EXCEEDED"):
                encoder.submit(pixels).result()
            assert 0.9 < time.monotonic() - began < 5
        finally:
            os.kill(own_triton.pid, signal.SIGCONT)
        soon(lambda: encoder.submit(pixels).result())


def test_a_connection_that_was_forgotten_on_the_way_is_replaced(triton: str) -> None:
    with Forwarder(triton) as forwarder, TritonEncoder(TritonSettings(url=forwarder.address, timeout_s=5)) as encoder:
        encoder.check()
        forwarder.forget()
        with pytest.raises(Unavailable, match="DEADLINE_EXCEEDED"):
            encoder.check()
        soon(encoder.check, within_s=20)


def test_a_dead_model_process_fails_the_check_until_the_model_is_loaded_again(own_triton: TritonServer) -> None:
    with TritonEncoder(TritonSettings(url=address(own_triton))) as encoder:
        encoder.check()
        for child in children(own_triton.pid):
            os.kill(child, signal.SIGKILL)
        client = InferenceServerClient(address(own_triton))
        with pytest.raises(Unavailable, match="not healthy"):
            encoder.check()
        assert client.is_model_ready(MODEL)  # why the check has to send a picture
        with pytest.raises(Unavailable, match="not healthy"):
            encoder.submit(noise(2, encoder.info.size)).result()
        client.unload_model(MODEL)
        with pytest.raises(Unavailable):  # not Misconfigured: it may be loaded again
            encoder.check()
        with TritonEncoder(TritonSettings(url=address(own_triton))) as newcomer, pytest.raises(Unavailable):
            newcomer.check()
        soon(lambda: client.load_model(MODEL))
        encoder.check()
        client.close()


def test_a_model_replaced_under_a_running_service_is_noticed(binaries: Binaries, tmp_path: Path) -> None:
    repository = Path(shutil.copytree(REPOSITORY, tmp_path / "repository"))
    with (
        serving(TritonServer(binaries, tmp_path, repository=repository)) as server,
        TritonEncoder(TritonSettings(url=address(server))) as encoder,
    ):
        encoder.check()
        configuration = repository / MODEL / "configs" / "cpu.pbtxt"
        configuration.write_text(configuration.read_text().replace(f'"{encoder.info.version}"', '"of-another-kind"'))
        client = InferenceServerClient(address(server))
        client.load_model(MODEL)
        client.close()
        with pytest.raises(Misconfigured, match=f"of-another-kind.*{encoder.info.version}"):
            encoder.check()


# Models that break their contract, by name: code that computes the outputs, `replies`, from unit vectors, `unit`.
ODD = {
    "slow": "time.sleep(2); replies = [unit]",
    "long_vectors": "replies = [2 * unit]",
    "nothing": "replies = [np.full_like(unit, np.nan)]",
    "narrow": "replies = [unit[:, :-1]]",
    "raising": "raise RuntimeError('out of order')",
    "with_patches": "replies = [unit, np.full((len(unit), 4, 8), 7, np.int8)]",
}


@pytest.fixture(scope="module")
def odd_triton(binaries: Binaries, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The gRPC address of a Triton that serves the models in ODD."""
    folder = tmp_path_factory.mktemp("odd")
    repository = folder / "repository"
    shutil.copytree(REPOSITORY, repository, ignore=shutil.ignore_patterns("*.onnx"))
    sound = repository / MODEL
    configuration = (sound / "configs" / "cpu.pbtxt").read_text().partition("model_warmup")[0].partition("instance_")[0]
    # These models have local features of their own or none, so the parameters that go with the real ones must not stay.
    configuration = re.sub(
        r',\s*\{ name: "patches"[^}]*\}|parameters \{ key: "(turns|rule_trees)".*', "", configuration
    )
    for name, reply in ODD.items():
        shutil.copytree(sound, repository / name)
        patches = 'output [ { name: "patches" data_type: TYPE_INT8 dims: [ 4, 8 ] } ]' if "patches" in name else ""
        renamed = configuration.replace('name: "image_encoder"', f'name: "{name}"') + patches
        (repository / name / "configs" / "cpu.pbtxt").write_text(renamed)
        (repository / name / "1" / "model.py").write_text(
            f"""
import json, time
import numpy as np
import triton_python_backend_utils as pb_utils

class TritonPythonModel:
    def initialize(self, args):
        self.outputs = json.loads(args["model_config"])["output"]

    def execute(self, requests):
        responses = []
        for request in requests:
            images = np.from_dlpack(pb_utils.get_input_tensor_by_name(request, "images"))
            unit = np.zeros((len(images), self.outputs[0]["dims"][0]), np.float32)
            unit[:, 0] = 1
            {reply}
            tensors = [
                pb_utils.Tensor.from_dlpack(output["name"], np.ascontiguousarray(reply))
                for output, reply in zip(self.outputs, replies, strict=True)
            ]
            responses.append(pb_utils.InferenceResponse(tensors))
        return responses
"""
        )
    shutil.rmtree(sound)
    with serving(TritonServer(binaries, folder, repository=repository)) as server:
        yield address(server)


@pytest.mark.parametrize(
    ("model", "message"),
    [("long_vectors", "length 2"), ("nothing", "length nan"), ("narrow", "gave no"), ("raising", "out of order")],
)
def test_an_answer_that_breaks_the_contract_is_never_taken(odd_triton: str, model: str, message: str) -> None:
    with TritonEncoder(TritonSettings(url=odd_triton, model=model)) as encoder:
        for ask in (encoder.check, encoder.submit(noise(2, encoder.info.size)).result):
            with pytest.raises((Misconfigured, Unavailable), match=message):
                ask()


def test_local_features_come_along_when_the_model_gives_them(odd_triton: str) -> None:
    with TritonEncoder(TritonSettings(url=odd_triton, model="with_patches")) as encoder:
        assert encoder.info.patches == (4, 8)
        encoded = encoder.submit(noise(2, encoder.info.size)).result()
        assert encoded.patches is not None
        assert encoded.patches.dtype == np.int8
        assert encoded.patches.shape == (2, 4, 8)
        assert (encoded.patches == 7).all()


def test_requests_in_flight_are_bounded(odd_triton: str) -> None:
    with TritonEncoder(TritonSettings(url=odd_triton, model="slow", max_in_flight=2)) as encoder:
        pixels = noise(1, encoder.info.size)
        began = time.monotonic()
        futures = [encoder.submit(pixels), encoder.submit(pixels)]
        assert time.monotonic() - began < 1.5
        futures.append(encoder.submit(pixels))  # waits for one of the two
        assert time.monotonic() - began > 1.5
        assert futures[0].done() or futures[1].done()
        assert not wait(futures, timeout=20).not_done


def test_closing_ends_what_is_under_way(odd_triton: str) -> None:
    encoder = TritonEncoder(TritonSettings(url=odd_triton, model="slow"))
    future = encoder.submit(noise(1, encoder.info.size))
    encoder.close()
    with pytest.raises(Unavailable):
        future.result(timeout=5)
    with pytest.raises(Unavailable, match="closed"):
        encoder.submit(noise(1, encoder.info.size)).result()


@pytest.mark.parametrize("mutual", [False, True], ids=["tls", "mutual-tls"])
def test_tls(binaries: Binaries, tmp_path: Path, mutual: bool) -> None:
    authority, stranger = trustme.CA(), trustme.CA()
    certificates = {"server": authority.issue_cert("127.0.0.1"), "client": authority.issue_cert("client")}
    certificates["stranger"] = stranger.issue_cert("client")
    for name, certificate in certificates.items():
        certificate.private_key_pem.write_to_path(tmp_path / f"{name}.key")
        certificate.cert_chain_pems[0].write_to_path(tmp_path / f"{name}.pem")
    authority.cert_pem.write_to_path(tmp_path / "authority.pem")
    stranger.cert_pem.write_to_path(tmp_path / "other-authority.pem")
    arguments = [
        "--grpc-use-ssl=1",
        f"--grpc-server-cert={tmp_path}/server.pem",
        f"--grpc-server-key={tmp_path}/server.key",
    ]
    if mutual:
        arguments += ["--grpc-use-ssl-mutual=1", f"--grpc-root-cert={tmp_path}/authority.pem"]
    own = {"ssl_cert_file": str(tmp_path / "client.pem"), "ssl_key_file": str(tmp_path / "client.key")}
    strange = {"ssl_cert_file": str(tmp_path / "stranger.pem"), "ssl_key_file": str(tmp_path / "stranger.key")}
    with serving(TritonServer(binaries, tmp_path, arguments=arguments)) as server:

        def check(authority: str = "authority.pem", **more: Any) -> None:
            known = {"ssl": True, "ssl_ca_file": str(tmp_path / authority), "timeout_s": 5.0}
            with TritonEncoder(TritonSettings(url=address(server), **{**known, **more})) as encoder:
                encoder.check()

        check(**own)
        with pytest.raises(Unavailable, match=r"(?i)certificate"):
            check("other-authority.pem", **own)
        with pytest.raises(Unavailable):
            check(ssl=False)
        if mutual:
            for refused in ({}, strange):
                with pytest.raises(Unavailable):
                    check(**refused)
        else:
            check()


def test_a_certificate_that_cannot_be_read_is_named() -> None:
    with pytest.raises(Misconfigured, match=r"nowhere\.pem"):
        TritonEncoder(TritonSettings(ssl=True, ssl_ca_file="/nowhere.pem"))


def test_one_line_from_a_picture_to_its_vector(triton: str, tmp_path: Path) -> None:
    picture = Image.fromarray(np.random.default_rng(1).integers(0, 256, (240, 320, 3), dtype=np.uint8)).resize(
        (640, 480)
    )
    path = tmp_path / "bücher 图片.png"
    picture.save(path)
    with ImageEncoder(triton) as encoder:
        vector = encoder(path)
        assert vector.shape == (encoder.info.dim,)
        assert np.linalg.norm(vector) == pytest.approx(1, abs=1e-4)
        for same in (str(path), path.read_bytes(), picture):
            np.testing.assert_allclose(encoder(same), vector, atol=1e-5)
        upright, turned = io.BytesIO(), picture.rotate(90, expand=True)
        turned.getexif()[0x0112] = 6
        turned.save(upright, "PNG", exif=turned.getexif())
        np.testing.assert_allclose(encoder(Image.open(upright)), vector, atol=1e-5)
        # Colours come back a shade off, and the 8-bit graph rounds some of it the other way.
        assert np.linalg.norm(encoder(picture.convert("CMYK")) - vector) < 0.15
        with pytest.raises(Unprocessable, match="not-an-image"):
            encoder(b"no picture")
        with pytest.raises(FileNotFoundError):
            encoder(tmp_path / "missing.png")


class Forwarder:
    """Forwards connections to an address. Forgotten ones stay open, but nothing gets through any more."""

    def __init__(self, to: str) -> None:
        host, _, port = to.rpartition(":")
        self._to = (host, int(port))
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.address = f"127.0.0.1:{self._listener.getsockname()[1]}"
        self._sockets: list[socket.socket] = []
        self._forgotten: set[socket.socket] = set()

    def __enter__(self) -> Self:
        threading.Thread(target=self._accept, daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        for each in (self._listener, *self._sockets):
            with contextlib.suppress(OSError):
                each.shutdown(socket.SHUT_RDWR)
            each.close()

    def forget(self) -> None:
        self._forgotten.update(self._sockets)

    def _accept(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                near, far = self._listener.accept()[0], socket.create_connection(self._to)
                self._sockets += [near, far]
                for source, target in ((near, far), (far, near)):
                    threading.Thread(target=self._pass, args=(source, target), daemon=True).start()

    def _pass(self, source: socket.socket, target: socket.socket) -> None:
        with contextlib.suppress(OSError):
            while data := source.recv(1 << 16):
                if source not in self._forgotten:
                    target.sendall(data)


def soon(ask: Any, within_s: float = 10.0) -> None:
    """Call `ask` again and again for `within_s` seconds, until it no longer raises."""
    deadline = time.monotonic() + within_s
    while True:
        try:
            ask()
        except Exception:
            if time.monotonic() > deadline:
                raise
            time.sleep(0.1)
        else:
            return


def children(pid: int) -> list[int]:
    """Return the process ids of a process's children, of which there must be some."""
    tasks = Path(f"/proc/{pid}/task").glob("*/children")
    pids = [int(child) for task in tasks for child in task.read_text().split()]
    assert pids
    return pids
