"""The fitted ensemble as torch layers, so that it can be part of an exported graph.

Each layer computes what its counterpart in :mod:`canopy.ensemble` computes with numpy. Curves and sums are
evaluated in float64, because the slope of an isotonic curve near 0 and 1 can be very large, and every layer
returns float32, as its counterpart does.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import assert_never

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from canopy.ensemble.calibrate import Calibration
from canopy.ensemble.combination import Combination, quantile_curve
from canopy.ensemble.logistic import LOGIT_LIMIT
from canopy.metrics import Floats

LOWEST = float(np.float32(1 / (1 + np.exp(LOGIT_LIMIT))))
HIGHEST = float(np.float32(1) - np.float32(LOWEST))
"""The range to which probabilities are clipped before their logit is taken, as float32 values."""
DISTANCE_LIMIT, THRESHOLD_LIMIT = 1e-7, 1e-6
"""Clips of probabilities and of thresholds in the choice within an exclusive group."""


class PiecewiseLinear(nn.Module):
    """One curve per class through knots (p, q), constant beyond its ends, as ``numpy.interp``."""

    start_K: Tensor
    knots_KP: Tensor
    widths_KP: Tensor
    slopes_KP: Tensor

    def __init__(self, curves: Sequence[tuple[Floats, Floats]]) -> None:
        super().__init__()
        pieces = max(1, *(len(p) - 1 for p, _ in curves))
        knots_KP, widths_KP, slopes_KP = (np.zeros((len(curves), pieces)) for _ in range(3))
        for k, (p, q) in enumerate(curves):
            count = len(p) - 1
            knots_KP[k, :count], widths_KP[k, :count] = p[:-1], np.diff(p)
            slopes_KP[k, :count] = np.diff(q) / np.diff(p)
        self.register_buffer("start_K", torch.tensor([float(q[0]) for _, q in curves], dtype=torch.float64))
        self.register_buffer("knots_KP", torch.from_numpy(knots_KP))
        self.register_buffer("widths_KP", torch.from_numpy(widths_KP))
        self.register_buffer("slopes_KP", torch.from_numpy(slopes_KP))

    def forward(self, x_NK: Tensor) -> Tensor:
        """The value of each class's curve, float32, shape (N, K)."""
        beyond_NKP = (x_NK.double().unsqueeze(2) - self.knots_KP).clamp(min=0)
        steps_NKP = torch.minimum(beyond_NKP, self.widths_KP)
        return (self.start_K + (steps_NKP * self.slopes_KP).sum(2)).float()


class LogLinear(nn.Module):
    """The curve ``logit q = a log p - b log(1 - p) + c`` of each class."""

    coefficients_3K: Tensor

    def __init__(self, coefficients_K3: Floats) -> None:
        super().__init__()
        rounded = torch.from_numpy(coefficients_K3.astype(np.float32)).double()
        self.register_buffer("coefficients_3K", rounded.T.contiguous())

    def forward(self, probs_NK: Tensor) -> Tensor:
        """Calibrated probabilities, float32, shape (N, K)."""
        a_K, b_K, c_K = self.coefficients_3K.unbind(0)
        log_p_NK, log_q_NK = log_odds_parts(probs_NK)
        return sigmoid(a_K * log_p_NK - b_K * log_q_NK + c_K)


def sigmoid(logits: Tensor) -> Tensor:
    """Probabilities of logits, float32, as :func:`canopy.ensemble.logistic.sigmoid` rounds them.

    A probability of 1e-5 comes out in steps of 3e-8, and a second level of a stack takes its logit again: the
    same steps are needed, not finer ones.
    """
    return 0.5 * (torch.tanh(0.5 * logits.double()).float() + 1)


def log_odds_parts(probs_NK: Tensor) -> tuple[Tensor, Tensor]:
    """Log p and log (1 - p) of probabilities clipped to ± ``LOGIT_LIMIT``, float64."""
    clipped_NK = probs_NK.double().clamp(LOWEST, HIGHEST)
    return torch.log(clipped_NK), torch.log(1 - clipped_NK)


def calibration_layer(calibration: Calibration) -> nn.Module:
    """The layer of :meth:`canopy.ensemble.calibrate.Calibration.apply`."""
    if calibration.kind == "none":
        return nn.Identity()
    if calibration.knots is not None:
        return PiecewiseLinear(calibration.knots)
    assert calibration.coefficients_K3 is not None
    return LogLinear(calibration.coefficients_K3)


