"""Geometry of the report's plot of a focal sweep: trials over gamma and alpha, shaded by score.

Places are percentages of the figure's box, as in :mod:`canopy.report.plots`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from canopy.report.axes import Axis, finite_values, linear_axis


@dataclass(frozen=True)
class Dot:
    """One trial of the sweep: position and shade in percent (100 for the best score)."""

    x: float
    y: float
    shade: float
    stopped: bool
    best: bool
    text: str


@dataclass(frozen=True)
class FocalPlot:
    """The trials of the sweep over gamma (across) and alpha (up)."""

    x: Axis
    y: Axis
    dots: tuple[Dot, ...]


def focal_plot(trials: Sequence[Mapping[str, Any]]) -> FocalPlot | None:
    """The trials over gamma and alpha, shaded by score; None without any complete trial."""
    complete = [
        t for t in trials if len(finite_values([t.get("gamma"), t.get("alpha"), t.get("score")])) == 3
    ]
    if not complete:
        return None
    x = linear_axis([0, *(t["gamma"] for t in complete)])
    y = linear_axis([t["alpha"] for t in complete])
    scores = [t["score"] for t in complete]
    low, high = min(scores), max(scores)
    dots = []
    for trial in complete:
        shade = 100 * (trial["score"] - low) / (high - low) if high > low else 100
        text = f"gamma {trial['gamma']:.2f}, alpha {trial['alpha']:.2f}: {trial['score']:.3f}"
        stopped = bool(trial.get("stopped_early"))
        best = trial["score"] == high
        dots.append(Dot(x.at(trial["gamma"]), 100 - y.at(trial["alpha"]), round(shade), stopped, best, text))
    return FocalPlot(x, y, tuple(sorted(dots, key=lambda dot: dot.shade)))
