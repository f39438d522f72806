"""Figures of the report as geometry, and contact sheets as PNG.

A figure is placed in percent of its box and drawn by the template as SVG, so that a page can stretch it to
any width without stretching its text. Nothing here knows HTML; nothing here raises on missing values: a
value that is None, NaN or infinite is left out.
"""

from __future__ import annotations

import io
import math
import textwrap
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

COLORS = 8
"""The page has this many colours for members; the next ones start over, dashed."""


@dataclass(frozen=True)
class Tick:
    """A labelled place on an axis: percent from its low end, and the text there."""

    at: float
    text: str


@dataclass(frozen=True)
class Axis:
    """Maps values in [low, high] to [0, 100] percent, linearly or by logarithm."""

    low: float
    high: float
    ticks: tuple[Tick, ...] = ()
    log: bool = False

    def at(self, value: float) -> float:
        """Percent from the low end, held within [0, 100]."""
        low, high = self.low, self.high
        if self.log:
            low, high, value = math.log10(low), math.log10(high), math.log10(max(value, self.low))
        return round(100 * min(max((value - low) / (high - low), 0.0), 1.0), 3)


@dataclass(frozen=True)
class Mark:
    """A score with its interval on an axis, in percent; ``role`` is ensemble, best, member or ceiling."""

    role: str
    name: str
    at: float
    low: float | None
    high: float | None


@dataclass(frozen=True)
class Bar:
    """One bar of a figure: where it starts and how long it is (percent), its name, colour and text."""

    name: str
    start: float
    size: float
    color: int
    text: str


@dataclass(frozen=True)
class Timeline:
    """When each variant trained; ``together`` says in words how much of it was at the same time."""

    axis: Axis
    bars: tuple[Bar, ...]
    together: str


@dataclass(frozen=True)
class Line:
    """One variant's curve: SVG points in percent from the top left, and the epoch whose weights were kept."""

    name: str
    color: int
    points: str
    kept: tuple[float, float] | None
    text: str


@dataclass(frozen=True)
class Panel:
    """One figure of curves over epochs."""

    title: str
    x: Axis
    y: Axis
    lines: tuple[Line, ...]


@dataclass(frozen=True)
class Dot:
    """One trial of the sweep: place and shade in percent (100: the best score of all)."""

    x: float
    y: float
    shade: float
    stopped: bool
    best: bool
    text: str


@dataclass(frozen=True)
class Sweep:
    """The trials over gamma (across) and alpha (up)."""

    x: Axis
    y: Axis
    dots: tuple[Dot, ...]


def finite(values: Iterable[Any]) -> list[float]:
    """The numbers among ``values``: no None, NaN or infinity."""
    return [float(v) for v in values if isinstance(v, int | float) and math.isfinite(v)]


def linear_axis(values: Iterable[Any], low: float | None = None, high: float | None = None) -> Axis:
    """An axis over ``values`` with about five round ticks; a given end is kept as it is."""
    numbers = finite(values) or [0.0, 1.0]
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
    decades = max(1, math.ceil(math.log10(max([*finite(values), 1.0])) - 1e-9))
    axis = Axis(1, 10**decades, log=True)
    return Axis(
        1, 10**decades, tuple(Tick(axis.at(10**d), f"{10**d:,}") for d in range(decades + 1)), log=True
    )


def time_axis(seconds: float) -> Axis:
    """An axis from 0 to ``seconds``, ticked at three to seven round times."""
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
        0, axis.high, tuple(Tick(axis.at(t), duration(t)) for t in range(0, int(axis.high) + 1, step))
    )


def score_axis(scores: Iterable[Any]) -> Axis:
    """An axis that shows ``scores`` (in [0, 1]) as closely as their spread allows, with some air."""
    numbers = finite(scores) or [0.0, 1.0]
    air = max(0.08 * (max(numbers) - min(numbers)), 0.005)
    return Axis(max(0.0, min(numbers) - air), min(1.0, max(numbers) + air))


def mark(axis: Axis, role: str, name: str, scores: Mapping[str, Any], metric: str) -> Mark | None:
    """The score ``metric`` of ``scores`` placed on ``axis``; None where it is not known."""
    if not finite([scores.get(metric)]):
        return None
    interval = (scores.get("intervals") or {}).get(metric)
    bounds = finite(interval or ())
    low, high = (axis.at(bounds[0]), axis.at(bounds[1])) if len(bounds) == 2 else (None, None)
    return Mark(role, name, axis.at(scores[metric]), low, high)


def shares(values: Mapping[str, Any]) -> tuple[Bar, ...]:
    """``values`` as parts of their sum, one after the other: the bars of a stacked strip."""
    amounts = {name: value for name, value in values.items() if finite([value]) and value > 0}
    total, start, bars = sum(amounts.values()), 0.0, []
    for color, (name, value) in enumerate(values.items()):
        if name in amounts:
            size = 100 * value / total
            bars.append(Bar(name, round(start, 3), round(size, 3), color, f"{size:.0f}%"))
            start += size
    return tuple(bars)


def timeline(variants: Mapping[str, Mapping[str, Any]]) -> Timeline | None:
    """When each variant ran, from the first start on; None when no times are known."""
    spans = {
        n: (v["start"], v["end"])
        for n, v in variants.items()
        if len(finite([v.get("start"), v.get("end")])) == 2
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
                Bar(name, start, max(end - start, 0.3), color, duration(spans[name][1] - spans[name][0]))
            )
    return Timeline(axis, tuple(bars), _together(list(spans.values())))


