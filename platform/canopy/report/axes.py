"""Axis scales: values to percent of the axis, with round ticks."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from canopy.runtime.durations import duration_with_units


@dataclass(frozen=True)
class Tick:
    """A labelled position on an axis.

    Args:
        at: position in percent from the low end.
        text: label.
    """

    at: float
    text: str


@dataclass(frozen=True)
class Axis:
    """A map of values in [low, high] to [0, 100] percent, linear or logarithmic.

    Args:
        low: value at 0%.
        high: value at 100%.
        ticks: labelled positions.
        log: whether the axis is logarithmic.
    """

    low: float
    high: float
    ticks: tuple[Tick, ...] = ()
    log: bool = False

    def at(self, value: float) -> float:
        """Position of ``value`` in percent from the low end, clipped to [0, 100]."""
        low, high = self.low, self.high
        if self.log:
            low, high, value = math.log10(low), math.log10(high), math.log10(max(value, self.low))
        return round(100 * min(max((value - low) / (high - low), 0.0), 1.0), 3)


def finite_values(values: Iterable[Any]) -> list[float]:
    """The numbers among ``values``: no None, NaN or infinity."""
    return [float(v) for v in values if isinstance(v, int | float) and math.isfinite(v)]


def linear_axis(values: Iterable[Any], low: float | None = None, high: float | None = None) -> Axis:
    """An axis over ``values`` with about five round ticks.

    Args:
        values: the values to cover.
        low: exact lower end; a round number where omitted.
        high: exact upper end; a round number where omitted.
    """
    numbers = finite_values(values) or [0.0, 1.0]
    bottom = min(numbers) if low is None else low
    top = max(numbers) if high is None else high
    if top <= bottom:
        top = bottom + (abs(bottom) * 0.1 or 1.0)
    magnitude = 10 ** math.floor(math.log10((top - bottom) / 4))
    step = next(m * magnitude for m in (1, 2, 2.5, 5, 10) if m * magnitude >= (top - bottom) / 4.5)
    bottom = math.floor(bottom / step + 1e-9) * step if low is None else bottom
    top = math.ceil(top / step - 1e-9) * step if high is None else top
    axis = Axis(bottom, top)
    first, last = math.ceil(bottom / step - 1e-9), math.floor(top / step + 1e-9)
    ticks = tuple(Tick(axis.at(i * step), f"{i * step:.6g}") for i in range(first, last + 1))
    return Axis(bottom, top, ticks)


def log_axis(values: Iterable[Any]) -> Axis:
    """A logarithmic axis from 1 to the power of ten at or above the largest of ``values``."""
    decades = max(1, math.ceil(math.log10(max([*finite_values(values), 1.0])) - 1e-9))
    axis = Axis(1, 10**decades, log=True)
    return Axis(
        1, 10**decades, tuple(Tick(axis.at(10**d), f"{10**d:,}") for d in range(decades + 1)), log=True
    )


def time_axis(seconds: float) -> Axis:
    """An axis from 0 to ``seconds`` with three to seven ticks at round times."""
    steps = [
        1,
        2,
        5,
        10,
        15,
        30,
        60,
        120,
        300,
        600,
        900,
        1800,
        *(3600 * n for n in (1, 2, 4, 8, 24, 48, 168)),
    ]
    step = next((s for s in steps if s * 6 >= seconds), steps[-1])
    axis = Axis(0, max(seconds, 1.0))
    return Axis(
        0,
        axis.high,
        tuple(Tick(axis.at(t), duration_with_units(t)) for t in range(0, int(axis.high) + 1, step)),
    )


def score_axis(scores: Iterable[Any]) -> Axis:
    """An axis over the range of ``scores`` (in [0, 1]) with a margin of 8%."""
    numbers = finite_values(scores) or [0.0, 1.0]
    margin = max(0.08 * (max(numbers) - min(numbers)), 0.005)
    return Axis(max(0.0, min(numbers) - margin), min(1.0, max(numbers) + margin))


def epoch_axis(first: int, last: int) -> Axis:
    """An axis of whole epochs with at most nine ticks."""
    axis = Axis(first, max(last, first + 1))
    step = math.ceil((last - first + 1) / 9)
    return Axis(axis.low, axis.high, tuple(Tick(axis.at(e), str(e)) for e in range(first, last + 1, step)))
