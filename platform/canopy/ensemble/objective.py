"""What the ensemble aims at: the value of decisions, and the thresholds that maximise it."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any, assert_never

import numpy as np
from numpy.typing import NDArray

from canopy import metrics
from canopy.config import EnsembleConfig
from canopy.ensemble import thresholds as cuts
from canopy.ensemble.curves import Curve, exact_curve
from canopy.ensemble.images import best_f2
from canopy.labels import LabelSet
from canopy.metrics import Counts, Floats

PRIOR_POSITIVES = 100.0
"""A class with this many positives trusts its labels and its probabilities equally when a cut is chosen."""
MapClasses = Callable[..., Iterable[Curve]]
"""Works as ``map`` does: one function, then its arguments, each an iterable over classes."""


def costs_of(config: EnsembleConfig, labels: LabelSet) -> Floats:
    """Cost of a false alarm and of a miss per class, shape (K, 2).

    Raises:
        DataError: when a cost is given for an unknown label.
    """
    costs_K2 = np.ones((len(labels), 2))
    for name, pair in config.costs.items():
        costs_K2[labels.index(name)] = pair
    return costs_K2


def row_sums(targets_NK: NDArray[Any], decisions_NK: NDArray[Any]) -> NDArray[np.float32]:
    """Per row what every objective is made of, shape (N, 3 K + 2): sums of rows give :func:`value`.

    True positives, decisions and truths by class, the row's F2, and a one.
    """
    truth_NK, decided_NK = np.asarray(targets_NK, bool), np.asarray(decisions_NK, bool)
    f2_N1 = metrics.per_image_fbeta(truth_NK, decided_NK, 2.0)[:, None]
    parts = (truth_NK & decided_NK, decided_NK, truth_NK, f2_N1, np.ones_like(f2_N1))
    return np.concatenate([np.asarray(part, np.float32) for part in parts], axis=1)


def value(config: EnsembleConfig, sums: Floats, costs_K2: Floats) -> Floats:
    """The objective, higher is better, from sums of :func:`row_sums` of shape (…, 3 K + 2)."""
    tp, decided, truth = np.split(sums[..., :-2], 3, axis=-1)
    counts = Counts(tp, decided - tp, truth - tp)
    match config.objective:
        case "macro_f1":
            return np.asarray(metrics.macro_f1(counts))
        case "micro_f1":
            return np.asarray(metrics.micro_f1(counts))
        case "mixed":
            micro, share = np.nan_to_num(metrics.micro_f1(counts)), config.micro_weight
            mix = (1 - share) * np.nan_to_num(metrics.macro_f1(counts)) + share * micro
            floor = config.micro_floor if config.micro_floor is not None else 0.0
            return np.asarray(mix - 10 * np.maximum(floor - micro, 0))  # under the floor nothing else counts
        case "f2":
            return np.asarray(sums[..., -2] / np.maximum(sums[..., -1], 1))
        case "cost":
            spent = (counts.fp * costs_K2[:, 0] + counts.fn * costs_K2[:, 1]).sum(axis=-1)
            return np.asarray(-spent / np.maximum(sums[..., -1], 1))
        case _:
            assert_never(config.objective)


def blend_of(config: EnsembleConfig, targets_NK: NDArray[np.uint8]) -> Floats:
    """Share of each class's evidence that comes from the probabilities instead of the labels, shape (K,)."""
    positives_K = targets_NK.sum(axis=0, dtype=np.float64)
    match config.thresholds:
        case "half" | "global" | "exact":
            return np.zeros(len(positives_K))
        case "shrunk":
            return np.asarray(PRIOR_POSITIVES / (PRIOR_POSITIVES + positives_K))
        case "plug_in":
            return np.ones(len(positives_K))
        case _:
            assert_never(config.thresholds)


def fit_thresholds(
    probs_NK: NDArray[np.float32],
    targets_NK: NDArray[np.uint8],
    config: EnsembleConfig,
    costs_K2: Floats,
    map_classes: MapClasses = map,
) -> NDArray[np.float32]:
    """The thresholds of the configured rule and objective, shape (K,), float32-exact.

    A class without positives teaches nothing and keeps 0.5.

    Args:
        probs_NK: the ensemble's probabilities.
        targets_NK: truth.
        config: rule (``thresholds``) and objective.
        costs_K2: from :func:`costs_of`.
        map_classes: a parallel ``map`` over classes, where there is one.
    """
    classes = targets_NK.shape[1]
    if config.thresholds == "half":
        return np.full(classes, 0.5, np.float32)
    blend_K = blend_of(config, targets_NK)
    if config.objective == "f2" and config.thresholds != "global":
        return best_f2(probs_NK, targets_NK, blend_K)
    curves = list(map_classes(exact_curve, probs_NK.T, targets_NK.T, blend_K.tolist()))
    if config.thresholds == "global":
        return np.full(classes, _global(probs_NK, targets_NK, curves, config, costs_K2), np.float32)
    chosen = best_cuts(curves, config, costs_K2)
    limits = np.array([curve.cuts[cut] for curve, cut in zip(curves, chosen, strict=True)], np.float32)
    return np.where(targets_NK.any(axis=0), limits, np.float32(0.5))


def best_cuts(curves: list[Curve], config: EnsembleConfig, costs_K2: Floats) -> NDArray[np.intp]:
    """The jointly best cut of each class for an objective that is made of counts."""
    match config.objective:
        case "macro_f1":
            return cuts.best_macro_f1(curves)
        case "micro_f1":
            return cuts.best_micro_f1(curves)
        case "mixed":
            return cuts.best_mix(curves, config.micro_weight, config.micro_floor)
        case "cost":
            return cuts.best_cost(curves, costs_K2)
        case "f2":
            raise AssertionError("per-image F2 is no function of class counts")
        case _:
            assert_never(config.objective)


def _global(
    probs_NK: NDArray[np.float32],
    targets_NK: NDArray[np.uint8],
    curves: list[Curve],
    config: EnsembleConfig,
    costs_K2: Floats,
) -> float:
    def reached(limit: float) -> float:
        if config.objective == "f2":
            sums = row_sums(targets_NK, metrics.decide(probs_NK, limit)).sum(axis=0, dtype=np.float64)
        else:
            at = [curve.at(limit) for curve in curves]
            tp = np.array([curve.tp[cut] for curve, cut in zip(curves, at, strict=True)])
            decided = np.array([curve.predicted[cut] for curve, cut in zip(curves, at, strict=True)])
            truth = np.array([curve.positives for curve in curves])
            sums = np.concatenate([tp, decided, truth, [0.0, len(probs_NK)]])
        return float(value(config, sums, costs_K2))

    return cuts.one_for_all(curves, reached, steps=60 if config.objective == "f2" else 400)