def _together(spans: Sequence[tuple[float, float]]) -> str:
    """How many spans ran at the same time, and for how long at least two did, in words."""
    edges = sorted([(start, 1) for start, _ in spans] + [(end, -1) for _, end in spans])
    most = running = 0
    shared, before = 0.0, edges[0][0]
    for when, change in edges:
        shared += (when - before) if running > 1 else 0.0
        running, before = running + change, when
        most = max(most, running)
    if most < 2:
        return "one after the other" if len(spans) > 1 else ""
    return f"up to {most} at the same time, {duration(shared)} with two or more"


def curves(
    histories: Mapping[str, Sequence[Mapping[str, Any]]], key: str, title: str, kept: Mapping[str, Any]
) -> Panel | None:
    """``key`` over epochs, a line for each variant that reports it; None when nobody does.

    ``kept`` says which epoch's weights each variant kept (its best by validation), where that is known.
    """
    rows = {n: [r for r in h if len(finite([r.get("epoch"), r.get(key)])) == 2] for n, h in histories.items()}
    values = [row[key] for history in rows.values() for row in history]
    if not values:
        return None
    epochs = [int(row["epoch"]) for history in rows.values() for row in history]
    x = _epoch_axis(min(epochs), max(epochs))
    y = linear_axis(values, low=0 if 0 <= min(values) < 0.4 * max(values) else None)
    lines = []
    for color, (name, history) in enumerate(rows.items()):
        places = {row["epoch"]: (x.at(row["epoch"]), round(100 - y.at(row[key]), 3)) for row in history}
        if places:
            ring = kept.get(name) if kept.get(name) in places else None
            value = next((row[key] for row in history if row["epoch"] == ring), history[-1][key])
            text = f"{value:.3f} at epoch {ring if ring is not None else history[-1]['epoch']:g}"
            points = " ".join(f"{across:g},{down:g}" for across, down in places.values())
            lines.append(Line(name, color, points, places.get(ring), text))
    return Panel(title, x, y, tuple(lines))


def _epoch_axis(first: int, last: int) -> Axis:
    """Whole epochs, at most nine of them labelled."""
    axis = Axis(first, max(last, first + 1))
    step = math.ceil((last - first + 1) / 9)
    return Axis(axis.low, axis.high, tuple(Tick(axis.at(e), str(e)) for e in range(first, last + 1, step)))


def sweep(trials: Sequence[Mapping[str, Any]]) -> Sweep | None:
    """The trials over gamma and alpha, shaded by score; None when there is none to show."""
    known = [t for t in trials if len(finite([t.get("gamma"), t.get("alpha"), t.get("score")])) == 3]
    if not known:
        return None
    x = linear_axis([0, *(t["gamma"] for t in known)])
    y = linear_axis([t["alpha"] for t in known])
    scores = [t["score"] for t in known]
    low, high = min(scores), max(scores)
    dots = []
    for trial in known:
        shade = 100 * (trial["score"] - low) / (high - low) if high > low else 100
        text = f"gamma {trial['gamma']:.2f}, alpha {trial['alpha']:.2f}: {trial['score']:.3f}"
        stopped = bool(trial.get("stopped_early"))
        best = trial["score"] == high
        dots.append(Dot(x.at(trial["gamma"]), 100 - y.at(trial["alpha"]), round(shade), stopped, best, text))
    return Sweep(x, y, tuple(sorted(dots, key=lambda dot: dot.shade)))


def duration(seconds: float) -> str:
    """Seconds in words that fit a table: ``8 s``, ``2 min 05 s``, ``3 h 20 min``."""
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s" if whole >= 10 or seconds == whole else f"{seconds:.1f} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60:02d} s" if whole % 60 else f"{whole // 60} min"
    return f"{whole // 3600} h {whole % 3600 // 60:02d} min"


def contact_sheet(
    images_NHWC: NDArray[np.uint8], captions: Sequence[str], columns: int = 6, scale: int = 1, lines: int = 3
) -> bytes:
    """A grid of images with a caption under each, as PNG bytes.

    Args:
        images_NHWC: uint8 RGB, shape (N, H, W, 3), N >= 1.
        captions: N texts; each is wrapped to its tile's width and cut after ``lines``.
        columns: tiles in a row.
        scale: whole-number enlargement; pixels stay sharp.
        lines: of a caption, at most.
    """
    assert images_NHWC.dtype == np.uint8
    assert images_NHWC.ndim == 4
    assert images_NHWC.shape[3] == 3
    assert len(images_NHWC) == len(captions) > 0
    assert columns > 0
    assert scale > 0
    count, height, width = len(captions), images_NHWC.shape[1] * scale, images_NHWC.shape[2] * scale
    gap, size = 8, 11
    font = ImageFont.load_default(size)
    letters = max(4, int(width / (0.52 * size)))
    texts = [textwrap.wrap(c, letters, max_lines=lines, placeholder=" …") for c in captions]
    below = 6 + (size + 3) * max(len(text) for text in texts)
    columns = min(columns, count)
    rows = math.ceil(count / columns)
    sheet = Image.new("RGB", (gap + columns * (width + gap), gap + rows * (height + below + gap)), "#161d19")
    draw = ImageDraw.Draw(sheet)
    for n, (pixels, text) in enumerate(zip(images_NHWC, texts, strict=True)):
        left, top = gap + n % columns * (width + gap), gap + n // columns * (height + below + gap)
        tile = Image.fromarray(pixels).resize((width, height), Image.Resampling.NEAREST)
        sheet.paste(tile, (left, top))
        for row, line in enumerate(text):
            draw.text((left, top + height + 4 + row * (size + 3)), line, fill="#dfe8e1", font=font)
    out = io.BytesIO()
    sheet.save(out, "PNG", optimize=True)
    return out.getvalue()
