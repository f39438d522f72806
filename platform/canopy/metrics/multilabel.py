"""Multi-label metrics as pure functions over arrays of N rows and K labels.

Figures that are ratios are computed from counts (:class:`Counts`), so that ranks and shards add their
counts and divide once. A class without positives has no recall, no F1 and no average precision: these are NaN
and left out of macro figures (see :func:`without_positives`). The definitions are those of scikit-learn, to
1e-6.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

Floats = NDArray[np.float64]
MANY_LABELS = 256
"""Number of labels from which the ranking loss sorts each row: comparing all pairs grows with the square."""


@dataclass(frozen=True, eq=False)
class Counts:
    """Counts of decisions per class, floats since rows may be weighted; ``+`` adds those of shards or folds.

    Args:
        tp: true positives, shape (…, K).
        fp: false positives, shape (…, K).
        fn: false negatives, shape (…, K).
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
        """Number of positives of each class, shape (…, K): true positives plus false negatives."""
        return self.tp + self.fn


def per_class_f1(counts: Counts) -> Floats:
    """2 tp / (2 tp + fp + fn) of each class, shape (…, K); NaN where the class has no positives."""
    return per_class_fbeta(counts, 1.0)


def per_class_fbeta(counts: Counts, beta: float) -> Floats:
    """(1 + b²) tp / ((1 + b²) tp + b² fn + fp) of each class, NaN where it has no positives."""
    weighted = (1 + beta**2) * counts.tp
    return _ratio(weighted, weighted + beta**2 * counts.fn + counts.fp, counts.positives > 0)


def macro_f1(counts: Counts) -> Any:
    """Mean F1 over the classes that have positives, shape (…,); NaN where none has."""
    return mean_defined(per_class_f1(counts))


def micro_f1(counts: Counts) -> Any:
    """F1 of the counts summed over classes, shape (…,); NaN without any positive or decision."""
    tp, fp, fn = counts.tp.sum(-1), counts.fp.sum(-1), counts.fn.sum(-1)
    return _ratio(2 * tp, 2 * tp + fp + fn, 2 * tp + fp + fn > 0)


def per_image_fbeta(targets_NK: ArrayLike, decisions_NK: ArrayLike, beta: float = 1.0) -> Floats:
    """F-beta of each row, shape (N,); 1 for a row with neither a positive nor a decision.

    The mean over rows with beta 2 is the score of Kaggle's Planet competition.
    """
    truth_NK, decided_NK = np.asarray(targets_NK, bool), np.asarray(decisions_NK, bool)
    hit = (1 + beta**2) * np.count_nonzero(truth_NK & decided_NK, axis=1)
    whole = beta**2 * np.count_nonzero(truth_NK, axis=1) + np.count_nonzero(decided_NK, axis=1)
    return np.where(whole > 0, hit / np.maximum(whole, 1e-300), 1.0)


def average_precision(targets_NK: ArrayLike, scores_NK: ArrayLike) -> Floats:
    """Average precision of each class, shape (K,), in [0, 1]; tied scores count as one threshold.

    Args:
        targets_NK: targets, 0 and 1; a class without positives gives NaN.
        scores_NK: scores of any range; only their order within a class counts.
    """
    truth_NK, scores = np.asarray(targets_NK, bool), np.asarray(scores_NK)
    out = np.full(truth_NK.shape[1], np.nan)
    for k in range(truth_NK.shape[1]):
        positives = np.sort(scores[truth_NK[:, k], k])
        if len(positives):
            thresholds, first = np.unique(positives, return_index=True)
            tp = len(positives) - first  # positives at or above each threshold
            everything = np.sort(scores[:, k])
            predicted = len(everything) - np.searchsorted(everything, thresholds, side="left")
            step = np.diff(np.append(first, len(positives)))  # positives exactly at each threshold
            out[k] = float((tp / predicted * step).sum() / len(positives))
    return out


def mean_average_precision(targets_NK: ArrayLike, scores_NK: ArrayLike) -> float:
    """Mean of :func:`average_precision` over the classes that have positives (mAP)."""
    return float(mean_defined(average_precision(targets_NK, scores_NK)))


