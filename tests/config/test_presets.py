"""The presets: fields of ``amazon``, and one training step of each of its variants."""

from __future__ import annotations

import socket
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from canopy.config import Experiment, SamplingConfig, VariantConfig, derive
from canopy.config.presets import ENHANCED, PRESETS, amazon, preset
from canopy.data.catalogue import Catalogue
from canopy.data.loading.chip_source import ChipSource
from canopy.data.loading.uri_list import UriList
from canopy.data.synthetic.label_model import LABELS
from canopy.data.transforms.augment import apply_augmentation, draw_params
from canopy.data.transforms.normalize import normalize
from canopy.errors import ConfigError
from canopy.models.network import MultiLabelNetwork, build_model
from canopy.train.loop import TrainState, train_step
from canopy.train.training_phase import DistributedContext, TrainingPhase

VARIANTS = {variant.name: variant for variant in amazon().variants}
OPTIM = amazon().variants[0].optim
LARGE = {"resnet50", "resnet101"}
"""Variants whose step takes half a minute and more; ``resnet50-cbam`` covers their code."""
SMALL = 64
"""Side of the chips in pixels: a twelfth of the work of the preset's 224."""


def test_amazon_has_the_four_variants() -> None:
    config = amazon()
    models = [(v.model.backbone, v.model.cbam) for v in config.variants]
    assert models == [
        ("resnet50", "none"),
        ("resnet101", "none"),
        ("efficientnet_b3", "none"),
        ("resnet50", "last"),
    ]
    assert config.folds == 5
    assert config.data.source == "kaggle"
    assert config.data.image_size == 256
    assert config.sweep.trials > 0
    for variant in config.variants:
        assert variant.swept
        assert variant.loss.name == "focal"
        assert (variant.model.pretrained, variant.model.head, variant.model.dropout) == (True, "mlp", 0.5)
        augment = variant.augment
        assert (augment.crop, augment.flips, augment.rotate_degrees) == (224, True, 90)
        assert (augment.brightness, augment.contrast, augment.saturation, augment.hue) == (
            0.3,
            0.3,
            0.3,
            0.15,
        )
        assert (augment.grayscale, augment.blur) == (0.1, 0.2)
        assert variant.optim.precision == "bfloat16"
        assert variant.scale.gpus_per_worker == 1
    assert Experiment.model_validate(config.model_dump(mode="json")) == config


def catalogue() -> Catalogue:
    rng = np.random.default_rng(0)
    targets_NK = (rng.random((64, len(LABELS))) < 0.3).astype(np.uint8)
    names = [f"c{n}" for n in range(64)]
    split, fold = np.repeat(["train", "val"], 32), np.zeros(64, np.int8)
    return Catalogue(names, names, targets_NK, split, fold, np.array(names), LABELS)


def train_state_of(variant: VariantConfig) -> TrainState:
    data = catalogue()
    dist_context = DistributedContext(0, 1, torch.device("cpu"))
    phase = TrainingPhase(
        variant, data, ChipSource(256, UriList(()), None), dist_context, data.rows("train"), data.rows("val")
    )
    return phase.train_state(lambda network: network)


def final_of(train_state: TrainState) -> nn.Linear:
    network = train_state.unwrapped
    assert isinstance(network, MultiLabelNetwork)
    return network.head.final


@pytest.mark.parametrize(
    "name", [pytest.param(n, marks=pytest.mark.slow) if n in LARGE else n for n in VARIANTS]
)
def test_each_variant_of_amazon_trains_a_step(name: str) -> None:
    """The preset's variants except for weights, batch size, image size, device and precision.

    CPUs without bfloat16 need a minute to emulate it.
    """
    model, optim = derive(VARIANTS[name].model, pretrained=False), derive(OPTIM, precision="float32")
    variant = derive(VARIANTS[name], model=model, optim=optim, augment=derive(ENHANCED, crop=SMALL))
    train_state = train_state_of(variant)
    rng = np.random.default_rng(1)
    images_NHWC = torch.from_numpy(rng.integers(0, 256, (2, SMALL + 16, SMALL + 16, 3), dtype=np.uint8))
    cut_NHWC = apply_augmentation(images_NHWC, draw_params(variant.augment, 2, rng))
    assert cut_NHWC.shape == (2, SMALL, SMALL, 3)
    targets_NK = torch.from_numpy((rng.random((2, len(LABELS))) < 0.3).astype(np.float32))
    before = final_of(train_state).weight.detach().clone()
    loss = train_step(train_state, normalize(cut_NHWC), targets_NK, variant.optim)
    assert torch.isfinite(loss)
    assert not torch.equal(final_of(train_state).weight, before)
    without_gradient = [
        n for n, p in train_state.unwrapped.named_parameters() if p.requires_grad and p.grad is None
    ]
    assert without_gradient == []


def test_amazon_without_a_hub_names_both_remedies(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    with socket.socket() as closed:  # a port without a server
        closed.bind(("127.0.0.1", 0))
        monkeypatch.setenv("HF_ENDPOINT", f"http://127.0.0.1:{closed.getsockname()[1]}")
        for variant in VARIANTS.values():
            with pytest.raises(ConfigError) as caught:
                build_model(variant.model, 17)
            text = str(caught.value)
            assert variant.model.backbone in text
            assert "model.weights to the path or URI" in text
            assert "model.pretrained to false" in text


def test_a_weighted_variant_starts_at_its_sampled_label_rates() -> None:
    weighted = SamplingConfig(name="weighted", power=1)
    model = derive(VARIANTS["resnet50"].model, pretrained=False, backbone="test_resnet")
    variant = VariantConfig(name="a", model=model)
    data = catalogue()
    rare = int(data.targets_NK[:32].sum(axis=0).argmin())
    rates = [
        final_of(train_state_of(v)).bias.sigmoid()[rare].item()
        for v in (variant, derive(variant, sampling=weighted))
    ]
    assert rates[0] == pytest.approx(data.targets_NK[:32, rare].mean(), rel=1e-4)
    assert rates[1] > 1.2 * rates[0]


def test_presets_are_found_by_name() -> None:
    assert {name: preset(name).preset for name in PRESETS} == {name: name for name in PRESETS}


def test_an_unknown_preset_names_the_nearest() -> None:
    with pytest.raises(ConfigError, match=r"must be a known preset. Got: plannet32. Nearest: planet32"):
        preset("plannet32")
