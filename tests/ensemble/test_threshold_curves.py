"""Threshold curves hold exact counts, ties and neighboring floats included."""

from __future__ import annotations

import numpy as np
import pytest
from tests.ensemble.draws import draw

from canopy.ensemble.threshold_curves import exact_curve, fixed_curve


@pytest.mark.parametrize("seed", range(6))
def test_curve_counts_are_those_of_its_thresholds(seed: int) -> None:
    probs_NK, targets_NK = draw(seed, 60, ties=seed % 2 == 0)
    for blend in (0.0, 0.4, 1.0):
        curve = exact_curve(probs_NK[:, 0], targets_NK[:, 0], blend)
        soft = (1 - blend) * targets_NK[:, 0] + blend * probs_NK[:, 0]
        for threshold, tp, predicted in zip(curve.thresholds, curve.tp, curve.predicted, strict=True):
            above = probs_NK[:, 0] >= threshold
            assert tp == pytest.approx(soft[above].sum(), abs=1e-5)
            assert predicted == above.sum()
        assert curve.positives == pytest.approx(soft.sum(), abs=1e-5)


def test_thresholds_between_neighboring_floats_are_the_upper_one() -> None:
    high = np.nextafter(np.float32(0.5), np.float32(1))
    curve = exact_curve(np.array([0.5, high], np.float32), np.array([0, 1]))
    assert curve.thresholds[1] == high


def test_plug_in_rule_is_half_the_best_expected_f1() -> None:
    rng = np.random.default_rng(0)
    probs_N = rng.beta(0.6, 3, 4000).astype(np.float32)
    curve = exact_curve(probs_N, np.zeros(4000), blend=1.0)
    best = int(np.argmax(curve.f1))
    assert curve.thresholds[best] == pytest.approx(curve.f1[best] / 2, abs=2e-3)


def test_a_fixed_curve_counts_decisions_at_its_only_threshold() -> None:
    curve = fixed_curve(np.array([0.2, 0.5, 0.9], np.float32), 0.5)
    assert curve.thresholds.tolist() == [0.5]
    assert curve.predicted.tolist() == [2]
    assert curve.f1.tolist() == [0]
