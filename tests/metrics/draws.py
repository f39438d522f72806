"""Random targets and probabilities for the tests of metrics."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

Arrays = tuple[NDArray[np.uint8], NDArray[np.float32]]


def draw(seed: int, rows: int = 200, classes: int = 7, ties: bool = False) -> Arrays:
    rng = np.random.default_rng(seed)
    targets_NK = (rng.random((rows, classes)) < rng.uniform(0.05, 0.9, classes)).astype(np.uint8)
    probs_NK = np.clip(0.35 * targets_NK + 0.65 * rng.random((rows, classes)), 0, 1).astype(np.float32)
    return targets_NK, np.round(probs_NK, 1) if ties else probs_NK
