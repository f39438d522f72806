"""Candidate combinations equal naive implementations."""

from __future__ import annotations

import numpy as np

from canopy.ensemble.fit_combination import BLOCKS, FittingData, fit_combination
from canopy.predictions.hash_sampling import hash_ids


def test_greedy_on_bags_equals_a_naive_implementation_on_rows() -> None:
    """The reference draws bags of rows and computes each error from probabilities and targets."""
    rng = np.random.default_rng(3)
    targets = (rng.random((200, 3)) < [0.5, 0.2, 0.05]).astype(np.uint8)
    noisy = np.clip(targets + rng.normal(0, [[[0.5]], [[0.6]], [[0.7]], [[0.8]]], (4, 200, 3)), 0, 1)
    members = noisy.astype(np.float32)
    ids = np.array([f"{n}" for n in range(200)])
    data = FittingData(members, np.zeros_like(members), targets, ids, np.zeros(200, np.intp))
    found = fit_combination("greedy", data, bags=3, seed=4)

    block = hash_ids(ids, "bags") % np.uint64(BLOCKS)
    variance = targets.mean(axis=0) * (1 - targets.mean(axis=0))
    weights = np.zeros(4)
    for bag in range(3):
        rows = np.isin(block, np.random.default_rng([4, bag]).permutation(BLOCKS)[: BLOCKS // 2])
        picked: list[int] = []
        best: tuple[float, list[int]] = (np.inf, [])
        for _ in range(25):
            trials = [[*picked, m] for m in range(4)]
            errors = [
                (((members[t].mean(axis=0) - targets)[rows] ** 2).sum(axis=0) / variance).sum()
                for t in trials
            ]
            picked = trials[int(np.argmin(errors))]
            if min(errors) < best[0] * (1 - 1e-7):
                best = (min(errors), picked)
        weights += np.bincount(best[1], minlength=4) / len(best[1]) / 3
    np.testing.assert_allclose(found.weights_MK, np.repeat(weights[:, None], 3, axis=1), atol=1e-9)
