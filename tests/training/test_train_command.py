"""The command that trains: its recipes and options, and what a run begins with."""

import json
from pathlib import Path

import pytest
import torch

from triton_models.training.export import load_checkpoint, to_onnx
from triton_models.training.network import Network
from triton_models.training.recipe import RECIPES, Recipe
from triton_models.training.train import main

SMALL = ["--device", "cpu", "--batch", "8", "--queue", "32", "--size", "64", "--final-size", "64", "--steps", "2"]


def command(folder: Path, tmp_path: Path, output: str, *options: str) -> Path:
    places = ["--images", str(folder), "--cache", str(tmp_path / "cache"), "--output", str(tmp_path / output)]
    main([*places, *SMALL, *options])
    return tmp_path / output


def test_the_recipe_for_a_gpu_runs_on_a_cpu_and_what_it_writes_starts_another(folder: Path, tmp_path: Path) -> None:
    first = command(folder, tmp_path, "first", "--recipe", "gpu")
    state = torch.load(first / "checkpoint.pt", weights_only=True)
    assert state["step"] == 2
    exported = load_checkpoint(first / "encoder.pt")
    to_onnx(exported, 144, {}, tmp_path / "start.onnx")
    for start in (first / "encoder.pt", first / "checkpoint.pt", tmp_path / "start.onnx"):
        ran = command(folder, tmp_path, f"from-{start.name}", "--rate", "1e-6", "--start", str(start))
        assert _apart(load_checkpoint(ran / "encoder.pt"), exported) < 0.02
    assert _apart(Network(), exported) > 0.05


def _apart(one: Network, other: Network) -> float:
    """How far the features of two networks are from each other: one less the mean cosine."""
    pixels = torch.randint(0, 256, (16, 3, 64, 64), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    with torch.inference_mode():
        ours, theirs = (network.features(pixels)[0] for network in (one, other))
    return 1 - float(torch.nn.functional.cosine_similarity(ours, theirs).mean())


def test_two_runs_of_one_seed_agree(folder: Path, tmp_path: Path) -> None:
    rows = []
    for output, seed in (("one", "3"), ("two", "3"), ("three", "4")):
        ran = command(folder, tmp_path, output, "--seed", seed)
        rows.append(json.loads((ran / "history.json").read_text())[-1])
    for name in ("pairs", "spread", "local", "recall"):
        assert rows[1][name] == pytest.approx(rows[0][name], rel=1e-3)
    assert rows[2]["pairs"] != pytest.approx(rows[0]["pairs"], rel=1e-3)


def test_sources_held_out_are_measured_and_not_learned(folder: Path, tmp_path: Path) -> None:
    other = tmp_path / "other"
    other.mkdir()
    for index, file in enumerate(sorted(folder.iterdir())[:30]):
        (other / f"lamps-{index:03d}.png").symlink_to(file)
    ran = command(folder, tmp_path, "run", "--images", str(other), "--hold-out-sources", "lamps")
    assert {"recall", "recall_sources"} <= json.loads((ran / "history.json").read_text())[-1].keys()
    vectors = torch.load(ran / "checkpoint.pt", weights_only=True)["vectors"]
    assert len(vectors) == 90
    assert (vectors[60:] == 0).all()  # neither seen nor drawn as look-alikes
    assert (vectors[:60].norm(dim=1) > 0.9).sum() > 40


def test_a_start_of_other_lengths_is_refused(folder: Path, tmp_path: Path) -> None:
    network = Network(dim=32)
    torch.save({"dim": 32, "token_dim": 22, "average": network.state_dict()}, tmp_path / "short.pt")
    with pytest.raises(ValueError, match=r"short.pt has vectors of \(32, 22\)"):
        command(folder, tmp_path, "run", "--start", str(tmp_path / "short.pt"))


def test_the_learning_rate_rises_and_falls_and_pictures_grow() -> None:
    recipe = RECIPES["gpu"]
    assert recipe.rate_at(0) == 0
    assert recipe.rate_at(0.05) > recipe.rate_at(0.5) > recipe.rate_at(1) > 0
    assert [recipe.size_at(progress) for progress in (0.0, 0.49, 0.5, 1.0)] == [144, 144, 192, 192]
    assert RECIPES["cpu"] == Recipe()
