"""Heads (linear, MLP, CSRA) from features to one logit per label, and how their last layer starts."""

from __future__ import annotations

from typing import Final

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

HIDDEN = 512
"""Width of the hidden layer of :class:`MLPHead`."""
CSRA_LAMBDA = 0.2
"""Weight of the class-specific part; the paper's setting for large sets of small objects is 0.1 to 0.4."""
CSRA_TEMPERATURE = 1.0
"""Sharpness of the class-specific pooling over positions; for large values it approaches a maximum."""


class LinearHead(nn.Module):
    """Dropout and one linear layer, over pooled features of shape (N, D)."""

    def __init__(self, features: int, labels: int, dropout: float) -> None:
        super().__init__()
        self.dropout = nn.Dropout(dropout)
        self.final = nn.Linear(features, labels)

    def forward(self, pooled_ND: Tensor) -> Tensor:
        """Logits (N, K)."""
        logits_NK: Tensor = self.final(self.dropout(pooled_ND))
        return logits_NK


class MLPHead(nn.Module):
    """Dropout, 512 hidden units, ReLU, dropout and one linear layer, over pooled features of shape (N, D)."""

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

    Each label scores every position with its own normalized weights. Its logit is the mean score plus lambda
    times the average of the scores under their own softmax, so that a small object does not vanish in the
    mean. Zhu and Wu, "Residual Attention: A Simple but Effective Method for Multi-Label Recognition", ICCV
    2021, equations 2 to 6, with a bias per label added for the label prior.
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
"""Standard deviation of the initial weights of the final linear layer."""


def reset_classifier(head: Head, rates_K: NDArray[np.floating] | None) -> None:
    """Redraw the final linear layer and let it predict ``rates_K``, shape (K,); the other layers stay."""
    head.final.reset_parameters()
    initialize_classifier(head, rates_K)


@torch.no_grad()
def initialize_classifier(head: Head, rates_K: NDArray[np.floating] | None) -> None:
    """Initialize the final linear layer so that the network predicts each label's rate for every image.

    The weights start small (as in RetinaNet, Lin et al., ICCV 2017, section 4.1) and the bias starts at the
    log-odds of ``rates_K``, clipped to [1e-4, 1 - 1e-4], or at 0 without rates. Otherwise the first steps are
    spent on learning that rare labels are rare.

    Args:
        head: changed in place.
        rates_K: share of positives of each label, shape (K,).
    """
    if not isinstance(head, CSRAHead):  # CSRA normalizes its weights, so their length has no effect
        nn.init.normal_(head.final.weight, std=FINAL_STD)
    if rates_K is None:
        nn.init.zeros_(head.final.bias)
        return
    clipped_K = np.clip(np.asarray(rates_K, np.float64), 1e-4, 1 - 1e-4)
    head.final.bias.copy_(torch.from_numpy(np.log(clipped_K) - np.log1p(-clipped_K)))
