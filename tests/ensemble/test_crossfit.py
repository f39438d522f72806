"""Calibrations and candidates are fitted without the held-out folds."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
from tests.ensemble.worlds import FAST, world

from canopy.ensemble.crossfit import Calibrator, Sample, crossfit, fit_members, recalibrate, relative_loss
from canopy.ensemble.search_inputs import sample_rows


def sampled(rows: int) -> Sample:
    members = world(rows)
    targets = members["m0"].targets_NK
    assert targets is not None
    return sample_rows(members, targets, FAST, FAST.search_rows)


def test_held_out_predictions_do_not_depend_on_held_out_targets() -> None:
    sample, held_out = sampled(200), frozenset({1, 2})
    mine = np.isin(sample.fold_N, list(held_out))
    flipped = replace(sample, targets_NK=np.where(mine[:, None], 1 - sample.targets_NK, sample.targets_NK))
    one, two = (crossfit(s, held_out, Calibrator(s, FAST), ("mean",), FAST) for s in (sample, flipped))
    np.testing.assert_array_equal(one["mean"].probs_NK, two["mean"].probs_NK)
    np.testing.assert_array_equal(one["mean"].decisions_NK, two["mean"].decisions_NK)
    assert len(one["mean"].probs_NK) == mine.sum()


def test_all_members_fitted_together_equal_each_alone() -> None:
    sample = sampled(200)
    counts = Calibrator(sample, FAST).counts_FM2KB.sum(axis=0)
    together = fit_members("beta", counts)
    for m, curve in enumerate(together):
        (alone,) = fit_members("beta", counts[m : m + 1])
        np.testing.assert_allclose(curve.at_centers(), alone.at_centers(), atol=1e-6)
        assert relative_loss(curve, counts[m]) < relative_loss(fit_members("none", counts)[m], counts[m])


def test_single_members_and_logistic_stacks_keep_their_scores() -> None:
    sample = sampled(200)
    calibrator = Calibrator(sample, FAST)
    probs_NK = calibrator.apply(sample, frozenset())[0][0]
    found = crossfit(sample, frozenset({0}), calibrator, ("best_single", "mean"), FAST)
    assert set(found) == {"best_single", "mean"}
    from canopy.ensemble.combination import Combination

    single = Combination("best_single", "probability", np.ones((1, 4)), np.zeros(4))
    kept, curve = recalibrate(probs_NK, sample.targets_NK, single)
    assert kept is probs_NK
    assert curve.kind == "none"
    pooled, curve = recalibrate(probs_NK, sample.targets_NK, replace(single, kind="mean"))
    assert curve.kind == "beta"
    assert (pooled != probs_NK).any()
