"""Agreement of an exported graph with the model: probabilities within a tolerance, equal decisions."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from canopy.ensemble.model import Ensemble
from canopy.errors import StageError

TOLERANCE = 1e-4
"""Largest difference of a probability between the model in torch and an exported graph."""


@dataclass(frozen=True)
class Parity:
    """Comparison of two predictions of the same images.

    Args:
        images: number of images compared.
        max_difference: largest absolute difference of a probability.
        decisions: number of decisions compared.
        undecided: number of decisions that a change of the probabilities by the tolerance could turn over.
        differing: number of decisions that differ and are not among the undecided.
    """

    images: int
    max_difference: float
    decisions: int
    undecided: int
    differing: int

    def to_json(self) -> dict[str, int | float]:
        """The JSON form, with the field names as keys."""
        return dict(vars(self))


Prediction = tuple[NDArray[np.float32], NDArray[np.uint8]]
"""Probabilities and decisions, each (N, K)."""


def compare(
    ensemble: Ensemble, expected: Prediction, got: Prediction, tolerance: float = TOLERANCE
) -> Parity:
    """Compare the model's prediction with a graph's.

    Args:
        ensemble: its thresholds and exclusive groups say which decisions are close.
        expected: the model's prediction.
        got: the graph's prediction.
        tolerance: difference of a probability that may turn a decision over.
    """
    undecided_NK = close_to_threshold(ensemble, expected[0], tolerance)
    differs_NK = expected[1] != got[1]
    gap = np.abs(expected[0].astype(np.float64) - got[0].astype(np.float64))
    return Parity(
        len(gap),
        float(gap.max(initial=0.0)) if not np.isnan(gap).any() else float("inf"),
        int(gap.size),
        int(undecided_NK.sum()),
        int((differs_NK & ~undecided_NK).sum()),
    )


def require_parity(name: str, parity: Parity, tolerance: float = TOLERANCE) -> None:
    """Refuse an export that predicts something else.

    Raises:
        StageError: when a probability or a decision differs.
    """
    if parity.max_difference <= tolerance and not parity.differing:
        return
    raise StageError(
        f"{name} predicts otherwise than the model on {parity.images} images: probabilities differ by up to "
        f"{parity.max_difference:.1e} (allowed: {tolerance:.0e}), {parity.differing} of {parity.decisions:,} "
        "decisions differ. Nothing was exported."
    )


def close_to_threshold(
    ensemble: Ensemble, probs_NK: NDArray[np.float32], tolerance: float
) -> NDArray[np.bool_]:
    """Whether a change of every probability by ``tolerance`` could turn each decision over, shape (N, K)."""
    close_NK: NDArray[np.bool_] = np.abs(probs_NK - ensemble.thresholds) <= tolerance
    for group in ensemble.exclusive:
        columns = [ensemble.labels.index(name) for name in group]
        close_NK[:, columns] = _close_choice(probs_NK[:, columns], ensemble.thresholds[columns], tolerance)[
            :, None
        ]
    return close_NK


def _close_choice(
    probs_NG: NDArray[np.float32], thresholds_G: Sequence[float] | NDArray[np.float32], tolerance: float
) -> NDArray[np.bool_]:
    """Whether the choice in an exclusive group of G labels could change, shape (N,)."""
    threshold = np.clip(np.asarray(thresholds_G, np.float64), 1e-6, 1 - 1e-6)
    limit_G = np.log(threshold / (1 - threshold))

    def over(p_NG: NDArray[np.float64]) -> NDArray[np.float64]:
        p = np.clip(p_NG, 1e-7, 1 - 1e-7)
        return np.asarray(np.log(p / (1 - p)) - limit_G)

    probs = probs_NG.astype(np.float64)
    chosen_N = over(probs).argmax(1)
    rows = np.arange(len(probs))
    rivals_NG = over(probs + tolerance)
    rivals_NG[rows, chosen_N] = -np.inf
    return np.asarray(rivals_NG.max(1) >= over(probs - tolerance)[rows, chosen_N])
