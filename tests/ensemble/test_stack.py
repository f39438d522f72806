"""Stacking: weights of noise and of better members, the level over labels, and the rows it is fitted on."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray

from canopy import metrics
from canopy.ensemble.logistic import sigmoid
from canopy.ensemble.stack import label_level, logistic_stack, ridge_stack


def correlated(rows: int, seed: int = 0) -> tuple[NDArray[np.float32], NDArray[np.uint8]]:
    """Three members' logits, the third pure noise, and targets; label 1 implies label 0."""
    rng = np.random.default_rng(seed)
    signal = rng.normal(size=(rows, 2))
    signal[:, 0] += 1.5 * signal[:, 1]
    targets = (rng.random((rows, 2)) < sigmoid(2 * signal)).astype(np.uint8)
    logits = np.stack(
        [
            signal + rng.normal(size=(rows, 2)),
            signal + 1.5 * rng.normal(size=(rows, 2)),
            rng.normal(size=(rows, 2)),
        ]
    )
    return logits.astype(np.float32), targets


def test_logistic_stack_gives_noise_no_weight_and_the_better_member_more() -> None:
    logits, targets = correlated(3000)
    weights, _ = logistic_stack(logits, targets, np.array([0.6, 0.4, 0.0]))
    assert not weights[2].any()
    assert (weights[0] > weights[1]).all()
    assert (weights[1] > 0).all()


def test_batches_of_classes_do_not_change_the_fit(monkeypatch: pytest.MonkeyPatch) -> None:
    logits, targets = correlated(500)
    together = logistic_stack(logits, targets, np.full(3, 1 / 3))
    monkeypatch.setattr("canopy.ensemble.stack.BATCH_NUMBERS", 1)
    alone = logistic_stack(logits, targets, np.full(3, 1 / 3))
    np.testing.assert_allclose(together[0], alone[0], atol=1e-6)
    np.testing.assert_allclose(together[1], alone[1], atol=1e-6)


def test_label_level_helps_only_labels_that_depend_on_others() -> None:
    logits, targets = correlated(6000)
    level = label_level(logits[1], targets)
    new, truth = correlated(6000, seed=1)
    corrected = new[1] @ level[:-1] + level[-1]
    before = metrics.log_loss(truth, sigmoid(new[1]))
    assert (metrics.log_loss(truth, sigmoid(corrected)) < before).all()
    independent = np.random.default_rng(0).normal(size=(4000, 2)).astype(np.float32)
    honest = (np.random.default_rng(1).random((4000, 2)) < sigmoid(independent)).astype(np.uint8)
    unchanged = label_level(independent, honest)
    np.testing.assert_allclose(unchanged[:2], np.eye(2), atol=0.12)


def test_level_two_of_ridge_stacking_is_fitted_on_held_out_scores() -> None:
    """With more labels than rows per fold, in-sample level-1 scores would look perfect and get full trust."""
    rng = np.random.default_rng(0)
    noise = rng.normal(size=(2, 60, 40)).astype(np.float32)
    targets = rng.integers(0, 2, (60, 40)).astype(np.uint8)
    _, weights, _ = ridge_stack(noise, targets, np.arange(60) % 5, ridge=1e-3)
    assert np.abs(weights).mean() < 0.5  # scores of held-out rows predict nothing
