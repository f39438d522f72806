"""From a backbone's features to one logit per label."""

from __future__ import annotations

from typing import Final

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

HIDDEN = 512
CSRA_LAMBDA = 0.2
"""Weight of the class-specific part; the paper's setting for large sets of small objects is 0.1 to 0.4."""
CSRA_TEMPERATURE = 1.0
"""Softness of the class-specific pooling over positions; large values come near a maximum."""


class LinearHead(nn.Module):
    """Dropout, then one linear layer, over pooled features of shape (N, D)."""

    def __init__(self, features: int, labels: int, dropout: float) -> None:
        super().__init__()
        self.dropout = nn.Dropout(dropout)
        self.final = nn.Linear(features, labels)

    def forward(self, pooled_ND: Tensor) -> Tensor:
        """Logits (N, K)."""
        logits_NK: Tensor = self.final(self.dropout(pooled_ND))
        return logits_NK


class MLPHead(nn.Module):
    """Dropout, 512 units, ReLU, dropout, labels, over pooled features of shape (N, D)."""

    def __init__(self, features: int, labels: int, dropout: float) -> None:
        super().__init__()
        self.hidden = nn.Sequential(
            nn.Dropout(dropout), nn.Linear(features, HIDDEN), nn.ReLU(), nn.Dropout(dropout)
        )
        self.final = nn.Linear(HIDDEN, labels)

    def forward(self, pooled_ND: Tensor) -> Tensor:
        """Logits (N, K)."""
        logits_NK: Tensor = self.final(self.hidden(pooled_ND))
        return logits_NK


class CSRAHead(nn.Module):
    """Class-specific residual attention over feature maps of shape (N, D, H, W), or (N, H, W, D).

    Each label scores every position with its own (normalised) weights; its logit is the mean score plus
    lambda times the scores' average under their own softmax, so that a small object is not lost in the
    average. Zhu and Wu, "Residual Attention: A Simple but Effective Method for Multi-Label Recognition",
    ICCV 2021, equations 2 to 6, with a bias per label added for the label prior.
    """

    def __init__(self, features: int, labels: int, dropout: float, channels_last: bool = False) -> None:
        super().__init__()
        self.dropout = nn.Dropout(dropout)
        self.final = nn.Linear(features, labels)
        self.channels_last = channels_last

    def scores(self, maps: Tensor) -> Tensor:
        """Score of every label at every position, shape (N, K, H, W), without the bias."""
        maps_NDHW = maps.permute(0, 3, 1, 2) if self.channels_last else maps
        weights_KD = nn.functional.normalize(self.final.weight, dim=1)
        return torch.einsum("ndhw,kd->nkhw", self.dropout(maps_NDHW), weights_KD.to(maps_NDHW.dtype))

    def forward(self, maps: Tensor) -> Tensor:
        """Logits (N, K)."""
        scores_NKP = self.scores(maps).flatten(2).float()
        attention_NKP = (CSRA_TEMPERATURE * scores_NKP).softmax(dim=2)
        residual_NK = (attention_NKP * scores_NKP).sum(dim=2)
        logits_NK: Tensor = scores_NKP.mean(dim=2) + CSRA_LAMBDA * residual_NK + self.final.bias
        return logits_NK


Head = LinearHead | MLPHead | CSRAHead
FINAL_STD: Final = 0.01


def restart(head: Head, rates_K: NDArray[np.floating] | None) -> None:
    """Draw the classifier, the last linear layer, anew and let it predict ``rates_K``; the rest stays."""
    head.final.reset_parameters()
    start_at_rates(head, rates_K)


@torch.no_grad()
def start_at_rates(head: Head, rates_K: NDArray[np.floating] | None) -> None:
    """Let the network begin by predicting each label's rate, whatever the image.

    The final weights start small (as in RetinaNet, Lin et al., ICCV 2017, section 4.1) and the final bias
    at the log-odds of ``rates_K``, clipped to [1e-4, 1 - 1e-4]; at 0 when there are no rates. Without
    this the first steps are spent on learning that rare labels are rare.
    """
    if not isinstance(head, CSRAHead):  # its weights are normalised: their length means nothing
        nn.init.normal_(head.final.weight, std=FINAL_STD)
    if rates_K is None:
        nn.init.zeros_(head.final.bias)
        return
    clipped_K = np.clip(np.asarray(rates_K, np.float64), 1e-4, 1 - 1e-4)
    head.final.bias.copy_(torch.from_numpy(np.log(clipped_K) - np.log1p(-clipped_K)))
