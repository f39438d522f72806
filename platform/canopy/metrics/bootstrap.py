"""Bootstrap intervals of multi-label metrics.

Rows are resampled with Poisson(1) weights, the large-sample form of the multinomial bootstrap
(Efron & Tibshirani 1993, ch. 6; Hanley & MacGibbon 2006), so that all resamples are one matrix
product. Above :data:`GROUPS` rows, the rows are first dealt into that many groups, and the groups' counts are
resampled: the variance is the same in expectation, and the cost no longer grows with N.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from canopy import metrics
from canopy.metrics import Counts, Floats

GROUPS = 8192
"""Maximum number of units that are resampled."""
MAP_BUDGET = 60_000_000
"""Maximum number of row x label x resample steps of a mAP interval; a larger interval is omitted."""
MIN_MAP_RESAMPLES = 50
"""Minimum number of resamples of a mAP interval."""

COLUMNS = 512
"""Number of columns sorted at a time, which bounds the memory of intermediate results."""

Statistic = Callable[[Counts], Any]
"""A figure of counts of shape (…, K): shape (…,)."""


@dataclass(frozen=True)
class Interval:
    """A point estimate and its percentile interval; the ends are NaN where no interval is known."""

    value: float
    low: float
    high: float

    def to_json(self) -> dict[str, float | None]:
        """The JSON form, None for NaN."""
        pairs = (("value", self.value), ("low", self.low), ("high", self.high))
        return {name: number if math.isfinite(number) else None for name, number in pairs}


def resampled_counts(
    targets_NK: ArrayLike, decisions_NK: ArrayLike, resamples: int = 1000, seed: int = 0
) -> Counts:
    """Counts of each bootstrap resample, shape (B, K).

    Equal seeds and equal N give equal weights, so that the resamples of two models are paired.

    Args:
        targets_NK: targets, shape (N, K), 0 and 1.
        decisions_NK: decisions, shape (N, K), 0 and 1.
        resamples: number B of resamples.
        seed: seed of the weights.
    """
    truth_NK, decided_NK = np.asarray(targets_NK, bool), np.asarray(decisions_NK, bool)
    per_row = np.concatenate([truth_NK & decided_NK, decided_NK, truth_NK], axis=1)
    tp, decided, truth = np.split(resampled_sums(per_row, resamples, seed), 3, axis=1)
    return Counts(tp, decided - tp, truth - tp)


def resampled_sums(per_row_NS: NDArray[Any], resamples: int = 1000, seed: int = 0) -> Floats:
    """Sums over the rows of each bootstrap resample, shape (B, S); paired as in :func:`resampled_counts`.

    Args:
        per_row_NS: S quantities of each of N rows.
        resamples: number B of resamples.
        seed: seed of the weights.
    """
    rows = len(per_row_NS)
    if rows > GROUPS:
        edges = np.linspace(0, rows, GROUPS + 1).astype(np.intp)[:-1]
        order = np.random.default_rng([seed, rows]).permutation(rows)
        per_row_NS = np.add.reduceat(per_row_NS[order], edges, axis=0, dtype=np.float32)
    weights_BN = poisson_weights(resamples, len(per_row_NS), seed)
    return (weights_BN.astype(np.float32) @ per_row_NS.astype(np.float32)).astype(np.float64)


def poisson_weights(resamples: int, rows: int, seed: int) -> NDArray[np.uint8]:
    """Poisson(1) weights, shape (B, N), drawn by inverting the distribution function on 16 random bits."""
    cdf = np.cumsum(np.exp(-1.0) / np.array([1, 1, 2, 6, 24, 120, 720, 5040.0]))
    table = np.searchsorted(cdf, (np.arange(65536) + 0.5) / 65536).astype(np.uint8)
    bits = np.random.default_rng([seed, 1]).integers(0, 65536, (resamples, rows), dtype=np.uint16)
    return table[bits]


def interval(value: float, resampled: ArrayLike, level: float = 0.95) -> Interval:
    """Percentile interval around ``value``.

    Args:
        value: the point estimate.
        resampled: the figure on each resample; NaN (a class that was never drawn) is left out.
        level: coverage of the interval, in (0, 1).
    """
    finite = np.asarray(resampled, np.float64)
    finite = finite[np.isfinite(finite)]
    if not len(finite):
        return Interval(value, float("nan"), float("nan"))
    low, high = np.quantile(finite, [(1 - level) / 2, (1 + level) / 2])
    return Interval(value, float(low), float(high))


def column_intervals(resampled_BK: Floats, level: float = 0.95) -> list[Interval]:
    """:func:`interval` around 0 of each column, shape (B, K): K intervals.

    Columns without NaN are sorted together, :data:`COLUMNS` at a time: thousands of labels take a second.
    """
    whole = np.asarray(np.isfinite(resampled_BK).all(axis=0))
    ends_2K = np.empty((2, resampled_BK.shape[1]))
    for start in range(0, len(whole), COLUMNS):
        columns = start + np.flatnonzero(whole[start : start + COLUMNS])
        ends_2K[:, columns] = np.quantile(
            resampled_BK[:, columns], [(1 - level) / 2, (1 + level) / 2], axis=0
        )
    return [
        Interval(0, float(low), float(high)) if complete else interval(0, column, level)
        for low, high, complete, column in zip(*ends_2K, whole, resampled_BK.T, strict=True)
    ]


def paired_difference(
    targets_NK: ArrayLike,
    decisions_a_NK: ArrayLike,
    decisions_b_NK: ArrayLike,
    *,
    statistic: Statistic = metrics.macro_f1,
    resamples: int = 1000,
    seed: int = 0,
) -> Interval:
    """``statistic`` of decisions a minus that of decisions b on the same rows, with a 95% interval.

    Args:
        targets_NK: targets, shape (N, K), 0 and 1.
        decisions_a_NK: decisions of one model, shape (N, K).
        decisions_b_NK: decisions of the other model, shape (N, K).
        statistic: the figure to compare.
        resamples: number of resamples, which both models share.
        seed: seed of the resamples.
    """
    return paired_differences(
        targets_NK, decisions_a_NK, decisions_b_NK, {"": statistic}, resamples=resamples, seed=seed
    )[""]


def paired_differences(
    targets_NK: ArrayLike,
    decisions_a_NK: ArrayLike,
    decisions_b_NK: ArrayLike,
    statistics: Mapping[str, Statistic],
    *,
    resamples: int = 1000,
    seed: int = 0,
) -> dict[str, Interval]:
    """:func:`paired_difference` of several statistics, on the same resamples."""
    point_a, point_b = (Counts.of(targets_NK, one_NK) for one_NK in (decisions_a_NK, decisions_b_NK))
    drawn_a, drawn_b = (
        resampled_counts(targets_NK, one_NK, resamples, seed) for one_NK in (decisions_a_NK, decisions_b_NK)
    )
    return {
        name: interval(float(figure(point_a) - figure(point_b)), figure(drawn_a) - figure(drawn_b))
        for name, figure in statistics.items()
    }


def map_interval(targets_NK: ArrayLike, probs_NK: ArrayLike, resamples: int = 200, seed: int = 0) -> Interval:
    """Mean average precision with its interval; the ends are NaN where it would cost too much.

    Args:
        targets_NK: targets, shape (N, K), 0 and 1.
        probs_NK: scores, shape (N, K).
        resamples: maximum number of resamples; :data:`MAP_BUDGET` may allow fewer.
        seed: seed of the resamples.
    """
    truth_NK, probs = np.asarray(targets_NK, bool), np.asarray(probs_NK)
    value = metrics.mean_average_precision(truth_NK, probs)
    resamples = min(resamples, MAP_BUDGET // max(truth_NK.size, 1))
    if resamples < MIN_MAP_RESAMPLES:
        return Interval(value, float("nan"), float("nan"))
    return interval(value, resampled_map(truth_NK, probs, resamples, seed))


def resampled_map(targets_NK: ArrayLike, probs_NK: ArrayLike, resamples: int = 200, seed: int = 0) -> Floats:
    """Mean average precision of each bootstrap resample, shape (B,), around the mAP of all rows.

    Paired as in :func:`resampled_counts`. NaN where no class has positives.

    Args:
        targets_NK: targets, shape (N, K), 0 and 1.
        probs_NK: scores, shape (N, K).
        resamples: number B of resamples.
        seed: seed of the weights.
    """
    truth_NK, probs = np.asarray(targets_NK, bool), np.asarray(probs_NK)
    weights_BN = poisson_weights(resamples, len(truth_NK), seed)
    drawn_BK = np.stack(
        [_weighted_ap(truth_NK[:, k], probs[:, k], weights_BN) for k in range(truth_NK.shape[1])], axis=1
    )
    # Duplicated rows tie in a resample and raise its average precision, so the resampled values have the
    # right spread around too high a center. They are therefore centered on the point estimate.
    drawn: Floats = metrics.mean_defined(drawn_BK)
    if not np.isfinite(drawn).any():
        return drawn
    return drawn - np.nanmean(drawn) + metrics.mean_average_precision(truth_NK, probs)


def _weighted_ap(truth_N: NDArray[np.bool_], scores_N: NDArray[Any], weights_BN: NDArray[np.uint8]) -> Floats:
    """Average precision of one class under each row of weights, shape (B,); NaN without positives."""
    if not truth_N.any():
        return np.full(len(weights_BN), np.nan)
    order = np.argsort(-scores_N, kind="stable")
    last = np.flatnonzero(np.append(np.diff(scores_N[order]) != 0, True))  # the end of each group of ties
    weights = weights_BN[:, order]
    predicted = np.cumsum(weights, axis=1, dtype=np.float32)[:, last]
    hits = np.cumsum(weights * truth_N[order], axis=1, dtype=np.float32)[:, last]
    steps = np.diff(hits, axis=1, prepend=np.float32(0))
    area = (steps * hits / np.maximum(predicted, 1)).sum(axis=1, dtype=np.float64)
    positives = hits[:, -1].astype(np.float64)
    return np.where(positives > 0, area / np.maximum(positives, 1), np.nan)
