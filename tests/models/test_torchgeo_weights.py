"""Weights by torchgeo's enums: files of the form that it serves, made here; bands, scale, cache, errors."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import timm
import torch
from torch import nn

from canopy.config import ModelConfig
from canopy.errors import ConfigError
from canopy.models import torchgeo_weights as module
from canopy.models.available_weights import fetch_weights, listing
from canopy.models.backbones import check_weights, create_backbone
from canopy.models.torchgeo_weights import TorchgeoWeights, band_name, normalization, torchgeo_weights
from canopy.models.weights_source import is_at_hand

ALL = "torchgeo:ResNet18_Weights.SENTINEL2_ALL_MOCO"
RGB = "torchgeo:ResNet18_Weights.SENTINEL2_RGB_MOCO"


class Step:
    """A normalization, as torchvision has it."""

    def __init__(self, mean: list[float], std: list[float]) -> None:
        self.mean, self.std = mean, std


def test_a_chain_of_normalizations_is_one() -> None:
    seco = [
        object(),
        Step([3, 2, 0], [85, 101, 129]),
        Step([0], [1 / 255]),
        Step([0.485, 0.456, 0.406], [0.229, 0.224, 0.225]),
    ]
    mean, std = normalization(seco)
    assert mean is not None
    assert std is not None
    pixels = np.array([10.0, 60.0, 100.0])
    expected = pixels
    for step in seco[1:]:
        assert isinstance(step, Step)
        expected = (expected - np.array(step.mean)) / np.array(step.std)
    np.testing.assert_allclose((pixels - mean) / std, expected)
    assert normalization(nn.Sequential()) == (None, None)


def test_band_names_have_one_spelling() -> None:
    assert [band_name(name) for name in ("B04", "B4", "B8A", "B8a", "red", "nir_narrow", "VV", "SR_B1")] == [
        "b4", "b4", "b8a", "b8a", "b4", "b8a", "vv", "sr_b1",
    ]  # fmt: skip


def test_red_green_and_blue_are_found_and_have_the_enum_s_scale() -> None:
    means, stds = np.array([0.0, 100, 200, 300]), np.array([1500.0] * 4)
    found = TorchgeoWeights("x", "u", ("b2", "b3", "b4", "b8"), means, stds)
    columns = found.columns(None, "t")
    assert columns == [2, 1, 0]
    statistics = found.statistics(columns)
    assert statistics is not None
    assert (statistics.mean, statistics.std) == ((200, 100, 0), (1500, 1500, 1500))
    assert statistics.value_scale == 10_000
    assert found.columns(["nir", "red"], "t") == [3, 2]
    with pytest.raises(ConfigError, match=r"must know the bands of the chips \(not B11\)"):
        found.columns(["swir1"], "t")
    with pytest.raises(ConfigError, match=r"not red, green and blue.*whose bands are VV, VH"):
        TorchgeoWeights("x", "u", ("vv", "vh")).columns(None, "t")


def test_without_torchgeo_the_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "find_spec", lambda name: None)
    with pytest.raises(ConfigError, match=r"no torchgeo.*pip install 'canopy-eo\[torchgeo\]'"):
        check_weights(ModelConfig(backbone="resnet18", weights=ALL), "model.weights")


@pytest.fixture
def served(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, dict[str, torch.Tensor]]:
    """Two enums whose files are on this machine, with the hash in the name; the tensors by address."""
    pytest.importorskip("torchgeo")
    from torchgeo.models import get_weight

    monkeypatch.setenv("CANOPY_CACHE", str(tmp_path / "cache"))
    states: dict[str, dict[str, torch.Tensor]] = {}
    for source, channels in ((ALL, 13), (RGB, 3)):
        torch.manual_seed(channels)
        network: Any = timm.create_model("resnet18", in_chans=channels, num_classes=0)
        states[source] = network.state_dict()
        plain = tmp_path / "weights.pth"
        torch.save(states[source], plain)
        digest = hashlib.sha256(plain.read_bytes()).hexdigest()
        file = plain.rename(tmp_path / f"resnet18_{channels}-{digest[:8]}.pth")
        monkeypatch.setattr(get_weight(source.removeprefix("torchgeo:")).value, "url", file.as_uri())
    return states


def test_rgb_weights_come_with_their_scale_and_are_fetched_once(
    served: dict[str, dict[str, torch.Tensor]], tmp_path: Path
) -> None:
    config = ModelConfig(backbone="resnet18", weights=RGB)
    assert not is_at_hand(config)
    built = create_backbone(config)
    statistics = built.statistics
    assert (statistics.mean, statistics.std, statistics.value_scale) == ((0,) * 3, (10_000,) * 3, 10_000)
    torch.testing.assert_close(built.network.state_dict()["conv1.weight"], served[RGB]["conv1.weight"])
    assert is_at_hand(config)
    for file in tmp_path.glob("resnet18_3-*.pth"):
        file.unlink()  # the hub is gone
    assert create_backbone(config).report == built.report
    assert RGB in listing()
    assert "tensors; mean 0/0/0" in fetch_weights(RGB)


def test_a_network_for_rgb_takes_red_green_and_blue_of_thirteen_bands(
    served: dict[str, dict[str, torch.Tensor]],
) -> None:
    network: Any = create_backbone(ModelConfig(backbone="resnet18", weights=ALL)).network
    torch.testing.assert_close(network.conv1.weight.detach(), served[ALL]["conv1.weight"][:, [3, 2, 1]])
    torch.testing.assert_close(
        network.state_dict()["layer1.0.conv1.weight"], served[ALL]["layer1.0.conv1.weight"]
    )


def test_a_network_of_bands_takes_them_by_name(served: dict[str, dict[str, torch.Tensor]]) -> None:
    config = ModelConfig(backbone="resnet18", weights=ALL)
    network: Any = create_backbone(config, 4, ("nir", "B02", "swir2", "red")).network
    torch.testing.assert_close(network.conv1.weight.detach(), served[ALL]["conv1.weight"][:, [7, 1, 12, 3]])
    assert "tensors by name" in check_weights(config, "x", channels=2, bands=("red", "nir"))
    unknown: Any = create_backbone(config, 2, ("a", "b")).network  # as any weights for RGB
    assert unknown.conv1.weight.shape[1] == 2


def test_an_unknown_enum_names_the_nearest(served: dict[str, dict[str, torch.Tensor]]) -> None:
    with pytest.raises(ConfigError, match="must name weights of torchgeo") as error:
        torchgeo_weights("ResNet18_Weights.SENTINEL2_ALL_MOCCO", "model.weights")
    assert "ResNet18_Weights.SENTINEL2_ALL_MOCO" in str(error.value)


def test_weights_of_radar_or_another_network_or_a_changed_file_are_refused(
    served: dict[str, dict[str, torch.Tensor]], tmp_path: Path
) -> None:
    radar = ModelConfig(backbone="resnet50", weights="torchgeo:ResNet50_Weights.SENTINEL1_ALL_MOCO")
    with pytest.raises(ConfigError, match="not red, green and blue"):
        check_weights(radar, "model.weights")
    with pytest.raises(ConfigError, match="must fit resnet50"):
        check_weights(ModelConfig(backbone="resnet50", weights=ALL), "model.weights")
    (changed,) = tmp_path.glob("resnet18_3-*.pth")
    changed.write_bytes(changed.read_bytes()[:-1] + b"x")
    with pytest.raises(ConfigError, match="invalid hash value"):
        check_weights(ModelConfig(backbone="resnet18", weights=RGB), "model.weights")
    changed.unlink()
    with pytest.raises(ConfigError, match="must be the path or URI of a file that can be read"):
        check_weights(ModelConfig(backbone="resnet18", weights=RGB), "model.weights")


def test_a_dry_run_checks_the_name_without_the_file(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("CANOPY_CACHE", str(tmp_path))
    monkeypatch.setattr(module, "find_spec", lambda name: None)
    with pytest.raises(ConfigError, match=r"Got: no torchgeo, for torchgeo:ResNet18_Weights"):
        check_weights(ModelConfig(backbone="resnet18", weights=ALL), "model.weights", fetch=False)
