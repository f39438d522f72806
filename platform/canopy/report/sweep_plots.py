"""Geometry of the report's figures of a sweep: parallel coordinates, curves, finalists, importance.

Places are percentages of the figure's box, as in :mod:`canopy.report.plots`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import log10
from typing import Any

from canopy.config import describe_values
from canopy.report.axes import Axis, Tick, epoch_axis, finite_values, linear_axis
from canopy.report.surface_plot import surface_plot

Trials = Sequence[Mapping[str, Any]]
"""Trials of one swept variant, as in ``trials.json``."""
UNREAD = 106.0
"""Place, from the top, of a trial on the axis of a field that it does not read."""


@dataclass(frozen=True)
class FieldAxis:
    """A vertical axis: the values of one field, or the score.

    Args:
        name: last part of the field's name.
        at: place across the figure.
        ticks: labelled places, from the bottom.
    """

    name: str
    at: float
    ticks: tuple[Tick, ...]


@dataclass(frozen=True)
class TrialLine:
    """One trial.

    Args:
        points: SVG points from the top left.
        shade: strength of its color, 100 for the best score.
        stopped: whether it was stopped early.
        best: whether it is the best of those that ran to the end.
        text: point and score in words.
        end: its last point.
    """

    points: str
    shade: int
    stopped: bool
    best: bool
    text: str
    end: tuple[float, float]


@dataclass(frozen=True)
class ParallelPlot:
    """Trials over all fields."""

    axes: tuple[FieldAxis, ...]
    lines: tuple[TrialLine, ...]


@dataclass(frozen=True)
class CurvesPlot:
    """Trials over epochs."""

    x: Axis
    y: Axis
    lines: tuple[TrialLine, ...]


@dataclass(frozen=True)
class IntervalRow:
    """A value with its interval.

    Args:
        name: what it is the value of.
        text: the value in words.
        at: its place.
        low: place of the interval's lower end; None without interval.
        high: place of its upper end.
        strong: whether it stands out: a winner, an importance above zero.
    """

    name: str
    text: str
    at: float
    low: float | None
    high: float | None
    strong: bool


@dataclass(frozen=True)
class IntervalPlot:
    """Values with intervals on a common axis."""

    rows: tuple[IntervalRow, ...]
    zero: float


def study_views(
    sweep: Mapping[str, Any] | None,
    trials: Trials,
    importance: Mapping[str, Sequence[Mapping[str, Any]]],
    surfaces: Mapping[str, Mapping[str, Any]] | None = None,
) -> list[dict[str, Any]]:
    """The variables of the template, one entry per study; empty for a focal sweep of the former form.

    Args:
        sweep: the part ``sweep`` of the summary.
        trials: content of ``trials.json``.
        importance: content of ``importance.json``.
        surfaces: content of ``surface.json``; None without one.
    """
    if not sweep or "studies" not in sweep:
        return []
    views = []
    for study in sweep["studies"]:
        own = [trial for trial in trials if trial["variant"] == study["variant"]]
        judged = [one for one in study["finalists"] if one["gain"] is not None]
        views.append(
            {
                "name": study["variant"],
                "verdict": study["verdict"],
                "parallel": parallel_plot(own, study.get("space", {})),
                "curves": curves_plot(own),
                "finals": finals_plot(judged),
                "seeds": len(judged[0]["scores"]) if judged else 0,
                "importance": importance_plot(importance.get(study["variant"], ())),
                "surface": surface_plot((surfaces or {}).get(study["variant"]), own, study.get("space", {})),
                "members": member_rows(study),
            }
        )
    return views


@dataclass(frozen=True)
class MemberRow:
    """A trial that went on as a member of the fleet.

    Args:
        name: name of the member.
        trial: number of the trial, from 1.
        values: its values in words.
        rank: its place among the complete trials by score, from 1.
        alone: cross-fitted objective alone.
        together: the same of the ensemble with the members above it.
        gain: gain of the ensemble by this member, in words; a dash for the first.
    """

    name: str
    trial: int
    values: str
    rank: int
    alone: float
    together: float
    gain: str


def member_rows(study: Mapping[str, Any]) -> list[MemberRow]:
    """The rows of the table of members; empty without any.

    Args:
        study: a study of the summary.
    """
    rows: list[MemberRow] = []
    for n, one in enumerate(study.get("members", ())):
        gain = f"{one['together'] - rows[-1].together:+.3f}".replace("-", "\u2212") if rows else "–"
        name, words = f"{study['variant']}-{n + 1}", describe_values(one["values"])
        rows.append(
            MemberRow(name, one["trial"] + 1, words, one["rank"], one["alone"], one["together"], gain)
        )
    return rows


def parallel_plot(trials: Trials, space: Mapping[str, Any]) -> ParallelPlot | None:
    """The trials with a score over their fields; None without any.

    Args:
        trials: trials of one swept variant.
        space: field -> its range, or its choices.
    """
    scored = [trial for trial in trials if finite_values([trial["score"]])]
    fields = list(dict.fromkeys(name for trial in scored for name in trial["values"]))
    if not scored or not fields:
        return None
    across = {name: round(100 * n / len(fields), 3) for n, name in enumerate([*fields, ""])}
    scales = {
        name: field_scale([trial["values"].get(name) for trial in scored], space.get(name)) for name in fields
    }
    score_axis = linear_axis([trial["score"] for trial in scored])
    axes = [FieldAxis(name.rpartition(".")[2], across[name], scales[name].ticks) for name in fields]
    axes.append(FieldAxis("score", 100.0, score_axis.ticks))
    lines = []
    for trial in in_drawing_order(scored):
        places = [(across[name], scales[name].down(trial["values"].get(name))) for name in fields]
        places.append((100.0, 100 - score_axis.at(trial["score"])))
        lines.append(_line(trial, places, scored))
    return ParallelPlot(tuple(axes), tuple(lines))


@dataclass(frozen=True)
class FieldScale:
    """Places of a field's values, from the top.

    Args:
        ticks: labelled places, from the bottom.
        axis: axis of numbers; None for choices.
        log: whether the axis is that of their logarithms.
        choices: the choices, from the bottom.
    """

    ticks: tuple[Tick, ...]
    axis: Axis | None
    log: bool
    choices: tuple[Any, ...]

    def down(self, value: Any) -> float:
        """Place of ``value``."""
        if self.axis is not None:
            if not finite_values([value]):
                return UNREAD
            return round(100 - self.axis.at(log10(value) if self.log else value), 3)
        if value is None and None not in self.choices:
            return UNREAD
        return round(100 - choice_place(self.choices.index(value), len(self.choices)), 3)


def field_scale(values: Sequence[Any], domain: Any) -> FieldScale:
    """The scale of a field.

    Args:
        values: the trials' values; None where a trial does not read the field.
        domain: its range as a mapping, or its choices as a list; None where unknown.
    """
    numbers = finite_values(value for value in values if not isinstance(value, bool))
    if isinstance(domain, Mapping) and numbers:
        if domain.get("log"):
            axis = linear_axis([log10(value) for value in numbers])
            ticks = tuple(Tick(tick.at, f"{10 ** float(tick.text):.2g}") for tick in axis.ticks)
            return FieldScale(ticks, axis, True, ())
        axis = linear_axis(numbers)
        return FieldScale(axis.ticks, axis, False, ())
    known = domain if isinstance(domain, list) else []
    choices = tuple(dict.fromkeys([*known, *(value for value in values if value is not None)]))
    ticks = tuple(Tick(choice_place(n, len(choices)), str(choice)) for n, choice in enumerate(choices))
    return FieldScale(ticks, None, False, choices)


def choice_place(n: int, count: int) -> float:
    """Place of choice ``n`` of ``count``, from the bottom."""
    return 50.0 if count == 1 else 100 * n / (count - 1)


def curves_plot(trials: Trials) -> CurvesPlot | None:
    """The curves of the trials; None without any."""
    curved = [trial for trial in trials if trial["curve"] and finite_values([trial["score"]])]
    if not curved:
        return None
    x = epoch_axis(1, max(len(trial["curve"]) for trial in curved))
    y = linear_axis([score for trial in curved for score in trial["curve"]])
    lines = []
    for trial in in_drawing_order(curved):
        places = [(x.at(n), round(100 - y.at(score), 3)) for n, score in enumerate(trial["curve"], start=1)]
        lines.append(_line(trial, places, curved))
    return CurvesPlot(x, y, tuple(lines))


def in_drawing_order(trials: Trials) -> list[Mapping[str, Any]]:
    """The trials with a score, stopped ones first, then by score: the best is drawn last, on top."""
    return sorted(trials, key=lambda trial: (not trial["stopped_early"], trial["score"]))


def _line(trial: Mapping[str, Any], places: list[tuple[float, float]], among: Trials) -> TrialLine:
    scores = sorted(one["score"] for one in among)
    low, high = scores[0], scores[-1]
    share = (trial["score"] - low) / (high - low) if high > low else 1.0
    points = " ".join(f"{across:g},{down:g}" for across, down in places)
    stopped = bool(trial["stopped_early"])
    best = not stopped and trial is in_drawing_order(among)[-1]
    text = f"{describe_values(trial['values'])}: {trial['score']:.3f}"
    text += f", stopped after epoch {trial['epochs']}" if stopped else ""
    return TrialLine(points, round(20 + 80 * share), stopped, best, text, places[-1])


def finals_plot(judged: Sequence[Mapping[str, Any]]) -> IntervalPlot | None:
    """The gains of the finalists, each with the margin of the noise between seeds; None without any."""
    if not judged:
        return None
    rows = [
        (
            describe_values(one["values"]),
            one["gain"],
            one["gain"] - one["seed_margin"],
            one["gain"] + one["seed_margin"],
            one["is_better"],
        )
        for one in judged
    ]
    return _interval_plot(rows, ".4f")


def importance_plot(importance: Sequence[Mapping[str, Any]]) -> IntervalPlot | None:
    """The importance of each field; None without any."""
    rows = [(one["field"], one["value"], one["low"], one["high"], one["low"] > 0) for one in importance]
    return _interval_plot(rows, ".2f") if rows else None


def _interval_plot(rows: Sequence[tuple[str, float, float, float, bool]], form: str) -> IntervalPlot:
    axis = linear_axis([0.0, *(number for row in rows for number in row[1:4])])
    marks = [
        IntervalRow(
            name,
            f"{value:+{form}}".replace("-", "\u2212"),
            axis.at(value),
            axis.at(low),
            axis.at(high),
            strong,
        )
        for name, value, low, high, strong in rows
    ]
    return IntervalPlot(tuple(marks), axis.at(0.0))
