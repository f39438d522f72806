"""Which cut of each class's curve to take.

Each optimiser takes K curves and returns K indices into them. Macro-F1 and costs fall apart by class: exact.
Micro-F1 is a ratio of sums, solved exactly by Dinkelbach's iteration (Dinkelbach 1967). A weighted mix
of both is climbed class by class from both ends: no single cut can be moved for the better, and on problems
small enough to try all joint cuts the best was found each time. A floor under micro-F1 is one linear
constraint over classes: bisection on its multiplier, then the same climb among cuts that keep it.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from canopy.ensemble.threshold_curves import Curve
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
    lowest_macro = best_micro_f1(curves)
    floor = -np.inf if micro_floor is None else micro_floor

    def best_climb(starts: Sequence[Indices]) -> Indices:
        climbed = [_climb(curves, start, micro_weight, floor) for start in starts]
        return max(
            climbed,
            key=lambda at: (1 - micro_weight) * macro_f1(curves, at) + micro_weight * micro_f1(curves, at),
        )

    if micro_f1(curves, lowest_macro) < floor:
        return lowest_macro
    highest_macro = best_macro_f1(curves)
    if micro_f1(curves, highest_macro) >= floor:
        return best_climb((highest_macro, lowest_macro))
    return best_climb((_at_floor(curves, lowest_macro, floor), lowest_macro))


def macro_f1(curves: Sequence[Curve], chosen: Indices) -> float:
    """Mean F1 at the chosen cuts; a class without positives counts 0.

    It stands in the label set and will count where it occurs: the others' share in a mix with micro-F1 must
    not grow by its absence from the fitting rows.
    """
    return float(np.mean([curve.f1[c] for curve, c in zip(curves, chosen, strict=True)]))


def micro_f1(curves: Sequence[Curve], chosen: Indices) -> float:
    """F1 of the counts at the chosen cuts, summed over classes."""
    tp = sum(curve.tp[c] for curve, c in zip(curves, chosen, strict=True))
    whole = sum(curve.predicted[c] + curve.positives for curve, c in zip(curves, chosen, strict=True))
    return float(2 * tp / whole) if whole else 0.0


def _climb(
    curves: Sequence[Curve], start: Indices, micro_weight: float, floor: float, rounds: int = 50
) -> Indices:
    """Coordinate ascent on the mix: each class in turn takes its best cut given the others'.

    ``start`` must keep ``floor``; every step does.
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


def _at_floor(curves: Sequence[Curve], feasible: Indices, floor: float, rounds: int = 30) -> Indices:
    """High macro-F1 among cuts with micro-F1 >= floor: ``sum 2 tp - floor (predicted + positives) >= 0``.

    Lagrange's multiplier by bisection; it finds the cuts on the hull of what is possible.
    """
    low, high, chosen = 0.0, 1.0, feasible
    rows = max(sum(curve.positives for curve in curves), 1.0)
    for _ in range(rounds):
        middle = (low + high) / 2
        gains = [(1 - middle) * c.f1 + middle * (2 * c.tp - floor * c.predicted) / rows for c in curves]
        candidate = np.array([int(np.argmax(gain)) for gain in gains])
        if micro_f1(curves, candidate) >= floor:
            high = middle
            if macro_f1(curves, candidate) >= macro_f1(curves, chosen):
                chosen = candidate
        else:
            low = middle
    return chosen
