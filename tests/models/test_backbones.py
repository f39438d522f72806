"""Backbones: where their weights come from, and which are refused."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import timm
import torch
from safetensors.torch import save_file
from tests.models.networks import SMALL, fill_hub_cache, images, model

from canopy.config import ModelConfig
from canopy.errors import ConfigError
from canopy.models.backbones import check_weights, probe_backbone
from canopy.models.weights import save_weights


def test_stochastic_depth_reaches_the_backbone() -> None:
    network = model(backbone="test_convnext", drop_path=0.9).train()
    assert not torch.equal(network(images()), network(images()))
    with pytest.raises(ConfigError, match=r"model.drop_path .* Got: 0.5 for vgg11"):
        probe_backbone(ModelConfig(backbone="vgg11", drop_path=0.5))


@pytest.mark.parametrize("uri", [False, True])
def test_own_weights_from_a_timm_state_dict(tmp_path: Path, uri: bool) -> None:
    torch.manual_seed(7)
    own: Any = timm.create_model(SMALL, num_classes=1000).eval()
    save_file(own.state_dict(), tmp_path / "own.safetensors")
    location = (tmp_path / "own.safetensors").as_uri() if uri else str(tmp_path / "own.safetensors")
    network = model(weights=location, cbam="all").eval()
    backbone: Any = network.backbone  # without the classifier of 1,000 classes
    got, expected = backbone.forward_features(images()), own.forward_features(images())
    torch.testing.assert_close(got, expected, atol=1e-5, rtol=0)


def test_own_weights_from_a_saved_network_with_attention(tmp_path: Path) -> None:
    first = model(cbam="all", head="mlp").eval()
    save_weights(first, tmp_path / "m.safetensors")
    torch.manual_seed(1)
    second = model(weights=str(tmp_path / "m.safetensors"), labels=3).eval()
    torch.testing.assert_close(second.features(images()), first.features(images()), atol=1e-5, rtol=0)


def test_own_weights_that_do_not_fit(tmp_path: Path) -> None:
    save_file(timm.create_model("test_efficientnet").state_dict(), tmp_path / "other.safetensors")
    with pytest.raises(ConfigError, match=r"model.weights must fit test_resnet. .* with no tensor conv1"):
        model(weights=str(tmp_path / "other.safetensors"))


def test_a_hub_address_is_no_backbone() -> None:
    with pytest.raises(ConfigError, match=r"model.backbone .* set model.weights to this address"):
        probe_backbone(ModelConfig(backbone="hf-hub:timm/test_resnet.r160_in1k"))


def test_weights_are_checked_without_building_the_network(tmp_path: Path) -> None:
    config = ModelConfig(backbone=SMALL, weights=str(tmp_path / "own.safetensors"))
    own = timm.create_model(SMALL, num_classes=7).state_dict()
    save_file(own, tmp_path / "own.safetensors")
    report = check_weights(config, "variant a: model.weights")
    assert "2 left out (fc.bias, fc.weight)" in report
    assert "by name" in report
    assert "mean 0.5/0.5/0.5" in report
    assert check_weights(ModelConfig(backbone=SMALL), "variant a: model.weights") == ""
    (tmp_path / "own.safetensors").unlink()
    with pytest.raises(ConfigError, match=r"variant a: model.weights must be .*own.safetensors \(No such"):
        check_weights(config, "variant a: model.weights")


@pytest.mark.usefixtures("empty_hub")
def test_weights_of_the_hub_are_checked_only_where_they_may_be_fetched() -> None:
    absent = ModelConfig(backbone=SMALL, weights="hf-hub:timm/test_resnet.r160_in1k")
    default = ModelConfig(backbone=SMALL, pretrained=True)
    for config in (absent, default):
        assert check_weights(config, "model.weights", fetch=False) == ""
        with pytest.raises(ConfigError, match=r"hub.*refused"):
            check_weights(config, "model.weights")


@pytest.mark.usefixtures("empty_hub")
def test_an_unreachable_hub_names_both_remedies() -> None:
    with pytest.raises(ConfigError) as caught:
        model(pretrained=True)
    text = str(caught.value)
    for part in ("model.pretrained", SMALL, "refused", "model.weights", "set model.pretrained to false"):
        assert part in text


def test_pretrained_weights_come_from_the_hubs_cache(hub_cache: Path) -> None:
    torch.manual_seed(7)
    published: Any = timm.create_model(SMALL).eval()
    fill_hub_cache(hub_cache, "timm/test_resnet.r160_in1k", published)
    network = model(pretrained=True, cbam="all").eval()
    backbone: Any = network.backbone
    got, expected = backbone.forward_features(images()), published.forward_features(images())
    torch.testing.assert_close(got, expected, atol=1e-5, rtol=0)


def test_unknown_backbone_names_the_nearest() -> None:
    with pytest.raises(
        ConfigError, match=r"model.backbone must be a timm model. Got: resnet5O. Nearest: .*resnet50"
    ):
        probe_backbone(ModelConfig(backbone="resnet5O"))


@pytest.mark.parametrize("options", [{"cbam": "last"}, {"cbam": "all"}, {"head": "csra"}], ids=str)
def test_tokens_are_no_feature_maps(options: dict[str, Any]) -> None:
    config = ModelConfig(backbone="vit_tiny_patch16_224", input_size=64, **options)
    with pytest.raises(ConfigError, match=r"needs a backbone with feature maps. Got: vit_tiny"):
        probe_backbone(config)
    assert not probe_backbone(ModelConfig(backbone="vit_tiny_patch16_224", input_size=64)).maps


def test_stages_that_are_no_chain_refuse_cbam_after_all() -> None:
    with pytest.raises(ConfigError, match=r"model.cbam=all .* Got: hrnet_w18_small. Set model.cbam to last"):
        probe_backbone(ModelConfig(backbone="hrnet_w18_small", cbam="all"))
    assert probe_backbone(ModelConfig(backbone="hrnet_w18_small", cbam="last")).maps


def test_image_size_that_the_backbone_refuses() -> None:
    with pytest.raises(ConfigError, match=r"The image size must be one that inception_v3 accepts. Got: 32 "):
        probe_backbone(ModelConfig(backbone="inception_v3"), image_size=32)
    with pytest.raises(ConfigError, match=r"model.input_size must be set for vit_tiny"):
        probe_backbone(ModelConfig(backbone="vit_tiny_patch16_224"), image_size=64)


def test_pretrained_needs_weights_that_exist() -> None:
    with pytest.raises(ConfigError, match=r"model.pretrained needs a backbone that timm has weights for"):
        probe_backbone(ModelConfig(backbone="lcnet_035", pretrained=True))


SOME, OTHERS = ("resnet50", "efficientnet_b0"), ("resnet101", *[f"efficientnet_b{i}" for i in range(1, 6)])


@pytest.mark.parametrize("name", [*SOME, *[pytest.param(name, marks=pytest.mark.slow) for name in OTHERS]])
def test_common_backbones_are_accepted(name: str) -> None:
    found = probe_backbone(ModelConfig(backbone=name, cbam="all", pretrained=True), image_size=224)
    assert found.maps
    assert found.channels == (2048 if name.startswith("resnet") else found.pooled)
