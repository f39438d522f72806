"""Threshold search for mean per-image F2, which is not a sum over classes."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from canopy.ensemble.threshold_curves import NEVER, threshold_between
from canopy.metrics import Floats

START = 0.2
"""First threshold of every class: near the probability above which predicting a label raises F2."""


def best_samples_f2(
    probs_NK: NDArray[np.float32], targets_NK: NDArray[np.uint8], blend_K: Floats, rounds: int = 20
) -> NDArray[np.float32]:
    """Thresholds (K,) of which none can be moved alone without lowering the mean per-image F2.

    Coordinate ascent: with the other classes' decisions fixed, each row has a gain from a decision for
    class k; the best threshold of k is where the running sum of gains, from the highest score down, peaks.

    Args:
        probs_NK: probabilities.
        targets_NK: targets.
        blend_K: weight of the probability in each label (see ``exact_curve``).
        rounds: maximum number of passes over the classes.
    """
    soft_NK = (1 - blend_K) * targets_NK + blend_K * probs_NK
    falling = [np.argsort(-probs_NK[:, k], kind="stable") for k in range(probs_NK.shape[1])]
    thresholds_K = np.where(targets_NK.any(axis=0), START, 0.5).astype(np.float32)
    decided_NK = probs_NK >= thresholds_K
    truth_N = soft_NK.sum(axis=1)
    hits_N, decided_N = (soft_NK * decided_NK).sum(axis=1), decided_NK.sum(axis=1).astype(np.float64)
    for _ in range(rounds):
        moved = False
        for k in np.flatnonzero(targets_NK.any(axis=0)):
            hits_N -= soft_NK[:, k] * decided_NK[:, k]
            decided_N -= decided_NK[:, k]
            gain_N = _f2(hits_N + soft_NK[:, k], truth_N, decided_N + 1) - _f2(hits_N, truth_N, decided_N)
            threshold = _peak(probs_NK[falling[k], k], gain_N[falling[k]])
            moved |= bool(threshold != thresholds_K[k])
            thresholds_K[k] = threshold
            decided_NK[:, k] = probs_NK[:, k] >= threshold
            hits_N += soft_NK[:, k] * decided_NK[:, k]
            decided_N += decided_NK[:, k]
        if not moved:
            break
    return thresholds_K


def _f2(hits_N: Floats, truth_N: Floats, decided_N: Floats) -> Floats:
    whole_N = 4 * truth_N + decided_N
    return np.where(whole_N > 0, 5 * hits_N / np.maximum(whole_N, 1e-12), 1.0)


def _peak(falling_N: NDArray[np.float32], gain_N: Floats) -> np.float32:
    """The threshold of falling scores at which the summed gain is highest; never between equal scores."""
    total = np.cumsum(gain_N)
    last = np.flatnonzero(np.append(falling_N[1:] != falling_N[:-1], True))
    best = last[int(np.argmax(total[last]))]
    if total[best] <= 0:
        return np.float32(NEVER)
    if best + 1 == len(falling_N):
        return np.float32(falling_N[best])
    return np.float32(threshold_between(falling_N[best + 1 : best + 2], falling_N[best : best + 1])[0])
