"""How calibrated members become one score per row and class."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal, assert_never

import numpy as np
from numpy.typing import NDArray

from canopy.ensemble.logistic import logit, sigmoid
from canopy.metrics import Floats

Space = Literal["probability", "logit", "rank"]
KNOTS = 512
"""Quantiles kept of a member's distribution, for ranks of a single image."""


@dataclass(frozen=True, eq=False)
class Combination:
    """A weighted sum over members in some space; stacking adds a first level over labels.

    Args:
        kind: the method's name.
        space: probability (linear pool), logit (geometric pool, logistic stacking), or rank.
        weights_MK: weight of each member for each class.
        bias_K: added to the sum.
        level1_MFK: first level over labels: member m's K logits and a constant (F = K + 1) give its K scores.
        level2_FK: last level over labels: the K summed logits and a constant give the K final ones.
        quantiles_MKQ: rank mean: each member's and class's distribution when it was fitted.
    """

    kind: str
    space: Space
    weights_MK: Floats
    bias_K: Floats
    level1_MFK: Floats | None = None
    level2_FK: Floats | None = None
    quantiles_MKQ: NDArray[np.float32] | None = None

    def apply(
        self, members: Sequence[NDArray[Any]], logits: Sequence[NDArray[np.float32]] | None = None
    ) -> NDArray[np.float32]:
        """Scores in [0, 1], shape (N, K), from M arrays of calibrated probabilities (N, K).

        ``logits`` of the members saves computing them where several combinations need them.
        """
        total_NK = np.zeros(members[0].shape, np.float32)
        for m, probs_NK in enumerate(members):
            if self.weights_MK[m].any():
                mapped_NK = self._mapped(m, probs_NK, None if logits is None else logits[m])
                total_NK += self.weights_MK[m].astype(np.float32) * mapped_NK
        total_NK += self.bias_K.astype(np.float32)
        if self.level2_FK is not None:
            total_NK = _linear(total_NK, self.level2_FK)
        match self.space:
            case "probability" | "rank":
                return np.clip(total_NK, np.float32(0), np.float32(1))
            case "logit":
                return np.asarray(sigmoid(total_NK), np.float32)
            case _:
                assert_never(self.space)

    def _mapped(
        self, m: int, probs_NK: NDArray[Any], logits_NK: NDArray[np.float32] | None
    ) -> NDArray[np.float32]:
        probs_NK = probs_NK.astype(np.float32, copy=False)
        if logits_NK is None and (self.space == "logit" or self.level1_MFK is not None):
            logits_NK = np.asarray(logit(probs_NK), np.float32)
        if self.level1_MFK is not None:
            assert logits_NK is not None
            return _linear(logits_NK, self.level1_MFK[m])
        match self.space:
            case "probability":
                return probs_NK
            case "logit":
                assert logits_NK is not None
                return logits_NK
            case "rank":
                assert self.quantiles_MKQ is not None
                return ranks(probs_NK, self.quantiles_MKQ[m])
            case _:
                assert_never(self.space)


def _linear(inputs_NK: NDArray[np.float32], level_FK: Floats) -> NDArray[np.float32]:
    """A level over labels, in an order of sums that is each row's own (a matrix product's hangs on N)."""
    level_FK = level_FK.astype(np.float32)
    total_NK = np.tile(level_FK[-1], (len(inputs_NK), 1))
    for k, weights_K in enumerate(level_FK[:-1]):
        total_NK += inputs_NK[:, k, None] * weights_K
    return total_NK


def quantiles(probs_NK: NDArray[Any], count: int = KNOTS) -> NDArray[np.float32]:
    """The distribution of each class's scores: ``count`` evenly spaced quantiles, shape (K, Q)."""
    return np.asarray(np.quantile(probs_NK, np.linspace(0, 1, count), axis=0).T, np.float32)


def ranks(probs_NK: NDArray[Any], quantiles_KQ: NDArray[np.float32]) -> NDArray[np.float32]:
    """Where each score lies in a stored distribution, in [0, 1]; ties get the middle of their span."""
    columns = []
    for k, knots in enumerate(quantiles_KQ):
        values, first, count = np.unique(knots, return_index=True, return_counts=True)
        middle = (first + (count - 1) / 2) / max(len(knots) - 1, 1)
        columns.append(np.interp(probs_NK[:, k], values, middle))
    return np.stack(columns, axis=1).astype(np.float32)
