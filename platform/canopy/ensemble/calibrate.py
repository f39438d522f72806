"""Per-class calibration: from a member's probability to the frequency of the label at that probability.

Curves are fitted on counts in :data:`BINS` bins of the logit (0.09 wide), so that their cost does
not grow with N and counts of folds and shards add. They are shrunk to the identity with the weight of
a few rows, so that a rare class keeps its member's own probabilities instead of a curve through three
positives.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal, assert_never, cast, get_args

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import isotonic_regression

from canopy.config import CalibrationKind
from canopy.ensemble.logistic import LOGIT_LIMIT, fit_logistic, sigmoid
from canopy.metrics import Floats
from canopy.storage.json_fields import JsonField

CALIBRATION_KINDS: tuple[CalibrationKind, ...] = get_args(CalibrationKind)
"""From the least to the most flexible."""
BINS = 256
SHRINK_ROWS = 10.0
"""Weight of the identity in every curve, in rows."""
CENTERS = (np.arange(BINS) + 0.5) * (2 * LOGIT_LIMIT / BINS) - LOGIT_LIMIT
"""Logit in the middle of each bin, shape (B,)."""
LOG_P, LOG_Q = -np.logaddexp(0, -CENTERS), -np.logaddexp(0, CENTERS)
"""log p and log (1 - p) in the middle of each bin, shape (B,)."""
MANY_CURVES = 4096
"""Number of curves from which bins that are empty in all of them are skipped."""
Bins = NDArray[np.intp] | slice
"""Positions of bins."""
IDENTITY = (1.0, 1.0, 0.0)
"""Coefficients a, b, c of the curve that changes nothing."""


@dataclass(frozen=True, eq=False)
class Calibration:
    """One calibration curve per class.

    Args:
        kind: the method by which the curves were fitted.
        coefficients_K3: a, b, c of ``logit q = a log p - b log(1 - p) + c``, the form of all methods but
            isotonic: identity (1, 1, 0), temperature (1/T, 1/T, 0), Platt (a, a, c), beta (a, b, c).
        knots: isotonic only: per class (p, q), joined by straight lines.
    """

    kind: CalibrationKind
    coefficients_K3: Floats | None = None
    knots: tuple[tuple[Floats, Floats], ...] | None = None

    def apply(self, probs_NK: NDArray[Any]) -> NDArray[np.float32]:
        """Calibrated probabilities, shape (N, K), float32."""
        return np.stack([self.apply_class(probs_NK[:, k], k) for k in range(probs_NK.shape[1])], axis=1)

    def apply_class(self, probs_N: NDArray[Any], k: int) -> NDArray[np.float32]:
        """Calibrated probabilities of class ``k``, shape (N,)."""
        if self.kind == "none":
            return probs_N.astype(np.float32, copy=False)
        if self.knots is not None:
            return np.asarray(np.interp(probs_N, *self.knots[k]), np.float32)
        assert self.coefficients_K3 is not None
        a, b, c = self.coefficients_K3[k].astype(np.float32)
        low = np.float32(1 / (1 + np.exp(LOGIT_LIMIT)))
        clipped = np.clip(probs_N, low, np.float32(1) - low).astype(np.float32)
        return np.asarray(sigmoid(a * np.log(clipped) - b * np.log1p(-clipped) + c), np.float32)

    def at_centers(self, bins: Bins = slice(None)) -> Floats:
        """Calibrated probability in the middle of each bin, or of the given bins, shape (K, B)."""
        if self.knots is not None:
            p_B = sigmoid(CENTERS[bins])
            return np.stack([np.interp(p_B, *curve) for curve in self.knots])
        assert self.coefficients_K3 is not None
        a_K, b_K, c_K = self.coefficients_K3.T[:, :, None]
        return np.asarray(sigmoid(a_K * LOG_P[bins] - b_K * LOG_Q[bins] + c_K))

    def to_json(self, labels: Sequence[str]) -> dict[str, Any]:
        """The JSON form: the kind, and the curve of each label."""
        if self.knots is not None:
            curves: list[Any] = [{"p": p.tolist(), "q": q.tolist()} for p, q in self.knots]
        else:
            assert self.coefficients_K3 is not None
            curves = self.coefficients_K3.tolist()
        return {"kind": self.kind, "by_label": dict(zip(labels, curves, strict=True))}

    @classmethod
    def from_json(cls, field: JsonField, labels: Sequence[str]) -> Calibration:
        """Read what :meth:`to_json` wrote for these labels.

        Raises:
            InputError: of the field's class, for a curve that is missing, not finite or not rising.
        """
        kind = cast(CalibrationKind, field.get("kind").choice(CALIBRATION_KINDS))
        curves = field.get("by_label").keyed(labels)
        if kind == "isotonic":
            return cls(kind, None, tuple(_knots_in(curve) for curve in curves))
        return cls(kind, np.array([_coefficients_in(curve, kind) for curve in curves]))


def bin_codes(probs: NDArray[Any]) -> NDArray[np.uint8]:
    """Index in [0, BINS) of each probability's logit bin, same shape."""
    low = np.float32(1 / (1 + np.exp(LOGIT_LIMIT)))
    clipped = np.clip(probs, low, np.float32(1) - low).astype(np.float32)
    scaled = (np.log(clipped) - np.log1p(-clipped) + LOGIT_LIMIT) * (BINS / (2 * LOGIT_LIMIT))
    return np.asarray(np.minimum(scaled, BINS - 1).astype(np.uint8))


