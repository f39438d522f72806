"""Weights made for RGB in a network of other bands."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytest
import timm
import torch
from pydantic import ValidationError
from safetensors.torch import load_file, save_file
from tests.models.networks import fill_hub_cache
from tests.support import tiny_experiment
from tests.test_bands import STATISTICS

from canopy.config import BandConfig, ModelConfig, derive
from canopy.errors import ConfigError
from canopy.models.backbones import check_weights, create_backbone
from canopy.models.band_weights import adapt_first_layer
from canopy.models.input_statistics import IMAGENET_MEAN, IMAGENET_STD, InputStatistics

NAME = "test_resnet"


@pytest.fixture
def weights(tmp_path: Path) -> Path:
    """A file of weights for RGB images."""
    torch.manual_seed(3)
    path = tmp_path / "rgb.safetensors"
    save_file(timm.create_model(NAME, num_classes=0).state_dict(), path)
    return path


def imagenet(weights: Path) -> ModelConfig:
    """The weights, for images as Canopy normalizes them; timm's entry says otherwise."""
    return ModelConfig(backbone=NAME, weights=str(weights), mean=IMAGENET_MEAN, std=IMAGENET_STD)


def first_layer(config: ModelConfig, channels: int | None) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
    network: Any = create_backbone(config, channels).network
    name = f"{network.pretrained_cfg['first_conv']}.weight"
    state = network.state_dict()
    return state[name], {key: value for key, value in state.items() if key != name}


def test_the_first_layer_is_repeated_and_scaled_and_the_rest_is_the_files(weights: Path) -> None:
    config = imagenet(weights)
    rgb, others = first_layer(config, None)
    six, same = first_layer(config, 6)
    assert six.shape[1] == 6
    torch.testing.assert_close(six, torch.cat([rgb, rgb], 1) / 2)
    assert others.keys() == same.keys()
    for name, tensor in others.items():
        assert torch.equal(tensor, same[name]), name
    one, _ = first_layer(config, 1)
    torch.testing.assert_close(one, rgb.sum(1, keepdim=True))
    three, _ = first_layer(config, 3)
    torch.testing.assert_close(three, rgb)
    assert "tensors by name" in check_weights(config, "x", channels=6)


def test_a_backbone_without_a_known_first_layer_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "vit.safetensors"
    network: Any = timm.create_model("test_vit", num_classes=0)
    save_file(network.state_dict(), path)
    config = ModelConfig(backbone="test_vit", weights=str(path))
    assert create_backbone(config, 5).report
    network.pretrained_cfg = {**network.pretrained_cfg, "first_conv": None}
    with pytest.raises(ConfigError, match=r"x must be of a backbone with a known first convolution"):
        adapt_first_layer(network.state_dict(), network, 5, InputStatistics(), "x")


def test_bands_that_repeat_colors_give_the_features_of_rgb(weights: Path) -> None:
    config = imagenet(weights)
    rgb: Any = create_backbone(config).network.eval()
    six: Any = create_backbone(config, 6).network.eval()
    images = torch.randn(2, 3, 32, 32)
    with torch.inference_mode():
        expected = rgb.forward_features(images)
        torch.testing.assert_close(six.forward_features(torch.cat([images, images], 1)), expected)


def test_timms_own_weights_are_adapted_in_the_same_way(hub_cache: Path) -> None:
    """What timm's entry expects, here a deviation of 0.5, is folded in as for a file of weights."""
    torch.manual_seed(7)
    published: Any = timm.create_model(NAME)
    fill_hub_cache(hub_cache, "timm/test_resnet.r160_in1k", published)
    config = ModelConfig(backbone=NAME, pretrained=True)
    rgb, others = first_layer(config, None)
    adapted, same = first_layer(config, 3)
    factors_C11 = torch.tensor(IMAGENET_STD)[:, None, None] / 0.5
    torch.testing.assert_close(adapted, rgb * factors_C11)
    for name, tensor in others.items():
        assert torch.equal(tensor, same[name]), name


def test_what_the_weights_expect_is_folded_in(tmp_path: Path, weights: Path) -> None:
    """Weights for blue, green, red from 0 to 255 with deviation 1, as Caffe's are."""
    rgb, _ = first_layer(imagenet(weights), None)
    caffe = InputStatistics((104.0, 117.0, 123.0), (1.0, 1.0, 1.0), 255.0, "bgr")
    path = tmp_path / "caffe.safetensors"
    save_file(load_file(weights), path, metadata=caffe.to_metadata())
    adapted, _ = first_layer(ModelConfig(backbone=NAME, weights=str(path)), 3)
    factors = torch.tensor(IMAGENET_STD[::-1])[:, None, None] * 255
    torch.testing.assert_close(adapted, (rgb * factors).flip(1))
    stated = ModelConfig(backbone=NAME, weights=str(weights), **asdict(caffe))
    torch.testing.assert_close(first_layer(stated, 3)[0], adapted)


def test_weights_of_other_bands_are_refused(tmp_path: Path, weights: Path) -> None:
    four = timm.create_model(NAME, num_classes=0, in_chans=4).state_dict()
    save_file(four, tmp_path / "four.safetensors")
    with pytest.raises(ConfigError, match=r"must be for 3 bands, as test_resnet is"):
        create_backbone(ModelConfig(backbone=NAME, weights=str(tmp_path / "four.safetensors")), 4)
    named = timm.create_model(NAME, num_classes=0).state_dict()
    save_file(named, tmp_path / "run.safetensors", metadata=STATISTICS.to_metadata())
    for channels in (None, 4):
        with pytest.raises(ConfigError, match=r"must be weights for RGB images. Got: .*made for a run's own"):
            create_backbone(ModelConfig(backbone=NAME, weights=str(tmp_path / "run.safetensors")), channels)


def test_a_config_of_bands_takes_weights_and_what_describes_them() -> None:
    tiny = tiny_experiment(variants=1, trials=0)
    bands = (BandConfig(name="red"), BandConfig(name="nir", band=2))
    data = derive(tiny.data, source="table", root="/data", bands=bands)
    described = ModelConfig(backbone=NAME, weights="/x.safetensors", mean=(0, 0, 0), std=(1, 1, 1))
    derive(tiny, data=data, variants=(derive(tiny.variants[0], model=described),))
    alone = derive(described, weights=None)
    with pytest.raises(ValidationError, match=r"model.mean must be unset with data.bands, unless"):
        derive(tiny, data=data, variants=(derive(tiny.variants[0], model=alone),))
