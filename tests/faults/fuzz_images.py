"""Decode damaged pictures by the hundred thousand: `python -m tests.faults.fuzz_images 100000`.

A seeded mutator changes real pictures of every format. Child processes decode them, so that a crash, a hang or an
excess of memory is recognised, with the number that makes the same input again. A child reports which input it begins
with. When it dies or falls silent, that input is a fault, and a new child goes on after it.
"""

import argparse
import importlib
import os
import random
import resource
import selectors
import struct
import subprocess
import sys
import tempfile
import time
import traceback
import warnings
import zlib
from collections import Counter
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import cache
from io import BytesIO
from pathlib import Path
from typing import IO, Any

from PIL import Image
from rich.console import Console
from rich.progress import MofNCompleteColumn, Progress, TimeRemainingColumn
from skimage import data as samples

from consumer.errors import Unprocessable
from consumer.images.decode import decode
from consumer.settings import DecodeSettings

ROOT = Path(__file__).resolve().parents[2]
SQUARE = 64
SETTINGS = DecodeSettings(max_pixels=4_000_000)  # so that a healthy decoder needs well under HANG_S and ADDRESS_SPACE
SLOW_S = 2.0
HANG_S = 30.0
START_S = 60.0  # for a child to import what it needs, on a busy machine
ADDRESS_SPACE_BYTES = 4 << 30

NUMBERS = (0, 1, 2, 3, 7, 8, 15, 16, 255, 256, 0x7FFF, 0x8000, 0xFFFF, 0x10000, 0x7FFFFFFF, 0x80000000, 0xFFFFFFFF)


@dataclass
class Report:
    """The outcomes of the inputs. `faults`, (number, what), are crashes, hangs and errors other than Unprocessable."""

    outcomes: Counter[str] = field(default_factory=Counter)
    by_form: Counter[tuple[str, str]] = field(default_factory=Counter)
    faults: list[tuple[int, str]] = field(default_factory=list)
    slow: list[tuple[int, float]] = field(default_factory=list)
    peak_kb: int = 0


@cache
def originals() -> tuple[tuple[str, bytes], ...]:
    """Make small real pictures in every format and most forms of each: (name, bytes)."""
    photo = Image.fromarray(samples.astronaut()).resize((72, 64)).crop((4, 0, 68, 48))
    mask = photo.convert("L").point(lambda v: 255 if v > 90 else v)
    clear = photo.copy()
    clear.putalpha(mask)
    wide = Image.fromarray(samples.astronaut()[:96, :128, 0].astype("uint16") * 257)
    exif = Image.Exif()
    exif[0x0112], exif[0x010F] = 6, "maker"
    exif.get_ifd(0x8769)[0x9003] = "2024:01:01 00:00:00"

    def several() -> dict[str, Any]:
        return {"save_all": True, "append_images": [photo.rotate(20 * i) for i in range(3)]}

    packed = ("tiff_lzw", "tiff_adobe_deflate", "packbits", "jpeg", "zstd", "lzma")
    forms: list[tuple[str, str, Image.Image, dict[str, Any]]] = [
        ("jpeg", "JPEG", photo, {"exif": exif.tobytes()}),
        ("jpeg-progressive", "JPEG", photo, {"progressive": True, "icc_profile": b"\0" * 200}),
        ("jpeg-grey", "JPEG", photo.convert("L"), {"restart_marker_rows": 1}),
        ("jpeg-cmyk", "JPEG", photo.convert("CMYK"), {}),
        ("mpo", "MPO", photo, several()),
        ("png", "PNG", photo, {"exif": exif.tobytes()}),
        ("png-alpha", "PNG", clear, {}),
        ("png-palette", "PNG", photo.quantize(16), {"transparency": 3}),
        ("png-16", "PNG", wide, {}),
        ("png-1", "PNG", photo.convert("1"), {}),
        ("apng", "PNG", photo, several()),
        ("webp", "WEBP", photo, {"exif": exif.tobytes()}),
        ("webp-lossless", "WEBP", clear, {"lossless": True}),
        ("webp-alpha", "WEBP", clear, {}),
        ("webp-animated", "WEBP", photo, several()),
        ("gif", "GIF", photo, {}),
        ("gif-animated", "GIF", photo, {**several(), "disposal": 2, "transparency": 0}),
        ("tiff", "TIFF", photo, {"exif": exif.tobytes()}),
        *((f"tiff-{name}", "TIFF", photo, {"compression": name}) for name in packed),
        ("tiff-fax", "TIFF", photo.convert("1"), {"compression": "group4"}),
        ("tiff-16", "TIFF", wide, {}),
        ("tiff-float", "TIFF", photo.convert("F"), {}),
        ("tiff-cmyk", "TIFF", photo.convert("CMYK"), {"compression": "tiff_lzw"}),
        ("tiff-lab", "TIFF", Image.frombytes("LAB", (16, 16), bytes(768)), {}),
        ("tiff-alpha", "TIFF", clear, {}),
        ("tiff-palette", "TIFF", photo.quantize(16), {}),
        ("tiff-big", "TIFF", photo, {"big_tiff": True, **several()}),
        ("heic", "HEIF", photo, {"exif": exif.tobytes(), "thumbnails": [32]}),
        ("heic-alpha", "HEIF", clear, {}),
        ("heic-several", "HEIF", photo, several()),
        ("avif", "AVIF", photo, {"exif": exif.tobytes()}),
        ("avif-alpha", "AVIF", clear, {}),
        ("avif-animated", "AVIF", photo, several()),
        ("bmp", "BMP", photo, {}),
        ("bmp-palette", "BMP", photo.quantize(16), {}),
        ("bmp-alpha", "BMP", clear, {}),
    ]
    made = []
    for name, form, image, options in forms:
        out = BytesIO()
        image.copy().save(out, form, **options)  # a copy, since Pillow leaves encoder settings on what it saved
        made.append((name, out.getvalue()))
    return tuple(made)


