"""Thresholds for mean per-image F2 are a local optimum."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray
from tests.ensemble.draws import all_thresholds, draw

from canopy import metrics
from canopy.ensemble.samples_f2_thresholds import best_samples_f2


@pytest.mark.parametrize("seed", range(4))
def test_image_f2_cannot_be_improved_by_moving_one_threshold(seed: int) -> None:
    probs_NK, targets_NK = draw(seed, 60, classes=4, ties=seed % 2 == 0)
    found = best_samples_f2(probs_NK, targets_NK, np.zeros(4))

    def reached(at: NDArray[np.float32]) -> float:
        return float(metrics.per_image_fbeta(targets_NK, metrics.decide(probs_NK, at), 2.0).mean())

    for k in range(4):
        for threshold in all_thresholds(probs_NK[:, k]):
            moved = found.copy()
            moved[k] = threshold
            assert reached(moved) <= reached(found) + 1e-12
    assert reached(found) >= reached(np.full(4, 0.2, np.float32))
