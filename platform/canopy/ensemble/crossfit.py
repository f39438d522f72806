"""Nested cross-fitting: which calibrations and which combination, and what that choice will give.

The rows fall into J folds. A *fit* leaves out a set of folds; the one that leaves out {i, j} serves
outer fold j with inner fold i, and outer fold i with inner fold j. For outer fold j the choice is
made on the inner folds i, and scored on j, which it never saw.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import get_args

import numpy as np
from numpy.typing import NDArray

from canopy import metrics
from canopy.config import CalibrationKind, CombinationKind, EnsembleConfig
from canopy.ensemble.calibrate import (
    Calibration,
    bin_codes,
    bin_counts,
    fit_calibration,
)
from canopy.ensemble.candidates import Evidence, fit_combination
from canopy.ensemble.combine import Combination
from canopy.ensemble.logistic import logit
from canopy.ensemble.model import decide
from canopy.ensemble.objective import fit_thresholds
from canopy.ensemble.significance import telling
from canopy.metrics import Floats

CALIBRATIONS: tuple[CalibrationKind, ...] = get_args(CalibrationKind)
Left = frozenset[int]
"""Folds that a fit leaves out."""


@dataclass(frozen=True, eq=False)
class Sample:
    """The rows that the search looks at.

    Args:
        rows: positions among all fitting rows, rising.
        members_MNK: raw probabilities.
        targets_NK: truth.
        ids_N: of the rows.
        fold_N: in [0, J).
        folds: J.
        groups: columns of each exclusive group.
        costs_K2: of false alarms and misses.
    """

    rows: NDArray[np.intp]
    members_MNK: NDArray[np.float32]
    targets_NK: NDArray[np.uint8]
    ids_N: NDArray[np.str_]
    fold_N: NDArray[np.intp]
    folds: int
    groups: tuple[tuple[int, ...], ...]
    costs_K2: Floats


class Calibrator:
    """Calibrations of every member for any set of folds left out, from counts in bins that add over folds."""

    def __init__(self, sample: Sample, config: EnsembleConfig) -> None:
        self.kinds = CALIBRATIONS if config.calibration == "auto" else (config.calibration,)
        self.folds = range(sample.folds)
        codes_MNK = [bin_codes(member_NK) for member_NK in sample.members_MNK]
        parts = [np.flatnonzero(sample.fold_N == fold) for fold in self.folds]
        self.counts_FM2KB: Floats = np.stack(
            [
                np.stack([bin_counts(codes[part], sample.targets_NK[part]) for codes in codes_MNK])
                for part in parts
            ]
        )
        self._fits: dict[tuple[Left, CalibrationKind], list[Calibration]] = {}
        self._losses: dict[tuple[Left, CalibrationKind, int], Floats] = {}

    def telling(self, left: Left) -> NDArray[np.bool_]:
        """Which members tell anything, by the rows of all folds but ``left``, shape (M,)."""
        return telling(self._counts(left))

    def choose(self, left: Left) -> tuple[CalibrationKind, ...]:
        """Each member's kind: the one with the least loss on the other folds, each in turn left out too."""
        inner = [fold for fold in self.folds if fold not in left]
        losses_CM = [np.sum([self.loss(left, kind, fold) for fold in inner], axis=0) for kind in self.kinds]
        return tuple(self.kinds[c] for c in np.argmin(losses_CM, axis=0))

    def fit(self, left: Left, kinds: Sequence[CalibrationKind]) -> list[Calibration]:
        """Each member's calibration, of its kind, fitted without the folds ``left``."""
        return [self._fit(left, kind)[m] for m, kind in enumerate(kinds)]

    def loss(self, left: Left, kind: CalibrationKind, fold: int) -> Floats:
        """Each member's relative log loss on ``fold``, fitted without it and without ``left``, shape (M,)."""
        key = (left | {fold}, kind, fold)
        if key not in self._losses:
            curves = self._fit(left | {fold}, kind)
            self._losses[key] = np.array(
                [
                    relative_loss(curve, counts)
                    for curve, counts in zip(curves, self.counts_FM2KB[fold], strict=True)
                ]
            )
        return self._losses[key]

    def apply(self, sample: Sample, left: Left) -> tuple[NDArray[np.float32], list[Calibration]]:
        """Calibrated members, shape (M, N, K), and the curves fitted on all folds but ``left``.

        Rows of the folds ``left`` pass through those curves. All other rows pass through curves that
        were fitted without their own fold as well: a flexible curve must not flatter its member where
        weights and thresholds are learnt.
        """
        kinds = self.choose(left)
        curves = self.fit(left, kinds)
        calibrated_MNK = np.empty(sample.members_MNK.shape, np.float32)
        for fold in self.folds:
            rows = np.flatnonzero(sample.fold_N == fold)
            own = curves if fold in left else self.fit(left | {fold}, kinds)
            for m, curve in enumerate(own):
                calibrated_MNK[m, rows] = curve.apply(sample.members_MNK[m, rows])
        return calibrated_MNK, curves

    def _fit(self, left: Left, kind: CalibrationKind) -> list[Calibration]:
        key = (left, kind)
        if key not in self._fits:
            self._fits[key] = fit_members(kind, self._counts(left))
        return self._fits[key]

    def _counts(self, left: Left) -> Floats:
        kept = self.counts_FM2KB[[fold for fold in self.folds if fold not in left]]
        return np.asarray(kept.sum(axis=0), np.float64)


