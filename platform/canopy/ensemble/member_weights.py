"""Weights of calibrated members: linear pools by least squares, and greedy selection.

Squared error is averaged over classes after division by each class's variance (a constant prediction of the
base rate costs 1 in every class), so that a rare class counts as much as a common one, as in macro-F1.
The error is a quadratic form in the weights. Its M x M matrices are all that is read from the data:
they add over rows, folds and shards, and the optimum on the simplex is exact.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import nnls

from canopy.metrics import Floats


def error_products(
    members_MNK: NDArray[np.float32], targets_NK: NDArray[np.uint8], part: NDArray[np.intp] | None = None
) -> Floats:
    """Relative squared error of linear pools, shape (K, M, M): weights w cost ``w E_k w`` in class k.

    The matrix of a class with one kind of target only is 0.

    Args:
        members_MNK: calibrated probabilities.
        targets_NK: targets.
        part: positions of the rows to sum over; None for all rows. The sum is divided by all N rows, so
            that parts add up.
    """
    rate_K = targets_NK.mean(axis=0, dtype=np.float64)
    variance_K = rate_K * (1 - rate_K)
    scale_K = np.where(variance_K > 0, 1 / np.maximum(variance_K, 1e-12), 0) / max(len(targets_NK), 1)
    if part is not None:
        members_MNK, targets_NK = members_MNK[:, part], targets_NK[part]
    errors_KMN = np.ascontiguousarray((members_MNK - targets_NK).transpose(2, 0, 1))
    products_KMM = np.matmul(errors_KMN, errors_KMN.transpose(0, 2, 1)).astype(np.float64)
    return np.asarray(products_KMM * scale_K[:, None, None])


def simplex_minimum(form_MM: Floats) -> Floats:
    """The w >= 0 with sum 1 that minimizes ``w A w`` (A positive semidefinite), shape (M,).

    Its optimality conditions are those of ``min_{u>=0} u A u / 2 - sum u`` up to scale, a
    non-negative least-squares problem, solved exactly by active sets (Lawson & Hanson 1974).
    """
    size = len(form_MM)
    scale = max(float(np.trace(form_MM)) / size, 1e-300)
    values, vectors_MM = np.linalg.eigh(form_MM / scale)
    # Rounding (the products are float32) can make the smallest eigenvalues of near duplicates negative.
    lengths = np.sqrt(np.maximum(values, 1e-9))
    root_MM, goal_M = lengths[:, None] * vectors_MM.T, vectors_MM.sum(axis=0) / lengths
    solution, _ = nnls(root_MM, goal_M, maxiter=100 * size)
    return np.asarray(solution / solution.sum(), np.float64)


def per_class_weights(products_KMM: Floats, positives_K: Floats, prior_positives: float = 50.0) -> Floats:
    """Simplex weights of each class, shape (M, K), shrunk toward the common weights.

    The fewer positives a class has, the stronger the shrinkage.

    Args:
        products_KMM: errors from :func:`error_products`.
        positives_K: positives of each class.
        prior_positives: number of positives at which a class's own error weighs half.
    """
    common_MM = products_KMM.mean(axis=0)
    own_K = positives_K / (positives_K + prior_positives)
    return np.stack(
        [
            simplex_minimum(own * e_MM + (1 - own) * common_MM)
            for own, e_MM in zip(own_K, products_KMM, strict=True)
        ],
        axis=1,
    )


def greedy_selection(loss: Callable[[NDArray[np.intp]], Floats], members: int, rounds: int = 25) -> Floats:
    """Weights from forward selection with replacement (Caruana et al. 2004), shape (M,).

    Ties go to the member that comes first, so that the result depends on the losses alone.

    Args:
        loss: takes multisets of members as counts of shape (C, M), returns their losses (C,).
        members: number M of members.
        rounds: maximum number of draws; the best multiset among all draws is returned, ties: the smallest.
    """
    counts, best, best_loss = np.zeros(members, np.intp), np.zeros(members, np.intp), np.inf
    for _ in range(rounds):
        candidates = counts + np.eye(members, dtype=np.intp)
        losses = loss(candidates)
        chosen = int(np.argmin(losses))
        counts = candidates[chosen]
        if losses[chosen] < best_loss - 1e-9:
            best, best_loss = counts, float(losses[chosen])
    return np.asarray(best / best.sum(), np.float64)
