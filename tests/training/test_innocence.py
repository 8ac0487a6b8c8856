"""The measure of innocence: from pictures to the table, and what it says of larger windows."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from triton_models.training import innocence
from triton_models.training.edits import EDITS
from triton_models.training.growth import Windows, estimate_growth, wilson_interval, window_sizes
from triton_models.training.held_out_edits import HELD_OUT_EDITS
from triton_models.training.innocence_report import Innocence, curve, kind_groups


@pytest.fixture(scope="module")
def few(folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Some drawn pictures, of two sources, and one of them once more."""
    path = tmp_path_factory.mktemp("few")
    for number in range(23):
        source = "left" if number % 2 else "right"
        (path / f"{source}-{number:02d}.png").symlink_to(folder / f"drawn-{number:03d}.png")
    with Image.open(folder / "drawn-001.png") as picture:
        picture.convert("RGB").save(path / "zlast-again.jpg", quality=90)
    return path


def test_the_command_writes_table_curve_and_sheets(
    few: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = ["--images", str(few), "--copies", "4", "--output", str(tmp_path), "--workers", "1", "--baselines"]
    arguments += ["--kinds", "lighting", "zoom", "overlay", "framed"]
    innocence.main(arguments)
    printed = capsys.readouterr().out
    table = (tmp_path / "table.md").read_text()
    assert table in printed
    assert "24 different pictures" in table
    # The one that is there twice is called a duplicate by all.
    rows = {line.split("|")[1].strip(): line.split("|")[2:-1] for line in table.splitlines() if line.startswith("| ")}
    assert len(rows["**all**"]) == 6  # three strictnesses, vector, PDQ, pHash
    assert all(float(cell.split()[0]) >= 1 / 25 for cell in rows["**all**"])
    assert "left (11)" in rows
    assert float(rows["**2 kinds**"][1]) > 0.6
    assert {"**all 3 kinds**", "**1 kinds held out**", "overlay", "1,000,000, at most"} <= set(rows)
    for name in ("curve.png", "accused.png", "missed.png"):
        with Image.open(tmp_path / name) as picture:
            picture.verify()
    # What was encoded is read again, and says the same.
    innocence.main(arguments)
    assert (tmp_path / "table.md").read_text() == table
    (tmp_path / "same.txt").write_text("zlast-again.jpg\n")
    innocence.main([*arguments[:-5], "--kinds", "zoom", "--leave-out", str(tmp_path / "same.txt")])
    assert "23 different pictures" in (tmp_path / "table.md").read_text()


def test_groups_of_kinds_are_the_headline_all_and_those_held_out() -> None:
    groups = kind_groups((*EDITS, *HELD_OUT_EDITS))
    assert {name: len(places) for name, places in groups.items()} == {
        "26 kinds": 26,
        "all 32 kinds": 32,
        "8 kinds held out": 8,
    }


def test_the_curve_falls_from_calling_all_to_calling_none() -> None:
    rng = np.random.default_rng(0)
    measured = Innocence(
        rng.beta(1, 9, 500).astype(np.float32),
        np.zeros(500, np.int64),
        rng.beta(9, 1, (40, 3)).astype(np.float32),
        np.zeros((40, 3), np.int64),
    )
    least, called, found = curve(measured, [0, 1])
    assert (np.diff(least) < 0).all()
    assert (np.diff(called) >= 0).all()
    assert (np.diff(found) >= 0).all()
    assert called[0] == 0
    for place in (3, 50, len(least) - 1):
        assert called[place] == (measured.accused_score >= least[place]).mean()
        assert found[place] == pytest.approx((measured.found_score[:, :2] >= least[place]).mean())


def windows_of(shares: dict[int, float], pictures: int = 1000) -> Windows:
    """Windows in which the first pictures are called duplicates."""
    numbers, uploads, scores = [], [], []
    for number, share in enumerate(shares.values()):
        numbers.append(np.full(pictures, number))
        uploads.append(np.arange(pictures))
        scores.append(np.where(np.arange(pictures) < share * pictures, 0.9, 0.1))
    joined = (np.concatenate(part) for part in (numbers, uploads, scores))
    return Windows(tuple(shares), *joined)


def test_growth_is_that_of_the_measured_sizes_and_at_most_in_proportion() -> None:
    growth = estimate_growth(windows_of({1000: 0.01, 2000: 0.014, 4000: 0.02}), 0.5, 1000)
    assert growth.measured[4000].share == pytest.approx(0.02)
    assert growth.exponent.share == pytest.approx(0.5, abs=0.02)
    assert growth.continued[100_000].share == pytest.approx(0.1, rel=0.1)
    assert growth.at_most[100_000].share == pytest.approx(0.5)
    assert growth.at_most[1_000_000].share == 1
    assert growth.continued[100_000].low < 0.1 < growth.continued[100_000].high
    none = estimate_growth(windows_of({1000: 0.0, 2000: 0.0}), 0.5, 1000)
    assert none.measured[2000].share == 0
    assert none.measured[2000].high == pytest.approx(0.0038, abs=1e-4)
    assert 0 < none.continued[100_000].share < 0.1


def test_sizes_double_and_leave_uploads() -> None:
    assert window_sizes(1890) == (250, 500, 1000)
    assert window_sizes(100) == (80,)
    assert all(size <= 8000 for size in window_sizes(10_000))


def test_the_interval_of_a_share_holds_it() -> None:
    low, high = wilson_interval(5, 100)
    assert low == pytest.approx(0.0215, abs=1e-3)
    assert high == pytest.approx(0.1118, abs=1e-3)
    assert wilson_interval(0, 50)[0] == 0