def mutant(seed: int, number: int) -> tuple[str, bytes]:
    """Make the input of that number: the name of the picture it comes from, and its bytes."""
    rng = random.Random(f"{seed}:{number}")
    name, original = rng.choice(originals())
    data = bytearray(original)
    for _ in range(rng.choice((1, 1, 2, 3, 5, 8, 20))):
        if not data:
            break
        # Half of the changes hit the first bytes, where the sizes and tables are.
        offset = rng.randrange(min(len(data), 256)) if rng.random() < 0.5 else rng.randrange(len(data))
        length = min(rng.choice((1, 2, 4, 8, 16, 64, 512)), len(data) - offset)
        match rng.randrange(10):
            case 0:
                data[offset] ^= 1 << rng.randrange(8)
            case 1:
                data[offset] = rng.choice((0, 1, 0x7F, 0x80, 0xFE, 0xFF))
            case 2 | 3:
                number_form = rng.choice(("<H", ">H", "<I", ">I"))
                written = struct.pack(
                    number_form, rng.choice((*NUMBERS, len(data))) & (0xFFFF if "H" in number_form else -1)
                )
                data[offset : offset + len(written)] = written
            case 4:
                data[offset : offset + length] = rng.randbytes(length)
            case 5:
                data[offset:offset] = rng.randbytes(length)
            case 6:
                del data[offset : offset + length]
            case 7:
                data[offset:offset] = data[offset : offset + length] * rng.choice((1, 2, 50))
            case 8:
                del data[offset:]
            case 9:
                _, other = rng.choice(originals())
                start = rng.randrange(len(other))
                data[offset : offset + length] = other[start : start + length]
    if name.startswith(("png", "apng")) and rng.random() < 0.7:
        data = with_checksums(data)
    return name, bytes(data)


def with_checksums(data: bytearray) -> bytearray:
    """Correct the checksums of a PNG's chunks, so that the changes get past the check."""
    offset = 8
    while offset + 12 <= len(data):
        length = int.from_bytes(data[offset : offset + 4])
        end = offset + 8 + length
        if end + 4 > len(data):
            break
        data[end : end + 4] = struct.pack(">I", zlib.crc32(data[offset + 4 : end]))
        offset = end + 4
    return data


def decoded(data: bytes) -> str:
    """Decode the bytes; return `picture` or a reason. Anything raised is a fault."""
    try:
        picture = decode(data, SQUARE, SETTINGS)
    except Unprocessable as error:
        if not error.detail.isprintable() or len(error.detail) > 400:
            raise ValueError(f"no sentence for a person: {error.detail!r}") from error
        return error.reason
    assert picture.pixels.shape == (SQUARE, SQUARE, 3)
    return "picture"


def crash_sometimes(data: bytes) -> str:
    """Stand in for `decoded` in the test of this module: crash, raise or hang for some inputs."""
    match zlib.crc32(data) % 50:
        case 0:
            os.kill(os.getpid(), 11)
        case 1:
            raise KeyError("no reason")
        case 2:
            time.sleep(3600)
    return "picture"


def child(target: str, seed: int, numbers: range) -> None:
    """Run a child: decode the inputs, and print each number before and its outcome after."""
    module, _, name = target.partition(":")
    work: Callable[[bytes], str] = getattr(importlib.import_module(module), name)
    resource.setrlimit(resource.RLIMIT_AS, (ADDRESS_SPACE_BYTES, ADDRESS_SPACE_BYTES))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    for number in numbers:
        form, data = mutant(seed, number)
        print("take", number, form, flush=True)
        began = time.process_time()
        try:
            outcome = work(data)
        except BaseException as error:
            frame = traceback.extract_tb(error.__traceback__)[-1]
            outcome = f"fault {type(error).__name__} {error} at {Path(frame.filename).name}:{frame.lineno}".replace(
                "\n", " "
            )
        peak_kb = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        print("done", f"{time.process_time() - began:.3f}", peak_kb, outcome, flush=True)


