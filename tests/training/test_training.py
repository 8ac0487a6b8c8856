"""Network, losses and the loop: that they learn, go on after an end, and repeat by their seed."""

from pathlib import Path

import numpy as np
import pytest
import torch
from torch.nn import functional
from torch.utils.data import default_collate

from triton_models.training import loss
from triton_models.training.batches import FIRST_HALF, SECOND_HALF, Draw, Views
from triton_models.training.data import Pictures, is_validation, load
from triton_models.training.export import load_checkpoint, to_onnx
from triton_models.training.network import Network, channels_first, gem, load_imagenet
from triton_models.training.recipe import Recipe
from triton_models.training.run import Run
from triton_models.training.train import train

SMALL = Recipe(dim=32, batch=12, group=2, queue=48, local_points=6, spread=1.0, average=0.8, size=64, final_size=64)


def test_embeddings_and_tokens_are_unit_vectors_of_any_picture_size() -> None:
    network = Network(dim=64, token_dim=10).eval()
    for size in (64, 96):
        encoded = network(torch.randint(0, 256, (3, 3, size, size), dtype=torch.uint8))
        assert encoded.embeddings.shape == (3, 64)
        assert encoded.tokens.shape == (3, 10, size // 16, size // 16)
        torch.testing.assert_close(encoded.embeddings.norm(dim=1), torch.ones(3))
        torch.testing.assert_close(encoded.tokens.norm(dim=1), torch.ones(3, size // 16, size // 16))


def test_gem_lies_between_mean_and_maximum() -> None:
    x = torch.rand(4, 5, 6, 6)
    pooled = gem(x)
    assert (pooled >= x.mean((2, 3)) - 1e-3).all()
    assert (pooled <= x.amax((2, 3)) + 1e-3).all()


def test_the_mixed_convolution_has_the_gradients_of_the_plain_one() -> None:
    network = Network(dim=16)
    layer = network.stages[1][0].depthwise  # type: ignore[index]
    x = torch.randn(2, layer.weight.shape[0], 12, 12)
    gradients = []
    for mixed in (True, False):
        layer.slow_backward = mixed
        layer.zero_grad()
        with torch.autocast("cpu", torch.bfloat16):
            layer(x).float().square().mean().backward()
        gradients.append(torch.cat([p.grad.flatten().clone() for p in (layer.weight, layer.gain, layer.shift)]))
    assert functional.cosine_similarity(*gradients, dim=0) > 0.995


def test_the_pair_losses_fall_as_pairs_close_and_ignore_the_same_picture_in_the_queue() -> None:
    generator = torch.Generator().manual_seed(0)
    first, far = (functional.normalize(torch.randn(8, 16, generator=generator), dim=1) for _ in range(2))
    near = functional.normalize(first + 0.1 * far, dim=1)
    nothing, none = torch.zeros(0, 16), torch.zeros(0, dtype=torch.long)
    wholes = loss.Subjects(torch.arange(8), torch.full((8,), loss.WHOLE))
    for function, parameter in ((loss.contrastive, 0.05), (loss.triplet, 0.3)):
        close = function(loss.Batch(first, near, wholes, nothing, none), parameter)
        assert close < function(loss.Batch(first, far, wholes, nothing, none), parameter)
        for part in (loss.WHOLE, FIRST_HALF):
            one = first[:1], far[:1], loss.Subjects(torch.tensor([0]), torch.tensor([part]))
            alone = function(loss.Batch(*one, nothing, none), parameter)
            torch.testing.assert_close(function(loss.Batch(*one, first[:1], torch.tensor([0])), parameter), alone)
            assert function(loss.Batch(*one, first[:1], torch.tensor([100])), parameter) > alone + 0.1


def test_the_halves_of_a_picture_are_negatives_of_each_other_only() -> None:
    """A picture whole, both its halves, and a half of another one."""
    subjects = loss.Subjects(
        torch.tensor([5, 5, 5, 6]), torch.tensor([loss.WHOLE, FIRST_HALF, SECOND_HALF, FIRST_HALF])
    )
    assert subjects.related(subjects).tolist() == [
        [True, True, True, False],
        [True, True, False, False],
        [True, False, True, False],
        [False, False, False, True],
    ]
    vectors = functional.normalize(torch.randn(2, 16, generator=torch.Generator().manual_seed(0)), dim=1)
    vectors[1] = vectors[0]
    values = []
    for second in (SECOND_HALF, FIRST_HALF):
        pair = loss.Subjects(torch.tensor([5, 5]), torch.tensor([FIRST_HALF, second]))
        batch = loss.Batch(vectors, vectors, pair, vectors[:0], pair.pictures[:0])
        values.append((loss.contrastive(batch, 0.05), loss.triplet(batch, 0.3), loss.spread(vectors, pair)))
    for apart, same in zip(*values, strict=True):
        assert apart > same + 0.1


def test_the_local_loss_wants_the_same_spot_to_look_the_same() -> None:
    """The second view is the first, mirrored; only with the mirror in its homography does the loss see a match."""
    torch.manual_seed(0)
    tokens = functional.normalize(torch.randn(4, 16, 8, 8), dim=1)
    detail = torch.full((4, 8, 8), 10.0)
    mirrored = torch.tensor([[-1.0, 0, 1], [0, 1, 0], [0, 0, 1]]).expand(4, 3, 3)
    here = loss.LocalView(tokens, torch.eye(3).expand(4, 3, 3))
    right, wrong = (
        loss.local_features(here, loss.LocalView(tokens.flip(3), there), detail, temperature=0.07, points=12)
        for there in (mirrored, here.to_source)
    )
    assert right < 0.1
    assert wrong > 2


def test_a_tenth_is_held_out_by_name() -> None:
    held_out = sum(is_validation(f"picture-{index}.jpg") for index in range(5000))
    assert 400 < held_out < 600
    assert is_validation("picture-1.jpg") == is_validation("picture-1.jpg")


def test_training_learns_goes_on_and_repeats(pictures: Pictures, tmp_path: Path) -> None:
    torch.manual_seed(0)
    run = Run(pictures, SMALL, tmp_path / "a", seed=1)
    train(run, steps=24)
    assert run.step == 24
    fresh = Run(pictures, SMALL, tmp_path / "fresh", seed=1)
    assert _apart(run) < 0.9 * _apart(fresh)
    assert (tmp_path / "a" / "curves.png").stat().st_size > 1000
    exported = load_checkpoint(tmp_path / "a" / "encoder.pt")
    assert exported.projection.out_features == SMALL.dim

    torch.manual_seed(0)
    again = Run(pictures, SMALL, tmp_path / "b", seed=1)
    train(again, steps=24)
    for name in ("pairs", "spread", "local"):
        assert again.history[-1][name] == pytest.approx(run.history[-1][name], rel=0.02)

    resumed = Run(pictures, SMALL, tmp_path / "b", seed=1)
    assert resumed.step == 24
    train(resumed, steps=28)
    assert resumed.step == 28


def _apart(run: Run) -> float:
    """The contrastive loss of a run's averaged network on the same twelve pairs, with nothing in the queue."""
    views = Views(run.pictures, run.members)
    pairs = default_collate([views[Draw(int(index), loss.WHOLE, 7, 64)] for index in run.members[:12]])
    with torch.inference_mode():
        a, b = (run.average(channels_first(view)).embeddings for view in (pairs.first, pairs.second))
    return float(loss.contrastive(loss.Batch(a, b, pairs.subjects, a[:0], pairs.pictures[:0]), 0.05))


def test_a_run_that_began_with_a_model_ends_between_both(pictures: Pictures, tmp_path: Path) -> None:
    torch.manual_seed(3)
    served = Network(dim=SMALL.dim)
    load_imagenet(served)
    to_onnx(served.eval(), 144, {}, tmp_path / "start.onnx")
    run = Run(pictures, SMALL, tmp_path / "on", seed=1, start=tmp_path / "start.onnx")
    before = run.average.head.weight.detach().clone()
    with torch.no_grad():
        run.average.head.weight += 0.5
    run.finish()
    exported = load_checkpoint(tmp_path / "on" / "encoder.pt")
    torch.testing.assert_close(exported.head.weight, before + 0.25, atol=1e-4, rtol=1e-3)


def test_an_empty_folder_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="no pictures"):
        load([tmp_path], tmp_path / "cache")


def test_the_cache_keeps_pixels_and_proportions(pictures: Pictures, folder: Path) -> None:
    assert len(pictures) == 60
    assert pictures.pixels.shape == (60, 256, 256, 3)
    np.testing.assert_allclose(pictures.aspects, 112 / 96, rtol=1e-3)
