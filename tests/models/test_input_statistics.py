"""The images that weights expect: what each source says, and the arithmetic behind it."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import pytest
import torch
from tests.models.networks import model

from canopy.config import ModelConfig
from canopy.data.transforms.normalize import normalize
from canopy.errors import ConfigError
from canopy.models.input_statistics import InputStatistics, metadata_statistics, timm_statistics

CAFFE = InputStatistics((103.939, 116.779, 123.68), (1.0, 1.0, 1.0), 255.0, "bgr")
UNIT = InputStatistics((0.0, 0.0, 0.0), (1.0, 1.0, 1.0))


def pixels() -> torch.Tensor:
    return torch.randint(0, 256, (4, 9, 9, 3), dtype=torch.uint8, generator=torch.Generator().manual_seed(1))


@pytest.mark.parametrize(
    "expected",
    [CAFFE, UNIT, InputStatistics((0.5,) * 3, (0.5, 0.25, 0.125)), InputStatistics(band_order="bgr")],
    ids=["caffe", "unit", "halves", "bgr"],
)
def test_the_backbone_gets_what_its_weights_expect(expected: InputStatistics) -> None:
    """The network's input against the definition, in numpy and float64."""
    fields = {name: getattr(expected, name) for name in ("mean", "std", "value_scale", "band_order")}
    network = model(**fields).eval()
    seen: list[torch.Tensor] = []
    backbone: Any = network.backbone
    forward_features = backbone.forward_features

    def watched(x: torch.Tensor) -> torch.Tensor:
        seen.append(x)
        result: torch.Tensor = forward_features(x)
        return result

    backbone.forward_features = watched
    network(normalize(pixels()))
    bands_NHWC = pixels().numpy().astype(np.float64) / 255 * expected.value_scale
    if expected.band_order == "bgr":
        bands_NHWC = bands_NHWC[..., ::-1]
    wanted_NHWC = (bands_NHWC - np.array(expected.mean)) / np.array(expected.std)
    np.testing.assert_allclose(seen[0].numpy().transpose(0, 2, 3, 1), wanted_NHWC, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize(("backbone", "converts"), [("test_resnet", True), ("resnet10t", False)])
def test_a_network_of_timms_statistics_stores_nothing_new(backbone: str, converts: bool) -> None:
    network = model(backbone=backbone)
    assert network.renormalizes == converts
    assert network.weights_metadata is None
    assert not any("input_" in name for name in network.state_dict())


def test_statistics_come_back_from_a_files_metadata() -> None:
    for statistics in (CAFFE, UNIT, InputStatistics()):
        assert metadata_statistics(statistics.to_metadata(), "the file") == statistics
    assert metadata_statistics({"format": "pt"}, "the file") is None
    words = {"mean": "[0, 0, 0]", "std": "[1, 1, 1]", "band_order": "BGR"}
    assert metadata_statistics(words, "the file") == InputStatistics((0, 0, 0), (1, 1, 1), band_order="bgr")


def test_timms_entry_and_the_config_above_it() -> None:
    entry = {"mean": (0.5, 0.5, 0.5), "std": [0.25, 0.25, 0.25], "crop_pct": 0.9}
    halves = timm_statistics(entry, "the entry")
    assert halves == InputStatistics((0.5,) * 3, (0.25,) * 3)
    stated = ModelConfig(mean=(1, 2, 3), std=(4, 5, 6), value_scale=255, band_order="bgr")
    assert halves.with_config(stated) == InputStatistics((1, 2, 3), (4, 5, 6), 255, "bgr")
    assert halves.with_config(ModelConfig()) == halves
    assert halves.text == "mean 0.5/0.5/0.5, deviation 0.25/0.25/0.25, RGB in [0, 1]"


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"mean": [0.5] * 13, "std": [0.5] * 13}, r"the file: mean must be for 3 bands. Got: 13 values"),
        ({"mean": [0.5], "std": [0.5]}, r"the file: mean must be for 3 bands. Got: 1 values"),
        ({"mean": [0.5] * 3}, r"the file must state mean and std together. Got: only mean"),
        ({"band_order": "bgr"}, r"must state mean and std together. Got: only band_order"),
        ({"mean": [0.5] * 3, "std": [0, 1, 1]}, r"the file: std must be finite numbers above 0"),
        ({"mean": ["a", 1, 1], "std": [1, 1, 1]}, r"the file: mean must be finite numbers"),
        ({"mean": [1] * 3, "std": [1] * 3, "value_scale": 0}, r"value_scale must be a number above 0"),
        ({"mean": [1] * 3, "std": [1] * 3, "band_order": "nrg"}, r"band_order must be rgb or bgr. Got: nrg"),
    ],
    ids=str,
)
def test_statistics_that_cannot_be_used(given: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        metadata_statistics({name: json.dumps(value) for name, value in given.items()}, "the file")
