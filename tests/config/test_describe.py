from __future__ import annotations

import pytest

from canopy.config import LossConfig, ModelConfig
from canopy.config.describe import describe_loss, describe_model


@pytest.mark.parametrize(
    ("loss", "text"),
    [
        (LossConfig(), "bce"),
        (LossConfig(name="weighted_bce"), "weighted bce, weights sqrt"),
        (LossConfig(name="weighted_bce", class_weights=(1, 2)), "weighted bce, weights per label"),
        (LossConfig(name="focal"), "focal, γ 2"),
        (LossConfig(name="focal", alpha=0.25), "focal, γ 2, α 0.25"),
        (LossConfig(name="focal", alpha="frequency"), "focal, γ 2, α frequency"),
        (LossConfig(name="asymmetric"), "asymmetric, γ⁺ 0, γ⁻ 4, clip 0.05"),
    ],
)
def test_a_loss_is_described_by_the_parameters_that_it_reads(loss: LossConfig, text: str) -> None:
    assert describe_loss(loss.model_dump()) == text


def test_a_model_is_described_by_backbone_and_attention() -> None:
    assert describe_model(ModelConfig(backbone="resnet50")) == "resnet50"
    assert describe_model(ModelConfig(backbone="resnet50", cbam="last")) == "resnet50 + CBAM (last)"
