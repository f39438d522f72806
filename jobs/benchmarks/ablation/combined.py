"""Rows that train nothing: other thresholds, other views, several networks' mean."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import numpy as np
from jobs.benchmarks.ablation.rows import Row
from jobs.benchmarks.ablation.runs import Bench, Decisions, Predicted, Probs, assess, resampled
from numpy.typing import NDArray
from sklearn.metrics import f1_score

from canopy import metrics
from canopy.config import EnsembleConfig
from canopy.ensemble.objective import fit_thresholds

GRID = np.arange(0.1, 0.9, 0.05)
"""The plan's."""


def make(row: Row, members: Mapping[str, Path], bench: Bench) -> Predicted:
    """What a row says that is made of the kept predictions of others.

    Rows of thresholds decide at them where others decide at 0.5.
    """
    if row.name == "ensemble":
        predicted = {name: Predicted.read(path) for name, path in members.items()}
        return assess({n: {"val": p.val_NK, "test": p.test_NK} for n, p in predicted.items()}, bench)
    (path,) = members.values()
    if row.name == "tta":
        return Predicted.read(path.with_name(f"{path.stem}-tta.npz"))
    kept = Predicted.read(path)
    decided_NK = kept.tuned_NK if row.name == "shrunk" else decide(row.name, kept, bench.targets("val"))
    targets_NK = bench.targets("test")
    return replace(
        kept,
        plain_NK=decided_NK,
        tuned_NK=decided_NK,
        resampled_FB=resampled(targets_NK, kept.test_NK, decided_NK, decided_NK),
    )


def decide(rule: str, kept: Predicted, targets_NK: NDArray[np.uint8]) -> Decisions:
    """Decisions on the test rows at thresholds tuned on the validation rows: on the grid, or exactly."""
    if rule == "grid":
        return (kept.test_NK > grid_thresholds(kept.val_NK, targets_NK)).astype(np.uint8)
    config = EnsembleConfig(objective="macro_f1", thresholds="exact")
    costs_K2 = np.ones((targets_NK.shape[1], 2))
    return metrics.decide(kept.test_NK, fit_thresholds(kept.val_NK, targets_NK, config, costs_K2))


def grid_thresholds(probs_NK: Probs, targets_NK: NDArray[np.uint8]) -> metrics.Floats:
    """The plan's rule: of 0.1, 0.15 … 0.85 the first with the class's highest F1; 0.5 where all give 0."""
    best_K = np.full(targets_NK.shape[1], 0.5)
    for k in range(targets_NK.shape[1]):
        f1_G = [f1_score(targets_NK[:, k], probs_NK[:, k] > limit, zero_division=0.0) for limit in GRID]
        if max(f1_G) > 0:
            best_K[k] = GRID[int(np.argmax(f1_G))]
    return best_K
