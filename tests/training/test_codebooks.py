"""Code books that are fitted to vectors bring near vectors into the same lists, and travel with the model."""

import shutil
from pathlib import Path

import numpy as np
import pytest

from consumer.encoder.codebooks import to_codes
from triton_models.training import codebooks as training
from triton_models.training.codebooks import fit, mixtures, set_codebooks
from triton_models.training.parameters import CONFIGS, MODEL_FOLDER, model_of


def test_fitted_code_books_are_written_and_tell_vectors_apart(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(training, "LISTS", 16)
    rng = np.random.default_rng(0)
    centres = rng.standard_normal((64, 256)).astype(np.float32)
    vectors = np.repeat(centres, 20, axis=0) + 0.3 * rng.standard_normal((1280, 256)).astype(np.float32)
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    mixed = mixtures(rng, vectors, 300)
    assert np.linalg.norm(mixed, axis=1) == pytest.approx(1, abs=1e-5)
    books = fit(np.concatenate([vectors, mixed]))
    lists = (to_codes(vectors).astype(np.float32) @ books.centres.astype(np.float32).T).argmax(axis=1).reshape(64, 20)
    assert (lists == lists[:, :1]).mean() > 0.9
    assert len(np.unique(lists[:, 0])) > 8
    shutil.copytree(MODEL_FOLDER, tmp_path / "model", ignore=shutil.ignore_patterns("1"))
    set_codebooks(tmp_path / "model", tmp_path / "model", books)
    assert all(model_of(tmp_path / "model" / name).codebooks == books for name in CONFIGS)
