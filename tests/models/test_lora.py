"""LoRA on a small transformer: what is trained, and the merged weights."""

from __future__ import annotations

import pytest
import torch
from tests.models.networks import RATES_K

from canopy.config import ModelConfig
from canopy.errors import ConfigError
from canopy.models import lora
from canopy.models.backbones import check_lora
from canopy.models.lora import add_lora, has_lora, linear_layers, merge_lora
from canopy.models.network import MultiLabelNetwork, build_model

VIT = ModelConfig(backbone="test_vit", input_size=32)


def vit() -> MultiLabelNetwork:
    torch.manual_seed(0)
    return build_model(VIT, 3, RATES_K[:3])


def images() -> torch.Tensor:
    return torch.randn(4, 3, 32, 32, generator=torch.Generator().manual_seed(0))


def test_without_peft_the_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lora, "find_spec", lambda name: None)
    with pytest.raises(ConfigError, match=r"Got: no peft\. pip install 'canopy-eo\[lora\]'"):
        check_lora(VIT, "variant v: finetune.lora_rank")
    with pytest.raises(ConfigError, match=r"canopy-eo\[lora\]"):
        add_lora(vit().backbone, 2, 4)


def test_a_network_without_linear_layers_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"needs a backbone with linear layers\. Got: test_resnet"):
        check_lora(ModelConfig(backbone="test_resnet"), "variant v: finetune.lora_rank")


def test_plain_networks_are_left_alone() -> None:
    network = vit()
    names = list(network.state_dict())
    assert not has_lora(network)
    assert not merge_lora(network)
    assert list(network.state_dict()) == names


def test_additions_start_at_zero_and_alone_are_trained() -> None:
    pytest.importorskip("peft")
    network = vit().eval()
    before = network(images()).detach()
    layers = linear_layers(network.backbone)
    assert layers
    add_lora(network.backbone, 2, 4)
    check_lora(VIT, "x")
    torch.testing.assert_close(network(images()).detach(), before, rtol=0, atol=0)
    trained = [name for name, p in network.named_parameters() if p.requires_grad]
    assert {name for name in trained if name.startswith("backbone.")} == {
        f"backbone.{layer}.lora_{part}.default.weight" for layer in layers for part in "AB"
    }
    assert any(name.startswith("head.") for name in trained)


def test_merged_weights_have_plain_names_and_give_the_same_logits() -> None:
    pytest.importorskip("peft")
    network, plain = vit().eval(), vit()
    add_lora(network.backbone, 3, 6)
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for name, parameter in network.named_parameters():
            if lora.MARK in name:
                parameter.copy_(0.1 * torch.randn(parameter.shape, generator=generator))
    expected = network(images()).detach()
    first = {n: p.clone() for n, p in network.named_parameters() if ".blocks.0.attn.qkv." in n}
    assert merge_lora(network)
    assert list(network.state_dict()) == list(plain.state_dict())
    torch.testing.assert_close(network(images()).detach(), expected, rtol=1e-4, atol=1e-5)
    base, a, b = (
        first[f"backbone.blocks.0.attn.qkv.{part}.weight"]
        for part in ("base_layer", "lora_A.default", "lora_B.default")
    )
    torch.testing.assert_close(
        network.get_parameter("backbone.blocks.0.attn.qkv.weight"), base + 6.0 / 3 * b @ a
    )


def test_attention_in_the_backbone_is_trained_as_it_is() -> None:
    pytest.importorskip("peft")
    network = build_model(ModelConfig(backbone="test_convnext", cbam="all"), 3)
    attention = {name for name, _ in network.backbone.named_parameters() if ".cbam." in name}
    assert attention
    assert not any("cbam" in name for name in linear_layers(network.backbone))
    add_lora(network.backbone, 2, 4)
    trained = {name for name, parameter in network.backbone.named_parameters() if parameter.requires_grad}
    assert {name for name in trained if ".lora_" not in name} == attention
    assert merge_lora(network)
