"""The second look on real servers: verdicts carry its evidence, and `seenit compare` tells the same."""

import io
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from PIL import Image

from consumer.local.binaries import Binaries
from consumer.local.pictures import photographs
from consumer.local.servers import REPOSITORY, TritonServer
from consumer.verdicts import Match
from tests.service_fixtures import Service, new_service
from tests.stack_fixtures import serving

PHOTOGRAPHS = dict(photographs())


def cropped(data: bytes) -> bytes:
    """Zoom into a picture by 1 / 0.7."""
    with Image.open(io.BytesIO(data)) as image:
        width, height = image.size
        part = image.convert("RGB").resize(image.size, box=(0.1 * width, 0.15 * height, 0.8 * width, 0.85 * height))
    out = io.BytesIO()
    part.save(out, "JPEG", quality=90)
    return out.getvalue()


def test_the_verdict_carries_the_evidence(broker: str, redis_server: str, triton: str, tmp_path: Path) -> None:
    with new_service(broker, redis_server, triton, tmp_path) as service:
        service.consumer()
        service.picture("original", PHOTOGRAPHS["china.jpg"])
        assert service.await_verdict("original").verdict == "unique"
        service.picture("crop", cropped(PHOTOGRAPHS["china.jpg"]))
        match = _near(service, "crop")
        assert match.evidence is not None
        assert match.evidence.verified
        edit = match.evidence.edit
        assert edit is not None
        assert edit.zoom == pytest.approx(1 / 0.7, rel=0.15)
        box = edit.box_in_match
        assert (box.left, box.top, box.right, box.bottom) == pytest.approx((0.1, 0.15, 0.8, 0.85), abs=0.1)
        assert not edit.mirrored


def collage() -> bytes:
    """Make a square of four photographs, china.jpg at the lower left."""
    canvas = Image.new("RGB", (800, 600))
    for place, name in enumerate(("rocket.jpg", "coffee.png", "china.jpg", "text.png")):
        with Image.open(io.BytesIO(PHOTOGRAPHS[name])) as image:
            canvas.paste(image.convert("RGB").resize((400, 300)), (place % 2 * 400, place // 2 * 300))
    out = io.BytesIO()
    canvas.save(out, "JPEG", quality=85)
    return out.getvalue()


@pytest.mark.parametrize("frames", [True, False])
def test_a_copy_within_a_collage_is_found(
    frames: bool, broker: str, redis_server: str, triton: str, tmp_path: Path
) -> None:
    with new_service(broker, redis_server, triton, tmp_path) as service:
        service.consumer({"SEENIT_DECODE_FRAMES": str(frames)})
        service.picture("flower", PHOTOGRAPHS["flower.jpg"])
        service.picture("china", PHOTOGRAPHS["china.jpg"])
        assert service.await_verdict("china").verdict == "unique"
        service.picture("collage", collage())
        if not frames:
            assert service.await_verdict("collage").verdict == "unique"
            return
        match = _near(service, "collage")
        assert match.image_id == "china"
        assert match.evidence is not None
        assert match.evidence.verified
        assert match.evidence.edit is not None
        box = match.evidence.edit.box_in_upload
        assert (box.left, box.top, box.right, box.bottom) == pytest.approx((0, 0.5, 0.5, 1), abs=0.08)
        assert match.evidence.edit.zoom == pytest.approx(0.5, rel=0.1)


def test_an_encoder_without_local_features_decides_on_distance_alone(
    broker: str, redis_server: str, binaries: Binaries, tmp_path: Path
) -> None:
    repository = tmp_path / "repository"
    shutil.copytree(REPOSITORY, repository)
    configuration = repository / "image_encoder" / "configs" / "cpu.pbtxt"
    text = re.sub(r',\s*\{ name: "patches"[^}]*\}', "", configuration.read_text())
    assert "patches" not in text
    configuration.write_text(text)
    with serving(TritonServer(binaries, tmp_path, repository=repository)) as server:
        triton = f"127.0.0.1:{server.ports[0]}"
        with new_service(broker, redis_server, triton, tmp_path) as service:
            service.consumer()
            service.picture("original", PHOTOGRAPHS["china.jpg"])
            assert service.await_verdict("original").verdict == "unique"
            out = io.BytesIO()
            with Image.open(io.BytesIO(PHOTOGRAPHS["china.jpg"])) as image:
                image.save(out, "JPEG", quality=40)
            service.picture("smaller file", out.getvalue())
            match = _near(service, "smaller file")
            assert match.evidence is None
            assert match.l2 <= service.await_verdict("smaller file").threshold_l2


def test_compare_says_and_draws_the_edit(triton: str, tmp_path: Path) -> None:
    (tmp_path / "a.jpg").write_bytes(PHOTOGRAPHS["china.jpg"])
    (tmp_path / "b.jpg").write_bytes(cropped(PHOTOGRAPHS["china.jpg"]))
    command = [sys.executable, "-m", "consumer", "compare", "a.jpg", "b.jpg", "--draw", "both.png"]
    environment = {**os.environ, "SEENIT_TRITON_URL": triton}
    done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    zoom = re.search(r"zoomed ([\d.]+) times, turned by -?[0-3] degrees", " ".join(done.stdout.split()))
    assert zoom is not None, done.stdout
    assert float(zoom[1]) == pytest.approx(1 / 0.7, rel=0.15)
    with Image.open(tmp_path / "both.png") as drawing:
        assert drawing.width > 2 * drawing.height
    (tmp_path / "c.jpg").write_bytes(collage())
    for a, b, status in (("a.jpg", "c.jpg", 0), ("c.jpg", "a.jpg", 1)):
        command = [sys.executable, "-m", "consumer", "compare", a, b]
        done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, check=False)
        assert done.returncode == status, done.stdout + done.stderr
        assert ("of a picture within B" in done.stdout) == (status == 0)


def _near(service: Service, image_id: str) -> Match:
    verdict = service.await_verdict(image_id)
    assert (verdict.verdict, verdict.kind) == ("duplicate", "near")
    assert verdict.match is not None
    return verdict.match
