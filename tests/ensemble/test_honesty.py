"""What no choice may see: an outer fold's labels, the test split's labels; and what estimates are worth."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from tests.ensemble.worlds import FAST, LABELS, Members, value, world

from canopy.config import EnsembleConfig
from canopy.ensemble.candidates import KINDS
from canopy.ensemble.crossfit import Calibrator, Sample
from canopy.ensemble.fit import fit_ensemble
from canopy.ensemble.search_sample import sample_rows
from canopy.ensemble.selection import search
from canopy.predictions.io import Predictions


def sampled(members: Members, config: EnsembleConfig) -> Sample:
    targets = members["m0"].targets_NK
    assert targets is not None
    return sample_rows(members, targets, config, config.search_rows)


@pytest.mark.parametrize("fold", [0, 2])
def test_an_outer_folds_labels_never_reach_what_is_said_of_it(fold: int) -> None:
    """Weights, calibrations, thresholds, which members count and which candidate is taken: all are nested."""
    members = world(240, noises=(1.4, 1.5))
    noise = np.random.default_rng(7).random((240, 4)).astype(np.float32)
    members["m9"] = Predictions(members["m0"].ids, noise, LABELS)
    sample = sampled(members, FAST)
    mine = sample.fold_N == fold
    told = sample.targets_NK.copy()
    told[mine] = 1 - told[mine]
    other = replace(sample, targets_NK=told)
    one, two = (search(s, Calibrator(s, FAST), KINDS, FAST) for s in (sample, other))
    for name in ("probs_NK", "decisions_NK", "untuned_NK"):
        before, after = getattr(one.nested, name), getattr(two.nested, name)
        np.testing.assert_array_equal(before[mine], after[mine])
        np.testing.assert_array_equal(getattr(one.single, name)[mine], getattr(two.single, name)[mine])
    assert (one.nested.probs_NK[~mine] != two.nested.probs_NK[~mine]).any()  # the flip does matter elsewhere


def test_estimates_are_honest_over_many_draws() -> None:
    """The nested estimate is near what fresh rows give, on average: no systematic optimism."""
    test = world(20000, seed=99)
    gaps = []
    for seed in range(6):
        ensemble = fit_ensemble(world(300, seed=seed), FAST)
        card = ensemble.estimated
        gaps.append((card["macro_f1"] + card["micro_f1"]) / 2 - value(ensemble, test))
    assert abs(np.mean(gaps)) < 0.02
