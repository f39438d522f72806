"""How far a member's test probabilities lie from the out-of-fold ones that the ensemble was fitted on.

With folds, a member's out-of-fold probabilities come each from one model, its test probabilities are the mean
of all fold models, each calibrated before. A mean is more timid than its parts, and test may differ from
training: both move the distribution under thresholds that were fitted out of fold.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.stats import ks_2samp

from canopy.ensemble.calibrate import Calibration


def distribution_gap(
    fitted_NK: NDArray[np.floating], test_MK: NDArray[np.floating], names: Sequence[str]
) -> dict[str, dict[str, float]]:
    """Per label, how two sets of probabilities differ.

    Args:
        fitted_NK: calibrated out-of-fold probabilities, N rows of K labels.
        test_MK: test probabilities as the ensemble reads them, M rows.
        names: of the K labels.

    Returns:
        By label: ``ks``, the Kolmogorov-Smirnov distance, the largest difference of the two empirical
        distribution functions, in [0, 1]; ``mean_shift``, mean on test less mean out of fold; ``chance``, the
        distance that two samples of one distribution exceed in 5% of cases (asymptotically).
    """
    assert fitted_NK.shape[1] == test_MK.shape[1] == len(names)
    n, m = len(fitted_NK), len(test_MK)
    chance = 1.3581 * np.sqrt((n + m) / (n * m))
    return {
        name: {
            "ks": float(ks_2samp(fitted_NK[:, k], test_MK[:, k], method="asymp").statistic),
            "mean_shift": float(test_MK[:, k].mean() - fitted_NK[:, k].mean()),
            "chance": float(min(1.0, chance)),
        }
        for k, name in enumerate(names)
    }


def member_gaps(
    calibrations: Mapping[str, Calibration],
    fitting: Mapping[str, NDArray[np.floating]],
    tests: Mapping[str, Sequence[NDArray[np.floating]]],
    names: Sequence[str],
) -> dict[str, Any]:
    """The gap of each member, and of all the widest.

    Args:
        calibrations: by the members that the ensemble reads.
        fitting: each member's raw probabilities (N, K) that the ensemble was fitted on.
        tests: each member's raw test probabilities (M, K), one array per fold model.
        names: of the K labels.
    """
    members = {}
    for member, calibration in calibrations.items():
        folds = [calibration.apply(array) for array in tests[member]]
        fitted_NK = calibration.apply(fitting[member])
        members[member] = distribution_gap(fitted_NK, np.mean(folds, axis=0), names)
    widest = max(
        ((gap["ks"], member, label) for member, gaps in members.items() for label, gap in gaps.items()),
        default=(0.0, "", ""),
    )
    return {"members": members, "widest": dict(zip(("ks", "member", "label"), widest, strict=True))}
