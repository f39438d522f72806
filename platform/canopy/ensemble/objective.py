"""Objective value of decisions, and fitting of the thresholds that maximize it."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any, assert_never

import numpy as np
from numpy.typing import NDArray

from canopy import metrics
from canopy.config import EnsembleConfig
from canopy.ensemble.samples_f2_thresholds import best_samples_f2
from canopy.ensemble.threshold_curves import (
    NEVER,
    ThresholdCurve,
    exact_curve,
    fixed_curve,
    threshold_between,
)
from canopy.ensemble.thresholds import best_cost, best_macro_f1, best_micro_f1, best_mixed
from canopy.labels import LabelSet
from canopy.metrics import Counts, Floats

PRIOR_POSITIVES = 100.0
"""Number of positives at which labels and probabilities weigh equally in the choice of a threshold."""
MAX_GLOBAL_THRESHOLDS = 4096
"""Maximum number of values tried for one global threshold."""
MAX_GLOBAL_STEPS = 20_000_000
"""Maximum number of row x class x threshold steps in the search for one global threshold."""
MapClasses = Callable[..., Iterable[ThresholdCurve]]
"""A function with the interface of ``map``: a function, then its arguments, each an iterable over classes."""


def costs_of(config: EnsembleConfig, labels: LabelSet) -> Floats:
    """Cost of a false positive and of a false negative of each class, shape (K, 2).

    Raises:
        DataError: when a cost is given for an unknown label.
    """
    costs_K2 = np.ones((len(labels), 2))
    for name, pair in config.costs.items():
        costs_K2[labels.index(name, "ensemble.costs")] = pair
    return costs_K2


def per_row_terms(targets_NK: NDArray[Any], decisions_NK: NDArray[Any]) -> NDArray[np.float32]:
    """Terms of every objective per row, shape (N, 3 K + 2); :func:`objective_value` takes their sums.

    The columns: true positives, decisions and targets of each class, the row's F2, and 1.
    """
    truth_NK, decided_NK = np.asarray(targets_NK, bool), np.asarray(decisions_NK, bool)
    f2_N1 = metrics.per_image_fbeta(truth_NK, decided_NK, 2.0)[:, None]
    parts = (truth_NK & decided_NK, decided_NK, truth_NK, f2_N1, np.ones_like(f2_N1))
    return np.concatenate([np.asarray(part, np.float32) for part in parts], axis=1)


def objective_value(config: EnsembleConfig, sums: Floats, costs_K2: Floats) -> Floats:
    """The objective, higher is better; an F1 that is undefined (no positives at all) counts 0.

    Args:
        config: which objective.
        sums: sums of :func:`per_row_terms` over rows, shape (…, 3 K + 2).
        costs_K2: costs from :func:`costs_of`.
    """
    tp, decided, truth = np.split(sums[..., :-2], 3, axis=-1)
    counts = Counts(tp, decided - tp, truth - tp)
    match config.objective:
        case "macro_f1":
            return np.asarray(np.nan_to_num(metrics.macro_f1(counts)))
        case "micro_f1":
            return np.asarray(np.nan_to_num(metrics.micro_f1(counts)))
        case "mixed":
            micro, share = np.nan_to_num(metrics.micro_f1(counts)), config.micro_weight
            mix = (1 - share) * np.nan_to_num(metrics.macro_f1(counts)) + share * micro
            floor = config.micro_floor if config.micro_floor is not None else 0.0
            return np.asarray(mix - 10 * np.maximum(floor - micro, 0))  # a breach of the floor outweighs all
        case "f2":
            return np.asarray(sums[..., -2] / np.maximum(sums[..., -1], 1))
        case "cost":
            spent = (counts.fp * costs_K2[:, 0] + counts.fn * costs_K2[:, 1]).sum(axis=-1)
            return np.asarray(-spent / np.maximum(sums[..., -1], 1))
        case _:
            assert_never(config.objective)


def blend_weights(config: EnsembleConfig, targets_NK: NDArray[np.uint8]) -> Floats:
    """Weight of the probability in each class's labels (see ``exact_curve``), shape (K,).

    0 for a class without positives, whose threshold is not chosen.
    """
    positives_K = targets_NK.sum(axis=0, dtype=np.float64)
    match config.thresholds:
        case "half" | "global" | "exact":
            return np.zeros(len(positives_K))
        case "shrunk":
            return np.where(positives_K > 0, PRIOR_POSITIVES / (PRIOR_POSITIVES + positives_K), 0.0)
        case "plug_in":
            return np.where(positives_K > 0, 1.0, 0.0)
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

    A class without positives keeps 0.5.

    Args:
        probs_NK: the ensemble's probabilities.
        targets_NK: targets.
        config: rule (``thresholds``) and objective.
        costs_K2: costs from :func:`costs_of`.
        map_classes: ``map``, or a parallel function with its interface.
    """
    classes = targets_NK.shape[1]
    if config.thresholds == "half":
        return np.full(classes, 0.5, np.float32)
    if config.thresholds == "global":
        return np.full(classes, global_threshold(probs_NK, targets_NK, config, costs_K2), np.float32)
    blend_K = blend_weights(config, targets_NK)
    if config.objective == "f2":
        return best_samples_f2(probs_NK, targets_NK, blend_K)
    curves = list(map_classes(exact_curve, probs_NK.T, targets_NK.T, blend_K.tolist()))
    for k in np.flatnonzero(metrics.without_positives(targets_NK)):
        curves[k] = fixed_curve(probs_NK[:, k], 0.5)
    chosen = best_thresholds(curves, config, costs_K2)
    return np.array([curve.thresholds[c] for curve, c in zip(curves, chosen, strict=True)], np.float32)


