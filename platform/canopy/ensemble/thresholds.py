"""Threshold search: which point of each class's curve maximizes an objective made of counts.

Each function takes K curves and returns K indices into them. Macro-F1 and costs are sums over classes, so
each class is solved exactly on its own. Micro-F1 is a ratio of sums, solved exactly by Dinkelbach's iteration
(Dinkelbach 1967). A weighted mix of both is climbed class by class from two starts: the result cannot be
improved by moving one threshold. A lower bound on micro-F1 is one linear constraint over classes: bisection
on its multiplier, then the same climb among the thresholds that satisfy it.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from canopy.ensemble.threshold_curves import ThresholdCurve
from canopy.metrics import Floats

Indices = NDArray[np.intp]
"""A position in each class's curve, shape (K,)."""
Curves = Sequence[ThresholdCurve]


def best_macro_f1(curves: Curves) -> Indices:
    """The threshold of each class with the highest F1; ties: the highest threshold."""
    return np.array([int(np.argmax(curve.f1)) for curve in curves])


def best_micro_f1(curves: Curves) -> Indices:
    """The joint thresholds with the highest F1 of summed counts.

    At the optimum F the thresholds maximize ``sum_k 2 tp - F (predicted + positives)``, a sum over classes;
    F rises to its fixed point in a few rounds.
    """
    chosen, f1 = best_macro_f1(curves), -1.0
    while (current := micro_f1(curves, chosen)) > f1:
        f1 = current
        chosen = np.array([int(np.argmax(2 * c.tp - f1 * c.predicted)) for c in curves])
    return chosen


def best_cost(curves: Curves, costs_K2: Floats) -> Indices:
    """The thresholds of least cost.

    Args:
        curves: one per class.
        costs_K2: cost of a false positive and of a false negative of each class.
    """
    return np.array(
        [
            int(np.argmin(false_alarm * (c.predicted - c.tp) + miss * (c.positives - c.tp)))
            for c, (false_alarm, miss) in zip(curves, costs_K2, strict=True)
        ]
    )


def best_mixed(curves: Curves, micro_weight: float, micro_floor: float | None = None) -> Indices:
    """The thresholds with the highest ``(1 - w) macro-F1 + w micro-F1``.

    Args:
        curves: one per class.
        micro_weight: w, in [0, 1].
        micro_floor: least micro-F1 allowed; where no thresholds reach it, those with the highest micro-F1 are
            returned.
    """
    highest_micro = best_micro_f1(curves)
    floor = -np.inf if micro_floor is None else micro_floor

    def best_climb(starts: Sequence[Indices]) -> Indices:
        climbed = [_climb(curves, start, micro_weight, floor) for start in starts]
        return max(
            climbed,
            key=lambda at: (
                (1 - micro_weight) * macro_f1_all_classes(curves, at) + micro_weight * micro_f1(curves, at)
            ),
        )

    if micro_f1(curves, highest_micro) < floor:
        return highest_micro
    highest_macro = best_macro_f1(curves)
    if micro_f1(curves, highest_macro) >= floor:
        return best_climb((highest_macro, highest_micro))
    return best_climb((_at_floor(curves, highest_micro, floor), highest_micro))


def macro_f1_all_classes(curves: Curves, chosen: Indices) -> float:
    """Mean F1 at the chosen thresholds; a class without positives counts 0.

    Such a class stays in the mean because it counts on rows where it occurs: its absence from the fitting
    rows must not raise the other classes' share in a mix with micro-F1.
    """
    return float(np.mean([curve.f1[c] for curve, c in zip(curves, chosen, strict=True)]))


def micro_f1(curves: Curves, chosen: Indices) -> float:
    """F1 of the counts at the chosen thresholds, summed over classes."""
    tp = sum(curve.tp[c] for curve, c in zip(curves, chosen, strict=True))
    whole = sum(curve.predicted[c] + curve.positives for curve, c in zip(curves, chosen, strict=True))
    return float(2 * tp / whole) if whole else 0.0


def _climb(curves: Curves, start: Indices, micro_weight: float, floor: float, rounds: int = 50) -> Indices:
    """Coordinate ascent on the mix: each class in turn takes its best threshold given the others'.

    ``start`` must satisfy ``floor``; so does every step.
    """
    chosen = start.copy()
    share = (1 - micro_weight) / len(curves)
    tp = sum(c.tp[i] for c, i in zip(curves, chosen, strict=True))
    whole = sum(c.predicted[i] + c.positives for c, i in zip(curves, chosen, strict=True))
    for _ in range(rounds):
        moved = False
        for k, curve in enumerate(curves):
            others_tp = tp - curve.tp[chosen[k]]
            others = whole - curve.predicted[chosen[k]]
            micro = 2 * (others_tp + curve.tp) / np.maximum(others + curve.predicted, 1e-12)
            value = np.where(micro >= floor, micro_weight * micro + share * curve.f1, -np.inf)
            best = int(np.argmax(value))
            if value[best] > value[chosen[k]] + 1e-12:
                chosen[k], moved = best, True
            tp, whole = others_tp + curve.tp[chosen[k]], others + curve.predicted[chosen[k]]
        if not moved:
            break
    return chosen


def _at_floor(curves: Curves, feasible: Indices, floor: float, rounds: int = 30) -> Indices:
    """High macro-F1 among thresholds with micro-F1 >= floor.

    The constraint is ``sum 2 tp - floor (predicted + positives) >= 0``. Bisection on Lagrange's multiplier
    finds the points on the convex hull.
    """
    low, high, chosen = 0.0, 1.0, feasible
    rows = max(sum(curve.positives for curve in curves), 1.0)
    for _ in range(rounds):
        middle = (low + high) / 2
        gains = [(1 - middle) * c.f1 + middle * (2 * c.tp - floor * c.predicted) / rows for c in curves]
        candidate = np.array([int(np.argmax(gain)) for gain in gains])
        if micro_f1(curves, candidate) >= floor:
            high = middle
            if macro_f1_all_classes(curves, candidate) >= macro_f1_all_classes(curves, chosen):
                chosen = candidate
        else:
            low = middle
    return chosen
