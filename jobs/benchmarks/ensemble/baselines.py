"""Canopy's ensemble and other methods: each is tuned on some members' rows and decides on other rows."""

from __future__ import annotations

import importlib
import importlib.util
import sys
import warnings
from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import TunedThresholdClassifierCV

from canopy import metrics
from canopy.config import EnsembleConfig
from canopy.ensemble.fit import fit_ensemble
from canopy.predictions.predictions import Predictions

Members = dict[str, Predictions]
Decisions = NDArray[np.uint8]
Method = Callable[[Members, Members], Decisions]
GRID = np.arange(0.1, 0.9001, 0.05)
"""The usual grid of thresholds."""


def methods() -> dict[str, Method]:
    """Canopy with its defaults and the other methods, each with its usual tuning."""
    out: dict[str, Method] = {
        "canopy": canopy_default,
        "best single at 0.5": lambda fitting, test: single(fitting, test, tuned=False),
        "best single, grid": lambda fitting, test: single(fitting, test, tuned=True),
        "plain mean, grid": plain_mean,
        "scikit-learn stacking at 0.5": lambda fitting, test: sklearn_stacking(fitting, test, tuned=False),
        "scikit-learn stacking, tuned": lambda fitting, test: sklearn_stacking(fitting, test, tuned=True),
    }
    if importlib.util.find_spec("autogluon") and importlib.util.find_spec("autogluon.core"):
        out["AutoGluon selection"] = autogluon_selection
    else:
        print("AutoGluon is left out: autogluon.core is not installed", file=sys.stderr)
    return out


def canopy_default(fitting: Members, test: Members) -> Decisions:
    """Decide with Canopy's ensemble, with default settings."""
    ensemble = fit_ensemble(fitting, EnsembleConfig(bootstrap=100))
    return ensemble.predict({name: p.probs_NK for name, p in test.items()})[1]


def single(fitting: Members, test: Members, tuned: bool) -> Decisions:
    """Decide with the member whose macro-F1 + micro-F1 is highest on the fitting rows, at its thresholds."""
    best, best_thresholds, best_value = "", np.array(0.5), -1.0
    for name, member in fitting.items():
        thresholds = grid_thresholds(member.probs_NK, targets_of(fitting)) if tuned else np.array(0.5)
        counts = metrics.Counts.of(targets_of(fitting), metrics.decide(member.probs_NK, thresholds))
        value = float(metrics.macro_f1(counts) + metrics.micro_f1(counts))
        if value > best_value:
            best, best_thresholds, best_value = name, thresholds, value
    return metrics.decide(test[best].probs_NK, best_thresholds)


def plain_mean(fitting: Members, test: Members) -> Decisions:
    """Decide with the mean of all members at thresholds from the grid."""
    thresholds = grid_thresholds(mean_probs(fitting), targets_of(fitting))
    return metrics.decide(mean_probs(test), thresholds)


def grid_thresholds(probs_NK: NDArray[np.float32], targets_NK: NDArray[np.uint8]) -> NDArray[np.float64]:
    """The threshold of the grid with the highest F1 for each class, shape (K,)."""
    f1_TK = np.stack(
        [metrics.per_class_f1(metrics.Counts.of(targets_NK, metrics.decide(probs_NK, t))) for t in GRID]
    )
    return np.asarray(GRID[np.nan_to_num(f1_TK).argmax(axis=0)])


def sklearn_stacking(fitting: Members, test: Members, tuned: bool) -> Decisions:
    """Decide per label with a logistic regression on the members' probabilities, as in StackingClassifier."""
    targets_NK = targets_of(fitting)
    names = sorted(fitting)
    decided = []
    for k in range(targets_NK.shape[1]):
        x_NM = np.stack([fitting[name].probs_NK[:, k] for name in names], axis=1)
        new_NM = np.stack([test[name].probs_NK[:, k] for name in names], axis=1)
        positives = int(targets_NK[:, k].sum())
        model: Any = LogisticRegression(max_iter=1000)
        if tuned and positives >= 5:  # the cross-validation needs a positive in every fold
            model = TunedThresholdClassifierCV(model, scoring="f1", cv=5)
        if positives in {0, len(targets_NK)}:
            decided.append(np.full(len(new_NM), positives > 0, np.uint8))
            continue
        decided.append(model.fit(x_NM, targets_NK[:, k]).predict(new_NM).astype(np.uint8))
    return np.stack(decided, axis=1)


def autogluon_selection(fitting: Members, test: Members) -> Decisions:
    """Decide per label with AutoGluon's EnsembleSelection for F1 and its calibrated threshold."""
    calibrate = importlib.import_module("autogluon.core.calibrate").calibrate_decision_threshold
    f1 = importlib.import_module("autogluon.core.metrics").f1
    greedy = importlib.import_module("autogluon.core.models.greedy_ensemble.ensemble_selection")
    targets_NK = targets_of(fitting)
    names = sorted(fitting)
    decided = []
    for k in range(targets_NK.shape[1]):
        truth_N = targets_NK[:, k].astype(int)
        columns = [fitting[name].probs_NK[:, k].astype(np.float64) for name in names]
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            selection = greedy.EnsembleSelection(ensemble_size=25, problem_type="binary", metric=f1)
            selection.fit(columns, truth_N)
            mixed_N = np.asarray(selection.predict_proba(columns))
            threshold = calibrate(y=truth_N, y_pred_proba=mixed_N, metric=f1, verbose=False)
        new = [test[name].probs_NK[:, k].astype(np.float64) for name in names]
        decided.append((np.asarray(selection.predict_proba(new)) > threshold).astype(np.uint8))
    return np.stack(decided, axis=1)


def targets_of(members: Members) -> NDArray[np.uint8]:
    """The targets of the members, which all share them, shape (N, K)."""
    targets_NK = next(iter(members.values())).targets_NK
    assert targets_NK is not None
    return targets_NK


def mean_probs(members: Members) -> NDArray[np.float32]:
    """The mean probabilities over the members, shape (N, K)."""
    mean_NK: NDArray[np.float32] = np.mean([p.probs_NK for p in members.values()], axis=0, dtype=np.float32)
    return mean_NK
