"""Threshold curves: the counts of one class at every threshold; every threshold rule chooses from them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from canopy.metrics import Floats

NEVER = 2.0
"""A threshold that no probability reaches."""


@dataclass(frozen=True, eq=False)
class ThresholdCurve:
    """Counts of one class at C falling thresholds: from no positive decision to the maximum number.

    Args:
        thresholds: float32-exact and falling, shape (C,); the first is :data:`NEVER`.
        tp: (possibly weighted) positives at or above each threshold, shape (C,).
        predicted: rows at or above each threshold, shape (C,).
        positives: all (possibly weighted) positives.
    """

    thresholds: NDArray[np.float32]
    tp: Floats
    predicted: Floats
    positives: float

    @property
    def f1(self) -> Floats:
        """F1 at each threshold, shape (C,); 0 where there is neither a positive nor a decision."""
        return np.asarray(2 * self.tp / np.maximum(self.predicted + self.positives, 1e-12), np.float64)


def exact_curve(scores_N: NDArray[np.float32], truth_N: NDArray[Any], blend: float = 0.0) -> ThresholdCurve:
    """The curve over all distinct thresholds of one class; rows with equal scores stay together.

    Args:
        scores_N: scores; probabilities where ``blend`` is above 0.
        truth_N: targets, 0 and 1.
        blend: weight in [0, 1] of the probability in each label, which becomes ``(1 - blend) y + blend p``.
            At 1 the best threshold of the curve is the plug-in rule, for F1 half of the best expected F1
            (Zhao et al. 2013; Lipton et al. 2014).

    With ``blend`` 0 only thresholds just below a positive are listed: any other has as many true and
    more false positives than one of these.
    """
    scores_N = np.asarray(scores_N, np.float32)
    rising = np.sort(scores_N)
    positives = np.sort(scores_N[np.asarray(truth_N, bool)])
    listed = positives if blend == 0 else rising
    values = listed[np.append(True, listed[1:] != listed[:-1])] if len(listed) else listed
    below = np.searchsorted(rising, values, side="left")  # rows under each value
    tp = len(positives) - np.searchsorted(positives, values, side="left").astype(np.float64)
    total = float(len(positives))
    if blend > 0:
        soft = np.cumsum(rising[::-1], dtype=np.float64)[::-1]
        tp = (1 - blend) * tp + blend * soft[below]
        total = (1 - blend) * total + blend * float(soft[0])
    under = rising[np.maximum(below - 1, 0)]
    thresholds = np.where(below > 0, threshold_between(under, values), values)
    return _falling(thresholds, tp, len(rising) - below, total)


def fixed_curve(scores_N: NDArray[np.float32], threshold: float) -> ThresholdCurve:
    """The curve with a single threshold, for a class without positives."""
    predicted = float(np.count_nonzero(scores_N >= np.float32(threshold)))
    return ThresholdCurve(np.array([threshold], np.float32), np.zeros(1), np.array([predicted]), 0.0)


def threshold_between(low: NDArray[np.float32], high: NDArray[np.float32]) -> NDArray[np.float32]:
    """Thresholds (C,) in (low, high], half-way where float32 has room: ``low >= threshold`` is false.

    Args:
        low: C scores that must stay below the threshold.
        high: C scores that must reach the threshold, each above its ``low``.
    """
    middle = (low.astype(np.float64) + high) / 2
    threshold = middle.astype(np.float32)
    return np.where(threshold > low, threshold, high)


def _falling(
    thresholds: NDArray[np.float32], tp: Floats, predicted: NDArray[Any], positives: float
) -> ThresholdCurve:
    """The curve of rising thresholds, reversed, with :data:`NEVER` in front."""
    return ThresholdCurve(
        np.concatenate([[np.float32(NEVER)], thresholds[::-1]]).astype(np.float32),
        np.concatenate([[0.0], tp[::-1]]),
        np.concatenate([[0.0], predicted[::-1]]).astype(np.float64),
        positives,
    )
