"""Damaged pictures end as a picture or a reason, never as a crash, a hang or another error.

This is a short run of `fuzz_images`; `SEENIT_FUZZ_IMAGES=100000` makes it long.
"""

import os
from collections import Counter

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from consumer.errors import Unprocessable
from consumer.images.decode import decode
from tests.faults.fuzz_images import SETTINGS, SQUARE, Fuzzer, mutant, originals

COUNT = int(os.environ.get("SEENIT_FUZZ_IMAGES", "3000"))
SIGNATURES = (
    *(b"\xff\xd8\xff", b"\x89PNG\r\n\x1a\n", b"GIF87a", b"GIF89a", b"BM", b"II*\0", b"MM\0*", b"II+\0", b"MM\0+"),
    *(b"RIFF\0\0\0\0WEBPVP8 ", b"RIFF\0\0\0\0WEBPVP8L", b"RIFF\0\0\0\0WEBPVP8X"),
    *(b"\0\0\0\x18ftyp" + brand for brand in (b"heic", b"mif1", b"msf1", b"hevc", b"avif", b"avis")),
)


def test_the_originals_are_pictures() -> None:
    for name, data in originals():
        assert decode(data, SQUARE, SETTINGS).pixels.any(), name


@pytest.mark.timeout(120 + COUNT // 20)
def test_mutants_end_as_a_picture_or_a_reason() -> None:
    report = Fuzzer(seed=COUNT).run(COUNT)
    assert report.faults == []
    assert report.outcomes.total() == COUNT
    assert report.slow == []
    assert report.peak_kb < 1_000_000
    # Not all are refused by their signature, and not all pass: the mutator reaches the decoders.
    share = {outcome: count / COUNT for outcome, count in report.outcomes.items()}
    assert share["picture"] > 0.1
    assert share["broken-image"] > 0.3
    assert {"not-an-image", "too-large"} <= share.keys()
    forms = Counter(form for form, outcome in report.by_form if outcome == "picture")
    assert len(forms) > len(originals()) * 0.8


def test_a_crash_a_hang_and_a_surprise_are_told_apart() -> None:
    """The harness itself: some inputs kill, hang or raise, and the rest are still decoded."""
    report = Fuzzer(target="tests.faults.fuzz_images:crash_sometimes", hang_s=2.0, jobs=2).run(100)
    faults = [what for _, what in report.faults]
    assert any("status -11" in what for what in faults)
    assert any("status -9" in what for what in faults)
    assert any("KeyError" in what for what in faults)
    assert report.outcomes.total() == 100
    assert report.outcomes["picture"] == 100 - len(faults)


def test_a_number_makes_the_same_input_again() -> None:
    assert [mutant(7, n) for n in range(50)] == [mutant(7, n) for n in range(50)]
    assert len({mutant(7, n)[1] for n in range(50)}) > 45


@given(st.sampled_from(SIGNATURES), st.binary(max_size=300))
@example(b"", b"")
@settings(max_examples=300, deadline=None)
def test_anything_behind_a_signature(signature: bytes, rest: bytes) -> None:
    with pytest.raises(Unprocessable):
        decode(signature + rest, SQUARE, SETTINGS)
