"""Shift between a member's test probabilities and the out-of-fold ones that the ensemble was fitted on.

A member's out-of-fold probabilities each come from one fold model; its test probabilities are the mean
over all fold models, each calibrated first. A mean is less extreme than its parts, and the test rows may
differ from the training rows: both shift the distribution to which the thresholds were fitted.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.stats import ks_2samp

from canopy.ensemble.calibrate import Calibration

CRITICAL_KS = 1.3581
"""Factor of the asymptotic 5% critical value of the two-sample Kolmogorov-Smirnov distance."""


@dataclass(frozen=True)
class LabelShift:
    """The difference of two sets of probabilities of one label.

    Args:
        ks: Kolmogorov-Smirnov distance, the largest difference of the empirical distribution functions, in
            [0, 1].
        mean_shift: mean on test minus mean out of fold.
        chance: distance that two samples of one distribution exceed in 5% of cases, asymptotically.
    """

    ks: float
    mean_shift: float
    chance: float


@dataclass(frozen=True)
class WidestShift:
    """The member and label with the largest Kolmogorov-Smirnov distance; empty names without any member."""

    ks: float = 0.0
    member: str = ""
    label: str = ""


@dataclass(frozen=True)
class ShiftReport:
    """The shifts of all members.

    Args:
        members: member -> label -> shift.
        widest: the largest of them.
    """

    members: Mapping[str, Mapping[str, LabelShift]]
    widest: WidestShift

    def to_json(self) -> dict[str, Any]:
        """The JSON form, with the field names as keys."""
        members = {
            member: {label: vars(shift) for label, shift in shifts.items()}
            for member, shifts in self.members.items()
        }
        return {"members": members, "widest": vars(self.widest)}


def label_shifts(
    fitted_NK: NDArray[np.floating], test_MK: NDArray[np.floating], labels: Sequence[str]
) -> dict[str, LabelShift]:
    """The shift of each label.

    Args:
        fitted_NK: calibrated out-of-fold probabilities, N rows of K labels.
        test_MK: test probabilities as the ensemble combines them, M rows.
        labels: names of the K labels.
    """
    assert fitted_NK.shape[1] == test_MK.shape[1] == len(labels)
    n, m = len(fitted_NK), len(test_MK)
    chance = float(min(1.0, CRITICAL_KS * np.sqrt((n + m) / (n * m))))
    return {
        name: LabelShift(
            ks=float(ks_2samp(fitted_NK[:, k], test_MK[:, k], method="asymp").statistic),
            mean_shift=float(test_MK[:, k].mean() - fitted_NK[:, k].mean()),
            chance=chance,
        )
        for k, name in enumerate(labels)
    }


def member_shifts(
    calibrations: Mapping[str, Calibration],
    fitting: Mapping[str, NDArray[np.floating]],
    tests: Mapping[str, Sequence[NDArray[np.floating]]],
    labels: Sequence[str],
) -> ShiftReport:
    """The shifts of each member.

    Args:
        calibrations: calibration of each member that the ensemble reads.
        fitting: each member's raw probabilities (N, K) of the fitting rows.
        tests: each member's raw test probabilities (M, K), one array per fold model.
        labels: names of the K labels.
    """
    members = {}
    for member, calibration in calibrations.items():
        folds = [calibration.apply(array) for array in tests[member]]
        fitted_NK = calibration.apply(fitting[member])
        members[member] = label_shifts(fitted_NK, np.mean(folds, axis=0), labels)
    widest = max(
        ((shift.ks, member, label) for member, shifts in members.items() for label, shift in shifts.items()),
        default=(0.0, "", ""),
    )
    return ShiftReport(members, WidestShift(*widest))
