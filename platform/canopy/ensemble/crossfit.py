"""Nested cross-fitting: every candidate fitted without some folds and applied to them.

The rows are divided into J folds. Each fit holds out a set of folds. The fit without {i, j} is used twice:
for outer fold j with inner fold i, and for outer fold i with inner fold j. For outer fold j, the candidate is
chosen on the inner folds i and scored on fold j, which the choice has not seen.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from canopy import metrics
from canopy.config import CalibrationKind, CombinationKind, EnsembleConfig
from canopy.ensemble.calibrate import (
    CALIBRATION_KINDS,
    IDENTITY,
    Calibration,
    bin_codes,
    bin_counts,
    fit_calibration,
    used_bins,
)
from canopy.ensemble.combination import Combination
from canopy.ensemble.fit_combination import FittingData, fit_combination
from canopy.ensemble.informative_members import informative_members
from canopy.ensemble.logistic import logit
from canopy.ensemble.model import decide
from canopy.ensemble.objective import fit_thresholds
from canopy.metrics import Floats

Folds = frozenset[int]
"""A set of folds."""


@dataclass(frozen=True, eq=False)
class Sample:
    """The rows on which candidates are compared.

    Args:
        rows: positions among all fitting rows, rising.
        members_MNK: raw probabilities.
        targets_NK: targets.
        ids_N: ids of the rows.
        fold_N: fold of each row, in [0, J).
        folds: number J of folds.
        groups: columns of each exclusive group.
        costs_K2: cost of a false positive and of a false negative of each class.
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
    """Calibrations of every member for any held-out folds, from bin counts that add over folds.

    Args:
        sample: the rows to fit on.
        config: which calibration kinds to choose from.
    """

    def __init__(self, sample: Sample, config: EnsembleConfig) -> None:
        self.kinds = CALIBRATION_KINDS if config.calibration == "auto" else (config.calibration,)
        self.folds = range(sample.folds)
        codes_MNK = [bin_codes(member_NK) for member_NK in sample.members_MNK]
        parts = [np.flatnonzero(sample.fold_N == fold) for fold in self.folds]
        self.counts_FM2KB: Floats = np.stack(
            [
                np.stack([bin_counts(codes[part], sample.targets_NK[part]) for codes in codes_MNK])
                for part in parts
            ]
        )
        self._total_M2KB: Floats = np.asarray(self.counts_FM2KB.sum(axis=0), np.float64)
        self._fits: dict[tuple[Folds, CalibrationKind], list[Calibration]] = {}
        self._losses: dict[tuple[Folds, CalibrationKind, int], Floats] = {}

    def informative(self, held_out_folds: Folds) -> NDArray[np.bool_]:
        """Which members are informative on the rows of all other folds, shape (M,)."""
        return informative_members(self._counts(held_out_folds))

    def choose(self, held_out_folds: Folds) -> tuple[CalibrationKind, ...]:
        """Each member's kind: the one with the least loss on the other folds, each held out in turn."""
        inner = [fold for fold in self.folds if fold not in held_out_folds]
        losses_CM = [
            np.sum([self.loss(held_out_folds, kind, fold) for fold in inner], axis=0) for kind in self.kinds
        ]
        return tuple(self.kinds[c] for c in np.argmin(losses_CM, axis=0))

    def fit(self, held_out_folds: Folds, kinds: Sequence[CalibrationKind]) -> list[Calibration]:
        """Each member's calibration, of its kind, fitted without the held-out folds."""
        return [self._fit(held_out_folds, kind)[m] for m, kind in enumerate(kinds)]

    def loss(self, held_out_folds: Folds, kind: CalibrationKind, fold: int) -> Floats:
        """Each member's relative log loss on ``fold``, fitted without it and the held-out ones: (M,)."""
        key = (held_out_folds | {fold}, kind, fold)
        if key not in self._losses:
            curves = self._fit(held_out_folds | {fold}, kind)
            self._losses[key] = np.array(
                [
                    relative_loss(curve, counts)
                    for curve, counts in zip(curves, self.counts_FM2KB[fold], strict=True)
                ]
            )
        return self._losses[key]

    def apply(self, sample: Sample, held_out_folds: Folds) -> tuple[NDArray[np.float32], list[Calibration]]:
        """Calibrated members, shape (M, N, K), and the curves fitted on all but the held-out folds.

        Rows of the held-out folds pass through those curves. All other rows pass through curves that
        were fitted without their own fold as well: a flexible curve must not flatter its member on the rows
        on which weights and thresholds are fitted.
        """
        kinds = self.choose(held_out_folds)
        curves = self.fit(held_out_folds, kinds)
        calibrated_MNK = np.empty(sample.members_MNK.shape, np.float32)
        for fold in self.folds:
            rows = np.flatnonzero(sample.fold_N == fold)
            own = curves if fold in held_out_folds else self.fit(held_out_folds | {fold}, kinds)
            for m, curve in enumerate(own):
                calibrated_MNK[m, rows] = curve.apply(sample.members_MNK[m, rows])
        return calibrated_MNK, curves

    def _fit(self, held_out_folds: Folds, kind: CalibrationKind) -> list[Calibration]:
        key = (held_out_folds, kind)
        if key not in self._fits:
            self._fits[key] = fit_members(kind, self._counts(held_out_folds))
        return self._fits[key]

    def _counts(self, held_out_folds: Folds) -> Floats:
        counts_M2KB = self._total_M2KB
        for fold in sorted(held_out_folds):
            counts_M2KB = counts_M2KB - self.counts_FM2KB[fold]  # exact: counts are whole numbers
        return counts_M2KB