def best_thresholds(
    curves: list[ThresholdCurve], config: EnsembleConfig, costs_K2: Floats
) -> NDArray[np.intp]:
    """The position in each class's curve that is jointly best for an objective made of counts, shape (K,)."""
    match config.objective:
        case "macro_f1":
            return best_macro_f1(curves)
        case "micro_f1":
            return best_micro_f1(curves)
        case "mixed":
            return best_mixed(curves, config.micro_weight, config.micro_floor)
        case "cost":
            return best_cost(curves, costs_K2)
        case "f2":
            raise AssertionError("per-image F2 is not a function of class counts")
        case _:
            assert_never(config.objective)


def global_threshold(
    probs_NK: NDArray[np.float32], targets_NK: NDArray[np.uint8], config: EnsembleConfig, costs_K2: Floats
) -> np.float32:
    """The single threshold of all classes with the highest objective; 0.5 without any positive.

    Only scores of positives are tried, since no other threshold has better counts: all of them, or evenly
    spaced ranks where there are more than :data:`MAX_GLOBAL_THRESHOLDS` (for F2, which needs whole rows, more
    than :data:`MAX_GLOBAL_STEPS` allows).

    Args:
        probs_NK: the ensemble's probabilities in [0, 1].
        targets_NK: targets, 0 and 1.
        config: which objective.
        costs_K2: costs from :func:`costs_of`.
    """
    tried = np.unique(probs_NK[targets_NK > 0])
    if not len(tried):
        return np.float32(0.5)
    by_row = config.objective == "f2"
    most = MAX_GLOBAL_THRESHOLDS
    if by_row:
        most = min(max(MAX_GLOBAL_STEPS // probs_NK.size, 64), most)
    ranks = np.unique(np.linspace(0, len(tried) - 1, most).astype(np.intp))
    tried = np.append(tried[ranks], np.float32(NEVER))
    if by_row:
        decided = (metrics.decide(probs_NK, threshold) for threshold in tried)
        sums = np.stack(
            [per_row_terms(targets_NK, one_NK).sum(axis=0, dtype=np.float64) for one_NK in decided]
        )
    else:
        sums = _sums_at(tried, probs_NK, targets_NK)
    reached = objective_value(config, sums, costs_K2)
    best = tried[np.flatnonzero(reached == reached.max())[-1]]  # ties: the highest
    lower = probs_NK[probs_NK < best]
    return np.float32(threshold_between(lower.max(keepdims=True), best[None])[0] if len(lower) else best)


def _sums_at(
    thresholds_C: NDArray[np.float32], probs_NK: NDArray[np.float32], targets_NK: NDArray[np.uint8]
) -> Floats:
    """Sums of :func:`per_row_terms`, without F2, with one threshold for all classes, shape (C, 3 K + 2)."""
    classes = range(probs_NK.shape[1])

    def at_or_above(scores: list[NDArray[np.float32]]) -> Floats:
        return np.stack([len(rising) - np.searchsorted(rising, thresholds_C) for rising in scores], axis=1)

    hits_CK = at_or_above([np.sort(probs_NK[targets_NK[:, k] > 0, k]) for k in classes])
    decided_CK = at_or_above([np.sort(probs_NK[:, k]) for k in classes])
    truth_CK = np.broadcast_to(targets_NK.sum(axis=0, dtype=np.float64), hits_CK.shape)
    f2_and_rows = np.tile([0.0, len(probs_NK)], (len(thresholds_C), 1))
    return np.concatenate([hits_CK, decided_CK, truth_CK, f2_and_rows], axis=1)
