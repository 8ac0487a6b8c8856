"""The bench: what it encodes is kept, and its report reads the true geometry of edits."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import pytest
from PIL import ExifTags, Image

from consumer.encoder.contract import VerificationRule
from consumer.encoder.trees import BoostedTrees
from consumer.verification.result import Verification
from tests.training.drawings import draw_picture
from triton_models.training import bench as bench_module
from triton_models.training.bench import Bench, duplicates, make_bench, vectors_of
from triton_models.training.bench_report import Scored, ideal_verification, intersection_over_union, report
from triton_models.training.edits import EDITS
from triton_models.training.encoders import Encoder, OnnxEncoder, Pdq
from triton_models.training.held_out_edits import HELD_OUT_EDITS
from triton_models.training.parameters import MODEL_FOLDER
from triton_models.training.scores import PairScores
from triton_models.training.uploads import open_picture

KINDS = ("zoom", "strong crop", "collage")


@pytest.fixture(scope="module")
def bench(folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Bench:
    """Copies of two pictures of another folder, of three kinds."""
    further = tmp_path_factory.mktemp("further")
    for seed in range(100, 104):
        draw_picture(seed).save(further / f"further-{seed}.png")
    made = make_bench(folder, 2, own_edits_only=True, seed=0, originals_from=further)
    return replace(made, edits={kind: EDITS[kind] for kind in KINDS})


def test_what_was_encoded_is_kept_by_folder_whatever_the_metadata(
    bench: Bench, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert (bench.originals >= 60).all()
    source, model = MODEL_FOLDER / "1" / "model.int8.onnx", tmp_path / "model.onnx"
    model.write_bytes(source.read_bytes())
    encoders: dict[str, Encoder] = {"pdq": Pdq(), f"ours={model}": OnnxEncoder(model, "ours")}
    made = vectors_of(bench, encoders, tmp_path)["ours"]
    assert made.references.vectors.shape == (64, 256)
    assert made.copies.wholes.vectors.shape == (3 * 2, 256)
    assert np.isin(made.copies.region_of, (4, 5)).any()  # of the collages
    own = np.einsum("nd,nd->n", made.copies.wholes.vectors[:2], made.references.vectors[bench.originals])
    assert own.min() > 0.6  # the zoomed copies

    def refuse(*_: object) -> None:
        raise AssertionError("encoded again")

    changed = onnx.load(model)
    onnx.helper.set_model_props(changed, {"threshold_l2": "0.5"})
    onnx.save(changed, model)
    monkeypatch.setattr(bench_module, "_encode_references", refuse)
    again = replace(bench, edits=HELD_OUT_EDITS)  # for the same references
    assert vectors_of(again, encoders, tmp_path)["ours"].copies.wholes.vectors.shape == (len(HELD_OUT_EDITS) * 2, 256)
    monkeypatch.setattr(bench_module, "_encode_copies", refuse)
    np.testing.assert_array_equal(vectors_of(bench, encoders, tmp_path)["ours"].references[1], made.references[1])


def test_pictures_are_opened_upright(tmp_path: Path) -> None:
    """As the service decodes them, whatever way a camera was held."""
    turned = Image.new("RGB", (40, 20))
    turned.getexif()[ExifTags.Base.Orientation] = 6
    turned.save(tmp_path / "turned.jpg", exif=turned.getexif())
    turned.resize((40, 40)).save(tmp_path / "square.jpg", exif=turned.getexif())
    assert open_picture(tmp_path / "turned.jpg").size == (20, 40)
    tall = open_picture(tmp_path / "square.jpg", {"square.jpg": 0.25})
    assert tall.height > tall.width


def test_duplicates_are_listed_both_ways() -> None:
    hashes = np.full((4, 256), 1 / 16, np.float32)
    hashes[0, :32] *= -1
    hashes[3, :31] *= -1
    assert duplicates(hashes, np.array([2])) == {2: {1, 3}, 1: {2}, 3: {2}}


def pair_scores(whole_score: float, verifications: dict[int, Verification]) -> PairScores:
    """Make scores of three kinds of copies of two originals; only a region shows the last of them."""
    found_by_region = np.full((3, 2), -np.inf, np.float32)
    found_by_region[2, 1] = 1.0
    return PairScores(
        pair_count=5_000_000,
        copies_l2=np.array([[0.1, 0.9]] * 3, np.float32),
        whole_score=np.array([[whole_score, 0.1]] * 3, np.float32),
        region_score=found_by_region,
        others_score=np.linspace(0, 0.998, 500, dtype=np.float32),
        others_copy=np.zeros(500, np.int64),
        others_reference=np.zeros(500, np.int64),
        nearest_l2=np.linspace(0.2, 1.2, 500, dtype=np.float32),
        verifications=verifications,
        look_count=506,
        ms_per_look=0.5,
    )


def test_the_report_reads_thresholds_from_the_kinds_that_are_not_apart(bench: Bench) -> None:
    trees = BoostedTrees(np.zeros((1, 1), np.uint8), np.zeros((1, 1), np.float16), np.zeros((1, 2), np.float16), 0.0)
    rule = VerificationRule(1.2, ("l2",), trees, {"strict": 0.999, "balanced": 0.991, "eager": 0.05})
    size = open_picture(bench.paths[int(bench.originals[0])]).size
    rng = np.random.default_rng((bench.seed, int(bench.originals[0]), 0))
    true = ideal_verification(bench.edits["zoom"], size, float(bench.draws(0)[0][0]), rng)
    whole = Scored(bench, pair_scores(0.99, {0: true, 2: true}))
    apart = Scored(bench, pair_scores(0.95, {}))
    text = report(whole, apart, rule, 2696)
    rows = [[cell.strip(" *") for cell in line.split("|")[1:-1]] for line in text.splitlines() if line.startswith("|")]
    cells = {row[0]: row[1:] for row in rows}
    rates = [f"{what} at {rate}" for rate in ("1e-05", "1e-06") for what in ("vector", "both looks")]
    assert cells[""] == [*rates, "strict", "balanced", "eager"]
    # Five false pairs in a million are five here, at 0.988; fifty are at 0.898.
    assert cells["mean"] == ["0.500", "0.667", "0.500", "0.667", "0.167", "0.167", "1.000"]
    assert cells["mean of kinds held out"] == ["0.500", "0.667", "0.500", "0.167", "0.167", "0.167", "1.000"]
    assert cells["false pairs in a million"] == ["10", "10", "1", "1", "0", "0.8", "95"]
    assert "zoom: median error of the zoom 0.000, median IoU of the box in the match 1.000." in text


@pytest.mark.parametrize("strength", [0.0, 0.5, 1.0])
def test_the_true_box_of_a_crop_is_read_from_the_edit_itself(strength: float) -> None:
    edit = ideal_verification(EDITS["zoom"], (300, 200), strength, np.random.default_rng(3)).edit
    assert edit is not None
    assert edit.zoom == pytest.approx(1.05 + 0.45 * strength, rel=0.02)
    box = edit.box_in_match
    # The same draw on a picture that is white within this box and black around it gives a white copy.
    picture = Image.new("RGB", (300, 200))
    picture.paste(
        (255, 255, 255), (round(box.left * 300), round(box.top * 200), round(box.right * 300), round(box.bottom * 200))
    )
    copy = EDITS["zoom"].apply(picture, strength, np.random.default_rng(3), picture)
    assert np.asarray(copy).mean() > 250
    assert intersection_over_union(box, box) == 1
    area = (box.right - box.left) * (box.bottom - box.top)
    assert intersection_over_union(box, edit.box_in_upload) == pytest.approx(area, 0.02)
