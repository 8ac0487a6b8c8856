"""Measure the cost of the second look: uploads a second with and without it, in turn, on a stream with near copies.

With it, once with and once without the pictures within uploads (`SEENIT_DECODE_FRAMES`).

    python -m tests.benchmarks.bench_second_look [--images 2000] [--copies 0.1] [--rounds 3] [--folder ~/Pictures]

Without it the encoder has the same weights but neither local features nor a rule for them in its configuration: none
are computed, sent or stored, and distance alone decides.
"""

import argparse
import io
import re
import shutil
import statistics
import tempfile
from contextlib import ExitStack
from pathlib import Path

import numpy as np
from PIL import Image, ImageEnhance

from consumer.local.binaries import find_binaries
from consumer.local.pictures import pictures_in
from consumer.local.servers import MODEL, REPOSITORY, TritonServer, tansu, valkey
from tests.benchmarks.bench_service import BATCH, SIZE, pictures, service_rate
from tests.service_fixtures import new_service
from tests.stack_fixtures import serving

WITH_REGIONS, WITH, WITHOUT = "with, and pictures within", "with", "without"
RULE_KEYS = ("candidate_l2", "rule_measures", "rule_trees", "min_score_", "turns")


def stream(images: list[bytes], copies: float) -> list[bytes]:
    """Mix brighter crops of some images into them, each some time after its original: a share of `copies` of all."""
    random = np.random.default_rng(1)
    uploads: list[tuple[float, bytes]] = [(float(place), data) for place, data in enumerate(images)]
    for place in random.choice(len(images), round(copies * len(images) / (1 - copies)), replace=False).tolist():
        with Image.open(io.BytesIO(images[place])) as image:
            left, top = (int(random.integers(0, side // 5)) for side in image.size)
            box = (left, top, left + image.width * 4 // 5, top + image.height * 4 // 5)
            out = io.BytesIO()
            ImageEnhance.Brightness(image.crop(box).resize(image.size)).enhance(1.2).save(out, "JPEG", quality=85)
        uploads.append((place + float(random.uniform(1, 200)), out.getvalue()))
    return [data for _, data in sorted(uploads, key=lambda upload: upload[0])]


def from_folder(folder: Path, count: int) -> list[bytes]:
    """Draw `count` pictures of a folder, as JPEGs of the size of the made-up ones."""
    paths = pictures_in(folder)
    images = []
    for place in np.random.default_rng(0).choice(len(paths), min(count, len(paths)), replace=False).tolist():
        out = io.BytesIO()
        with Image.open(paths[place]) as image:
            image.convert("RGB").resize(SIZE).save(out, "JPEG", quality=90)
        images.append(out.getvalue())
    return images


def without_second_look(folder: Path) -> Path:
    """Make a model repository whose encoder gives vectors alone."""
    shutil.copytree(REPOSITORY / MODEL, folder / MODEL)
    config = folder / MODEL / "configs" / "cpu.pbtxt"
    text = re.sub(r',?\s*\{ name: "patches"[^}]*\}', "", config.read_text())
    config.write_text("".join(line for line in text.splitlines(True) if not any(key in line for key in RULE_KEYS)))
    return folder


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", type=int, default=2000)
    parser.add_argument("--copies", type=float, default=0.1, help="share of uploads that are near copies")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--folder", type=Path, help="pictures to take, each once, in place of made-up ones")
    arguments = parser.parse_args()
    count = round(arguments.images * (1 - arguments.copies))
    images = pictures(count) if arguments.folder is None else from_folder(arguments.folder, count)
    uploads = stream(images, arguments.copies)
    rates: dict[str, list[float]] = {WITH_REGIONS: [], WITH: [], WITHOUT: []}
    duplicates: dict[str, int] = {}
    match_us: dict[str, list[float]] = {name: [] for name in rates}
    with ExitStack() as stack:
        binaries = find_binaries()
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        broker = stack.enter_context(serving(tansu(binaries, folder)))
        redis = stack.enter_context(serving(valkey(binaries, folder)))
        plain = without_second_look(folder / "plain")
        whole = stack.enter_context(serving(TritonServer(binaries, folder)))
        tritons = {
            WITH_REGIONS: whole,
            WITH: whole,
            WITHOUT: stack.enter_context(serving(TritonServer(binaries, folder, repository=plain))),
        }
        kafka, store = f"127.0.0.1:{broker.ports[0]}", f"redis://127.0.0.1:{redis.ports[0]}/0"
        for _ in range(arguments.rounds):
            for name, triton in tritons.items():
                with new_service(kafka, store, f"127.0.0.1:{triton.ports[0]}", folder) as service:
                    consumer = service.consumer({"SEENIT_DECODE_FRAMES": str(name == WITH_REGIONS)})
                    service_rate(service, consumer, uploads[:BATCH])
                    load = service_rate(service, consumer, uploads[BATCH:])
                    rates[name].append(load.rate)
                    match_us[name].append(load.cpu_us["match"])
                    duplicates[name] = sum(verdict.verdict == "duplicate" for verdict in service.verdicts)
                    consumer.stop()
    print(f"{len(uploads)} JPEGs of 640 x 480, {arguments.copies:.0%} of them near copies, {arguments.rounds} rounds\n")
    print("| second look | uploads/s, median | each round | match, us an upload | duplicates |\n|---|---|---|---|---|")
    for name, each in rates.items():
        each_round = ", ".join(f"{rate:.0f}" for rate in each)
        matching = statistics.median(match_us[name])
        print(f"| {name} | {statistics.median(each):.0f} | {each_round} | {matching:.0f} | {duplicates[name]} |")
    print()
    for name in (WITH, WITH_REGIONS):
        ratios = sorted(a / b for a, b in zip(rates[name], rates[WITHOUT], strict=True))
        print(f"{name}, over without: {statistics.median(ratios):.3f} ({ratios[0]:.3f} to {ratios[-1]:.3f})")


if __name__ == "__main__":
    main()
