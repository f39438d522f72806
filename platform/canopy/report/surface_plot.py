"""Geometry of the report's response surface: mean and deviation of the score over two fields.

Places are percentages of the figure's box, as in :mod:`canopy.report.plots`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import log10
from typing import Any

from canopy.config import describe_values
from canopy.report.axes import Axis, Tick, finite_values, linear_axis
from canopy.report.focal_plot import Dot


@dataclass(frozen=True)
class Cell:
    """A cell of a surface: places of its corner and its shade in percent.

    Args:
        x: left end.
        y: upper end, from the top.
        shade: strength of its color, 100 for the highest value.
        text: value in words.
    """

    x: float
    y: float
    shade: int
    text: str


@dataclass(frozen=True)
class SurfacePanel:
    """One of the two surfaces.

    Args:
        title: what is shown.
        low: lowest value in words, of the faintest cell.
        high: highest value in words.
        cells: the cells.
    """

    title: str
    low: str
    high: str
    cells: tuple[Cell, ...]


@dataclass(frozen=True)
class SurfacePlot:
    """Mean and deviation over two fields, with the trials.

    Args:
        x: axis of the more important field.
        y: axis of the other.
        x_name: name of the first field.
        y_name: name of the second.
        panels: mean, then deviation.
        dots: the trials that ran to their end, the best last.
        size: width and height of a cell.
        noise: standard deviation of a single trial in words.
        trials: number of trials behind the surface.
    """

    x: Axis
    y: Axis
    x_name: str
    y_name: str
    panels: tuple[SurfacePanel, ...]
    dots: tuple[Dot, ...]
    size: float
    noise: str
    trials: int


def surface_plot(
    surface: Mapping[str, Any] | None, trials: Sequence[Mapping[str, Any]], space: Mapping[str, Any]
) -> SurfacePlot | None:
    """The plot of a surface; None without one, or when its fields are not in the space.

    Args:
        surface: entry of a swept variant in ``surface.json``.
        trials: its trials, as in ``trials.json``.
        space: field -> its range, or its choices.
    """
    if not surface or not all(isinstance(space.get(surface[name]), Mapping) for name in ("x", "y")):
        return None
    x_field, y_field = surface["x"], surface["y"]
    x, y = range_axis(space[x_field]), range_axis(space[y_field])
    panels = (
        _panel("Mean score", surface["mean"], ".3f"),
        _panel("Its standard deviation", surface["deviation"], ".4f"),
    )
    return SurfacePlot(
        x,
        y,
        x_field.rpartition(".")[2],
        y_field.rpartition(".")[2],
        panels,
        _dots(trials, (x_field, y_field), (x, y), space),
        round(100 / len(surface["mean"]), 3),
        f"{surface['noise']:.4f}",
        surface["trials"],
    )


def range_axis(domain: Mapping[str, Any]) -> Axis:
    """The axis of a range, of its logarithm where it is logarithmic; its ends are those of the range."""
    low, high = domain["low"], domain["high"]
    if not domain.get("log"):
        return linear_axis([], low, high)
    axis = linear_axis([], log10(low), log10(high))
    return Axis(
        axis.low, axis.high, tuple(Tick(tick.at, f"{10 ** float(tick.text):.2g}") for tick in axis.ticks)
    )


def _panel(title: str, values_YX: Sequence[Sequence[float]], form: str) -> SurfacePanel:
    """Cells of a surface whose rows go up."""
    flat = [value for row in values_YX for value in row]
    low, high = min(flat), max(flat)
    size = 100 / len(values_YX)
    cells = tuple(
        Cell(
            round(column * size, 3),
            round(100 - (row + 1) * size, 3),
            round(100 * (value - low) / (high - low)) if high > low else 0,
            f"{value:{form}}",
        )
        for row, values in enumerate(values_YX)
        for column, value in enumerate(values)
    )
    return SurfacePanel(title, f"{low:{form}}", f"{high:{form}}", cells)


def _dots(
    trials: Sequence[Mapping[str, Any]],
    fields: tuple[str, str],
    axes: tuple[Axis, Axis],
    space: Mapping[str, Any],
) -> tuple[Dot, ...]:
    """The trials that ran to their end, the best last."""
    shown = [
        trial
        for trial in trials
        if not trial["stopped_early"]
        and finite_values([trial["score"]])
        and len(finite_values(trial["values"].get(name) for name in fields)) == len(fields)
    ]
    shown.sort(key=lambda trial: trial["score"])
    dots = []
    for trial in shown:
        places = []
        for name, axis in zip(fields, axes, strict=True):
            value = trial["values"][name]
            places.append(axis.at(log10(value) if space[name].get("log") else value))
        text = f"{describe_values(trial['values'])}: {trial['score']:.3f}"
        dots.append(Dot(places[0], round(100 - places[1], 3), 100, False, trial is shown[-1], text))
    return tuple(dots)
