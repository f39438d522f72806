"""Learning rates by depth, and a backbone that is frozen."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn

from canopy.config import ModelConfig, OptimConfig
from canopy.errors import ConfigError
from canopy.models.backbones import layer_distances
from canopy.models.classifier import Classifier, build_model, count_parameters, parameter_groups

LR = 1e-3


def model(**config: Any) -> Classifier:
    torch.manual_seed(0)
    return build_model(ModelConfig(**{"backbone": "test_resnet", **config}), 5, None)


def rates(network: Classifier, **options: float) -> dict[str, float]:
    """The learning rate of every parameter; each stands in exactly one group."""
    groups = parameter_groups(network, LR, 0.05, **options)
    by_id = {id(p): group["lr"] for group in groups for p in group["params"]}
    assert len(by_id) == sum(len(group["params"]) for group in groups)
    return {name: by_id[id(p)] for name, p in network.named_parameters()}


# What each backbone's layers are, first to last, by a parameter of each.
LAYERS = {
    "test_resnet": ["conv1.0.weight", *[f"layer{n}.0.conv1.weight" for n in (1, 2, 3, 4)]],
    "mobilenetv3_small_050": [
        "conv_stem.weight",
        "blocks.0.0.conv_dw.weight",
        *[f"blocks.{s}.{b}.conv_pw.weight" for s, n in ((1, 2), (2, 3), (3, 2), (4, 3)) for b in range(n)],
        "blocks.5.0.conv.weight",
        "conv_head.weight",
    ],
}  # fmt: skip


@pytest.mark.parametrize("cbam", ["none", "all"])
@pytest.mark.parametrize("backbone", LAYERS)
def test_each_layer_learns_at_a_share_of_the_next_ones_rate(backbone: str, cbam: str) -> None:
    network = model(backbone=backbone, cbam=cbam, head="mlp")
    found = rates(network, backbone_lr_factor=0.5, layer_decay=0.8)
    plain = {name.replace(".plain.", "."): lr for name, lr in found.items()}
    for distance, name in enumerate(reversed(LAYERS[backbone]), start=1):
        assert plain[f"backbone.{name}"] == pytest.approx(LR * 0.5 * 0.8**distance), name
    new = {name: lr for name, lr in found.items() if name.startswith(("head.", "cbam.")) or ".cbam." in name}
    assert len(new) > (4 if cbam == "all" else 3)
    assert set(new.values()) == {LR}
    own = {lr for name, lr in found.items() if name not in new}
    assert len(own) == len(LAYERS[backbone])


def test_biases_and_norms_learn_with_their_layer() -> None:
    found = rates(model(), layer_decay=0.5)
    assert found["backbone.layer4.0.bn1.weight"] == found["backbone.layer4.0.conv2.weight"] == LR / 2
    assert found["backbone.layer1.0.bn1.bias"] == LR / 2**4


def test_switched_off_it_is_two_rates() -> None:
    assert set(rates(model(cbam="all")).values()) == {LR}
    assert set(rates(model(cbam="all"), backbone_lr_factor=0.1).values()) == {LR, LR * 0.1}
    # and the groups, whose order a checkpoint of the optimizer relies on, are those of a single rate
    assert [len(g["params"]) for g in parameter_groups(model(cbam="last"), LR, 0.05)] == [
        len(g["params"]) for g in parameter_groups(model(cbam="last"), LR, 0.05, 0.1)
    ]


def test_the_optimizer_steps_by_these_rates() -> None:
    """AdamW's first step is lr times the gradient's sign: what moves how far is the rate itself."""
    network = model(cbam="last")
    before = {name: p.detach().clone() for name, p in network.named_parameters()}
    groups = parameter_groups(network, LR, 0.0, backbone_lr_factor=0.5, layer_decay=0.5)
    optimizer = torch.optim.AdamW(groups, lr=LR)
    network(images()).square().sum().backward()
    optimizer.step()
    moved = {name: float((p.detach() - before[name]).abs().max()) for name, p in network.named_parameters()}
    assert moved["head.final.bias"] == pytest.approx(LR, rel=0.01)
    assert moved["backbone.layer4.0.downsample.1.weight"] == pytest.approx(LR / 4, rel=0.01)
    assert moved["backbone.layer2.0.downsample.1.weight"] == pytest.approx(LR / 16, rel=0.01)


def test_a_backbone_without_known_layers_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"optim.layer_decay must be 1 .* Got: Sequential"):
        layer_distances(nn.Sequential(nn.Conv2d(3, 4, 1)))


@pytest.mark.parametrize("field", ["backbone_lr_factor", "layer_decay"])
@pytest.mark.parametrize("value", [0, -0.5, 1.5])
def test_rates_outside_their_range_are_refused(field: str, value: float) -> None:
    with pytest.raises(ValueError, match=field):
        OptimConfig.model_validate({field: value})


def images() -> Tensor:
    return torch.randn(4, 3, 32, 32, generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize(
    "config",
    [{"cbam": "all", "head": "mlp"}, {"backbone": "test_convnext", "drop_path": 0.5}, {"head": "csra"}],
    ids=str,
)
def test_a_frozen_backbone_neither_learns_nor_moves(config: dict[str, Any]) -> None:
    network = model(**config)
    network.freeze_backbone()
    network.train()
    assert network.head.training
    before = {name: t.clone() for name, t in network.state_dict().items()}
    optimizer = torch.optim.AdamW(parameter_groups(network, 1e-2, 0.1))
    for _ in range(2):
        optimizer.zero_grad()
        network(images()).square().sum().backward()
        optimizer.step()
    for name, tensor in network.state_dict().items():
        assert torch.equal(tensor, before[name]) != name.startswith("head."), name
    features = network.features(images())
    torch.testing.assert_close(features, network.eval().features(images()), rtol=0, atol=0)


@pytest.mark.parametrize("head", ["linear", "mlp", "csra"])
def test_parameters_are_counted_without_building(head: Any) -> None:
    config = ModelConfig(backbone="test_resnet", cbam="all", head=head)
    built = sum(p.numel() for p in build_model(config, 5, None).parameters())
    assert count_parameters(config, 5) == built
    published = ModelConfig(backbone="resnet50", pretrained=True)
    # He et al. 2016, as torchvision counts it: 25,557,032 with a classifier of 2048 x 1000 + 1000
    assert count_parameters(published, 17) == 25_557_032 - 2_049_000 + 2049 * 17
