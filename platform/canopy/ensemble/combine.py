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

    def apply(self, members: Sequence[NDArray[Any]]) -> NDArray[np.float32]:
        """Scores in [0, 1], shape (N, K), from M arrays of calibrated probabilities (N, K)."""
        total_NK = np.zeros(members[0].shape, np.float32)
        for m, probs_NK in enumerate(members):
            if self.weights_MK[m].any():
                total_NK += self.weights_MK[m].astype(np.float32) * self._mapped(m, probs_NK)
        total_NK += self.bias_K.astype(np.float32)
        if self.level2_FK is not None:
            level2_FK = self.level2_FK.astype(np.float32)
            total_NK = total_NK @ level2_FK[:-1] + level2_FK[-1]
        match self.space:
            case "probability" | "rank":
                return np.clip(total_NK, np.float32(0), np.float32(1))
            case "logit":
                return np.asarray(sigmoid(total_NK), np.float32)
            case _:
                assert_never(self.space)

    def _mapped(self, m: int, probs_NK: NDArray[Any]) -> NDArray[np.float32]:
        if self.level1_MFK is not None:
            level1_FK = self.level1_MFK[m].astype(np.float32)
            return np.asarray(logit(probs_NK.astype(np.float32)) @ level1_FK[:-1] + level1_FK[-1])
        match self.space:
            case "probability":
                return probs_NK.astype(np.float32, copy=False)
            case "logit":
                return np.asarray(logit(probs_NK.astype(np.float32, copy=False)), np.float32)
            case "rank":
                assert self.quantiles_MKQ is not None
                return ranks(probs_NK, self.quantiles_MKQ[m])
            case _:
                assert_never(self.space)


def quantiles(probs_NK: NDArray[Any], count: int = KNOTS) -> NDArray[np.float32]:
    """The distribution of each class's scores: ``count`` evenly spaced quantiles, shape (K, Q)."""
    return np.quantile(probs_NK, np.linspace(0, 1, count), axis=0).T.astype(np.float32)


def ranks(probs_NK: NDArray[Any], quantiles_KQ: NDArray[np.float32]) -> NDArray[np.float32]:
    """Where each score lies in a stored distribution, in [0, 1]; ties get the middle of their span."""
    last = quantiles_KQ.shape[1] - 1
    columns = []
    for k, knots in enumerate(quantiles_KQ):
        column = probs_NK[:, k].astype(np.float32)
        left, right = np.searchsorted(knots, column, "left"), np.searchsorted(knots, column, "right")
        inside = np.interp(column, knots, np.arange(last + 1))
        columns.append(np.where(right > left, (left + right - 1) / 2, inside) / last)
    return np.stack(columns, axis=1).astype(np.float32)
