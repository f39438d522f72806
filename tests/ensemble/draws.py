"""Random scores and targets, and all thresholds of a class, for the tests of thresholds."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from canopy.ensemble.threshold_curves import NEVER, ThresholdCurve, exact_curve

Arrays = tuple[NDArray[np.float32], NDArray[np.uint8]]


def draw(seed: int, rows: int, classes: int = 1, ties: bool = False) -> Arrays:
    rng = np.random.default_rng(seed)
    targets_NK = (rng.random((rows, classes)) < 0.35).astype(np.uint8)
    probs_NK = np.clip(rng.normal(0.3 + 0.3 * targets_NK, 0.25), 0, 1).astype(np.float32)
    return np.round(probs_NK, 1) if ties else probs_NK, targets_NK


def all_thresholds(scores_N: NDArray[np.float32]) -> list[float]:
    return [NEVER, *np.unique(scores_N).tolist()]


def curves_of(probs_NK: NDArray[np.float32], targets_NK: NDArray[np.uint8]) -> list[ThresholdCurve]:
    return [exact_curve(probs_NK[:, k], targets_NK[:, k]) for k in range(targets_NK.shape[1])]


def chosen_thresholds(curves: list[ThresholdCurve], chosen: NDArray[np.intp]) -> NDArray[np.float32]:
    return np.array(
        [curve.thresholds[threshold] for curve, threshold in zip(curves, chosen, strict=True)], np.float32
    )
