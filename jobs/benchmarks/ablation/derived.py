"""Rows derived from the predictions of others: other thresholds, averaged symmetries, an ensemble."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import numpy as np
from jobs.benchmarks.ablation.data import AblationData
from jobs.benchmarks.ablation.rows import Row
from jobs.benchmarks.ablation.runs import Decisions, Probs, RowPredictions, evaluate_members, resampled
from numpy.typing import NDArray
from sklearn.metrics import f1_score

from canopy import metrics
from canopy.config import EnsembleConfig
from canopy.ensemble.objective import fit_thresholds

GRID = np.arange(0.1, 0.9, 0.05)
"""Thresholds that the plan searches."""


def derive_predictions(row: Row, members: Mapping[str, Path], data: AblationData) -> RowPredictions:
    """The predictions of a row without training, derived from stored predictions.

    A row of thresholds applies them in place of 0.5.

    Args:
        row: a row that names members.
        members: file of predictions by name of the member row.
        data: data of the ablation.
    """
    if row.name == "ensemble":
        predicted = {name: RowPredictions.read(path) for name, path in members.items()}
        return evaluate_members({n: {"val": p.val_NK, "test": p.test_NK} for n, p in predicted.items()}, data)
    (path,) = members.values()
    if row.name == "tta":
        return RowPredictions.read(path.with_name(f"{path.stem}-tta.npz"))
    kept = RowPredictions.read(path)
    decided_NK = kept.tuned_NK if row.name == "shrunk" else decide(row.name, kept, data.targets("val"))
    targets_NK = data.targets("test")
    return replace(
        kept,
        plain_NK=decided_NK,
        tuned_NK=decided_NK,
        resampled_FB=resampled(targets_NK, kept.test_NK, decided_NK, decided_NK),
    )


def decide(rule: str, kept: RowPredictions, targets_NK: NDArray[np.uint8]) -> Decisions:
    """Decisions on the test rows, at grid or exact thresholds tuned on the validation rows."""
    if rule == "grid":
        return (kept.test_NK > grid_thresholds(kept.val_NK, targets_NK)).astype(np.uint8)
    config = EnsembleConfig(objective="macro_f1", thresholds="exact")
    costs_K2 = np.ones((targets_NK.shape[1], 2))
    return metrics.decide(kept.test_NK, fit_thresholds(kept.val_NK, targets_NK, config, costs_K2))


def grid_thresholds(probs_NK: Probs, targets_NK: NDArray[np.uint8]) -> metrics.Floats:
    """The plan's thresholds: the first in :data:`GRID` with the highest F1, 0.5 if all are 0."""
    best_K = np.full(targets_NK.shape[1], 0.5)
    for k in range(targets_NK.shape[1]):
        f1_G = [
            f1_score(targets_NK[:, k], probs_NK[:, k] > threshold, zero_division=0.0) for threshold in GRID
        ]
        if max(f1_G) > 0:
            best_K[k] = GRID[int(np.argmax(f1_G))]
    return best_K
