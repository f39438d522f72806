"""Evidence maps: exact where they can be, of the right place, gone with the weights."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from canopy.config import ModelConfig
from canopy.errors import ConfigError
from canopy.explain.evidence import evidence_maps
from canopy.models.heads import LinearHead
from canopy.models.network import MultiLabelNetwork, build_model

LABELS = 3
EXACT = [
    (ModelConfig(backbone="test_resnet"), "cam"),
    (ModelConfig(backbone="test_resnet", cbam="last"), "cam"),
    (ModelConfig(backbone="test_efficientnet"), "cam"),
    (ModelConfig(backbone="test_resnet", head="csra"), "csra"),
]
GRADIENTS = [
    (ModelConfig(backbone="test_resnet", head="mlp"), "grad-cam"),
    (ModelConfig(backbone="test_vit", input_size=128), "grad-cam"),
    (ModelConfig(backbone="test_convnext"), "grad-cam"),
]


def network_of(config: ModelConfig, seed: int = 0) -> MultiLabelNetwork:
    torch.manual_seed(seed)
    network = build_model(config, LABELS).eval()
    for parameter in network.head.parameters():
        torch.nn.init.normal_(parameter, std=0.5)
    return network


@pytest.fixture(scope="module")
def images() -> torch.Tensor:
    return torch.from_numpy(np.random.default_rng(0).normal(size=(2, 3, 128, 128)).astype(np.float32))


def identity(pair: tuple[ModelConfig, str]) -> str:
    return f"{pair[0].backbone}-{pair[0].head}-{pair[0].cbam}"


@pytest.mark.parametrize("case", EXACT, ids=identity)
def test_the_mean_of_an_exact_map_and_the_bias_are_the_logit(
    case: tuple[ModelConfig, str], images: torch.Tensor
) -> None:
    network = network_of(case[0])
    found = evidence_maps(network, images)
    assert found.method == case[1]
    with torch.no_grad():
        expected = network(images)
    torch.testing.assert_close(found.logits_nK, expected, atol=1e-4, rtol=1e-4)
    means = found.maps_nKhw.mean((2, 3)) + network.head.final.bias
    torch.testing.assert_close(means, expected, atol=1e-3, rtol=1e-3)
    assert found.maps_nKhw.shape[1] == LABELS
    assert float(found.maps_nKhw.std((2, 3)).min()) > 0


@pytest.mark.parametrize("case", [*EXACT, *GRADIENTS], ids=identity)
def test_other_weights_give_another_map(case: tuple[ModelConfig, str], images: torch.Tensor) -> None:
    first, second = (evidence_maps(network_of(case[0], seed), images) for seed in (0, 1))
    assert first.method == second.method == case[1]
    assert first.maps_nKhw.shape == second.maps_nKhw.shape
    maps = [
        (found.maps_nKhw - found.maps_nKhw.mean((2, 3), keepdim=True)).flatten().numpy()
        for found in (first, second)
    ]
    assert abs(np.corrcoef(maps[0], maps[1])[0, 1]) < 0.7


def test_grad_cam_of_a_linear_head_is_its_class_activation_map(
    images: torch.Tensor, monkeypatch: pytest.MonkeyPatch
) -> None:
    network = network_of(EXACT[0][0])
    exact = evidence_maps(network, images)

    class Disguised(torch.nn.Module):
        """The same head, of a class that is not known to be linear."""

        def __init__(self, head: LinearHead) -> None:
            super().__init__()
            self.final = head.final

        def forward(self, pooled_ND: torch.Tensor) -> torch.Tensor:
            logits: torch.Tensor = self.final(pooled_ND)
            return logits

    assert isinstance(network.head, LinearHead)
    network.head = Disguised(network.head)  # type: ignore[assignment]
    found = evidence_maps(network, images)
    assert (exact.method, found.method) == ("cam", "grad-cam")
    torch.testing.assert_close(found.maps_nKhw, exact.maps_nKhw, atol=1e-4, rtol=1e-3)


@pytest.mark.parametrize("case", [*EXACT, *GRADIENTS], ids=identity)
def test_no_gradient_and_no_hook_is_left(case: tuple[ModelConfig, str], images: torch.Tensor) -> None:
    network = network_of(case[0])
    with torch.inference_mode():
        inner = images.clone()
        maps = evidence_maps(network, inner).maps_nKhw
    assert not maps.requires_grad
    assert all(parameter.grad is None for parameter in network.parameters())
    assert not any(module._forward_pre_hooks for module in network.modules())


def test_features_without_positions_are_refused(images: torch.Tensor) -> None:
    network = network_of(GRADIENTS[1][0])
    del network.backbone.blocks
    network.features = lambda _: torch.zeros(2, 4, 64)  # type: ignore[method-assign,assignment]
    with pytest.raises(ConfigError, match="explain needs a backbone with feature maps"):
        evidence_maps(network, images)
