"""Wald test of whether each member's logits are related to the labels."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy.stats import chi2

from canopy.ensemble.calibrate import CENTERS, used_bins
from canopy.ensemble.logistic import fit_logistic, hessian, sigmoid
from canopy.metrics import Floats

MAX_P_VALUE = 1e-3
"""P-value below which a member counts as informative."""


def informative_members(counts_M2KB: Floats) -> NDArray[np.bool_]:
    """Which members' logits are related to the labels, shape (M,).

    The test is Wald's chi-squared of the slopes of one logistic regression per class, all classes together;
    a slope of the wrong sign counts as 0. Where no member passes, all are kept: there are too few rows to
    judge.

    Args:
        counts_M2KB: each member's negatives and positives in the logit bins (``calibrate.bin_counts``).
    """
    members, _, classes, bins = counts_M2KB.shape
    positive_GB = counts_M2KB[:, 1].reshape(-1, bins)
    rows_GB = counts_M2KB.sum(axis=1).reshape(-1, bins)
    used = used_bins(rows_GB)
    positive_GB, rows_GB, centers_B = positive_GB[:, used], rows_GB[:, used], CENTERS[used]
    features_1FB = np.stack([centers_B, np.ones(len(centers_B))])[None]
    none_GF = np.zeros((members * classes, 2))
    beta_GF = fit_logistic(features_1FB, positive_GB, rows_GB, none_GF, none_GF + 1.0)
    p_GB = sigmoid(beta_GF @ features_1FB[0])
    information_GFF = hessian(features_1FB, rows_GB * p_GB * (1 - p_GB)) + np.eye(2)
    variance_G = np.linalg.inv(information_GFF)[:, 0, 0]
    wald_MK = (np.maximum(beta_GF[:, 0], 0) ** 2 / variance_G).reshape(members, classes)
    informative_M = np.asarray(chi2.sf(wald_MK.sum(axis=1), classes) < MAX_P_VALUE)
    return informative_M if informative_M.any() else np.ones(members, bool)