def fit_members(kind: CalibrationKind, counts_M2KB: Floats) -> list[Calibration]:
    """One calibration per member; all classes of all members are fitted together."""
    members, _, classes, bins = counts_M2KB.shape
    flat = fit_calibration(kind, counts_M2KB.transpose(1, 0, 2, 3).reshape(2, members * classes, bins))
    out = []
    for m in range(members):
        part = slice(m * classes, (m + 1) * classes)
        coefficients = None if flat.coefficients_K3 is None else flat.coefficients_K3[part]
        out.append(Calibration(kind, coefficients, None if flat.knots is None else flat.knots[part]))
    return out


def relative_loss(calibration: Calibration, counts_2KB: Floats) -> float:
    """Log loss of calibrated bins, each class's divided by that of its base rate, summed over classes."""
    bins = used_bins(counts_2KB.sum(axis=0))
    q_KB = np.clip(calibration.at_centers(bins), 1e-6, 1 - 1e-6)
    negative_KB, positive_KB = counts_2KB[:, :, bins]
    loss_K = -(positive_KB * np.log(q_KB) + negative_KB * np.log(1 - q_KB)).sum(axis=1)
    total_2K = counts_2KB.sum(axis=2)
    rate_K = np.clip(total_2K[1] / np.maximum(total_2K.sum(axis=0), 1), 1e-6, 1 - 1e-6)
    base_K = -(total_2K[1] * np.log(rate_K) + total_2K[0] * np.log(1 - rate_K))
    return float((loss_K / np.maximum(base_K, 1.0))[total_2K[1] > 0].sum())


@dataclass(frozen=True, eq=False)
class HeldOutPredictions:
    """A candidate's predictions of rows that it was not fitted on.

    Args:
        probs_NK: its probabilities.
        decisions_NK: its decisions.
        untuned_NK: decisions at 0.5: of the member's raw probabilities for the best single member, else of
            the candidate's probabilities.
    """

    probs_NK: NDArray[np.float32]
    decisions_NK: NDArray[np.uint8]
    untuned_NK: NDArray[np.uint8]


def crossfit(
    sample: Sample,
    held_out_folds: Folds,
    calibrator: Calibrator,
    kinds: Sequence[CombinationKind],
    config: EnsembleConfig,
) -> dict[CombinationKind, HeldOutPredictions]:
    """Fit every candidate without the held-out folds and apply it to them (rows rising).

    Args:
        sample: all rows.
        held_out_folds: folds to predict.
        calibrator: calibrations of the sample's members.
        kinds: the candidates.
        config: thresholds, objective, bags and seed.
    """
    informative = np.flatnonzero(calibrator.informative(held_out_folds))
    calibrated_MNK = calibrator.apply(sample, held_out_folds)[0][informative]
    return crossfit_calibrated(
        sample, held_out_folds, calibrated_MNK, sample.members_MNK[informative], kinds, config
    )


def crossfit_calibrated(
    sample: Sample,
    held_out_folds: Folds,
    calibrated_MNK: NDArray[np.float32],
    raw_MNK: NDArray[np.float32],
    kinds: Sequence[CombinationKind],
    config: EnsembleConfig,
) -> dict[CombinationKind, HeldOutPredictions]:
    """:func:`crossfit` for members that are calibrated already.

    Args:
        sample: all rows.
        held_out_folds: folds to predict.
        calibrated_MNK: probabilities of the members by :meth:`Calibrator.apply`.
        raw_MNK: their raw probabilities.
        kinds: the candidates.
        config: thresholds, objective, bags and seed.
    """
    logits_MNK = np.asarray(logit(calibrated_MNK), np.float32)
    outside_N = np.isin(sample.fold_N, list(held_out_folds))
    inside, outside = np.flatnonzero(~outside_N), np.flatnonzero(outside_N)
    targets_NK = sample.targets_NK[inside]
    data = FittingData(
        calibrated_MNK[:, inside],
        logits_MNK[:, inside],
        targets_NK,
        sample.ids_N[inside],
        sample.fold_N[inside],
    )
    new_MNK, new_logits_MNK = calibrated_MNK[:, outside], logits_MNK[:, outside]
    out: dict[CombinationKind, HeldOutPredictions] = {}
    for kind in kinds:
        mix = fit_combination(kind, data, config.bags, config.seed)
        scores_NK = mix.apply(list(data.members_MNK), list(data.logits_MNK))
        probs_NK, recalibration = recalibrate(scores_NK, targets_NK, mix)
        thresholds_K = fit_thresholds(probs_NK, targets_NK, config, sample.costs_K2)
        held_NK = recalibration.apply(mix.apply(list(new_MNK), list(new_logits_MNK)))
        untuned_NK = held_NK
        if kind == "best_single":
            untuned_NK = raw_MNK[mix.weights_MK[:, 0].argmax(), outside]
        decided_NK = decide(held_NK, thresholds_K, sample.groups)
        out[kind] = HeldOutPredictions(held_NK, decided_NK, metrics.decide(untuned_NK))
    return out


def recalibrate(
    scores_NK: NDArray[np.float32], targets_NK: NDArray[np.uint8], mix: Combination
) -> tuple[NDArray[np.float32], Calibration]:
    """The combined scores (N, K) as probabilities (N, K), and the calibration that makes them so.

    A pool of calibrated members is underconfident (Ranjan & Gneiting 2010). A single member is calibrated
    already, and a logistic stack calibrates itself: both keep their scores.

    Args:
        scores_NK: combined scores in [0, 1].
        targets_NK: targets, 0 and 1.
        mix: the combination that gave the scores.
    """
    if mix.kind in {"best_single", "logistic", "logistic_two_level"}:
        return scores_NK, Calibration("none", np.tile(IDENTITY, (scores_NK.shape[1], 1)))
    curve = fit_calibration("beta", bin_counts(bin_codes(scores_NK), targets_NK))
    return curve.apply(scores_NK), curve
