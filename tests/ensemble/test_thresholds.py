"""Exact thresholds equal brute force over all thresholds, ties included."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from sklearn.metrics import f1_score
from tests.ensemble.draws import all_thresholds, chosen_thresholds, curves_of, draw

from canopy import metrics
from canopy.ensemble.threshold_curves import exact_curve
from canopy.ensemble.thresholds import (
    best_macro_f1,
    best_micro_f1,
    best_mixed,
    macro_f1_all_classes,
    micro_f1,
)
from canopy.metrics import Counts


@pytest.mark.parametrize("ties", [False, True])
@pytest.mark.parametrize("seed", range(12))
def test_best_f1_equals_brute_force(seed: int, ties: bool) -> None:
    probs_NK, targets_NK = draw(seed, 3 + 7 * seed, ties=ties)
    curve = exact_curve(probs_NK[:, 0], targets_NK[:, 0])
    best = chosen_thresholds([curve], best_macro_f1([curve]))[0]
    brute = max(
        f1_score(targets_NK[:, 0], probs_NK[:, 0] >= np.float32(threshold), zero_division=0)
        for threshold in all_thresholds(probs_NK)
    )
    reached = f1_score(targets_NK[:, 0], metrics.decide(probs_NK, best)[:, 0], zero_division=0)
    assert reached == pytest.approx(brute, abs=1e-12)
    assert curve.f1.max() == pytest.approx(brute, abs=1e-12)


@pytest.mark.parametrize("seed", range(6))
def test_best_micro_f1_equals_brute_force_over_all_joint_thresholds(seed: int) -> None:
    probs_NK, targets_NK = draw(seed, 9, classes=3, ties=True)
    curves = curves_of(probs_NK, targets_NK)
    ours = metrics.micro_f1(
        Counts.of(targets_NK, metrics.decide(probs_NK, chosen_thresholds(curves, best_micro_f1(curves))))
    )
    brute = max(
        float(metrics.micro_f1(Counts.of(targets_NK, metrics.decide(probs_NK, np.array(joint)))))
        for joint in itertools.product(*(all_thresholds(probs_NK[:, k]) for k in range(3)))
    )
    assert ours == pytest.approx(brute, abs=1e-12)


@pytest.mark.parametrize("seed", range(6))
def test_mix_and_floor_come_near_brute_force_and_keep_the_floor(seed: int) -> None:
    probs_NK, targets_NK = draw(seed + 20, 12, classes=3, ties=True)
    curves = curves_of(probs_NK, targets_NK)
    both = []
    for joint in itertools.product(*(range(len(curve.thresholds)) for curve in curves)):
        chosen = np.array(joint)
        both.append((macro_f1_all_classes(curves, chosen), micro_f1(curves, chosen)))
    mixed = best_mixed(curves, 0.5)
    best = max(macro + micro for macro, micro in both)
    assert macro_f1_all_classes(curves, mixed) + micro_f1(curves, mixed) >= best - 1e-9
    lowest = micro_f1(curves, best_macro_f1(curves))
    for share in (0.3, 0.7, 1.0):  # floors that bind
        floor = lowest + share * (max(micro for _, micro in both) - lowest) - 1e-9
        held = best_mixed(curves, 0.0, floor)
        assert micro_f1(curves, held) >= floor
        assert (
            macro_f1_all_classes(curves, held) >= max(macro for macro, micro in both if micro >= floor) - 0.01
        )


def test_a_floor_out_of_reach_gives_the_best_micro_f1() -> None:
    probs_NK, targets_NK = draw(0, 50, classes=3)
    curves = curves_of(probs_NK, targets_NK)
    out = best_mixed(curves, 0.0, 0.999)
    assert micro_f1(curves, out) == micro_f1(curves, best_micro_f1(curves))
