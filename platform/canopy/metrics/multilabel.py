"""Multi-label metrics as pure functions over arrays of N rows and K labels.

Everything that can be is a count first and a quotient last, so that ranks and shards add their
counts and divide once (:class:`Counts`). A class without positives has no recall, no F1 and no
average precision: it gets NaN and is left out of macro figures; :func:`without_positives` finds it.
Definitions are scikit-learn's; the tests hold them equal to 1e-6.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

Floats = NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class Counts:
    """Decisions against targets, counted per class: shape (…, K), as floats so that weighted counts fit too.

    Add the counts of ranks, shards or folds with ``+``; divide once, at the end.
    """

    tp: Floats
    fp: Floats
    fn: Floats

    @classmethod
    def of(cls, targets_NK: ArrayLike, decisions_NK: ArrayLike) -> Counts:
        """Count decisions (N, K) of 0 and 1 against targets (N, K) of 0 and 1."""
        truth_NK, decided_NK = np.asarray(targets_NK, bool), np.asarray(decisions_NK, bool)
        tp = np.count_nonzero(truth_NK & decided_NK, axis=0).astype(np.float64)
        return cls(tp, np.count_nonzero(decided_NK, axis=0) - tp, np.count_nonzero(truth_NK, axis=0) - tp)

    def __add__(self, other: Counts) -> Counts:
        return Counts(self.tp + other.tp, self.fp + other.fp, self.fn + other.fn)

    @property
    def positives(self) -> Floats:
        """True positives and misses: how often each class is there."""
        return self.tp + self.fn


def per_class_f1(counts: Counts) -> Floats:
    """2 tp / (2 tp + fp + fn) of each class, shape (…, K); NaN where the class has no positives."""
    return per_class_fbeta(counts, 1.0)


def per_class_fbeta(counts: Counts, beta: float) -> Floats:
    """(1 + b²) tp / ((1 + b²) tp + b² fn + fp) of each class, NaN where it has no positives."""
    weighted = (1 + beta**2) * counts.tp
    return _ratio(weighted, weighted + beta**2 * counts.fn + counts.fp, counts.positives > 0)


def macro_f1(counts: Counts) -> Any:
    """Mean F1 over the classes that have positives, shape (…,); NaN when none has."""
    return mean_defined(per_class_f1(counts))


def micro_f1(counts: Counts) -> Any:
    """F1 of the counts summed over classes, shape (…,); NaN when there is neither truth nor decision."""
    tp, fp, fn = counts.tp.sum(-1), counts.fp.sum(-1), counts.fn.sum(-1)
    return _ratio(2 * tp, 2 * tp + fp + fn, 2 * tp + fp + fn > 0)


def per_image_fbeta(targets_NK: ArrayLike, decisions_NK: ArrayLike, beta: float = 1.0) -> Floats:
    """F-beta of each row, shape (N,); a row with neither truth nor decision counts 1 (nothing was missed).

    With beta 2 and averaged over rows this is the score of Kaggle's Planet competition.
    """
    truth_NK, decided_NK = np.asarray(targets_NK, bool), np.asarray(decisions_NK, bool)
    hit = (1 + beta**2) * np.count_nonzero(truth_NK & decided_NK, axis=1)
    whole = beta**2 * np.count_nonzero(truth_NK, axis=1) + np.count_nonzero(decided_NK, axis=1)
    return np.where(whole > 0, hit / np.maximum(whole, 1e-300), 1.0)


def average_precision(targets_NK: ArrayLike, scores_NK: ArrayLike) -> Floats:
    """Area under each class's precision-recall steps, ties taken together; NaN without positives. (K,)."""
    truth_NK, scores = np.asarray(targets_NK, bool), np.asarray(scores_NK)
    out = np.full(truth_NK.shape[1], np.nan)
    for k in range(truth_NK.shape[1]):
        positives = np.sort(scores[truth_NK[:, k], k])
        if len(positives):
            cuts, first = np.unique(positives, return_index=True)
            tp = len(positives) - first  # positives at or above each cut
            everything = np.sort(scores[:, k])
            predicted = len(everything) - np.searchsorted(everything, cuts, side="left")
            step = np.diff(np.append(first, len(positives)))  # positives exactly at each cut
            out[k] = float((tp / predicted * step).sum() / len(positives))
    return out


