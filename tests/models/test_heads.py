"""Heads: their formulas and their initial predictions."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from tests.models.networks import RATES_K, SMALL, images, model

from canopy.config import ModelConfig
from canopy.models.network import (
    build_model,
)


@pytest.mark.parametrize("head", ["linear", "mlp", "csra"])
def test_network_starts_at_the_label_rates(head: Any) -> None:
    probabilities_NK = model(head=head, dropout=0.3).eval()(images(count=8)).sigmoid()
    expected_K = np.clip(RATES_K, 1e-4, None)
    np.testing.assert_allclose(probabilities_NK.detach().numpy().mean(0), expected_K, rtol=0.35)
    bias_K = model(head=head).head.final.bias.detach().double().numpy()
    np.testing.assert_allclose(1 / (1 + np.exp(-bias_K)), expected_K, rtol=1e-5)
    torch.manual_seed(0)
    assert (build_model(ModelConfig(backbone=SMALL), 3, None).head.final.bias == 0).all()


def test_csra_by_hand() -> None:
    network = model(head="csra", labels=2)
    head = network.head
    maps = torch.randn(1, head.final.in_features, 2, 1)
    weights = head.final.weight.detach()
    scores = [(weights / weights.norm(dim=1, keepdim=True)) @ maps[0, :, i, 0] for i in range(2)]
    s0, s1 = torch.stack(scores).detach()
    share = s0.exp() / (s0.exp() + s1.exp())
    expected = (s0 + s1) / 2 + 0.2 * (share * s0 + (1 - share) * s1) + head.final.bias
    torch.testing.assert_close(head(maps)[0], expected)


def test_mlp_head_has_512_hidden_units() -> None:
    kinds = [
        type(m).__name__ for m in model(head="mlp", dropout=0.5).head.modules() if not list(m.children())
    ]
    assert kinds == ["Dropout", "Linear", "ReLU", "Dropout", "Linear"]
    assert model(head="mlp").head.final.in_features == 512
