"""Penalized logistic regression of many small problems at once: the solver of calibration and stacking.

The methods (temperature, Platt, beta, stacking) differ in their features and in what they are shrunk to.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from canopy.metrics import Floats

LOGIT_LIMIT = 12.0
"""Logits are clipped to ± this (probabilities to 6e-6 … 1 - 6e-6): exact 0 and 1 have no logit."""


def logit(probs: NDArray[Any]) -> NDArray[Any]:
    """log(p / (1 - p)), clipped to ± :data:`LOGIT_LIMIT`; same shape and float type."""
    low = float(1 / (1 + np.exp(LOGIT_LIMIT)))
    clipped = np.clip(probs, low, 1 - low)
    return np.asarray(np.log(clipped) - np.log1p(-clipped))


def sigmoid(logits: NDArray[Any]) -> NDArray[Any]:
    """1 / (1 + exp(-z)) of each logit, without overflow; same shape and float type."""
    return np.asarray(0.5 * (np.tanh(0.5 * logits) + 1))


def fit_logistic(
    features_GFR: Floats,
    positive_GR: Floats,
    rows_GR: Floats,
    center_GF: Floats,
    ridge_GF: Floats,
    start_GF: Floats | None = None,
) -> Floats:
    """Coefficients (G, F) of G problems over F features and R (binned) rows, by damped Newton steps.

    Minimizes ``sum_r [rows log(1 + e^z) - positive z] + 1/2 sum_f ridge (b - center)^2`` with
    ``z = b . features``: the posterior mode under normal priors around ``center``. The problem is strictly
    convex where every ridge is above 0, so the minimum is unique, also for separable data.

    Args:
        features_GFR: features, shape (G, F, R), or (1, F, R) where all problems share them.
        positive_GR: weight of the positives in each row or bin.
        rows_GR: weight of all rows in each row or bin.
        center_GF: values to which the coefficients are shrunk.
        ridge_GF: strength of the shrinkage, in rows; above 0.
        start_GF: first coefficients of the iteration; None starts at ``center_GF``.
    """
    beta_GF = np.array(center_GF if start_GF is None else start_GF, np.float64)
    active = np.arange(len(positive_GR))
    for _ in range(60):
        whole = len(active) == len(positive_GR)
        x = features_GFR if len(features_GFR) == 1 or whole else features_GFR[active]
        data = (positive_GR[active], rows_GR[active], center_GF[active], ridge_GF[active])
        step_GF, decrement_G, loss_G = _newton_step(x, beta_GF[active], *data)
        size_G = np.ones(len(active))
        for _ in range(30):  # halve each problem's step until its loss falls enough (Armijo)
            trial_G, _ = _loss(x, beta_GF[active] - size_G[:, None] * step_GF, *data)
            bad = trial_G > loss_G - 1e-4 * size_G * decrement_G + 1e-10 * np.abs(loss_G)
            if not bad.any():
                break
            size_G[bad] /= 2
        beta_GF[active] -= size_G[:, None] * step_GF
        active = active[decrement_G > 1e-8 * (1 + np.abs(loss_G))]
        if not len(active):
            break
    return beta_GF


def hessian(x_GFR: Floats, weight_GR: Floats) -> Floats:
    """Second moments of the features under each problem's weights, shape (G, F, F)."""
    if len(x_GFR) == 1 and len(weight_GR) > 1:  # shared features: all problems in one product
        pairs_HR = (x_GFR[0][:, None] * x_GFR[0][None]).reshape(-1, x_GFR.shape[2])
        return np.asarray((weight_GR @ pairs_HR.T).reshape(-1, x_GFR.shape[1], x_GFR.shape[1]))
    return np.asarray(np.matmul(x_GFR * weight_GR[:, None, :], x_GFR.transpose(0, 2, 1)))


def _newton_step(
    x: Floats, beta_GF: Floats, positive_GR: Floats, rows_GR: Floats, center_GF: Floats, ridge_GF: Floats
) -> tuple[Floats, Floats, Floats]:
    """Newton's step (G, F), twice the second-order decrease of the loss along it (G,), and the loss (G,)."""
    loss_G, p_GR = _loss(x, beta_GF, positive_GR, rows_GR, center_GF, ridge_GF)
    miss_GR = rows_GR * p_GR - positive_GR
    gradient_GF = miss_GR @ x[0].T if len(x) == 1 else np.matmul(x, miss_GR[:, :, None])[:, :, 0]
    gradient_GF = gradient_GF + ridge_GF * (beta_GF - center_GF)
    hessian_GFF = hessian(x, rows_GR * p_GR * (1 - p_GR)) + np.eye(x.shape[1]) * ridge_GF[:, None, :]
    step_GF = np.linalg.solve(hessian_GFF, gradient_GF[:, :, None])[:, :, 0]
    return step_GF, (step_GF * gradient_GF).sum(1), loss_G


def _loss(
    x: Floats, beta_GF: Floats, positive_GR: Floats, rows_GR: Floats, center_GF: Floats, ridge_GF: Floats
) -> tuple[Floats, Floats]:
    """Penalized loss (G,) and probabilities (G, R)."""
    z_GR = beta_GF @ x[0] if len(x) == 1 else np.matmul(beta_GF[:, None, :], x)[:, 0]
    small = np.exp(-np.abs(z_GR))
    softplus_GR = np.maximum(z_GR, 0) + np.log1p(small)
    fit_G = (rows_GR * softplus_GR - positive_GR * z_GR).sum(1)
    p_GR = np.where(z_GR >= 0, 1.0, small) / (1 + small)
    return fit_G + 0.5 * (ridge_GF * (beta_GF - center_GF) ** 2).sum(1), p_GR