def mean_average_precision(targets_NK: ArrayLike, scores_NK: ArrayLike) -> float:
    """Mean of :func:`average_precision` over the classes that have positives (mAP)."""
    return float(mean_defined(average_precision(targets_NK, scores_NK)))


def coverage_error(targets_NK: ArrayLike, scores_NK: ArrayLike) -> float:
    """How far down its ranking of labels a row must go to cover all true ones, mean over rows; 0 for none."""
    truth_NK, scores = np.asarray(targets_NK, bool), np.asarray(scores_NK)
    lowest_N = np.where(truth_NK, scores, np.inf).min(axis=1)
    return float((scores >= lowest_N[:, None]).sum(axis=1).mean())


def ranking_loss(targets_NK: ArrayLike, scores_NK: ArrayLike) -> float:
    """Share of (true, false) label pairs of a row that are ranked wrongly, ties included, mean over rows.

    In [0, 1]; rows with all or no labels count 0. (Tsoumakas et al. 2010, and scikit-learn.)
    """
    truth_NK, scores = np.asarray(targets_NK, bool), np.asarray(scores_NK)
    wrong_N = np.zeros(len(truth_NK))
    for k in range(truth_NK.shape[1]):  # one class at a time: N x K memory instead of N x K x K
        beaten_N = ((scores >= scores[:, k : k + 1]) & ~truth_NK).sum(axis=1)
        wrong_N += np.where(truth_NK[:, k], beaten_N, 0)
    true_N = truth_NK.sum(axis=1)
    pairs_N = true_N * (truth_NK.shape[1] - true_N)
    return float(np.where(pairs_N > 0, wrong_N / np.maximum(pairs_N, 1), 0.0).mean())


def calibration_error(targets_NK: ArrayLike, probs_NK: ArrayLike, bins: int = 15) -> Floats:
    """Expected calibration error of each class, shape (K,): bins of equal width on [0, 1].

    Sum over bins of |mean probability - share of positives| weighted by the bin's share of rows
    (Naeini et al. 2015, for the binary event of each class).
    """
    truth_NK, probs = np.asarray(targets_NK, np.float64), np.asarray(probs_NK, np.float64)
    out = np.zeros(truth_NK.shape[1])
    for k in range(truth_NK.shape[1]):
        bin_N = np.minimum((probs[:, k] * bins).astype(np.intp), bins - 1)
        gap_B = np.bincount(bin_N, probs[:, k] - truth_NK[:, k], minlength=bins)
        out[k] = np.abs(gap_B).sum() / max(len(probs), 1)
    return out


def log_loss(targets_NK: ArrayLike, probs_NK: ArrayLike) -> Floats:
    """Mean negative log-likelihood of each class, shape (K,), in nats; probabilities clipped to 1e-7."""
    truth_NK = np.asarray(targets_NK, bool)
    probs = np.clip(np.asarray(probs_NK, np.float64), 1e-7, 1 - 1e-7)
    return np.asarray(-np.log(np.where(truth_NK, probs, 1 - probs)).mean(axis=0), np.float64)


def decide(probs_NK: NDArray[np.floating[Any]], thresholds: ArrayLike = 0.5) -> NDArray[np.uint8]:
    """1 where the probability reaches its class's threshold (one, or K of them), else 0. Shape (N, K)."""
    return (probs_NK >= np.asarray(thresholds, probs_NK.dtype)).astype(np.uint8)


def without_positives(targets_NK: ArrayLike) -> NDArray[np.bool_]:
    """Which classes never occur, shape (K,): those that macro figures leave out."""
    return np.logical_not(np.asarray(targets_NK, bool).any(axis=0))


def mean_defined(values: Floats) -> Any:
    """Mean over the last axis without its NaN entries; NaN where nothing is left."""
    defined = ~np.isnan(values)
    return _ratio(np.where(defined, values, 0.0).sum(-1), defined.sum(-1), defined.any(-1))


def _ratio(top: Any, bottom: Any, defined: Any) -> Floats:
    with np.errstate(invalid="ignore", divide="ignore"):
        return np.asarray(np.where(defined, np.divide(top, bottom), np.nan), np.float64)
