"""The candidate combinations, each fitted from the same calibrated members."""

from __future__ import annotations

from typing import assert_never

import numpy as np
from numpy.typing import NDArray

from canopy.config import CombinationKind
from canopy.ensemble.combination import Combination, quantiles
from canopy.ensemble.member_weights import (
    error_products,
    greedy_selection,
    per_class_weights,
    simplex_minimum,
)
from canopy.ensemble.stack import label_level, logistic_stack, ridge_stack
from canopy.metrics import Floats
from canopy.predictions.hash_sampling import hash_ids

BLOCKS = 16
"""Number of blocks into which rows fall by the hash of their id; a bag is half of the blocks."""


class FittingData:
    """The fitting rows in the forms that the candidates need.

    Args:
        members_MNK: calibrated probabilities.
        logits_MNK: their logits.
        targets_NK: targets.
        ids_N: ids of the rows, which determine the bags.
        fold_N: folds of the rows, for the inner folds of stacking.
    """

    def __init__(
        self,
        members_MNK: NDArray[np.float32],
        logits_MNK: NDArray[np.float32],
        targets_NK: NDArray[np.uint8],
        ids_N: NDArray[np.str_],
        fold_N: NDArray[np.intp],
    ) -> None:
        self.members_MNK, self.logits_MNK = members_MNK, logits_MNK
        self.targets_NK, self.fold_N = targets_NK, fold_N
        block_N = hash_ids(ids_N, "bags") % np.uint64(BLOCKS)
        blocks = [np.flatnonzero(block_N == block) for block in range(BLOCKS)]
        parts = [error_products(members_MNK, targets_NK, part) for part in blocks]
        self.block_products_CKMM: Floats = np.stack(parts)
        self.products_KMM: Floats = self.block_products_CKMM.sum(axis=0)
        self.common_weights_M = simplex_minimum(self.products_KMM.mean(axis=0))


def fit_combination(  # noqa: PLR0911
    kind: CombinationKind, data: FittingData, bags: int, seed: int
) -> Combination:
    """Fit one candidate.

    Args:
        kind: best_single: the member of least relative squared error; mean; rank_mean; geometric_mean: of
            odds; greedy: Caruana's selection on bags; simplex: one set of weights; per_class: simplex weights
            of each class; logistic: stacking on the members' logits; logistic_two_level: the same, then a
            level over labels; ridge_two_level: a level over labels within each member, then members.
        data: the fitting rows.
        bags: number of bags of the greedy selection.
        seed: seed of the bags.
    """
    members, _, classes = data.members_MNK.shape
    even_M, none_K = np.full(members, 1 / members), np.zeros(classes)

    def common(weights_M: Floats) -> Floats:
        return np.repeat(weights_M[:, None], classes, axis=1)

    match kind:
        case "best_single":
            errors_M = np.einsum("kmm->m", data.products_KMM)
            return Combination(kind, "probability", common(np.eye(members)[int(np.argmin(errors_M))]), none_K)
        case "mean":
            return Combination(kind, "probability", common(even_M), none_K)
        case "rank_mean":
            stored_MKQ = np.stack([quantiles(member_NK) for member_NK in data.members_MNK])
            return Combination(kind, "rank", common(even_M), none_K, quantiles_MKQ=stored_MKQ)
        case "geometric_mean":
            return Combination(kind, "logit", common(even_M), none_K)
        case "greedy":
            return Combination(kind, "probability", common(_greedy(data, bags, seed)), none_K)
        case "simplex":
            return Combination(kind, "probability", common(data.common_weights_M), none_K)
        case "per_class":
            positives_K = data.targets_NK.sum(axis=0, dtype=np.float64)
            weights_MK = per_class_weights(data.products_KMM, positives_K)
            return Combination(kind, "probability", weights_MK, none_K)
        case "logistic" | "logistic_two_level":
            return _logistic(kind, data)
        case "ridge_two_level":
            level1_MFK, weights_MK, bias_K = ridge_stack(data.logits_MNK, data.targets_NK, data.fold_N)
            return Combination(kind, "probability", weights_MK, bias_K, level1_MFK=level1_MFK)
        case _:
            assert_never(kind)


def _greedy(data: FittingData, bags: int, seed: int) -> Floats:
    """Mean weights (M,) over greedy selections, each on half of the blocks."""
    members = len(data.members_MNK)
    total_M = np.zeros(members)
    for bag in range(bags):
        drawn = np.random.default_rng([seed, bag]).permutation(BLOCKS)[: BLOCKS // 2]
        form_MM = data.block_products_CKMM[drawn].sum(axis=0).mean(axis=0)
        form_MM = form_MM / max(float(np.trace(form_MM)) / members, 1e-12)

        def loss(counts_CM: NDArray[np.intp], form_MM: Floats = form_MM) -> Floats:
            weights_CM = counts_CM / counts_CM.sum(axis=1, keepdims=True)
            return np.asarray(np.einsum("cm,mn,cn->c", weights_CM, form_MM, weights_CM))

        total_M += greedy_selection(loss, members)
    return total_M / bags


def _logistic(kind: CombinationKind, data: FittingData) -> Combination:
    weights_MK, bias_K = logistic_stack(data.logits_MNK, data.targets_NK, data.common_weights_M)
    if kind == "logistic":
        return Combination(kind, "logit", weights_MK, bias_K)
    summed_NK = bias_K.astype(np.float32) + np.einsum(
        "mk,mnk->nk", weights_MK.astype(np.float32), data.logits_MNK
    )
    return Combination(kind, "logit", weights_MK, bias_K, level2_FK=label_level(summed_NK, data.targets_NK))
