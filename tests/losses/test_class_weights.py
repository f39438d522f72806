"""Weights, alphas and rates from label frequencies, and the label counts that are refused."""

from __future__ import annotations

from math import log, sqrt
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from canopy.config import LossConfig
from canopy.errors import ConfigError, DataError
from canopy.losses.class_weights import alpha_by_label, initial_rates, positive_weights
from canopy.losses.multilabel import build_loss

COUNTS_K = np.array([40, 10, 2])


ROWS = 50


LN3 = log(3)  # the logit of probability 3/4


def loss_of(x_NK: Any, y_NK: Any, counts_K: Any = COUNTS_K, rows: int = ROWS, **config: Any) -> float:
    x_NK, y_NK = torch.tensor(x_NK, dtype=torch.float64), torch.tensor(y_NK, dtype=torch.float64)
    return float(build_loss(LossConfig(**config), np.asarray(counts_K), rows)(x_NK, y_NK))


def batch(seed: int = 0, rows: int = 6, scale: float = 2.0) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    x_NK = scale * torch.randn(rows, 3, generator=generator, dtype=torch.float64)
    return x_NK, (torch.rand(rows, 3, generator=generator) < 0.4).double()


def test_weights_are_capped_and_frequent_labels_weigh_less_than_one() -> None:
    config = LossConfig(name="weighted_bce", weighting="ratio", weight_cap=20)
    np.testing.assert_allclose(positive_weights(config, np.array([1, 50, 80]), 100), [20, 1, 0.25])


def test_focal_alpha_balances_positives_against_negatives_per_label() -> None:
    x_NK, y_NK = [[LN3, LN3, LN3]], [[1, 1, 0]]
    one = 0.25**2 * -log(0.75)
    expected = (0.9 * one + 0.3 * one + (1 - 0.6) * 0.75**2 * -log(0.25)) / 3
    assert loss_of(x_NK, y_NK, name="focal", gamma=2, alpha=(0.9, 0.3, 0.6)) == pytest.approx(expected)
    # from the frequencies: sqrt(neg) / (sqrt(neg) + sqrt(pos))
    config = LossConfig(name="focal", alpha="frequency")
    np.testing.assert_allclose(alpha_by_label(config, np.array([50, 10]), 100), [0.5, 3 / 4])


@pytest.mark.parametrize("name", ["bce", "weighted_bce", "logit_adjusted"])
def test_initial_rates_cost_least_among_constant_answers(name: Any) -> None:
    """At the starting rates, the gradient of the loss over the whole training set is 0."""
    config = LossConfig(name=name, weighting="ratio", weight_cap=5, tau=0.5)
    y_NK = torch.zeros(ROWS, 3, dtype=torch.float64)
    for k, count in enumerate(COUNTS_K):
        y_NK[:count, k] = 1
    rates_K = torch.from_numpy(initial_rates(config, COUNTS_K, ROWS))
    bias_K = torch.logit(rates_K).requires_grad_()
    build_loss(config, COUNTS_K, ROWS)(bias_K.expand(ROWS, 3), y_NK).backward()
    assert bias_K.grad is not None
    torch.testing.assert_close(bias_K.grad, torch.zeros(3, dtype=torch.float64), atol=1e-6, rtol=0)


def test_initial_rates_are_label_rates_otherwise() -> None:
    np.testing.assert_allclose(initial_rates(LossConfig(name="focal"), COUNTS_K, ROWS), COUNTS_K / ROWS)
    assert 0 < initial_rates(LossConfig(), np.array([0, ROWS]), ROWS)[0] < 0.02


def test_effective_number_saturates() -> None:
    """Beyond 1 / (1 - beta) = 1,000 examples the weight stops following the ratio."""
    config = LossConfig(name="weighted_bce", weighting="effective", weight_cap=1000)
    weights_K = positive_weights(config, np.array([100, 20_000]), 40_000)
    assert sqrt(399) / 3 < weights_K[0] < 1000 / 95
    assert weights_K[1] == pytest.approx(1)


def test_wrong_lengths_are_refused() -> None:
    with pytest.raises(
        ConfigError, match=r"loss.class_weights must hold one number for each of the 3 labels"
    ):
        build_loss(LossConfig(name="weighted_bce", class_weights=(1, 2)), COUNTS_K, ROWS)
    with pytest.raises(ConfigError, match=r"loss.alpha .* Got: 4"):
        build_loss(LossConfig(name="focal", alpha=(0.1, 0.2, 0.3, 0.4)), COUNTS_K, ROWS)


@pytest.mark.parametrize("config", [
    {"name": "weighted_bce"}, {"name": "distribution_balanced"}, {"name": "logit_adjusted"},
    {"name": "focal", "alpha": "frequency"},
], ids=str)  # fmt: skip
def test_a_label_without_positives_is_named(config: dict[str, Any]) -> None:
    names = ("clear", "blooming", "blow_down")
    with pytest.raises(
        DataError, match=r"least one positive .* none of blooming, blow_down\. .* data\.seed or the split c"
    ):
        build_loss(LossConfig(**config), np.array([7, 0, 0]), 10, names)
    with pytest.raises(DataError, match=r"at least one negative .* none of clear"):
        build_loss(LossConfig(**config), np.array([10, 1, 1]), 10, names)


def test_a_label_without_positives_is_fine_where_no_frequency_is_read() -> None:
    x_NK, y_NK = batch()
    for config in (LossConfig(), LossConfig(name="focal", alpha=0.5), LossConfig(name="asymmetric")):
        assert torch.isfinite(build_loss(config, np.array([7, 0, 10]), 10)(x_NK, y_NK))
