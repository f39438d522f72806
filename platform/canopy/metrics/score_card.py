"""Score cards: every figure of one set of decisions and probabilities, with bootstrap intervals.

A card is a frozen dataclass; ``to_json`` writes the form that ``scores.json``, ``ensemble.json`` and
``summary.json`` hold, ``from_json`` reads it. A figure that is undefined (no positives) is None.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Self

import numpy as np
from numpy.typing import ArrayLike, NDArray

from canopy import metrics
from canopy.labels import LabelSet
from canopy.metrics import Counts
from canopy.metrics.bootstrap import (
    Interval,
    column_intervals,
    interval,
    map_interval,
    resampled_counts,
    resampled_sums,
)
from canopy.storage.json_fields import JsonField

Bounds = tuple[float | None, float | None]
"""Lower and upper end of an interval; None where undefined."""
FIGURES = ("micro_f1", "macro_f1", "samples_f1", "samples_f2")
MAP_RESAMPLES = 200
"""Maximum number of resamples of a mAP interval, whose cost grows with rows times resamples."""


@dataclass(frozen=True, kw_only=True)
class ScoreIntervals:
    """95% bootstrap intervals of the figures of a card.

    Args:
        micro_f1: interval of the micro-F1.
        macro_f1: interval of the macro-F1.
        samples_f1: interval of the mean per-image F1.
        samples_f2: interval of the mean per-image F2.
        per_class_f1: label -> interval of its F1.
        map: interval of the mean average precision; None where the card holds no figures of probabilities.
    """

    micro_f1: Bounds
    macro_f1: Bounds
    samples_f1: Bounds
    samples_f2: Bounds
    per_class_f1: Mapping[str, Bounds]
    map: Bounds | None = None

    def to_json(self) -> dict[str, Any]:
        """The JSON form: ``[low, high]`` by figure."""
        content: dict[str, Any] = {name: list(getattr(self, name)) for name in FIGURES}
        content["per_class_f1"] = {label: list(bounds) for label, bounds in self.per_class_f1.items()}
        return content if self.map is None else {**content, "map": list(self.map)}

    @classmethod
    def from_json(cls, field: JsonField, labels: Sequence[str]) -> ScoreIntervals:
        """Read what :meth:`to_json` wrote; figures that an older file lacks are undefined."""
        figures = {name: _bounds_in(field.optional(name)) or (None, None) for name in FIGURES}
        per_class = field.get("per_class_f1").keyed(labels)
        return cls(
            **figures,
            per_class_f1={k: _bounds_in(f) or (None, None) for k, f in zip(labels, per_class, strict=True)},
            map=_bounds_in(field.optional("map"), -1, 2),  # centered on the estimate, so it may leave [0, 1]
        )


@dataclass(frozen=True, kw_only=True)
class DecisionScores:
    """The figures that depend on decisions; all in [0, 1], None where undefined.

    Args:
        micro_f1: F1 of the counts summed over labels.
        macro_f1: mean F1 over the labels that have positives.
        samples_f1: F1 of each image, averaged.
        samples_f2: F2 of each image, averaged: the score of Kaggle's Planet competition.
        per_class_f1: label -> F1.
        intervals: 95% intervals; None where no resamples were drawn.
    """

    micro_f1: float | None
    macro_f1: float | None
    samples_f1: float | None
    samples_f2: float | None
    per_class_f1: Mapping[str, float | None]
    intervals: ScoreIntervals | None

    def to_json(self) -> dict[str, Any]:
        """The JSON form, with the field names as keys."""
        return {
            **{name: getattr(self, name) for name in FIGURES},
            "per_class_f1": dict(self.per_class_f1),
            "intervals": {} if self.intervals is None else self.intervals.to_json(),
        }

    @classmethod
    def from_json(cls, field: JsonField, labels: Sequence[str]) -> Self:
        """Read what :meth:`to_json` wrote for these labels.

        Raises:
            InputError: of the field's class, naming the field that is missing or out of range.
        """
        return cls(**_decision_fields(field, labels))


@dataclass(frozen=True, kw_only=True)
class ScoreCard(DecisionScores):
    """All figures of a set of rows: those of the decisions, and those of the probabilities alone.

    Args:
        rows: number of rows scored.
        map: mean over labels of :attr:`per_class_ap`.
        per_class_ap: label -> average precision.
        ranking_loss: share of a row's (true, false) label pairs in the wrong order, mean over rows.
        coverage_error: number of labels, in [0, K], that hold all true ones of a row, mean over rows.
        calibration_error: expected calibration error, mean over labels.
        support: label -> number of positives.
        without_positives: labels without positives, which the macro figures leave out.
        at_half: the figures that depend on decisions with every threshold at 0.5, where computed.
    """

    rows: int
    map: float | None
    per_class_ap: Mapping[str, float | None]
    ranking_loss: float | None
    coverage_error: float | None
    calibration_error: float | None
    support: Mapping[str, int]
    without_positives: tuple[str, ...]
    at_half: DecisionScores | None = None

    def to_json(self) -> dict[str, Any]:
        """The JSON form, with the field names as keys."""
        content = {
            "rows": self.rows,
            **super().to_json(),
            "map": self.map,
            "per_class_ap": dict(self.per_class_ap),
            "ranking_loss": self.ranking_loss,
            "coverage_error": self.coverage_error,
            "calibration_error": self.calibration_error,
            "support": dict(self.support),
            "without_positives": list(self.without_positives),
        }
        return content if self.at_half is None else {**content, "at_half": self.at_half.to_json()}

    @classmethod
    def from_json(cls, field: JsonField, labels: Sequence[str]) -> Self:
        """Read what :meth:`to_json` wrote for these labels.

        Raises:
            InputError: of the field's class, naming the field that is missing or out of range.
        """
        return cls(**_card_fields(field, labels))

    def with_half(self, at_half: DecisionScores) -> Self:
        """The same card with the figures of decisions at 0.5."""
        return replace(self, at_half=at_half)


def decision_scores(
    targets_NK: ArrayLike, decisions_NK: ArrayLike, labels: LabelSet, resamples: int = 1000, seed: int = 0
) -> DecisionScores:
    """Score decisions.

    Args:
        targets_NK: targets, shape (N, K), 0 and 1.
        decisions_NK: decisions, shape (N, K), 0 and 1.
        labels: names of the K columns.
        resamples: bootstrap resamples behind each interval; 0 omits the intervals.
        seed: seed of the resamples; equal seeds and rows give paired resamples.
    """
    truth_NK, decided_NK = np.asarray(targets_NK, bool), np.asarray(decisions_NK, bool)
    counts = Counts.of(truth_NK, decided_NK)
    return DecisionScores(
        micro_f1=finite_or_none(metrics.micro_f1(counts)),
        macro_f1=finite_or_none(metrics.macro_f1(counts)),
        samples_f1=finite_or_none(metrics.per_image_fbeta(truth_NK, decided_NK, 1.0).mean()),
        samples_f2=finite_or_none(metrics.per_image_fbeta(truth_NK, decided_NK, 2.0).mean()),
        per_class_f1=by_label(labels, metrics.per_class_f1(counts)),
        intervals=_intervals(truth_NK, decided_NK, labels, resamples, seed) if resamples else None,
    )


def score_card(
    targets_NK: ArrayLike,
    decisions_NK: ArrayLike,
    probs_NK: ArrayLike,
    labels: LabelSet,
    resamples: int = 1000,
    seed: int = 0,
) -> ScoreCard:
    """Score decisions and the probabilities behind them.

    Args:
        targets_NK: targets, shape (N, K), 0 and 1.
        decisions_NK: decisions, shape (N, K), 0 and 1.
        probs_NK: probabilities, shape (N, K), in [0, 1].
        labels: names of the K columns.
        resamples: bootstrap resamples behind each interval; 0 omits the intervals.
        seed: seed of the resamples; equal seeds and rows give paired resamples.
    """
    truth_NK = np.asarray(targets_NK, bool)
    decided = decision_scores(truth_NK, decisions_NK, labels, resamples, seed)
    precision_K = metrics.average_precision(truth_NK, probs_NK)
    intervals = decided.intervals
    if intervals is not None:
        map_bounds = bounds_of(map_interval(truth_NK, probs_NK, min(resamples, MAP_RESAMPLES), seed))
        intervals = replace(intervals, map=map_bounds)
    return ScoreCard(
        micro_f1=decided.micro_f1,
        macro_f1=decided.macro_f1,
        samples_f1=decided.samples_f1,
        samples_f2=decided.samples_f2,
        per_class_f1=decided.per_class_f1,
        intervals=intervals,
        rows=len(truth_NK),
        map=finite_or_none(metrics.mean_defined(precision_K)),
        per_class_ap=by_label(labels, precision_K),
        ranking_loss=finite_or_none(metrics.ranking_loss(truth_NK, probs_NK)),
        coverage_error=finite_or_none(metrics.coverage_error(truth_NK, probs_NK)),
        calibration_error=finite_or_none(metrics.calibration_error(truth_NK, probs_NK).mean()),
        support=dict(zip(labels.names, truth_NK.sum(axis=0).tolist(), strict=True)),
        without_positives=tuple(labels.names[k] for k in np.flatnonzero(metrics.without_positives(truth_NK))),
    )


def finite_or_none(value: Any) -> float | None:
    """A number as a Python float; None where it is NaN or infinite."""
    number = float(value)
    return number if math.isfinite(number) else None


def by_label(labels: LabelSet, values_K: NDArray[Any]) -> dict[str, float | None]:
    """Values of shape (K,) by label; None where NaN."""
    return {name: finite_or_none(value) for name, value in zip(labels.names, values_K.tolist(), strict=True)}


def bounds_of(found: Interval) -> Bounds:
    """The ends of an interval; None where NaN."""
    return finite_or_none(found.low), finite_or_none(found.high)


def _intervals(
    truth_NK: NDArray[np.bool_], decided_NK: NDArray[np.bool_], labels: LabelSet, resamples: int, seed: int
) -> ScoreIntervals:
    drawn = resampled_counts(truth_NK, decided_NK, resamples, seed)
    per_image = [metrics.per_image_fbeta(truth_NK, decided_NK, beta) for beta in (1.0, 2.0)]
    sums_B3 = resampled_sums(np.stack([*per_image, np.ones(len(truth_NK))], axis=1), resamples, seed)
    rows_B = np.maximum(sums_B3[:, 2], 1)  # resamples differ in their number of rows
    drawn_f1_BK = metrics.per_class_f1(drawn)
    per_class = column_intervals(drawn_f1_BK)
    return ScoreIntervals(
        micro_f1=bounds_of(interval(0, metrics.micro_f1(drawn))),
        macro_f1=bounds_of(interval(0, metrics.mean_defined(drawn_f1_BK))),
        samples_f1=bounds_of(interval(0, sums_B3[:, 0] / rows_B)),
        samples_f2=bounds_of(interval(0, sums_B3[:, 1] / rows_B)),
        per_class_f1={name: bounds_of(i) for name, i in zip(labels.names, per_class, strict=True)},
    )


def _decision_fields(field: JsonField, labels: Sequence[str]) -> dict[str, Any]:
    """Constructor arguments of :class:`DecisionScores`."""
    intervals = field.optional("intervals")
    return {
        **{name: _share_in(field.optional(name)) for name in FIGURES},
        "per_class_f1": _shares_by_label(field.get("per_class_f1"), labels),
        "intervals": ScoreIntervals.from_json(intervals, labels) if intervals and intervals.value else None,
    }


def _card_fields(field: JsonField, labels: Sequence[str]) -> dict[str, Any]:
    """Constructor arguments of :class:`ScoreCard`."""
    rows = field.get("rows").integer()
    support = field.get("support").keyed(labels)
    coverage, half = field.optional("coverage_error"), field.optional("at_half")
    without = field.get("without_positives").texts()
    if not set(without) <= set(labels):
        field.get("without_positives").refuse("must hold names of labels")
    return {
        **_decision_fields(field, labels),
        "rows": rows,
        "map": _share_in(field.optional("map")),
        "per_class_ap": _shares_by_label(field.get("per_class_ap"), labels),
        "ranking_loss": _share_in(field.optional("ranking_loss")),
        "coverage_error": None if coverage is None else coverage.number(0, len(labels)),
        "calibration_error": _share_in(field.optional("calibration_error")),
        "support": {name: f.integer(0, rows) for name, f in zip(labels, support, strict=True)},
        "without_positives": without,
        "at_half": None if half is None else DecisionScores.from_json(half, labels),
    }


def _share_in(field: JsonField | None) -> float | None:
    return None if field is None else field.number(0, 1)


def _shares_by_label(field: JsonField, labels: Sequence[str]) -> dict[str, float | None]:
    return {name: f.number_or_none(0, 1) for name, f in zip(labels, field.keyed(labels), strict=True)}


def _bounds_in(field: JsonField | None, least: float = 0, most: float = 1) -> Bounds | None:
    if field is None:
        return None
    ends = field.items()
    if len(ends) != 2:
        field.refuse("must be two numbers")
    low, high = (end.number_or_none(least, most) for end in ends)
    if low is not None and high is not None and low > high:
        field.refuse("must have its lower end first")
    return low, high
