"""Which cut of each class's curve to take: exact optimisers of every objective.

Each takes K curves and returns K indices into them. Macro-F1 and costs fall apart by class.
Micro-F1 is a ratio of sums, solved exactly by Dinkelbach's iteration (Dinkelbach 1967). Best macro-F1
with micro-F1 at least f is one linear constraint over classes, solved by bisection on its multiplier.
A weighted mix of both is climbed class by class from both ends.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
from numpy.typing import NDArray

from canopy.ensemble.curves import Curve
from canopy.metrics import Floats

Indices = NDArray[np.intp]


def best_macro_f1(curves: Sequence[Curve]) -> Indices:
    """The cut with the highest F1 of each class; of equal ones the highest threshold."""
    return np.array([int(np.argmax(curve.f1)) for curve in curves])


def best_micro_f1(curves: Sequence[Curve]) -> Indices:
    """The joint cuts with the highest F1 of summed counts.

    At the optimum F the cuts maximise ``sum_k 2 tp - F (predicted + positives)``, which falls apart
    by class; F rises to its fixed point in a few rounds.
    """
    chosen, f1 = best_macro_f1(curves), -1.0
    while (now := micro_f1(curves, chosen)) > f1:
        f1 = now
        chosen = np.array([int(np.argmax(2 * c.tp - f1 * c.predicted)) for c in curves])
    return chosen


def best_cost(curves: Sequence[Curve], costs_K2: Floats) -> Indices:
    """The cuts of least cost; ``costs_K2`` holds the cost of a false positive and of a miss per class."""
    return np.array(
        [
            int(np.argmin(false_alarm * (c.predicted - c.tp) + miss * (c.positives - c.tp)))
            for c, (false_alarm, miss) in zip(curves, costs_K2, strict=True)
        ]
    )


def best_mix(curves: Sequence[Curve], micro_weight: float, micro_floor: float | None = None) -> Indices:
    """The cuts with the highest ``(1 - w) macro-F1 + w micro-F1``, and micro-F1 >= floor where given.

    When no cuts reach the floor, those with the highest micro-F1 are returned.
    """
    starts = (best_macro_f1(curves), best_micro_f1(curves))

    def value(chosen: Indices) -> float:
        return (1 - micro_weight) * macro_f1(curves, chosen) + micro_weight * micro_f1(curves, chosen)

    chosen = starts[0]
    if micro_weight > 0:
        chosen = max((_climb(curves, start, micro_weight) for start in starts), key=value)
    if micro_floor is None or micro_f1(curves, chosen) >= micro_floor:
        return chosen
    if micro_f1(curves, starts[1]) < micro_floor:
        return starts[1]
    return _with_floor(curves, starts[1], micro_floor)


def macro_f1(curves: Sequence[Curve], chosen: Indices) -> float:
    """Mean F1 at the chosen cuts over the classes that have positives."""
    f1 = [curve.f1[c] for curve, c in zip(curves, chosen, strict=True) if curve.positives > 0]
    return float(np.mean(f1)) if f1 else 0.0


def micro_f1(curves: Sequence[Curve], chosen: Indices) -> float:
    """F1 of the counts at the chosen cuts, summed over classes."""
    tp = sum(curve.tp[c] for curve, c in zip(curves, chosen, strict=True))
    whole = sum(curve.predicted[c] + curve.positives for curve, c in zip(curves, chosen, strict=True))
    return float(2 * tp / whole) if whole else 0.0


def one_for_all(curves: Sequence[Curve], value: Callable[[float], float], steps: int) -> float:
    """The single threshold with the highest ``value``, among evenly spaced quantiles of all classes' cuts."""
    cuts = np.unique(np.concatenate([curve.cuts for curve in curves]))
    cuts = cuts[np.unique(np.linspace(0, len(cuts) - 1, steps).astype(np.intp))]
    return float(cuts[int(np.argmax([value(float(cut)) for cut in cuts]))])


def _climb(curves: Sequence[Curve], start: Indices, micro_weight: float, rounds: int = 50) -> Indices:
    """Coordinate ascent on the mix: each class in turn takes its best cut given the others'."""
    chosen = start.copy()
    share = (1 - micro_weight) / max(sum(curve.positives > 0 for curve in curves), 1)
    tp = sum(c.tp[i] for c, i in zip(curves, chosen, strict=True))
    whole = sum(c.predicted[i] + c.positives for c, i in zip(curves, chosen, strict=True))
    for _ in range(rounds):
        moved = False
        for k, curve in enumerate(curves):
            others_tp = tp - curve.tp[chosen[k]]
            others = whole - curve.predicted[chosen[k]]
            micro = 2 * (others_tp + curve.tp) / np.maximum(others + curve.predicted, 1e-12)
            value = micro_weight * micro + (share * curve.f1 if curve.positives > 0 else 0.0)
            best = int(np.argmax(value))
            if value[best] > value[chosen[k]] + 1e-12:
                chosen[k], moved = best, True
            tp, whole = others_tp + curve.tp[chosen[k]], others + curve.predicted[chosen[k]]
        if not moved:
            break
    return chosen


def _with_floor(curves: Sequence[Curve], feasible: Indices, floor: float, rounds: int = 60) -> Indices:
    """Best macro-F1 among cuts with micro-F1 >= floor: ``sum 2 tp - floor (predicted + positives) >= 0``."""
    low, high, chosen = 0.0, 1.0, feasible

    def at(multiplier: float) -> Indices:
        rows = max(sum(curve.positives for curve in curves), 1.0)
        return np.array(
            [
                int(np.argmax((1 - multiplier) * c.f1 + multiplier * (2 * c.tp - floor * c.predicted) / rows))
                for c in curves
            ]
        )

    for _ in range(rounds):
        middle = (low + high) / 2
        candidate = at(middle)
        if micro_f1(curves, candidate) >= floor:
            high = middle
            if macro_f1(curves, candidate) >= macro_f1(curves, chosen):
                chosen = candidate
        else:
            low = middle
    return chosen
