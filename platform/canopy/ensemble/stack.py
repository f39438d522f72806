"""Stacking: members' outputs as features of a second model (Wolpert 1992), in up to two levels."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy.stats import chi2

from canopy.ensemble.informative_members import MAX_P_VALUE
from canopy.ensemble.logistic import fit_logistic, hessian, sigmoid
from canopy.metrics import Floats

RIDGE_ROWS = 30.0
"""Shrinkage of every class's weights to the common ones, in rows."""
LABEL_RIDGE_ROWS = 100.0
"""Shrinkage of a level over labels to the identity, in rows."""
BATCH_NUMBERS = 1_000_000
"""Maximum number of feature values of the classes that are fitted together."""


def logistic_stack(
    logits_MNK: NDArray[np.float32],
    targets_NK: NDArray[np.uint8],
    center_M: Floats,
    ridge: float = RIDGE_ROWS,
) -> tuple[Floats, Floats]:
    """Weights (M, K) and bias (K,) of a logistic regression per class on the members' logits.

    Members whose common weight is 0 are dropped one by one, least significant first, until the weights of the
    rest differ from 0 (Wald's chi-squared over all classes, p-value below :data:`MAX_P_VALUE`), so that a
    member of pure noise gets no weight at all.

    Args:
        logits_MNK: logits of calibrated members.
        targets_NK: targets.
        center_M: common simplex weights, to which every class is shrunk.
        ridge: strength of the shrinkage, in rows.
    """
    classes = targets_NK.shape[1]
    active = np.arange(len(logits_MNK))
    batch = max(1, BATCH_NUMBERS // (targets_NK.shape[0] * (len(active) + 1)))
    start_KF = None
    while True:
        fits = [
            _class_fits(logits_MNK[active], targets_NK, columns, center_M[active], ridge, start_KF)
            for columns in np.split(np.arange(classes), range(batch, classes, batch))
        ]
        beta_KF, wald_KM = (np.concatenate(part) for part in zip(*fits, strict=True))
        wald_M = wald_KM.sum(axis=0)
        doubtful = (center_M[active] == 0) & (chi2.sf(wald_M, classes) > MAX_P_VALUE)
        if not doubtful.any():
            break
        dropped = int(np.flatnonzero(doubtful)[np.argmin(wald_M[doubtful])])
        active, start_KF = np.delete(active, dropped), np.delete(beta_KF, dropped, axis=1)
    weights_MK = np.zeros((len(logits_MNK), classes))
    weights_MK[active] = beta_KF[:, :-1].T
    return weights_MK, beta_KF[:, -1]


def _class_fits(
    logits_MNK: NDArray[np.float32],
    targets_NK: NDArray[np.uint8],
    columns: NDArray[np.intp],
    center_M: Floats,
    ridge: float,
    start_KF: Floats | None,
) -> tuple[Floats, Floats]:
    """Coefficients (G, M + 1), the constant last, and the weights' Wald statistics (G, M) of G classes."""
    members, rows, _ = logits_MNK.shape
    features_GFN = np.ones((len(columns), members + 1, rows))
    features_GFN[:, :-1] = logits_MNK[:, :, columns].transpose(2, 0, 1)
    positive_GN = targets_NK[:, columns].T.astype(np.float64)
    center_GF = np.tile(np.append(center_M, 0.0), (len(columns), 1))
    ridge_GF = np.full(center_GF.shape, ridge)
    start_GF = None if start_KF is None else start_KF[columns]
    one_GN = np.ones_like(positive_GN)
    beta_GF = fit_logistic(features_GFN, positive_GN, one_GN, center_GF, ridge_GF, start_GF)
    p_GN = sigmoid(np.matmul(beta_GF[:, None, :], features_GFN)[:, 0])
    information_GFF = hessian(features_GFN, p_GN * (1 - p_GN)) + np.eye(members + 1) * ridge
    variance_GF = np.einsum("gff->gf", np.linalg.inv(information_GFF))
    one_kind = np.ptp(positive_GN, axis=1) == 0  # only positives or only negatives
    beta_GF = np.where(one_kind[:, None], center_GF, beta_GF)
    wald_GM = np.where(one_kind[:, None], 0.0, beta_GF[:, :-1] ** 2 / variance_GF[:, :-1])
    return beta_GF, wald_GM


def label_level(
    logits_NK: NDArray[np.float32], targets_NK: NDArray[np.uint8], ridge: float = LABEL_RIDGE_ROWS
) -> Floats:
    """A logistic level over labels, shape (K + 1, K): each label's logit corrected by all the others'.

    It is shrunk to the identity, so that a label unrelated to the others keeps its logit.

    Args:
        logits_NK: logits of the combined members.
        targets_NK: targets.
        ridge: strength of the shrinkage, in rows.
    """
    rows, classes = logits_NK.shape
    scale_K = np.maximum(logits_NK.std(axis=0, dtype=np.float64), 1e-6)
    mean_K = logits_NK.mean(axis=0, dtype=np.float64)
    # All labels standardized, then the label's own raw logit, whose coefficient is shrunk to 1.
    features_FN = np.ones((classes + 2, rows))
    features_FN[:classes] = ((logits_NK - mean_K) / scale_K).T
    level_FK = np.zeros((classes + 1, classes))
    for k in range(classes):
        level_FK[k, k] = 1.0
        positive_N = targets_NK[:, k].astype(np.float64)
        if positive_N.min() == positive_N.max():
            continue
        features_FN[classes] = logits_NK[:, k]
        center_F = np.zeros(classes + 2)
        center_F[classes] = 1.0
        beta_F = fit_logistic(
            features_FN[None],
            positive_N[None],
            np.ones((1, rows)),
            center_F[None],
            np.full((1, classes + 2), ridge),
        )[0]
        others_K = beta_F[:classes] / scale_K
        level_FK[:classes, k] = others_K
        level_FK[k, k] += beta_F[classes]
        level_FK[classes, k] = beta_F[classes + 1] - float(others_K @ mean_K)
    return level_FK


def ridge_stack(
    logits_MNK: NDArray[np.float32],
    targets_NK: NDArray[np.uint8],
    fold_N: NDArray[np.intp],
    ridge: float = LABEL_RIDGE_ROWS,
) -> tuple[Floats, Floats, Floats]:
    """Ridge regression in two levels: labels within a member, then members (Planet's winning recipe).

    Level 1 maps a member's K logits to K targets; level 2 weights the members' level-1 scores per
    class. Level 2 is fitted on level-1 scores of rows that level 1 was not fitted on.

    Args:
        logits_MNK: logits of calibrated members.
        targets_NK: targets.
        fold_N: fold of each row, for the level-1 scores.
        ridge: strength of the shrinkage, in rows.

    Returns:
        Level 1 (M, K + 1, K), level-2 weights (M, K) and bias (K,).
    """
    members, rows, classes = logits_MNK.shape
    targets = targets_NK.astype(np.float64)
    scores_MNK = np.empty((members, rows, classes), np.float32)
    level1_MFK = np.empty((members, classes + 1, classes))
    parts = [np.flatnonzero(fold_N == fold) for fold in np.unique(fold_N)]
    truths = [targets[part] for part in parts]
    for m in range(members):
        features = [_with_one(logits_MNK[m, part].T) for part in parts]
        grams = np.stack([x_FN @ x_FN.T for x_FN in features])
        moments = np.stack([x_FN @ truth_NK for x_FN, truth_NK in zip(features, truths, strict=True)])
        level1_MFK[m] = _ridge(grams.sum(0), moments.sum(0), ridge)
        for part, x_FN, gram, moment in zip(parts, features, grams, moments, strict=True):
            scores_MNK[m, part] = x_FN.T @ _ridge(grams.sum(0) - gram, moments.sum(0) - moment, ridge)
    weights_MK, bias_K = np.empty((members, classes)), np.empty(classes)
    equal_F = np.append(np.full(members, 1 / members), 0.0)
    for k in range(classes):
        x_FN = _with_one(scores_MNK[:, :, k])
        strength = ridge * max(float(scores_MNK[:, :, k].var()), 1e-9)
        solution_F = _ridge(x_FN @ x_FN.T, x_FN @ targets[:, k], strength, equal_F)
        weights_MK[:, k], bias_K[k] = solution_F[:-1], solution_F[-1]
    return level1_MFK, weights_MK, bias_K


def _with_one(features_FN: NDArray[np.float32]) -> Floats:
    """The features with a row of ones below them, in float64."""
    return np.concatenate([features_FN, np.ones((1, features_FN.shape[1]))]).astype(np.float64)


def _ridge(gram_FF: Floats, moment: Floats, ridge: float, center_F: Floats | None = None) -> Floats:
    """Least squares shrunk to ``center_F`` (0 where omitted); the constant, last, is not shrunk."""
    penalty_F = np.full(len(gram_FF), ridge)
    penalty_F[-1] = 1e-6
    if center_F is not None:
        moment = moment + penalty_F * center_F
    return np.asarray(np.linalg.solve(gram_FF + np.diag(penalty_F), moment), np.float64)
