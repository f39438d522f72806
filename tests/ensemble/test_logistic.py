"""The logistic solver equals scikit-learn and converges from any start."""

from __future__ import annotations

import numpy as np
from sklearn.linear_model import LogisticRegression

from canopy.ensemble.logistic import fit_logistic, sigmoid


def test_logistic_regression_equals_scikit_learn() -> None:
    rng = np.random.default_rng(0)
    x = rng.normal(size=(3, 4, 300))
    truth = (rng.random((3, 300)) < sigmoid(x.sum(axis=1))).astype(float)
    features = np.concatenate([x, np.ones((3, 1, 300))], axis=1)
    ridge = np.tile([2.0, 2.0, 2.0, 2.0, 1e-8], (3, 1))
    found = fit_logistic(features, truth, np.ones((3, 300)), np.zeros((3, 5)), ridge)
    for g in range(3):
        other = LogisticRegression(C=0.5, tol=1e-10, max_iter=2000).fit(x[g].T, truth[g])
        np.testing.assert_allclose(found[g, :4], other.coef_[0], atol=1e-5)
        np.testing.assert_allclose(found[g, 4], other.intercept_[0], atol=1e-5)


def test_logistic_regression_on_separable_rows_and_extreme_starts() -> None:
    x = np.stack([np.linspace(-1, 1, 50), np.ones(50)])[None]
    truth = (x[0, 0] > 0).astype(float)[None]
    ridge = np.full((1, 2), 1e-3)
    a = fit_logistic(x, truth, np.ones((1, 50)), np.zeros((1, 2)), ridge)
    b = fit_logistic(x, truth, np.ones((1, 50)), np.zeros((1, 2)), ridge, np.array([[-300.0, 50.0]]))
    assert np.isfinite(a).all()
    np.testing.assert_allclose(a, b, rtol=1e-3, atol=1e-6)
