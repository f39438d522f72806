"""Selection is nested: the labels of a fold never influence the predictions of that fold."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from tests.ensemble.worlds import FAST, LABELS, Members, world

from canopy.config import CombinationKind, EnsembleConfig
from canopy.ensemble.combination import COMBINATION_KINDS
from canopy.ensemble.crossfit import Calibrator, Sample
from canopy.ensemble.search import estimated_scores, relative_losses, search
from canopy.ensemble.search_inputs import sample_rows
from canopy.predictions.predictions import Predictions


def sampled(members: Members, config: EnsembleConfig) -> Sample:
    targets = members["m0"].targets_NK
    assert targets is not None
    return sample_rows(members, targets, config, config.search_rows)


@pytest.mark.parametrize("fold", [0, 2])
def test_labels_of_an_outer_fold_never_reach_its_predictions(fold: int) -> None:
    """Weights, calibrations, thresholds, the choice of members and that of the candidate are all nested."""
    members = world(240, noises=(1.4, 1.5))
    noise = np.random.default_rng(7).random((240, 4)).astype(np.float32)
    members["m9"] = Predictions(members["m0"].ids, noise, LABELS)
    sample = sampled(members, FAST)
    mine = sample.fold_N == fold
    flipped = sample.targets_NK.copy()
    flipped[mine] = 1 - flipped[mine]
    other = replace(sample, targets_NK=flipped)
    one, two = (search(s, Calibrator(s, FAST), COMBINATION_KINDS, FAST) for s in (sample, other))
    for name in ("probs_NK", "decisions_NK", "untuned_NK"):
        before, after = getattr(one.nested, name), getattr(two.nested, name)
        np.testing.assert_array_equal(before[mine], after[mine])
        np.testing.assert_array_equal(getattr(one.single, name)[mine], getattr(two.single, name)[mine])
    assert (one.nested.probs_NK[~mine] != two.nested.probs_NK[~mine]).any()  # elsewhere the flip matters


def test_the_table_holds_every_candidate_and_marks_the_chosen_one() -> None:
    sample = sampled(world(240), FAST)
    kinds: tuple[CombinationKind, ...] = ("best_single", "mean", "simplex")
    found = search(sample, Calibrator(sample, FAST), kinds, FAST)
    assert [row.combination for row in found.choice.table] == list(kinds)
    assert [row.combination for row in found.choice.table if row.taken] == [found.choice.kind]
    assert sum(found.chosen.values()) == sample.folds
    scores = estimated_scores(found, LABELS, FAST)
    assert scores.chosen == found.chosen
    assert set(scores.over) == {"best_single"}


def test_the_relative_loss_of_the_base_rate_is_1_on_average() -> None:
    targets = (np.random.default_rng(0).random((500, 3)) < [0.5, 0.1, 0.0]).astype(np.uint8)
    rates = np.broadcast_to(targets.mean(axis=0), targets.shape).astype(np.float32)
    assert relative_losses(targets, rates).mean() == pytest.approx(1, abs=1e-5)
    assert not relative_losses(np.ones((4, 1), np.uint8), np.full((4, 1), 0.3, np.float32)).any()