def coverage_error(targets_NK: ArrayLike, scores_NK: ArrayLike) -> float:
    """Number of top-ranked labels that include all true labels of a row, mean over rows, in [0, K].

    Args:
        targets_NK: targets, 0 and 1; a row without labels counts 0.
        scores_NK: scores of any range; only their order within a row counts.
    """
    truth_NK, scores = np.asarray(targets_NK, bool), np.asarray(scores_NK)
    lowest_N = np.where(truth_NK, scores, np.inf).min(axis=1)
    return float((scores >= lowest_N[:, None]).sum(axis=1).mean())


def ranking_loss(targets_NK: ArrayLike, scores_NK: ArrayLike) -> float:
    """Share of a row's (true, false) label pairs in the wrong order, ties included, mean over rows.

    In [0, 1] (Tsoumakas et al. 2010).

    Args:
        targets_NK: targets, 0 and 1; a row with all labels or none counts 0.
        scores_NK: scores of any range; only their order within a row counts.
    """
    truth_NK, scores = np.asarray(targets_NK, bool), np.asarray(scores_NK)
    wrong_N = np.zeros(len(truth_NK))
    if truth_NK.shape[1] > MANY_LABELS:
        for n, (truth_K, scores_K) in enumerate(zip(truth_NK, scores, strict=True)):
            false = np.sort(scores_K[~truth_K])
            above = len(false) - np.searchsorted(false, scores_K[truth_K], side="left")
            wrong_N[n] = above.sum()
    else:
        for k in range(truth_NK.shape[1]):  # one class at a time: N x K memory instead of N x K x K
            wrong_pairs_N = ((scores >= scores[:, k : k + 1]) & ~truth_NK).sum(axis=1)
            wrong_N += np.where(truth_NK[:, k], wrong_pairs_N, 0)
    true_N = truth_NK.sum(axis=1)
    pairs_N = true_N * (truth_NK.shape[1] - true_N)
    return float(np.where(pairs_N > 0, wrong_N / np.maximum(pairs_N, 1), 0.0).mean())


def calibration_error(targets_NK: ArrayLike, probs_NK: ArrayLike, bins: int = 15) -> Floats:
    """Expected calibration error of each class, shape (K,): bins of equal width on [0, 1].

    The sum over bins of |mean probability - share of positives|, weighted by the bin's share of rows
    (Naeini et al. 2015, for each class as a binary event).
    """
    truth_NK, probs = np.asarray(targets_NK, np.float64), np.asarray(probs_NK, np.float64)
    out = np.zeros(truth_NK.shape[1])
    for k in range(truth_NK.shape[1]):
        bin_N = np.minimum((probs[:, k] * bins).astype(np.intp), bins - 1)
        gap_B = np.bincount(bin_N, probs[:, k] - truth_NK[:, k], minlength=bins)
        out[k] = np.abs(gap_B).sum() / max(len(probs), 1)
    return out


def log_loss(targets_NK: ArrayLike, probs_NK: ArrayLike) -> Floats:
    """Mean negative log-likelihood of each class, shape (K,), in nats.

    Args:
        targets_NK: targets, 0 and 1.
        probs_NK: probabilities in [0, 1], clipped to [1e-7, 1 - 1e-7].
    """
    truth_NK = np.asarray(targets_NK, bool)
    probs = np.clip(np.asarray(probs_NK, np.float64), 1e-7, 1 - 1e-7)
    return np.asarray(-np.log(np.where(truth_NK, probs, 1 - probs)).mean(axis=0), np.float64)


def decide(probs_NK: NDArray[np.floating[Any]], thresholds: ArrayLike = 0.5) -> NDArray[np.uint8]:
    """Decisions (N, K): 1 where the probability reaches the threshold, a common one or one per class."""
    return (probs_NK >= np.asarray(thresholds, probs_NK.dtype)).astype(np.uint8)


def without_positives(targets_NK: ArrayLike) -> NDArray[np.bool_]:
    """Which classes have no positives, shape (K,)."""
    return np.logical_not(np.asarray(targets_NK, bool).any(axis=0))


def mean_defined(values: Floats) -> Any:
    """Mean over the last axis without its NaN entries; NaN where all entries are NaN."""
    defined = ~np.isnan(values)
    return _ratio(np.where(defined, values, 0.0).sum(-1), defined.sum(-1), defined.any(-1))


def _ratio(top: Any, bottom: Any, defined: Any) -> Floats:
    with np.errstate(invalid="ignore", divide="ignore"):
        return np.asarray(np.where(defined, np.divide(top, bottom), np.nan), np.float64)