def bin_counts(codes_NK: NDArray[np.uint8], targets_NK: NDArray[np.uint8]) -> Floats:
    """Negatives and positives in each bin, shape (2, K, B)."""
    classes = codes_NK.shape[1]
    cell_NK = (targets_NK.astype(np.intp) * classes + np.arange(classes)) * BINS + codes_NK
    counts = np.bincount(cell_NK.ravel(), minlength=2 * classes * BINS)
    return counts.reshape(2, classes, BINS).astype(np.float64)


def used_bins(rows_KB: Floats) -> Bins:
    """The bins to compute on: all of them; with many curves only those that are not empty in every curve.

    Empty bins do not change a fit except by rounding, so they are kept where they cost little.
    """
    return np.flatnonzero(rows_KB.any(axis=0)) if len(rows_KB) > MANY_CURVES else slice(None)


def fit_calibration(
    kind: CalibrationKind, counts_2KB: Floats, shrink_rows: float = SHRINK_ROWS
) -> Calibration:
    """Fit one curve per class on counts of negatives and positives in the logit bins.

    A class with only negatives or only positives keeps the identity.

    Args:
        kind: none; temperature (Guo et al. 2017); platt (Platt 1999, on the logit); beta (Kull et al.
            2017); isotonic (Zadrozny & Elkan 2002).
        counts_2KB: counts from :func:`bin_counts`, shape (2, K, B).
        shrink_rows: strength of the shrinkage to the identity, in rows.
    """
    positive_KB, rows_KB = counts_2KB[1], counts_2KB.sum(axis=0)
    both_kinds_K = (counts_2KB.sum(axis=2) > 0).all(axis=0)
    match kind:
        case "none":
            return Calibration(kind, np.tile(IDENTITY, (len(rows_KB), 1)))
        case "temperature" | "platt" | "beta":
            curves_K3 = _parametric(kind, positive_KB, rows_KB, shrink_rows)
            return Calibration(kind, np.where(both_kinds_K[:, None], curves_K3, IDENTITY))
        case "isotonic":
            knots = _isotonic(positive_KB, rows_KB, shrink_rows)
            identity = (np.array([0.0, 1.0]), np.array([0.0, 1.0]))
            fitted = zip(knots, both_kinds_K, strict=True)
            return Calibration(kind, None, tuple(curve if ok else identity for curve, ok in fitted))
        case _:
            assert_never(kind)


def _parametric(
    kind: Literal["temperature", "platt", "beta"], positive_KB: Floats, rows_KB: Floats, shrink: float
) -> Floats:
    """Coefficients (K, 3) of each class's curve."""
    bins = used_bins(rows_KB)
    positive_KB, rows_KB, centers = positive_KB[:, bins], rows_KB[:, bins], CENTERS[bins]
    one = np.ones(len(centers))
    columns = {
        "temperature": (centers,),
        "platt": (centers, one),
        "beta": (LOG_P[bins], -LOG_Q[bins], one),
    }[kind]
    center = {"temperature": (1.0,), "platt": (1.0, 0.0), "beta": (1.0, 1.0, 0.0)}[kind]
    features_1FB = np.stack(columns)[None]
    prior_KF = np.broadcast_to(np.array(center), (len(rows_KB), len(center)))
    beta_KF = fit_logistic(features_1FB, positive_KB, rows_KB, prior_KF, np.full(prior_KF.shape, shrink))
    match kind:
        case "temperature":
            slope = np.maximum(beta_KF[:, 0], 1e-3)
            return np.stack([slope, slope, np.zeros(len(slope))], axis=1)
        case "platt":
            slope = np.maximum(beta_KF[:, 0], 1e-3)
            return np.stack([slope, slope, beta_KF[:, 1]], axis=1)
        case "beta":  # a negative slope would reverse the ranking
            return np.concatenate([np.maximum(beta_KF[:, :2], 1e-3), beta_KF[:, 2:]], axis=1)


def _isotonic(positive_KB: Floats, rows_KB: Floats, shrink: float) -> tuple[tuple[Floats, Floats], ...]:
    """Knots (p, q) of each class's curve."""
    knots = []
    for positive_B, rows_B in zip(positive_KB, rows_KB, strict=True):
        filled = np.flatnonzero(rows_B)
        if not len(filled):
            filled = np.array([0, BINS - 1])
        p = sigmoid(CENTERS[filled])
        # A little of the identity in every bin keeps a bin of positives only below certainty.
        extra = shrink * np.maximum(rows_B[filled], 1e-9) / max(rows_B.sum(), 1e-9)
        share = (positive_B[filled] + extra * p) / np.maximum(rows_B[filled] + extra, 1e-12)
        if len(filled) == 1:
            knots.append((p, share))
            continue
        q = isotonic_regression(share, weights=np.maximum(rows_B[filled] + extra, 1e-12)).x
        keep = np.ones(len(q), bool)
        keep[1:-1] = (q[1:-1] != q[:-2]) | (q[1:-1] != q[2:])  # only the knots where the slope changes
        knots.append((p[keep], q[keep]))
    return tuple(knots)


def _coefficients_in(field: JsonField, kind: CalibrationKind) -> Floats:
    found = field.array((3,))
    if kind == "none" and tuple(found.tolist()) != IDENTITY:
        field.refuse("must be the identity [1, 1, 0] where the kind is none")
    if found[0] <= 0 or found[1] <= 0:
        field.refuse("must hold two slopes above 0 and a constant")
    return found


def _knots_in(field: JsonField) -> tuple[Floats, Floats]:
    p = field.get("p").array((None,), 0, 1)
    q = field.get("q").array((len(p),), 0, 1 + 1e-9)
    if not len(p) or (np.diff(p) <= 0).any() or (np.diff(q) < 0).any():
        field.refuse("must hold knots whose p rises and whose q never falls")
    return p, q
