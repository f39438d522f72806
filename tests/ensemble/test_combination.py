"""Combinations are the sums that they declare, for batches and single rows."""

from __future__ import annotations

import numpy as np

from canopy.ensemble.combination import Combination, quantiles, ranks
from canopy.ensemble.logistic import logit, sigmoid


def test_ranks_of_one_image_alone_equal_those_in_its_batch() -> None:
    rng = np.random.default_rng(0)
    given = rng.random((1000, 2)).astype(np.float32)
    given[:300, 1] = 0.25  # ties
    stored = quantiles(given)
    together = ranks(given, stored)
    alone = np.concatenate([ranks(given[n : n + 1], stored) for n in range(50)])
    np.testing.assert_array_equal(together[:50], alone)
    order = given[:, 0].argsort().argsort() / 999
    np.testing.assert_allclose(together[:, 0], order, atol=0.005)
    assert together.min() >= 0
    assert together.max() <= 1


def test_combinations_are_the_sums_they_declare() -> None:
    rng = np.random.default_rng(0)
    members = [rng.random((5, 2)).astype(np.float32) for _ in range(2)]
    weights = np.array([[0.25, 1.0], [0.75, 0.0]])
    pool = Combination("simplex", "probability", weights, np.zeros(2)).apply(members)
    np.testing.assert_allclose(pool, weights[0] * members[0] + weights[1] * members[1], atol=1e-6)
    odds = Combination("geometric_mean", "logit", weights, np.array([0.1, -0.1])).apply(members)
    expected = sigmoid(weights[0] * logit(members[0]) + weights[1] * logit(members[1]) + [0.1, -0.1])
    np.testing.assert_allclose(odds, expected, atol=1e-5)
