"""Weights of members equal those of exhaustive search, general solvers and naive implementations."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy.optimize import minimize

from canopy.ensemble.member_weights import (
    error_products,
    greedy_selection,
    per_class_weights,
    simplex_minimum,
)

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


@pytest.mark.parametrize("seed", range(3))
def test_simplex_weights_of_near_duplicates_and_perfect_members_are_valid(seed: int) -> None:
    """Rounding makes the quadratic form of such members indefinite."""
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
