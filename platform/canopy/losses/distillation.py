"""The loss of a network that learns from hard and soft labels at once."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn.functional import binary_cross_entropy_with_logits


class DistillationLoss(nn.Module):
    """Loss of the hard labels and cross-entropy with the soft ones, weighted.

    (1 - w) · hard(x, y) + w · T² · BCE(x / T, q), where x are the logits and q the soft labels at temperature
    T. T² keeps the gradients of both parts in proportion. Source: Hinton, Vinyals and Dean, "Distilling the
    Knowledge in a Neural Network", 2015, with a sigmoid per label instead of the softmax.

    Args:
        hard: maps logits (N, K) and targets (N, K) to a scalar mean.
        weight: share w of the soft labels, above 0 to 1.
        temperature: T, 1 or more.
    """

    def __init__(self, hard: nn.Module, weight: float, temperature: float) -> None:
        super().__init__()
        self.hard, self.weight, self.temperature = hard, weight, temperature

    def forward(self, logits_NK: Tensor, targets_NJ: Tensor) -> Tensor:
        """The loss of logits (N, K).

        Args:
            logits_NK: the network's logits.
            targets_NJ: hard labels, then soft labels at temperature T, (N, 2 K), in [0, 1].
        """
        labels = logits_NK.shape[1]
        assert targets_NJ.shape == (len(logits_NK), 2 * labels)
        hard: Tensor = self.hard(logits_NK, targets_NJ[:, :labels])
        with torch.autocast(logits_NK.device.type, enabled=False):
            x_NK = logits_NK if logits_NK.dtype == torch.float64 else logits_NK.float()
            soft = binary_cross_entropy_with_logits(
                x_NK / self.temperature, targets_NJ[:, labels:].to(x_NK.dtype)
            )
        return (1 - self.weight) * hard + self.weight * self.temperature**2 * soft
