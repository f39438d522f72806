"""Multi-label losses over logits; each returns one number for a batch.

====================== ================================================= ===============================
``LossConfig.name``    method                                            further options
====================== ================================================= ===============================
bce                    binary cross-entropy
weighted_bce           positives of label k have weight w_k              weighting, weight_cap, class_weights
focal                  Lin et al., ICCV 2017                             gamma, alpha
asymmetric             Ridnik et al., ICCV 2021 (ASL)                    gamma_positive, gamma_negative, clip
distribution_balanced  Wu et al., ECCV 2020, with focal weighting        gamma (0: none)
two_way                Kobayashi, CVPR 2023                              temperature
logit_adjusted         Menon et al., ICLR 2021, a sigmoid per label      tau
====================== ================================================= ===============================

All losses use ``label_smoothing`` and accept soft targets in [0, 1] (mixup, cutmix); for these a loss is the
target-weighted sum of its positive and its negative part. All return a scalar. All are means over rows and
labels, so a batch with every row doubled has the same loss. The exception is the column half of ``two_way``,
whose log-sum-exp runs over the rows of the batch by definition. All are computed in float32 under autocast.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import assert_never

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn.functional import binary_cross_entropy_with_logits, logsigmoid, softplus

from canopy.config import LossConfig
from canopy.losses.class_weights import alpha_by_label, check_counts, log_odds, positive_weights


class MultiLabelLoss(nn.Module):
    """The loss of a config; build it with :func:`build_loss`."""

    counts_K: Tensor
    weights_K: Tensor
    alpha_K: Tensor
    prior_K: Tensor

    def __init__(
        self, config: LossConfig, label_counts_K: NDArray[np.integer], rows: int, names: Sequence[str] | None
    ) -> None:
        super().__init__()
        self.config, self.rows, self.labels = config, rows, len(label_counts_K)
        buffers = {
            "counts_K": label_counts_K,
            "weights_K": positive_weights(config, label_counts_K, rows, names),
            "alpha_K": alpha_by_label(config, label_counts_K, rows),
            "prior_K": log_odds(label_counts_K, rows),
        }
        for name, values in buffers.items():
            self.register_buffer(name, torch.tensor(values, dtype=torch.float32), persistent=False)

    def forward(self, logits_NK: Tensor, targets_NK: Tensor) -> Tensor:
        """The mean loss of logits (N, K) and targets (N, K): a float32 scalar, float64 for float64 logits."""
        assert logits_NK.shape == targets_NK.shape
        assert logits_NK.shape[1] == self.labels
        with torch.autocast(logits_NK.device.type, enabled=False):
            x_NK = logits_NK if logits_NK.dtype == torch.float64 else logits_NK.float()
            labels_NK = targets_NK.to(x_NK.dtype)
            smoothing = self.config.label_smoothing
            y_NK = labels_NK * (1 - 2 * smoothing) + smoothing if smoothing else labels_NK
            return self._loss(x_NK, y_NK, labels_NK)

    def _loss(self, x_NK: Tensor, y_NK: Tensor, labels_NK: Tensor) -> Tensor:
        c = self.config
        match c.name:
            case "bce":
                loss = bce(x_NK, y_NK)
            case "weighted_bce":
                loss = bce(x_NK, y_NK, self.weights_K)
            case "focal":
                loss = focal(x_NK, y_NK, c.gamma, self.alpha_K if c.alpha is not None else None)
            case "asymmetric":
                loss = asymmetric(x_NK, y_NK, c.gamma_positive, c.gamma_negative, c.clip)
            case "distribution_balanced":
                loss = distribution_balanced(x_NK, y_NK, self.counts_K, self.rows, c.gamma, labels_NK)
            case "two_way":
                loss = two_way(x_NK, y_NK, c.temperature)
            case "logit_adjusted":
                loss = logit_adjusted(x_NK, y_NK, self.prior_K, c.tau)
            case _:
                assert_never(c.name)
        return loss


def build_loss(
    config: LossConfig,
    label_counts_K: NDArray[np.integer],
    rows: int,
    names: Sequence[str] | None = None,
) -> MultiLabelLoss:
    """Build the training loss; move it to the device of the logits with ``.to``.

    Args:
        config: the loss and its parameters.
        label_counts_K: number of positives of each label among the training rows, shape (K,).
        rows: number of training rows.
        names: names of the labels; used in error messages.

    Raises:
        ConfigError: when the number of per-label weights or alphas is not K.
        DataError: when the loss needs every label's frequency and a label has no positives or no negatives.
    """
    check_counts(config, label_counts_K, rows, names)
    return MultiLabelLoss(config, label_counts_K, rows, names)


def bce(x_NK: Tensor, y_NK: Tensor, weights_K: Tensor | None = None) -> Tensor:
    """Mean of -w y log p - (1 - y) log(1 - p), a scalar; w is the label's entry of ``weights_K``, >= 0.

    As in all losses here, ``x_NK`` are logits and ``y_NK`` targets in [0, 1].
    """
    weights_K = None if weights_K is None else weights_K.to(x_NK.dtype)
    return binary_cross_entropy_with_logits(x_NK, y_NK, pos_weight=weights_K)


def logit_adjusted(x_NK: Tensor, y_NK: Tensor, prior_K: Tensor, tau: float) -> Tensor:
    """BCE of x + tau log(r / (1 - r)) for labels of rate r, so that x does not depend on the rate.

    Menon et al., "Long-tail learning via logit adjustment", ICLR 2021, equation 10, with the log-odds of one
    sigmoid per label in place of the log-prior of a softmax. For tau 1 the optimal x is that of balanced
    data: a probability of 0.5 means "as likely as the label's rate". ``prior_K`` are the log-odds of the
    rates, shape (K,).
    """
    return bce(x_NK + tau * prior_K.to(x_NK.dtype), y_NK)


def focal(x_NK: Tensor, y_NK: Tensor, gamma: float, alpha_K: Tensor | None = None) -> Tensor:
    """FL = -alpha_t (1 - p_t)^gamma log p_t, where p_t is the probability of the true class.

    Lin et al., "Focal Loss for Dense Object Detection", ICCV 2017, equation 5. ``alpha_K`` is the weight of
    each label's positives and 1 - alpha that of its negatives; with None both are 1. Powers are computed from
    log-probabilities, so that no gradient becomes 0 x inf at extreme logits.
    """
    positive_NK = -torch.exp(gamma * logsigmoid(-x_NK)) * logsigmoid(x_NK)
    negative_NK = -torch.exp(gamma * logsigmoid(x_NK)) * logsigmoid(-x_NK)
    if alpha_K is not None:
        alpha_K = alpha_K.to(x_NK.dtype)
        positive_NK, negative_NK = alpha_K * positive_NK, (1 - alpha_K) * negative_NK
    return (y_NK * positive_NK + (1 - y_NK) * negative_NK).mean()


def asymmetric(
    x_NK: Tensor, y_NK: Tensor, gamma_positive: float, gamma_negative: float, clip: float
) -> Tensor:
    """ASL: L+ = -(1 - p)^g+ log p, L- = -q^g- log(1 - q) with q = max(p - clip, 0).

    Ridnik et al., "Asymmetric Loss For Multi-Label Classification", ICCV 2021, equations 4 to 7.
    Negatives with p <= clip have no loss. With clip 0 and g+ = g- it is the focal loss.
    """
    positive_NK = -torch.exp(gamma_positive * logsigmoid(-x_NK)) * logsigmoid(x_NK)
    if clip == 0:
        negative_NK = -torch.exp(gamma_negative * logsigmoid(x_NK)) * logsigmoid(-x_NK)
    else:
        # Clamped above 0: the derivative of 0^g is infinite for g < 1 and would be multiplied by 0.
        q_NK = (torch.sigmoid(x_NK) - clip).clamp_min(1e-12)
        rest_NK = (torch.sigmoid(-x_NK) + clip).clamp_max(1)  # 1 - q, which would round to 0 for tiny clips
        negative_NK = -(q_NK**gamma_negative) * torch.log(rest_NK)
    return (y_NK * positive_NK + (1 - y_NK) * negative_NK).mean()


REBALANCE_FLOOR, REBALANCE_SLOPE, REBALANCE_CENTER = 0.1, 10.0, 0.2
NEGATIVE_SCALE, BIAS_SCALE = 2.0, 0.05


def distribution_balanced(
    x_NK: Tensor,
    y_NK: Tensor,
    counts_K: Tensor,
    rows: int,
    gamma: float,
    labels_NK: Tensor | None = None,
) -> Tensor:
    """Distribution-balanced loss: re-balanced weights, negative-tolerant logits, optional focal weighting.

    Wu et al., "Distribution-Balanced Loss for Multi-Label Classification in Long-Tailed Datasets", ECCV
    2020. A row sampled for one of its labels is also a sample of its other labels. The weight
    r = (1 / n_k) / sum over the row's labels of (1 / n) of label k in row i corrects for it, smoothed to
    0.1 + sigmoid(10 (r - 0.2)). Logits are shifted by the label prior (0.05 of its log-odds). Logits of
    negatives are scaled by 2 and their loss is halved, so that easy negatives lose their influence early.

    Args:
        x_NK: logits.
        y_NK: targets in [0, 1], possibly smoothed.
        counts_K: number of positives of each label.
        rows: number of training rows.
        gamma: exponent of the focal weighting; 0 for none.
        labels_NK: targets before smoothing, from which the weights are computed. The small target that
            smoothing gives every row for a rare label would otherwise outweigh the row's own labels.
    """
    inverse_K = 1.0 / counts_K.to(x_NK.dtype)
    drawn_NK = y_NK if labels_NK is None else labels_NK
    share_NK = inverse_K / (drawn_NK * inverse_K).sum(dim=1, keepdim=True)  # inf in a row without labels
    weight_NK = REBALANCE_FLOOR + torch.sigmoid(REBALANCE_SLOPE * (share_NK - REBALANCE_CENTER))
    shifted_NK = x_NK + BIAS_SCALE * torch.log(counts_K / (rows - counts_K)).to(x_NK.dtype)
    z_NK = NEGATIVE_SCALE * shifted_NK
    positive_NK = -torch.exp(gamma * logsigmoid(-shifted_NK)) * logsigmoid(shifted_NK)
    negative_NK = -torch.exp(gamma * logsigmoid(z_NK)) * logsigmoid(-z_NK) / NEGATIVE_SCALE
    return (weight_NK * (y_NK * positive_NK + (1 - y_NK) * negative_NK)).mean()


def two_way(x_NK: Tensor, y_NK: Tensor, temperature: float) -> Tensor:
    """Two-way loss: every positive against every negative, in each row and in each label of the batch.

    softplus(T lse_positives(-x / T) + lse_negatives(x)), averaged over the rows that have a positive
    label, plus the same over the labels that have a positive row. Kobayashi, "Two-Way Multi-Label Loss",
    CVPR 2023, equations 7 to 9. A soft target y has weight y among the positives and 1 - y among the
    negatives.
    """
    return _one_way(x_NK, y_NK, temperature, 1) + _one_way(x_NK, y_NK, temperature, 0)


def _one_way(x_NK: Tensor, y_NK: Tensor, temperature: float, dim: int) -> Tensor:
    none = torch.full_like(x_NK, -1e9)
    tiny = torch.finfo(x_NK.dtype).tiny
    in_positives = torch.where(y_NK > 0, y_NK.clamp_min(tiny).log(), none)
    in_negatives = torch.where(y_NK < 1, (1 - y_NK).clamp_min(tiny).log(), none)
    positives = temperature * torch.logsumexp(in_positives - x_NK / temperature, dim)
    negatives = torch.logsumexp(in_negatives + x_NK, dim)
    present = (y_NK > 0).any(dim).to(x_NK.dtype)
    return (present * softplus(positives + negatives)).sum() / present.sum().clamp_min(1)
