"""One class's decisions at every cut-point: what all threshold rules choose from."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from canopy.metrics import Floats

NEVER = 2.0
"""A threshold that no probability reaches."""


@dataclass(frozen=True, eq=False)
class Curve:
    """C ways to cut one class's scores, from deciding for no row to deciding for the most.

    Args:
        cuts: thresholds, float32-exact and falling, shape (C,); the first is :data:`NEVER`.
        tp: (possibly weighted) positives at or above each cut, shape (C,).
        predicted: rows at or above each cut, shape (C,).
        positives: all (possibly weighted) positives.
    """

    cuts: NDArray[np.float32]
    tp: Floats
    predicted: Floats
    positives: float

    @property
    def f1(self) -> Floats:
        """F1 at each cut, shape (C,); 0 where there is neither positive nor decision."""
        return np.asarray(2 * self.tp / np.maximum(self.predicted + self.positives, 1e-12), np.float64)


def exact_curve(scores_N: NDArray[np.float32], truth_N: NDArray[Any], blend: float = 0.0) -> Curve:
    """The curve over all cut-points of one class; rows with equal scores are never parted.

    Args:
        scores_N: scores; probabilities where ``blend`` is above 0.
        truth_N: targets, 0 and 1.
        blend: share in [0, 1] of each label's evidence that is taken from the probability itself: the
            label becomes ``(1 - blend) y + blend p``. At 1 the best cut of the curve is the plug-in rule,
            for F1 half of the best expected F1 (Zhao et al. 2013; Lipton et al. 2014).

    With ``blend`` 0 only cuts just under a positive are listed: any other cut has as many true and
    more false positives than one of these.
    """
    scores_N = np.asarray(scores_N, np.float32)
    rising = np.sort(scores_N)
    positives = np.sort(scores_N[np.asarray(truth_N, bool)])
    values = np.unique(positives if blend == 0 else rising)
    below = np.searchsorted(rising, values, side="left")  # rows under each value
    tp = len(positives) - np.searchsorted(positives, values, side="left").astype(np.float64)
    total = float(len(positives))
    if blend > 0:
        soft = np.cumsum(rising[::-1], dtype=np.float64)[::-1]
        tp = (1 - blend) * tp + blend * soft[below]
        total = (1 - blend) * total + blend * float(soft[0])
    under = rising[np.maximum(below - 1, 0)]
    cuts = np.where(below > 0, between(under, values), values)
    return _falling(cuts, tp, len(rising) - below, total)


def one_cut(scores_N: NDArray[np.float32], cut: float) -> Curve:
    """The curve of a class without positives whose threshold is fixed."""
    predicted = float(np.count_nonzero(scores_N >= np.float32(cut)))
    return Curve(np.array([cut], np.float32), np.zeros(1), np.array([predicted]), 0.0)


def between(low: NDArray[np.float32], high: NDArray[np.float32]) -> NDArray[np.float32]:
    """Cuts in (low, high], half-way where there is room: ``score >= cut`` keeps high and drops low."""
    middle = (low.astype(np.float64) + high) / 2
    cut = middle.astype(np.float32)
    return np.where(cut > low, cut, high)


def _falling(cuts: NDArray[np.float32], tp: Floats, predicted: NDArray[Any], positives: float) -> Curve:
    return Curve(
        np.concatenate([[np.float32(NEVER)], cuts[::-1]]).astype(np.float32),
        np.concatenate([[0.0], tp[::-1]]),
        np.concatenate([[0.0], predicted[::-1]]).astype(np.float64),
        positives,
    )