class LabelLevel(nn.Module):
    """A linear level over labels: K inputs and a constant give K outputs."""

    level_FK: Tensor

    def __init__(self, level_FK: Floats) -> None:
        super().__init__()
        self.register_buffer("level_FK", torch.from_numpy(level_FK.astype(np.float32)).double())

    def forward(self, inputs_NK: Tensor) -> Tensor:
        """The outputs, float64, shape (N, K)."""
        # Not a matrix product: quantization would take it for a layer of a network.
        products_NKK = inputs_NK.double().unsqueeze(2) * self.level_FK[:-1]
        return products_NKK.sum(1) + self.level_FK[-1]


class CombinationLayer(nn.Module):
    """The layer of :meth:`canopy.ensemble.combination.Combination.apply`.

    Args:
        combination: the fitted combination.
        used: numbers of the members whose probabilities :meth:`forward` receives, ascending; all others have
            no weight.
    """

    weights_MK: Tensor
    bias_K: Tensor

    def __init__(self, combination: Combination, used: Sequence[int]) -> None:
        super().__init__()
        self.space = combination.space
        weights_MK = combination.weights_MK[list(used)].astype(np.float32)
        self.register_buffer("weights_MK", torch.from_numpy(weights_MK).double())
        self.register_buffer("bias_K", torch.from_numpy(combination.bias_K.astype(np.float32)).double())
        first, last, knots = combination.level1_MFK, combination.level2_FK, combination.quantiles_MKQ
        self.levels = nn.ModuleList() if first is None else nn.ModuleList(LabelLevel(first[m]) for m in used)
        self.ranks = nn.ModuleList()
        if knots is not None:
            self.ranks.extend(PiecewiseLinear([quantile_curve(row) for row in knots[m]]) for m in used)
        self.last = nn.Identity() if last is None else LabelLevel(last)

    def forward(self, members: list[Tensor]) -> Tensor:
        """Scores in [0, 1], float32, shape (N, K), of calibrated probabilities (N, K) of the used members."""
        total_NK = self.bias_K
        for m, probs_NK in enumerate(members):
            total_NK = total_NK + self.weights_MK[m] * self._mapped(m, probs_NK)
        total_NK = self.last(total_NK)
        match self.space:
            case "probability" | "rank":
                return torch.clamp(total_NK, 0, 1).float()
            case "logit":
                return sigmoid(total_NK)
            case _:
                assert_never(self.space)

    def _mapped(self, m: int, probs_NK: Tensor) -> Tensor:
        """A member's probabilities in the space of the sum, float64."""
        if len(self.levels):
            log_p_NK, log_q_NK = log_odds_parts(probs_NK)
            scores_NK: Tensor = self.levels[m](log_p_NK - log_q_NK)
            return scores_NK
        match self.space:
            case "probability":
                return probs_NK.double()
            case "logit":
                log_p_NK, log_q_NK = log_odds_parts(probs_NK)
                return log_p_NK - log_q_NK
            case "rank":
                ranks_NK: Tensor = self.ranks[m](probs_NK)
                return ranks_NK.double()
            case _:
                assert_never(self.space)


class DecisionLayer(nn.Module):
    """The layer of :func:`canopy.ensemble.model.decide`.

    Args:
        thresholds_K: one threshold per class.
        groups: columns of each exclusive group.
    """

    thresholds_K: Tensor

    def __init__(self, thresholds_K: NDArray[np.float32], groups: Sequence[Sequence[int]]) -> None:
        super().__init__()
        self.register_buffer("thresholds_K", torch.from_numpy(thresholds_K.astype(np.float32)))
        for n, group in enumerate(groups):
            columns = torch.tensor(group)
            odds = log_odds(self.thresholds_K[columns].double(), THRESHOLD_LIMIT)
            place_K = torch.full((len(thresholds_K),), -1)
            place_K[columns] = torch.arange(len(group))
            self.register_buffer(f"columns_{n}", columns)
            self.register_buffer(f"odds_{n}", odds)
            self.register_buffer(f"place_K_{n}", place_K)
        self.groups = len(groups)

    def forward(self, probs_NK: Tensor) -> Tensor:
        """Decisions, uint8, shape (N, K)."""
        decisions_NK = probs_NK >= self.thresholds_K
        for n in range(self.groups):
            columns, odds = self.get_buffer(f"columns_{n}"), self.get_buffer(f"odds_{n}")
            place_K = self.get_buffer(f"place_K_{n}")
            over = log_odds(probs_NK.index_select(1, columns).double(), DISTANCE_LIMIT) - odds
            chosen_NK = over.argmax(1, keepdim=True) == place_K
            decisions_NK = torch.where(place_K >= 0, chosen_NK, decisions_NK)
        return decisions_NK.to(torch.uint8)


def log_odds(probs: Tensor, limit: float) -> Tensor:
    """log(p / (1 - p)) of probabilities clipped to [limit, 1 - limit]; same shape and type."""
    clipped = probs.clamp(limit, 1 - limit)
    return torch.log(clipped / (1 - clipped))