def fit_members(kind: CalibrationKind, counts_M2KB: Floats) -> list[Calibration]:
    """One calibration per member, all classes of all members in one go."""
    members, _, classes, bins = counts_M2KB.shape
    flat = fit_calibration(kind, counts_M2KB.transpose(1, 0, 2, 3).reshape(2, members * classes, bins))
    out = []
    for m in range(members):
        part = slice(m * classes, (m + 1) * classes)
        coefficients = None if flat.coefficients_K3 is None else flat.coefficients_K3[part]
        out.append(Calibration(kind, coefficients, None if flat.knots is None else flat.knots[part]))
    return out


def relative_loss(calibration: Calibration, counts_2KB: Floats) -> float:
    """Log loss of calibrated bins, each class's relative to that of its base rate, summed over classes."""
    q_KB = np.clip(calibration.at_centers(), 1e-6, 1 - 1e-6)
    loss_K = -(counts_2KB[1] * np.log(q_KB) + counts_2KB[0] * np.log(1 - q_KB)).sum(axis=1)
    total_2K = counts_2KB.sum(axis=2)
    rate_K = np.clip(total_2K[1] / np.maximum(total_2K.sum(axis=0), 1), 1e-6, 1 - 1e-6)
    base_K = -(total_2K[1] * np.log(rate_K) + total_2K[0] * np.log(1 - rate_K))
    return float((loss_K / np.maximum(base_K, 1.0))[total_2K[1] > 0].sum())


@dataclass(frozen=True, eq=False)
class HeldOut:
    """What one candidate says of rows that it was not fitted on.

    Args:
        probs_NK: its probabilities.
        decisions_NK: its decisions.
        untuned_NK: decisions before any tuning: its member's own probabilities at 0.5 for the best single
            member, else its probabilities at 0.5.
    """

    probs_NK: NDArray[np.float32]
    decisions_NK: NDArray[np.uint8]
    untuned_NK: NDArray[np.uint8]


def crossfit(
    sample: Sample,
    left: Left,
    calibrator: Calibrator,
    kinds: Sequence[CombinationKind],
    config: EnsembleConfig,
) -> dict[CombinationKind, HeldOut]:
    """Fit every candidate without the folds ``left`` and apply it to them (rows rising)."""
    told = np.flatnonzero(calibrator.telling(left))
    calibrated_MNK = calibrator.apply(sample, left)[0][told]
    logits_MNK = np.asarray(logit(calibrated_MNK), np.float32)
    outside_N = np.isin(sample.fold_N, list(left))
    inside, outside = np.flatnonzero(~outside_N), np.flatnonzero(outside_N)
    targets_NK = sample.targets_NK[inside]
    evidence = Evidence(
        calibrated_MNK[:, inside],
        logits_MNK[:, inside],
        targets_NK,
        sample.ids_N[inside],
        sample.fold_N[inside],
    )
    new_MNK, new_logits_MNK = calibrated_MNK[:, outside], logits_MNK[:, outside]
    out: dict[CombinationKind, HeldOut] = {}
    for kind in kinds:
        mix = fit_combination(kind, evidence, config.bags, config.seed)
        scores_NK = mix.apply(list(evidence.members_MNK), list(evidence.logits_MNK))
        probs_NK, recalibration = recalibrate(scores_NK, targets_NK, mix)
        limits_K = fit_thresholds(probs_NK, targets_NK, config, sample.costs_K2)
        held_NK = recalibration.apply(mix.apply(list(new_MNK), list(new_logits_MNK)))
        untuned_NK = held_NK
        if kind == "best_single":
            untuned_NK = sample.members_MNK[told[mix.weights_MK[:, 0].argmax()], outside]
        out[kind] = HeldOut(held_NK, decide(held_NK, limits_K, sample.groups), metrics.decide(untuned_NK))
    return out


def recalibrate(
    scores_NK: NDArray[np.float32], targets_NK: NDArray[np.uint8], mix: Combination
) -> tuple[NDArray[np.float32], Calibration]:
    """The combined score as a probability again: pools of calibrated members are too timid.

    (Ranjan & Gneiting 2010.) A single member is calibrated already, a logistic stack calibrates itself.
    """
    if mix.kind in {"best_single", "logistic", "logistic_two_level"}:
        curve = Calibration("none", np.tile([1.0, 1.0, 0.0], (scores_NK.shape[1], 1)))
        return scores_NK, curve
    curve = fit_calibration("beta", bin_counts(bin_codes(scores_NK), targets_NK))
    return curve.apply(scores_NK), curve
