"""Geometry of score strips, timeline and training curves; the templates draw them as SVG.

Places and sizes are percentages of the figure's box, so that a page can stretch a figure to any width without
stretching its text. Missing values (None, NaN, infinity) are left out.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from canopy.report.axes import Axis, epoch_axis, finite_values, linear_axis, time_axis
from canopy.runtime.durations import duration_with_units

COLORS = 8
"""Number of colors for members; further members reuse them, dashed."""


@dataclass(frozen=True)
class Mark:
    """A score with its interval on an axis, in percent.

    Args:
        role: ``ensemble``, ``best`` (member), ``member`` or ``ceiling``.
        name: name of the model.
        at: position of the score.
        low: position of the interval's lower end; None without interval.
        high: position of its upper end.
    """

    role: str
    name: str
    at: float
    low: float | None
    high: float | None


@dataclass(frozen=True)
class Bar:
    """One bar of a figure.

    Args:
        name: what the bar is for.
        start: where it starts, in percent.
        size: its length, in percent.
        color: number of its color.
        text: its value as text.
    """

    name: str
    start: float
    size: float
    color: int
    text: str


@dataclass(frozen=True)
class Timeline:
    """Training times of the variants.

    Args:
        axis: seconds since the first start.
        bars: one per variant with known times.
        concurrency: how many variants trained at the same time, in words; empty for one variant.
    """

    axis: Axis
    bars: tuple[Bar, ...]
    concurrency: str


@dataclass(frozen=True)
class Line:
    """One variant's curve over epochs.

    Args:
        name: variant.
        color: number of its color.
        points: SVG points in percent from the top left.
        best: position of the epoch whose weights were kept; None where unknown.
        text: value at that epoch, in words.
    """

    name: str
    color: int
    points: str
    best: tuple[float, float] | None
    text: str


@dataclass(frozen=True)
class Panel:
    """One figure: the curves of all variants for one metric."""

    title: str
    x: Axis
    y: Axis
    lines: tuple[Line, ...]


def mark(axis: Axis, role: str, name: str, scores: Mapping[str, Any], metric: str) -> Mark | None:
    """The figure ``metric`` of ``scores`` on ``axis``; None where unknown."""
    if not finite_values([scores.get(metric)]):
        return None
    interval = (scores.get("intervals") or {}).get(metric)
    bounds = finite_values(interval or ())
    low, high = (axis.at(bounds[0]), axis.at(bounds[1])) if len(bounds) == 2 else (None, None)
    return Mark(role, name, axis.at(scores[metric]), low, high)


def stacked_bars(values: Mapping[str, Any]) -> tuple[Bar, ...]:
    """``values`` as shares of their sum, one after the other; the bars of a stacked strip."""
    amounts = {name: value for name, value in values.items() if finite_values([value]) and value > 0}
    total, start, bars = sum(amounts.values()), 0.0, []
    for color, (name, value) in enumerate(values.items()):
        if name in amounts:
            size = 100 * value / total
            bars.append(Bar(name, round(start, 3), round(size, 3), color, f"{size:.0f}%"))
            start += size
    return tuple(bars)


def timeline(variants: Mapping[str, Mapping[str, Any]]) -> Timeline | None:
    """Training times of the variants; None where no times are known."""
    spans = {
        n: (v["start"], v["end"])
        for n, v in variants.items()
        if len(finite_values([v.get("start"), v.get("end")])) == 2
    }
    if not spans:
        return None
    origin = min(start for start, _ in spans.values())
    axis = time_axis(max(end for _, end in spans.values()) - origin)
    bars = []
    for color, name in enumerate(variants):
        if name in spans:
            start, end = axis.at(spans[name][0] - origin), axis.at(spans[name][1] - origin)
            bars.append(
                Bar(
                    name,
                    start,
                    max(end - start, 0.3),
                    color,
                    duration_with_units(spans[name][1] - spans[name][0]),
                )
            )
    return Timeline(axis, tuple(bars), _concurrency(list(spans.values())))


def _concurrency(spans: Sequence[tuple[float, float]]) -> str:
    """Maximum number of spans at the same time, and the time with two or more, in words."""
    edges = sorted([(start, 1) for start, _ in spans] + [(end, -1) for _, end in spans])
    most = running = 0
    shared, before = 0.0, edges[0][0]
    for when, change in edges:
        shared += (when - before) if running > 1 else 0.0
        running, before = running + change, when
        most = max(most, running)
    if most < 2:
        return "one after the other" if len(spans) > 1 else ""
    return f"up to {most} at the same time, {duration_with_units(shared)} with two or more"


def curves(
    histories: Mapping[str, Sequence[Mapping[str, Any]]], key: str, title: str, best_epochs: Mapping[str, Any]
) -> Panel | None:
    """The curves of one metric; None where no variant reports it.

    Args:
        histories: variant -> one record per epoch.
        key: the metric's key in the records.
        title: title of the figure.
        best_epochs: variant -> epoch whose weights were kept (the best by validation), where known.
    """
    rows = {
        n: [r for r in h if len(finite_values([r.get("epoch"), r.get(key)])) == 2]
        for n, h in histories.items()
    }
    values = [row[key] for history in rows.values() for row in history]
    if not values:
        return None
    epochs = [int(row["epoch"]) for history in rows.values() for row in history]
    x = epoch_axis(min(epochs), max(epochs))
    y = linear_axis(values, low=0 if 0 <= min(values) < 0.4 * max(values) else None)
    lines = []
    for color, (name, history) in enumerate(rows.items()):
        places = {row["epoch"]: (x.at(row["epoch"]), round(100 - y.at(row[key]), 3)) for row in history}
        if places:
            ring = best_epochs.get(name) if best_epochs.get(name) in places else None
            value = next((row[key] for row in history if row["epoch"] == ring), history[-1][key])
            text = f"{value:.3f} at epoch {ring if ring is not None else history[-1]['epoch']:g}"
            points = " ".join(f"{across:g},{down:g}" for across, down in places.values())
            lines.append(Line(name, color, points, places.get(ring), text))
    return Panel(title, x, y, tuple(lines))
