"""Decisions after each step come from the members and thresholds that they name."""

from __future__ import annotations

import numpy as np
from tests.ensemble.worlds import FAST, world

from canopy import metrics
from canopy.ensemble.evaluate import decide_by_step
from canopy.ensemble.fit import fit_ensemble


def test_single_steps_are_those_of_the_best_single_member() -> None:
    members = world(240)
    ensemble = fit_ensemble(members, FAST)
    single = fit_ensemble(members, FAST.model_copy(update={"combination": "best_single"}))
    arrays = {name: [p.probs_NK, np.clip(p.probs_NK + 0.1, 0, 1)] for name, p in world(80, seed=2).items()}
    steps = decide_by_step(ensemble, single, arrays)
    raw_NK = np.mean(arrays[single.members[0]], axis=0)
    np.testing.assert_array_equal(steps.single_half, metrics.decide(raw_NK))
    np.testing.assert_array_equal(steps.single_tuned, single.predict(arrays)[1])
