"""The fit of the second look's rule: it tells copies from strangers, and reaches the served configuration."""

from pathlib import Path
from shutil import copytree

import numpy as np
import onnx
import pytest

from consumer.encoder.model_config import STRICTNESSES
from consumer.verification.looks import MAX_LOOKS
from triton_models.training import boosting, second_look
from triton_models.training.parameters import CONFIGS, MODEL_FOLDER, model_of, rule_parameters
from triton_models.training.second_look import STREAM_SHARES, Examples, choose, least_scores


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model folder to write to."""
    return Path(copytree(MODEL_FOLDER, tmp_path_factory.mktemp("model") / "image_encoder"))


def test_the_command_fits_a_rule_and_writes_it(
    folder: Path, model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setitem(boosting.PARAMETERS, "min_data_in_leaf", 5)
    before = [model_of(model / name).verification_rule for name in CONFIGS]
    arguments = ["--images", str(folder), "--copies", "20", "--rounds", "20", "--workers", "1", "--seed", "1"]
    arguments += ["--kinds", "lighting", "zoom", "grey", "Gaussian noise"]
    second_look.main([*arguments, "--output", str(tmp_path), "--model", str(model), "--write"])
    rules = [model_of(model / name).verification_rule for name in CONFIGS]
    assert rules[0] is not None
    assert rules[1] is not None
    assert rule_parameters(rules[0]) == rule_parameters(rules[1])
    assert before[0] is not None
    assert rule_parameters(rules[0]) != rule_parameters(before[0])
    assert rules[0].trees.columns.shape == (20, 31)
    assert rules[0].rotation_maps is not None
    assert [rules[0].min_scores[name] for name in STRICTNESSES] == sorted(rules[0].min_scores.values(), reverse=True)
    for file in (model / "1").glob("*.onnx"):
        metadata = {each.key: each.value for each in onnx.load(file).metadata_props}
        assert rule_parameters(rules[0]).items() <= metadata.items()
    report = (tmp_path / "second-look.md").read_text()
    assert report in capsys.readouterr().out
    found = next(line for line in report.splitlines() if line.startswith("| copies found, 4 kinds"))
    assert float(found.split("|")[-2]) > 0.5


def test_least_scores_let_their_share_of_strangers_through() -> None:
    strangers = np.random.default_rng(0).random(4000).astype(np.float32)
    for shares in (STREAM_SHARES, (0.01, 0.1, 0.5)):
        for share, least in zip(shares, least_scores(strangers, shares).values(), strict=True):
            assert (strangers >= least).mean() == pytest.approx(share, abs=1e-3)
            assert (strangers >= least).mean() <= share


def test_only_what_the_service_looks_at_counts() -> None:
    examples = Examples(
        measures=np.zeros((5, 1), np.float32),
        is_copy=np.array([False, False, True, True, False]),
        weights=np.ones(5),
        picture=np.zeros(5, np.int64),
        upload=np.array([0, 0, 0, 1, 1]),
        of_stream=np.array([True, True, False, False, False]),
        rank=np.array([0, MAX_LOOKS, 0, MAX_LOOKS, 0]),
    )
    scores = np.array([0.3, 0.9, 0.8, 0.7, 0.6], np.float32)
    assert examples.best_scores(scores, True, 2) == pytest.approx([0.3, 0])  # the next candidate is not looked at
    assert examples.best_scores(scores, False, 2) == pytest.approx([0.8, 0])  # strangers do not find a copy


def test_pictures_are_chosen_folder_by_folder_without_those_held_out(folder: Path, tmp_path: Path) -> None:
    for number in range(10):
        (tmp_path / f"{'cars' if number < 4 else 'maps'}-{number}.png").symlink_to(folder / f"drawn-{number:03d}.png")
    paths, originals, streamed = choose([folder, tmp_path], ["cars"], [5, 2], [0.5, 1.0], 0)
    assert len(paths) == 66
    assert len(originals) == 7
    assert (originals >= 60).sum() == 2
    assert streamed[-6:].tolist() == list(range(60, 66))
    assert 15 < len(streamed) - 6 < 45
    with pytest.raises(ValueError, match="no pictures"):
        choose([tmp_path], ["cars", "maps"], [5], [1.0], 0)