@dataclass
class Fuzzer:
    """Decodes inputs of one seed in child processes, `jobs` at a time."""

    seed: int = 0
    target: str = "tests.faults.fuzz_images:decoded"
    hang_s: float = HANG_S
    jobs: int = 1
    advance: Callable[[int], object] = lambda _: None
    report: Report = field(default_factory=Report)

    def run(self, count: int) -> Report:
        """Decode the inputs 0 .. count - 1."""
        with ThreadPoolExecutor(self.jobs) as pool:
            list(pool.map(self._share, [range(job, count, self.jobs) for job in range(self.jobs)]))
        self.report.faults.sort()
        return self.report

    def _share(self, numbers: range) -> None:
        """Decode some of the inputs, with a new child after each that dies."""
        while numbers:
            arguments = [self.target, *map(str, (self.seed, numbers.start, numbers.stop, numbers.step))]
            with tempfile.TemporaryFile() as errors:  # no pipe, which would fill up
                process = subprocess.Popen(
                    [sys.executable, "-m", "tests.faults.fuzz_images", "--child", *arguments],
                    cwd=ROOT,
                    stdout=subprocess.PIPE,
                    stderr=errors,
                    bufsize=0,
                )
                died_of = self._watch(process, errors)
            if died_of is None:
                return
            numbers = range(died_of + numbers.step, numbers.stop, numbers.step)

    def _watch(self, process: "subprocess.Popen[bytes]", errors: IO[bytes]) -> int | None:
        """Note what a child prints until it ends; return the number of the input that it died of, if it did."""
        assert process.stdout
        taken: tuple[int, str] | None = None
        buffered = b""
        with selectors.DefaultSelector() as selector:
            selector.register(process.stdout, selectors.EVENT_READ)
            while selector.select(self.hang_s if taken else START_S):
                more = process.stdout.read(65536)
                if not more:
                    break
                *lines, buffered = (buffered + more).split(b"\n")
                for line in lines:
                    verb, first, *words = line.decode(errors="replace").split(" ", 3)
                    if verb == "take":
                        taken = int(first), words[0]
                    else:
                        assert taken
                        self._note(taken, float(first), int(words[0]), words[1])
                        taken = None
            else:
                process.kill()
        process.stdout.close()
        process.wait()
        errors.seek(0)
        last_words = errors.read()[-2000:].decode(errors="replace")
        if taken:
            self._note(taken, 0, 0, f"fault process ended with status {process.returncode} {last_words[-300:]!r}")
            return taken[0]
        if process.returncode:
            raise RuntimeError(f"the child failed by itself: {last_words}")
        return None

    def _note(self, taken: tuple[int, str], seconds: float, peak_kb: int, outcome: str) -> None:
        """Add the outcome of an input (number, form) to the report."""
        number, form = taken
        report = self.report
        report.peak_kb = max(report.peak_kb, peak_kb)
        if seconds > SLOW_S:
            report.slow.append((number, seconds))
        if outcome.startswith("fault "):
            report.faults.append((number, f"{form}: {outcome.removeprefix('fault ')}"))
            outcome = "fault"
        report.outcomes[outcome] += 1
        report.by_form[form, outcome] += 1
        self.advance(1)


def main() -> int:
    if sys.argv[1:2] == ["--child"]:
        target, *numbers = sys.argv[2:]
        seed, start, stop, step = map(int, numbers)
        warnings.simplefilter("error")  # a warning that decode lets through is a fault
        importlib.reload(sys.modules["consumer.images.decode"])  # and its own filter stands before this one
        child(target, seed, range(start, stop, step))
        return 0
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("count", type=int, nargs="?", default=100_000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--jobs", type=int, default=1)
    parser.add_argument("--save", type=Path, help="folder for the inputs that led to faults")
    options = parser.parse_args()
    console = Console()
    with Progress(
        *Progress.get_default_columns(), MofNCompleteColumn(), TimeRemainingColumn(), console=console
    ) as progress:
        task = progress.add_task("decoding", total=options.count)
        began = time.monotonic()
        report = Fuzzer(options.seed, jobs=options.jobs, advance=lambda n: progress.advance(task, n)).run(options.count)
    console.print(
        f"{sum(report.outcomes.values())} inputs in {time.monotonic() - began:.0f} s, peak {report.peak_kb >> 10} MB"
    )
    console.print(dict(report.outcomes.most_common()))
    console.print("slow:", sorted(report.slow, key=lambda pair: -pair[1])[:10])
    for number, what in report.faults:
        console.print(f"[red]{number}[/red] {what}")
        if options.save:
            options.save.mkdir(parents=True, exist_ok=True)
            form, data = mutant(options.seed, number)
            (options.save / f"{options.seed}-{number}-{form}").write_bytes(data)
    return 1 if report.faults else 0


if __name__ == "__main__":
    sys.exit(main())
