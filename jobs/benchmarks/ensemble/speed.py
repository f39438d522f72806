"""Speed of the exact thresholds and of the whole default search, and the memory of the search."""

from __future__ import annotations

import resource
import time

import numpy as np
from jobs.benchmarks.ensemble.baselines import GRID
from numpy.typing import NDArray
from sklearn.metrics import f1_score

from canopy.config import EnsembleConfig
from canopy.ensemble.fit import fit_ensemble
from canopy.ensemble.threshold_curves import exact_curve
from canopy.ensemble.thresholds import best_macro_f1
from canopy.labels import LabelSet
from canopy.predictions.predictions import Predictions


def speed(rows: int, members: int) -> None:
    """Time the exact thresholds, the usual grid loop and the whole default search; report its memory."""
    for size in (8000, rows):
        probs_NK, targets_NK = synthetic(size, 17, 1)
        exact_s, loop_s = paired_thresholds(probs_NK[0], targets_NK)
        print(
            f"{size:>9,} rows x 17: exact thresholds {exact_s:.3f} s, f1_score on the grid {loop_s:.1f} s "
            f"({loop_s / exact_s:,.0f} times as long)"
        )
    probs_MNK, targets_NK = synthetic(rows, 17, members)
    ids = np.array([f"row{n:09d}" for n in range(rows)])
    labels = LabelSet(tuple(f"label{k}" for k in range(17)))
    given = {f"m{m}": Predictions(ids, p, labels, targets_NK=targets_NK) for m, p in enumerate(probs_MNK)}
    start = time.perf_counter()
    ensemble = fit_ensemble(given, EnsembleConfig())
    seconds = time.perf_counter() - start
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 / sum(p.nbytes for p in probs_MNK)
    print(
        f"{rows:>9,} rows x 17 x {members}: whole default search {seconds:.1f} s, peak memory of the process "
        f"{peak:.2f} times the input; {ensemble.summary}"
    )


def paired_thresholds(probs_NK: NDArray[np.float32], targets_NK: NDArray[np.uint8]) -> tuple[float, float]:
    """The seconds for the exact thresholds of all classes, and for a loop of f1_score over the grid.

    On more than 100,000 rows the loop runs for two classes, and its time is scaled to all classes.
    """
    classes = targets_NK.shape[1]
    exact = []
    for _ in range(3):
        start = time.perf_counter()
        best_macro_f1([exact_curve(probs_NK[:, k], targets_NK[:, k]) for k in range(classes)])
        exact.append(time.perf_counter() - start)
    timed = classes if len(probs_NK) <= 100_000 else 2
    start = time.perf_counter()
    for k in range(timed):
        for threshold in GRID:
            f1_score(targets_NK[:, k], probs_NK[:, k] > threshold, zero_division=0)
    return min(exact), (time.perf_counter() - start) * classes / timed


def synthetic(rows: int, classes: int, members: int) -> tuple[list[NDArray[np.float32]], NDArray[np.uint8]]:
    """Random probabilities of each member and targets, with a long tail of label frequencies."""
    rng = np.random.default_rng(0)
    bias_K = np.linspace(2.5, -7, classes, dtype=np.float32)
    signal_NK = 2 * rng.standard_normal((rows, classes), np.float32) + bias_K
    targets_NK = (rng.random((rows, classes), np.float32) < 1 / (1 + np.exp(-signal_NK))).astype(np.uint8)
    probs = []
    for m in range(members):
        noise_NK = rng.standard_normal((rows, classes), np.float32)
        observed_NK = signal_NK + np.float32(1 + 0.2 * m) * noise_NK
        probs.append((1 / (1 + np.exp(-observed_NK))).astype(np.float32))
    return probs, np.asarray(targets_NK, np.uint8)
