"""The whole network: gradients, input, learning rates by depth, frozen backbones."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch
from tests.models.networks import SMALL, images, model
from tests.test_bands import STATISTICS
from torch import Tensor

from canopy.config import ModelConfig, OptimConfig
from canopy.models.backbone_layers import stage_infos
from canopy.models.cbam import CBAM
from canopy.models.network import (
    MultiLabelNetwork,
    build_model,
    count_parameters,
    parameter_groups,
    resize,
)

# A chain of stages, inverted bottlenecks with a layer after pooling, a head with a norm.
FAMILIES = [SMALL, "mobilenetv3_small_050", "test_convnext"]


EVERY_WAY = [(SMALL, cbam, head) for cbam in ("none", "last", "all") for head in ("linear", "mlp", "csra")]


@pytest.mark.parametrize(
    ("backbone", "cbam", "head"), [*EVERY_WAY, (FAMILIES[1], "all", "csra"), (FAMILIES[2], "all", "csra")]
)
def test_every_trained_parameter_gets_a_gradient(backbone: str, cbam: Any, head: Any) -> None:
    """DDP would wait forever for the gradient of a parameter without one."""
    network = model(backbone=backbone, cbam=cbam, head=head)
    logits_NK = network(images())
    assert logits_NK.shape == (2, 5)
    logits_NK.square().sum().backward()
    lacking = [name for name, p in network.named_parameters() if p.requires_grad and p.grad is None]
    assert lacking == []


@pytest.mark.parametrize("cbam", ["last", "all"])
@pytest.mark.parametrize("backbone", [*FAMILIES, "test_mambaout"])
def test_cbam_starts_as_the_plain_backbone(backbone: str, cbam: Any) -> None:
    plain, attended = model(backbone=backbone).eval(), model(backbone=backbone, cbam=cbam).eval()
    state = {name.replace(".plain.", "."): t for name, t in attended.backbone.state_dict().items()}
    own = {name: t for name, t in state.items() if ".cbam." not in name}
    assert own.keys() == plain.backbone.state_dict().keys()
    plain.backbone.load_state_dict(own)
    expected, got = plain.features(images()), attended.features(images())
    torch.testing.assert_close(got, expected, atol=1e-5, rtol=0)
    blocks = [module for module in attended.modules() if isinstance(module, CBAM)]
    assert len(blocks) == (1 if cbam == "last" else len(stage_infos(plain.backbone)))
    # With the gate open the features differ.
    for block in blocks:
        block.gate.data.fill_(1.0)
    assert (attended.features(images()) - expected).abs().max() > 1e-3


def test_copies_are_independent() -> None:
    """A moving average of the weights is a deep copy: it must have its own attention."""
    network = model(cbam="all").eval()
    twin = copy.deepcopy(network)
    before = twin(images())
    for parameter in network.parameters():
        parameter.data.mul_(1.5)
    torch.testing.assert_close(twin(images()), before)


def test_images_are_resized_to_the_input_size() -> None:
    network = model(input_size=48).eval()
    torch.testing.assert_close(network(images(32)), network(resize(images(32), 48)))
    assert resize(images(32), None).shape[-1] == 32
    # shrinking averages: a fine checkerboard becomes gray, not one of its colors
    board = torch.arange(64).view(1, 1, 1, 64).expand(1, 3, 64, 64) % 2 * 2.0 - 1
    assert resize(board, 16).abs().max() < 0.2


def test_backbone_sees_images_normalized_as_its_weights_were_made_for() -> None:
    network = model().eval()  # made for mean and deviation 0.5
    raw_NCHW = torch.rand(2, 3, 32, 32)
    mean, std = [0.485, 0.456, 0.406], [0.229, 0.224, 0.225]
    by_imagenet = (raw_NCHW - torch.tensor(mean)[:, None, None]) / torch.tensor(std)[:, None, None]
    backbone: Any = network.backbone
    expected = backbone.forward_features((raw_NCHW - 0.5) / 0.5)
    torch.testing.assert_close(network.features(by_imagenet), expected, atol=1e-4, rtol=1e-4)
    assert not model(backbone="mobilenetv3_small_050").renormalizes  # made for ImageNet's


def test_parameter_groups() -> None:
    network = model(cbam="all", head="mlp")
    groups = parameter_groups(network, lr=1e-3, weight_decay=0.05, backbone_lr_factor=0.1)
    grouped = [id(p) for group in groups for p in group["params"]]
    assert sorted(grouped) == sorted(id(p) for p in network.parameters())
    by_id = {id(p): group for group in groups for p in group["params"]}
    for name, parameter in network.named_parameters():
        group = by_id[id(parameter)]
        new = not name.startswith("backbone.") or ".cbam." in name
        assert group["lr"] == pytest.approx(1e-3 if new else 1e-4), name
        assert group["weight_decay"] == (0.05 if parameter.ndim > 1 else 0), name
    for parameter in network.backbone.parameters():
        parameter.requires_grad_(False)
    assert len(parameter_groups(network, 1e-3, 0.05)) == 2


@pytest.mark.parametrize("head", ["linear", "mlp", "csra"])
def test_bfloat16_is_close_to_float32(head: Any) -> None:
    network = model(head=head, cbam="all").eval()
    with torch.autocast("cpu", torch.bfloat16):
        short_NK = network(images())
    torch.testing.assert_close(short_NK.float(), network(images()), atol=0.2, rtol=0.02)


LR = 1e-3


def untrained(**config: Any) -> MultiLabelNetwork:
    torch.manual_seed(0)
    return build_model(ModelConfig(**{"backbone": "test_resnet", **config}), 5, None)


def rates(network: MultiLabelNetwork, **options: Any) -> dict[str, float]:
    """The learning rate of every parameter; asserts that each is in exactly one group."""
    groups = parameter_groups(network, LR, 0.05, **options)
    by_id = {id(p): group["lr"] for group in groups for p in group["params"]}
    assert len(by_id) == sum(len(group["params"]) for group in groups)
    return {name: by_id[id(p)] for name, p in network.named_parameters()}


# One parameter of each layer, first layer to last.
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
    network = untrained(backbone=backbone, cbam=cbam, head="mlp")
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
    found = rates(untrained(), layer_decay=0.5)
    assert found["backbone.layer4.0.bn1.weight"] == found["backbone.layer4.0.conv2.weight"] == LR / 2
    assert found["backbone.layer1.0.bn1.bias"] == LR / 2**4


def test_switched_off_it_is_two_rates() -> None:
    assert set(rates(untrained(cbam="all")).values()) == {LR}
    assert set(rates(untrained(cbam="all"), backbone_lr_factor=0.1).values()) == {LR, LR * 0.1}
    # and the groups, whose order a checkpoint of the optimizer relies on, are those of a single rate
    assert [len(g["params"]) for g in parameter_groups(untrained(cbam="last"), LR, 0.05)] == [
        len(g["params"]) for g in parameter_groups(untrained(cbam="last"), LR, 0.05, 0.1)
    ]


def test_the_optimizer_steps_by_these_rates() -> None:
    """AdamW's first step is lr times the gradient's sign: so the size of the step is the rate."""
    network = untrained(cbam="last")
    before = {name: p.detach().clone() for name, p in network.named_parameters()}
    groups = parameter_groups(network, LR, 0.0, backbone_lr_factor=0.5, layer_decay=0.5)
    optimizer = torch.optim.AdamW(groups, lr=LR)
    network(noise()).square().sum().backward()
    optimizer.step()
    moved = {name: float((p.detach() - before[name]).abs().max()) for name, p in network.named_parameters()}
    assert moved["head.final.bias"] == pytest.approx(LR, rel=0.01)
    assert moved["backbone.layer4.0.downsample.1.weight"] == pytest.approx(LR / 4, rel=0.01)
    assert moved["backbone.layer2.0.downsample.1.weight"] == pytest.approx(LR / 16, rel=0.01)


@pytest.mark.parametrize(
    ("field", "value"),
    [
        *(("backbone_lr_factor", value) for value in (-0.5, 1.5)),
        *(("layer_decay", value) for value in (0, -0.5, 1.5)),
    ],
)
def test_rates_outside_their_range_are_refused(field: str, value: float) -> None:
    with pytest.raises(ValueError, match=field):
        OptimConfig.model_validate({field: value})


def noise() -> Tensor:
    return torch.randn(4, 3, 32, 32, generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize(
    "config",
    [{"cbam": "all", "head": "mlp"}, {"backbone": "test_convnext", "drop_path": 0.5}, {"head": "csra"}],
    ids=str,
)
def test_a_frozen_backbone_neither_learns_nor_moves(config: dict[str, Any]) -> None:
    network = untrained(**config)
    network.freeze_backbone()
    network.train()
    assert network.head.training
    before = {name: t.clone() for name, t in network.state_dict().items()}
    optimizer = torch.optim.AdamW(parameter_groups(network, 1e-2, 0.1))
    for _ in range(2):
        optimizer.zero_grad()
        network(noise()).square().sum().backward()
        optimizer.step()
    for name, tensor in network.state_dict().items():
        assert torch.equal(tensor, before[name]) != name.startswith("head."), name
    features = network.features(noise())
    torch.testing.assert_close(features, network.eval().features(noise()), rtol=0, atol=0)


@pytest.mark.parametrize("head", ["linear", "mlp", "csra"])
def test_parameters_are_counted_without_building(head: Any) -> None:
    config = ModelConfig(backbone="test_resnet", cbam="all", head=head)
    built = sum(p.numel() for p in build_model(config, 5, None).parameters())
    assert count_parameters(config, 5) == built
    published = ModelConfig(backbone="resnet50", pretrained=True)
    # He et al. 2016, as torchvision counts it: 25,557,032 with a classifier of 2048 x 1000 + 1000
    assert count_parameters(published, 17) == 25_557_032 - 2_049_000 + 2049 * 17


@pytest.mark.parametrize("changes", [{}, {"cbam": "all"}, {"head": "csra"}, {"input_size": 64}], ids=str)
def test_networks_of_other_bands(changes: dict[str, Any]) -> None:
    config = ModelConfig(backbone="test_resnet", **changes)
    network = build_model(config, 3, bands=STATISTICS).eval()
    images = torch.randn(2, 4, 32, 32)
    assert network(images).shape == (2, 3)
    assert not torch.equal(network(images), network(images.roll(1, dims=1)))
    assert network.weights_metadata == STATISTICS.to_metadata()
    assert build_model(config, 3).weights_metadata is None
