"""The parts of the ensemble, each against a naive or exhaustive reference."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy.optimize import minimize
from sklearn.linear_model import LogisticRegression

from canopy import metrics
from canopy.ensemble.calibrate import BINS, CENTERS, bin_codes, bin_counts, fit_calibration
from canopy.ensemble.candidates import BLOCKS, Evidence, fit_combination
from canopy.ensemble.combine import Combination, quantiles, ranks
from canopy.ensemble.logistic import fit_logistic, logit, sigmoid
from canopy.ensemble.member_weights import (
    error_products,
    greedy_selection,
    per_class_weights,
    simplex_minimum,
)
from canopy.predictions.hashed_ids import folds_of, hash_ids, sample_of

Floats = NDArray[np.float64]


def form(seed: int, members: int) -> Floats:
    """A random quadratic form such as squared errors make."""
    rng = np.random.default_rng(seed)
    errors = rng.normal(size=(200, 1)) + rng.normal(size=(200, members)) * rng.uniform(0.2, 2, members)
    return np.asarray(errors.T @ errors / 200)


@pytest.mark.parametrize("seed", range(8))
def test_simplex_weights_reach_the_optimum_found_by_exhaustive_search(seed: int) -> None:
    matrix = form(seed, 3)
    found = simplex_minimum(matrix)
    steps = np.arange(0, 201) / 200
    grid = np.array([(a, b, 1 - a - b) for a, b in itertools.product(steps, steps) if a + b <= 1])
    best = np.einsum("gi,ij,gj->g", grid, matrix, grid).min()
    assert found.min() >= 0
    assert found.sum() == pytest.approx(1)
    assert found @ matrix @ found <= best + 1e-9


@pytest.mark.parametrize("seed", range(4))
def test_simplex_weights_equal_a_general_solver(seed: int) -> None:
    matrix = form(seed + 50, 8)
    found = simplex_minimum(matrix)
    other = minimize(
        lambda w: w @ matrix @ w,
        np.full(8, 1 / 8),
        jac=lambda w: 2 * matrix @ w,
        bounds=[(0, 1)] * 8,
        constraints={"type": "eq", "fun": lambda w: w.sum() - 1, "jac": lambda w: np.ones(8)},
        options={"ftol": 1e-14, "maxiter": 500},
    )
    np.testing.assert_allclose(found, other.x, atol=1e-5)


@pytest.mark.parametrize("seed", range(6))
def test_greedy_selection_equals_a_naive_implementation(seed: int) -> None:
    matrix = form(seed, 5)

    def loss(counts_CM: NDArray[np.intp]) -> Floats:
        weights = counts_CM / counts_CM.sum(axis=1, keepdims=True)
        return np.asarray(np.einsum("ci,ij,cj->c", weights, matrix, weights))

    picked: list[int] = []
    trail: list[tuple[float, list[int]]] = []
    for _ in range(25):
        costs = []
        for member in range(5):
            w = np.bincount([*picked, member], minlength=5) / (len(picked) + 1)
            costs.append(float(w @ matrix @ w))
        picked = [*picked, int(np.argmin(costs))]
        trail.append((min(costs), list(picked)))
    best = min(trail, key=lambda step: (round(step[0], 9), len(step[1])))[1]
    np.testing.assert_allclose(greedy_selection(loss, 5), np.bincount(best, minlength=5) / len(best))


def test_greedy_on_bags_equals_a_naive_implementation_on_rows() -> None:
    """From probabilities and targets alone: bags of rows, one draw after the other, error by error."""
    rng = np.random.default_rng(3)
    targets = (rng.random((200, 3)) < [0.5, 0.2, 0.05]).astype(np.uint8)
    noisy = np.clip(targets + rng.normal(0, [[[0.5]], [[0.6]], [[0.7]], [[0.8]]], (4, 200, 3)), 0, 1)
    members = noisy.astype(np.float32)
    ids = np.array([f"{n}" for n in range(200)])
    evidence = Evidence(members, np.zeros_like(members), targets, ids, np.zeros(200, np.intp))
    found = fit_combination("greedy", evidence, bags=3, seed=4)

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


@pytest.mark.parametrize("seed", range(3))
def test_near_twins_and_certain_members_leave_simplex_weights_sound(seed: int) -> None:
    """Rounding makes the form of such members indefinite."""
    rng = np.random.default_rng(seed)
    targets = (rng.random((5000, 2)) < 0.1).astype(np.uint8)
    first = np.clip(targets + rng.normal(0, 0.3, targets.shape), 0, 1)
    twins = [np.clip(first + rng.normal(0, 1e-8, first.shape), 0, 1) for _ in range(3)]
    members = np.stack([first, *twins, (first > 0.5) * 1.0, 1.0 - targets]).astype(np.float32)
    matrix = error_products(members, targets).mean(axis=0)
    found = simplex_minimum(matrix)
    assert found.min() >= 0
    assert found.sum() == pytest.approx(1)
    corners = np.diag(matrix).min()
    assert found @ matrix @ found <= corners * (1 + 1e-5)


def test_rare_classes_share_the_common_weights() -> None:
    products = np.stack([form(seed, 4) for seed in range(3)])
    products[2] *= 1e-3
    weights = per_class_weights(products, np.array([0.0, 1e9, 50.0]))
    np.testing.assert_allclose(weights[:, 0], simplex_minimum(products.mean(axis=0)), atol=1e-9)
    np.testing.assert_allclose(weights[:, 1], simplex_minimum(products[1]), atol=1e-6)


def test_error_products_are_relative_squared_errors_and_add_over_parts() -> None:
    rng = np.random.default_rng(0)
    targets = (rng.random((100, 3)) < [0.5, 0.1, 0.0]).astype(np.uint8)
    members = rng.random((4, 100, 3)).astype(np.float32)
    members[0] = targets.mean(axis=0)
    products = error_products(members, targets)
    assert products[0, 0, 0] == pytest.approx(1, abs=1e-5)  # the base rate costs 1
    assert products[1, 0, 0] == pytest.approx(1, abs=1e-5)
    assert not products[2].any()
    halves = [error_products(members, targets, part) for part in np.split(np.arange(100), 2)]
    np.testing.assert_allclose(halves[0] + halves[1], products, rtol=1e-5)


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


@pytest.mark.parametrize(
    ("kind", "slope", "shift", "tolerance"),
    [
        ("temperature", 0.4, 0.0, 0.02),
        ("platt", 0.5, -1.0, 0.03),
        ("beta", 0.5, -1.0, 0.03),
        ("isotonic", 0.5, -1.0, 0.04),
    ],
)
def test_calibration_undoes_a_known_distortion(
    kind: str, slope: float, shift: float, tolerance: float
) -> None:
    rng = np.random.default_rng(0)
    z = rng.normal(0, 3, (40000, 1)).astype(np.float32)
    true = sigmoid(slope * z + shift)
    targets = (rng.random(z.shape) < true).astype(np.uint8)
    said = sigmoid(z).astype(np.float32)
    curve = fit_calibration(kind, bin_counts(bin_codes(said), targets))  # type: ignore[arg-type]
    assert np.abs(curve.apply(said) - true).mean() < tolerance
    assert metrics.calibration_error(targets, curve.apply(said))[0] < 0.015
    np.testing.assert_allclose(curve.apply(sigmoid(CENTERS)[:, None])[:, 0], curve.at_centers()[0], atol=1e-5)


def test_isotonic_is_monotone_and_keeps_the_ranking() -> None:
    rng = np.random.default_rng(1)
    said = rng.random((500, 1)).astype(np.float32)
    targets = (rng.random((500, 1)) < said).astype(np.uint8)
    curve = fit_calibration("isotonic", bin_counts(bin_codes(said), targets))
    assert (np.diff(curve.apply(np.sort(said, axis=0))[:, 0]) >= 0).all()


@pytest.mark.parametrize("kind", ["none", "temperature", "platt", "beta", "isotonic"])
@pytest.mark.parametrize("value", [0, 1])
def test_a_class_of_one_kind_keeps_what_its_member_says(kind: str, value: int) -> None:
    said = np.linspace(0, 1, 30, dtype=np.float32)[:, None]
    curve = fit_calibration(kind, bin_counts(bin_codes(said), np.full((30, 1), value, np.uint8)))  # type: ignore[arg-type]
    np.testing.assert_allclose(curve.apply(said), said, atol=1e-5)


def test_bins_hold_every_row_once_and_extremes_fit() -> None:
    said = np.array([[0.0], [1.0], [0.5], [1e-30]], np.float32)
    assert bin_codes(said)[:, 0].tolist() == [0, BINS - 1, BINS // 2, 0]
    counts = bin_counts(bin_codes(said), np.array([[1], [1], [0], [0]], np.uint8))
    assert counts.sum() == 4
    assert counts[1].sum() == 2


def test_ranks_of_one_image_alone_equal_those_in_its_batch() -> None:
    rng = np.random.default_rng(0)
    said = rng.random((1000, 2)).astype(np.float32)
    said[:300, 1] = 0.25  # ties
    stored = quantiles(said)
    together = ranks(said, stored)
    alone = np.concatenate([ranks(said[n : n + 1], stored) for n in range(50)])
    np.testing.assert_array_equal(together[:50], alone)
    order = said[:, 0].argsort().argsort() / 999
    np.testing.assert_allclose(together[:, 0], order, atol=0.005)
    assert together.min() >= 0
    assert together.max() <= 1


def test_combinations_are_the_sums_they_say() -> None:
    rng = np.random.default_rng(0)
    members = [rng.random((5, 2)).astype(np.float32) for _ in range(2)]
    weights = np.array([[0.25, 1.0], [0.75, 0.0]])
    pool = Combination("simplex", "probability", weights, np.zeros(2)).apply(members)
    np.testing.assert_allclose(pool, weights[0] * members[0] + weights[1] * members[1], atol=1e-6)
    odds = Combination("geometric_mean", "logit", weights, np.array([0.1, -0.1])).apply(members)
    expected = sigmoid(weights[0] * logit(members[0]) + weights[1] * logit(members[1]) + [0.1, -0.1])
    np.testing.assert_allclose(odds, expected, atol=1e-5)


def test_folds_hang_on_ids_alone_and_spread_rare_positives() -> None:
    rng = np.random.default_rng(0)
    ids = np.array([f"chip {n}" for n in range(1000)])
    targets = (rng.random((1000, 3)) < [0.6, 0.1, 0.012]).astype(np.uint8)
    folds = folds_of(ids, targets, 5)
    order = rng.permutation(1000)
    np.testing.assert_array_equal(folds_of(ids[order], targets[order], 5), folds[order])
    rare = np.bincount(folds[targets[:, 2] > 0], minlength=5)
    assert rare.max() - rare.min() <= 1
    assert np.bincount(folds).tolist() == [200] * 5
    assert (folds_of(ids, targets, 5, seed=1) != folds).any()


def test_hashes_ignore_the_width_of_the_array_and_mix_well() -> None:
    short = hash_ids(np.array(["a", "bb"]))
    wide = hash_ids(np.array(["a", "bb", "x" * 40]))[:2]
    np.testing.assert_array_equal(short, wide)
    many = hash_ids(np.array([f"{n}" for n in range(20000)]))
    assert len(np.unique(many)) == 20000
    assert np.abs(np.bincount((many % np.uint64(16)).astype(int)) / 1250 - 1).max() < 0.12


def test_a_sample_is_the_same_in_any_order_and_part_of_a_larger_one() -> None:
    ids = np.array([f"{n}" for n in range(500)])
    order = np.random.default_rng(0).permutation(500)
    chosen = set(ids[sample_of(ids, 100)].tolist())
    assert len(chosen) == 100
    assert set(ids[order][sample_of(ids[order], 100)].tolist()) == chosen
    assert chosen < set(ids[sample_of(ids, 200)].tolist())
    assert len(sample_of(ids, 1000)) == 500
