"""Bootstrap intervals of multi-label scores, and the score card that every stage reports.

Rows are resampled with Poisson(1) weights, the large-sample form of the multinomial bootstrap
(Efron & Tibshirani 1993, ch. 6; Hanley & MacGibbon 2006), so that all resamples are one matrix
product. Above ``GROUPS`` rows, rows are first dealt into that many groups whose counts are
resampled as units: the variance is the same in expectation, the cost no longer grows with N.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from canopy import metrics
from canopy.labels import LabelSet
from canopy.metrics import Counts, Floats

GROUPS = 8192
MAP_BUDGET = 60_000_000
"""Most row x label x resample steps that a mAP interval may cost; beyond, it is left out."""

Statistic = Callable[[Counts], Any]


@dataclass(frozen=True)
class Interval:
    """A point estimate and its percentile interval."""

    value: float
    low: float
    high: float


def resampled_counts(
    targets_NK: ArrayLike, decisions_NK: ArrayLike, resamples: int = 1000, seed: int = 0
) -> Counts:
    """Counts of each bootstrap resample, shape (B, K). Equal seed and N mean equal weights: pairs fit."""
    truth_NK, decided_NK = np.asarray(targets_NK, bool), np.asarray(decisions_NK, bool)
    per_row = np.concatenate([truth_NK & decided_NK, decided_NK, truth_NK], axis=1)
    tp, decided, truth = np.split(resampled_sums(per_row, resamples, seed), 3, axis=1)
    return Counts(tp, decided - tp, truth - tp)


def resampled_sums(per_row_NS: NDArray[Any], resamples: int = 1000, seed: int = 0) -> Floats:
    """Sums over the rows of each bootstrap resample, shape (B, S). Equal seed and N mean equal weights."""
    rows = len(per_row_NS)
    if rows > GROUPS:
        edges = np.linspace(0, rows, GROUPS + 1).astype(np.intp)[:-1]
        deal = np.random.default_rng([seed, rows]).permutation(rows)
        per_row_NS = np.add.reduceat(per_row_NS[deal], edges, axis=0, dtype=np.float32)
    weights_BN = poisson_weights(resamples, len(per_row_NS), seed)
    return (weights_BN.astype(np.float32) @ per_row_NS.astype(np.float32)).astype(np.float64)


def poisson_weights(resamples: int, rows: int, seed: int) -> NDArray[np.uint8]:
    """Poisson(1) weights, shape (B, N), drawn by inverting the distribution function on 16 random bits."""
    cdf = np.cumsum(np.exp(-1.0) / np.array([1, 1, 2, 6, 24, 120, 720, 5040.0]))
    table = np.searchsorted(cdf, (np.arange(65536) + 0.5) / 65536).astype(np.uint8)
    bits = np.random.default_rng([seed, 1]).integers(0, 65536, (resamples, rows), dtype=np.uint16)
    return table[bits]


def interval(value: float, resampled: ArrayLike, level: float = 0.95) -> Interval:
    """Percentile interval of ``level`` around ``value``; NaN resamples (class never drawn) are left out."""
    finite = np.asarray(resampled, np.float64)
    finite = finite[np.isfinite(finite)]
    if not len(finite):
        return Interval(value, float("nan"), float("nan"))
    low, high = np.quantile(finite, [(1 - level) / 2, (1 + level) / 2])
    return Interval(value, float(low), float(high))


def paired_difference(
    targets_NK: ArrayLike,
    decisions_a_NK: ArrayLike,
    decisions_b_NK: ArrayLike,
    *,
    statistic: Statistic = metrics.macro_f1,
    resamples: int = 1000,
    seed: int = 0,
) -> Interval:
    """``statistic`` of a minus that of b on the same rows, with a 95% interval from shared resamples."""
    point_a = statistic(Counts.of(targets_NK, decisions_a_NK))
    point_b = statistic(Counts.of(targets_NK, decisions_b_NK))
    drawn_a = statistic(resampled_counts(targets_NK, decisions_a_NK, resamples, seed))
    drawn_b = statistic(resampled_counts(targets_NK, decisions_b_NK, resamples, seed))
    return interval(float(point_a - point_b), drawn_a - drawn_b)


def map_interval(targets_NK: ArrayLike, probs_NK: ArrayLike, resamples: int = 200, seed: int = 0) -> Interval:
    """Mean average precision with its interval; without interval where it would cost too much."""
    truth_NK, probs = np.asarray(targets_NK, bool), np.asarray(probs_NK)
    value = metrics.mean_average_precision(truth_NK, probs)
    resamples = min(resamples, MAP_BUDGET // max(truth_NK.size, 1))
    if resamples < 50:
        return Interval(value, float("nan"), float("nan"))
    weights_BN = poisson_weights(resamples, len(truth_NK), seed)
    drawn_BK = np.stack(
        [_weighted_ap(truth_NK[:, k], probs[:, k], weights_BN) for k in range(truth_NK.shape[1])], axis=1
    )
    # Duplicated rows tie in a resample and flatter the ranking, so resampled mAP lies too high:
    # the spread is right, the centre is not. Put the interval around the point estimate.
    drawn = metrics.mean_defined(drawn_BK)
    return (
        interval(value, drawn - np.nanmean(drawn) + value)
        if np.isfinite(drawn).any()
        else interval(value, [])
    )


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


def score(
    targets_NK: ArrayLike,
    decisions_NK: ArrayLike,
    probs_NK: ArrayLike,
    labels: LabelSet,
    bootstrap: int = 1000,
    seed: int = 0,
) -> dict[str, Any]:
    """The score card of one set of decisions, JSON-able: figures in [0, 1], None where undefined.

    Args:
        targets_NK: truth, shape (N, K), 0 and 1.
        decisions_NK: decisions, shape (N, K), 0 and 1.
        probs_NK: probabilities behind them, in [0, 1], for the figures that no threshold changes.
        labels: names of the K columns.
        bootstrap: resamples behind the intervals; 0 leaves the intervals out.
        seed: of the resamples; equal seeds and rows give paired resamples.

    Returns:
        What :func:`decision_scores` gives, and ``rows``, ``support`` (positives by label),
        ``without_positives`` (names); and what no threshold changes: ``map`` (with its interval),
        ``per_class_ap``, ``ranking_loss``, ``calibration_error`` (mean over labels), and
        ``coverage_error``, which is a number of labels in [0, K].
    """
    truth_NK = np.asarray(targets_NK, bool)
    precision_K = metrics.average_precision(truth_NK, probs_NK)
    card: dict[str, Any] = {
        "rows": len(truth_NK),
        **decision_scores(truth_NK, decisions_NK, labels, bootstrap, seed),
        "map": metrics.mean_defined(precision_K),
        "per_class_ap": _by_label(labels, precision_K),
        "ranking_loss": metrics.ranking_loss(truth_NK, probs_NK),
        "coverage_error": metrics.coverage_error(truth_NK, probs_NK),
        "calibration_error": metrics.calibration_error(truth_NK, probs_NK).mean(),
        "support": _by_label(labels, truth_NK.sum(axis=0)),
        "without_positives": [labels.names[k] for k in np.flatnonzero(metrics.without_positives(truth_NK))],
    }
    if bootstrap:
        card["intervals"]["map"] = _bounds(map_interval(truth_NK, probs_NK, min(bootstrap, 200), seed))
    plain: dict[str, Any] = plain_json(card)
    return plain


def decision_scores(
    targets_NK: ArrayLike, decisions_NK: ArrayLike, labels: LabelSet, bootstrap: int = 1000, seed: int = 0
) -> dict[str, Any]:
    """The figures that depend on decisions, JSON-able: all in [0, 1], None where undefined.

    Args:
        targets_NK: truth, shape (N, K), 0 and 1.
        decisions_NK: decisions, shape (N, K), 0 and 1.
        labels: names of the K columns.
        bootstrap: resamples behind the intervals; 0 leaves the intervals out.
        seed: of the resamples; equal seeds and rows give paired resamples.

    Returns:
        ``micro_f1``, ``macro_f1``; ``samples_f1`` and ``samples_f2``, F1 and F2 of each image, averaged
        (the latter is the score of Kaggle's Planet competition); ``per_class_f1`` by label; ``intervals``
        of all of them, ``[low, high]``.
    """
    truth_NK, decided_NK = np.asarray(targets_NK, bool), np.asarray(decisions_NK, bool)
    counts = Counts.of(truth_NK, decided_NK)
    card = {
        "micro_f1": metrics.micro_f1(counts),
        "macro_f1": metrics.macro_f1(counts),
        "samples_f1": metrics.per_image_fbeta(truth_NK, decided_NK, 1.0).mean(),
        "samples_f2": metrics.per_image_fbeta(truth_NK, decided_NK, 2.0).mean(),
        "per_class_f1": _by_label(labels, metrics.per_class_f1(counts)),
        "intervals": _intervals(truth_NK, decided_NK, labels, bootstrap, seed) if bootstrap else {},
    }
    plain: dict[str, Any] = plain_json(card)
    return plain


def _by_label(labels: LabelSet, values_K: NDArray[Any]) -> dict[str, Any]:
    return dict(zip(labels.names, values_K.tolist(), strict=True))


def _intervals(
    truth_NK: NDArray[np.bool_], decided_NK: NDArray[np.bool_], labels: LabelSet, bootstrap: int, seed: int
) -> dict[str, Any]:
    drawn = resampled_counts(truth_NK, decided_NK, bootstrap, seed)
    per_image = [metrics.per_image_fbeta(truth_NK, decided_NK, beta) for beta in (1.0, 2.0)]
    sums_B3 = resampled_sums(np.stack([*per_image, np.ones(len(truth_NK))], axis=1), bootstrap, seed)
    resampled = {
        "micro_f1": metrics.micro_f1(drawn),
        "macro_f1": metrics.macro_f1(drawn),
        # A resample has a number of rows of its own.
        "samples_f1": sums_B3[:, 0] / np.maximum(sums_B3[:, 2], 1),
        "samples_f2": sums_B3[:, 1] / np.maximum(sums_B3[:, 2], 1),
    }
    per_class = [interval(0, column) for column in metrics.per_class_f1(drawn).T]
    return {
        **{name: _bounds(interval(0, values_B)) for name, values_B in resampled.items()},
        "per_class_f1": {name: _bounds(i) for name, i in zip(labels.names, per_class, strict=True)},
    }


def _bounds(found: Interval) -> list[float]:
    return [found.low, found.high]


def plain_json(value: Any) -> Any:
    """The same structure in JSON's own types; NaN and Inf become None."""
    if isinstance(value, dict):
        return {str(key): plain_json(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [plain_json(item) for item in value]
    if isinstance(value, np.ndarray | np.generic):
        return plain_json(value.tolist())
    if isinstance(value, float) and not np.isfinite(value):
        return None
    return value
