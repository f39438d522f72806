"""The assembled network: shapes, starts, attention, weights, and what is refused."""

from __future__ import annotations

import copy
import socket
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import timm
import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from canopy.config import ModelConfig
from canopy.errors import ConfigError, RunDirError
from canopy.models.attention import CBAM, attention_maps
from canopy.models.backbones import stages
from canopy.models.classifier import (
    Classifier,
    build_model,
    check_backbone,
    load_weights,
    parameter_groups,
    resize,
    save_weights,
)

SMALL = "test_resnet"
RATES_K = np.array([0.9, 0.5, 0.1, 0.002, 0.0])
# A chain of stages, inverted bottlenecks with a layer after pooling, a head of its own with a norm.
FAMILIES = [SMALL, "mobilenetv3_small_050", "test_convnext"]


def images(size: int = 32, count: int = 2) -> Tensor:
    return torch.randn(count, 3, size, size, generator=torch.Generator().manual_seed(0))


def model(labels: int = 5, **config: Any) -> Classifier:
    torch.manual_seed(0)
    return build_model(ModelConfig(**{"backbone": SMALL, **config}), labels, RATES_K[:labels])


EVERY_WAY = [(SMALL, cbam, head) for cbam in ("none", "last", "all") for head in ("linear", "mlp", "csra")]


@pytest.mark.parametrize(
    ("backbone", "cbam", "head"), [*EVERY_WAY, (FAMILIES[1], "all", "csra"), (FAMILIES[2], "all", "csra")]
)
def test_every_trained_parameter_gets_a_gradient(backbone: str, cbam: Any, head: Any) -> None:
    """A parameter without one would make DDP wait for ever."""
    network = model(backbone=backbone, cbam=cbam, head=head)
    logits_NK = network(images())
    assert logits_NK.shape == (2, 5)
    logits_NK.square().sum().backward()
    lacking = [name for name, p in network.named_parameters() if p.requires_grad and p.grad is None]
    assert lacking == []


@pytest.mark.parametrize("head", ["linear", "mlp", "csra"])
def test_network_starts_at_the_label_rates(head: Any) -> None:
    probabilities_NK = model(head=head, dropout=0.3).eval()(images(count=8)).sigmoid()
    expected_K = np.clip(RATES_K, 1e-4, None)
    np.testing.assert_allclose(probabilities_NK.detach().numpy().mean(0), expected_K, rtol=0.35)
    bias_K = model(head=head).head.final.bias.detach().double().numpy()
    np.testing.assert_allclose(1 / (1 + np.exp(-bias_K)), expected_K, rtol=1e-5)
    torch.manual_seed(0)
    assert (build_model(ModelConfig(backbone=SMALL), 3, None).head.final.bias == 0).all()


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
    assert len(blocks) == (1 if cbam == "last" else len(stages(plain.backbone)))
    # and it is not dead: with the gate open the features differ
    for block in blocks:
        block.gate.data.fill_(1.0)
    assert (attended.features(images()) - expected).abs().max() > 1e-3


def test_open_gate_is_the_papers_cbam() -> None:
    """Channel attention from both poolings through one MLP, then spatial attention from both poolings."""
    torch.manual_seed(0)
    block, x_NCHW = CBAM(8), torch.randn(2, 8, 5, 5)
    block.gate.data.fill_(1.0)
    mlp = nn.Sequential(block.squeeze, nn.ReLU(), block.excite)
    average, peak = nn.AdaptiveAvgPool2d(1)(x_NCHW).flatten(1), nn.AdaptiveMaxPool2d(1)(x_NCHW).flatten(1)
    channel = torch.sigmoid(mlp(average) + mlp(peak))
    refined = x_NCHW * channel[:, :, None, None]
    pooled = torch.stack([refined.mean(1), refined.max(1).values], dim=1)
    torch.testing.assert_close(block(x_NCHW), refined * torch.sigmoid(block.spatial(pooled)))
    last = CBAM(8, channels_last=True)
    last.load_state_dict(block.state_dict())
    torch.testing.assert_close(last(x_NCHW.permute(0, 2, 3, 1)).permute(0, 3, 1, 2), block(x_NCHW))


def test_cbam_learns_and_its_maps_can_be_read() -> None:
    network = model(cbam="all")
    optimizer = torch.optim.AdamW(parameter_groups(network, 1e-2, 0.0))
    for _ in range(3):
        optimizer.zero_grad()
        network(images()).square().sum().backward()
        optimizer.step()
    maps = attention_maps(network.eval(), images())
    assert len(maps) == 4  # behind three stages in the backbone, and behind the last
    assert any(name == "cbam" for name in maps)
    for found in maps.values():
        assert found.gate != 0
        assert found.channel_NC.shape[0] == found.spatial_NHW.shape[0] == 2
        for values in (found.channel_NC, found.spatial_NHW):
            assert ((values > 0) & (values < 1)).all()
    block = next(m for name, m in network.named_modules() if name == "cbam")
    seen: list[torch.Tensor] = []
    with torch.no_grad(), block.register_forward_hook(lambda _, given, out: seen.extend([given[0], out])):
        network(images())
    last = maps["cbam"]
    product_NCHW = last.channel_NC[:, :, None, None] * last.spatial_NHW[:, None]
    torch.testing.assert_close(seen[1], seen[0] * (1 + last.gate * (product_NCHW - 1)))
    assert attention_maps(model(), images()) == {}
    assert not any(m._forward_pre_hooks for m in network.modules())


def test_copies_are_independent() -> None:
    """A moving average of the weights is a deep copy: its attention must be its own."""
    network = model(cbam="all").eval()
    twin = copy.deepcopy(network)
    before = twin(images())
    for parameter in network.parameters():
        parameter.data.mul_(1.5)
    torch.testing.assert_close(twin(images()), before)


def test_csra_by_hand() -> None:
    network = model(head="csra", labels=2)
    head = network.head
    maps = torch.randn(1, head.final.in_features, 2, 1)
    weights = head.final.weight.detach()
    scores = [(weights / weights.norm(dim=1, keepdim=True)) @ maps[0, :, i, 0] for i in range(2)]
    s0, s1 = torch.stack(scores).detach()
    share = s0.exp() / (s0.exp() + s1.exp())
    expected = (s0 + s1) / 2 + 0.2 * (share * s0 + (1 - share) * s1) + head.final.bias
    torch.testing.assert_close(head(maps)[0], expected)


def test_mlp_head_is_the_plans() -> None:
    kinds = [
        type(m).__name__ for m in model(head="mlp", dropout=0.5).head.modules() if not list(m.children())
    ]
    assert kinds == ["Dropout", "Linear", "ReLU", "Dropout", "Linear"]
    assert model(head="mlp").head.final.in_features == 512


def test_images_are_resized_to_the_input_size() -> None:
    network = model(input_size=48).eval()
    torch.testing.assert_close(network(images(32)), network(resize(images(32), 48)))
    assert resize(images(32), None).shape[-1] == 32
    # shrinking averages: a fine checkerboard becomes grey, not one of its colours
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


def test_stochastic_depth_reaches_the_backbone() -> None:
    network = model(backbone="test_convnext", drop_path=0.9).train()
    assert not torch.equal(network(images()), network(images()))
    with pytest.raises(ConfigError, match=r"model.drop_path .* Got: 0.5 for vgg11"):
        check_backbone(ModelConfig(backbone="vgg11", drop_path=0.5))


# Weights


def test_saved_weights_come_back(tmp_path: Path) -> None:
    first = model(cbam="all", head="mlp").eval()
    save_weights(first, tmp_path / "deep" / "m.safetensors", {"variant": "a"})
    assert [p.name for p in (tmp_path / "deep").iterdir()] == ["m.safetensors"]
    torch.manual_seed(1)
    second = build_model(ModelConfig(backbone=SMALL, cbam="all", head="mlp"), 5).eval()
    assert load_weights(second, tmp_path / "deep" / "m.safetensors") == {"variant": "a"}
    torch.testing.assert_close(second(images()), first(images()), rtol=0, atol=0)


def test_weights_of_another_network_are_refused(tmp_path: Path) -> None:
    save_weights(model(), tmp_path / "m.safetensors")
    with pytest.raises(RunDirError, match=r"head.final.weight of shape \(5, 96\) instead of \(4, 96\)"):
        load_weights(model(labels=4), tmp_path / "m.safetensors")
    with pytest.raises(RunDirError, match=r"no tensor cbam\.gate"):
        load_weights(model(cbam="last"), tmp_path / "m.safetensors")
    (tmp_path / "bad").write_bytes(b"\x80\x04not safetensors")
    for missing in ("bad", "nothing"):
        with pytest.raises(RunDirError, match="must be a readable safetensors file"):
            load_weights(model(), tmp_path / missing)


@pytest.mark.parametrize("uri", [False, True])
def test_own_weights_from_a_timm_state_dict(tmp_path: Path, uri: bool) -> None:
    torch.manual_seed(7)
    own: Any = timm.create_model(SMALL, num_classes=1000).eval()
    save_file(own.state_dict(), tmp_path / "own.safetensors")
    location = (tmp_path / "own.safetensors").as_uri() if uri else str(tmp_path / "own.safetensors")
    network = model(weights=location, cbam="all").eval()
    backbone: Any = network.backbone  # the classifier of 1,000 is left out
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
    torch.save({"a": torch.zeros(1)}, tmp_path / "pickled.pth")
    for location in (
        str(tmp_path / "pickled.pth"),
        str(tmp_path / "nothing"),
        "nowhere://x/y",
        f"file://{tmp_path}/z",
    ):
        with pytest.raises(ConfigError, match=r"model.weights must be the path or URI of a safetensors file"):
            model(weights=location)


def test_unreachable_hub_names_both_ways_out(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.socket() as closed:  # a port on which nobody listens
        closed.bind(("127.0.0.1", 0))
        monkeypatch.setenv("HF_ENDPOINT", f"http://127.0.0.1:{closed.getsockname()[1]}")
        monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
        with pytest.raises(ConfigError) as caught:
            model(pretrained=True)
    text = str(caught.value)
    for part in ("model.pretrained", SMALL, "refused", "model.weights", "set model.pretrained to false"):
        assert part in text


def test_pretrained_weights_come_from_the_hubs_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    torch.manual_seed(7)
    published: Any = timm.create_model(SMALL).eval()
    kept = tmp_path / "models--timm--test_resnet.r160_in1k"
    (kept / "refs").mkdir(parents=True)
    (kept / "refs" / "main").write_text("0" * 40)
    (kept / "snapshots" / ("0" * 40)).mkdir(parents=True)
    save_file(published.state_dict(), kept / "snapshots" / ("0" * 40) / "model.safetensors")
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    network = model(pretrained=True, cbam="all").eval()
    backbone: Any = network.backbone
    got, expected = backbone.forward_features(images()), published.forward_features(images())
    torch.testing.assert_close(got, expected, atol=1e-5, rtol=0)


@pytest.mark.parametrize("head", ["linear", "mlp", "csra"])
def test_bfloat16_is_close_to_float32(head: Any) -> None:
    network = model(head=head, cbam="all").eval()
    with torch.autocast("cpu", torch.bfloat16):
        short_NK = network(images())
    torch.testing.assert_close(short_NK.float(), network(images()), atol=0.2, rtol=0.02)


# What is refused, before anything is started


def test_unknown_backbone_names_the_nearest() -> None:
    with pytest.raises(
        ConfigError, match=r"model.backbone must be a timm model. Got: resnet5O. Nearest: .*resnet50"
    ):
        check_backbone(ModelConfig(backbone="resnet5O"))


@pytest.mark.parametrize("asked", [{"cbam": "last"}, {"cbam": "all"}, {"head": "csra"}], ids=str)
def test_tokens_are_no_feature_maps(asked: dict[str, Any]) -> None:
    config = ModelConfig(backbone="vit_tiny_patch16_224", input_size=64, **asked)
    with pytest.raises(ConfigError, match=r"needs a backbone with feature maps. Got: vit_tiny"):
        check_backbone(config)
    assert not check_backbone(ModelConfig(backbone="vit_tiny_patch16_224", input_size=64)).maps


def test_stages_that_are_no_chain_refuse_cbam_after_all() -> None:
    with pytest.raises(ConfigError, match=r"model.cbam=all .* Got: hrnet_w18_small. Set model.cbam to last"):
        check_backbone(ModelConfig(backbone="hrnet_w18_small", cbam="all"))
    assert check_backbone(ModelConfig(backbone="hrnet_w18_small", cbam="last")).maps


def test_image_size_that_the_backbone_refuses() -> None:
    with pytest.raises(ConfigError, match=r"The image size must be one that inception_v3 accepts. Got: 32 "):
        check_backbone(ModelConfig(backbone="inception_v3"), image_size=32)
    with pytest.raises(ConfigError, match=r"model.input_size must be set for vit_tiny"):
        check_backbone(ModelConfig(backbone="vit_tiny_patch16_224"), image_size=64)


def test_pretrained_needs_weights_that_exist() -> None:
    with pytest.raises(ConfigError, match=r"model.pretrained needs a backbone that timm has weights for"):
        check_backbone(ModelConfig(backbone="lcnet_035", pretrained=True))


SOME, OTHERS = ("resnet50", "efficientnet_b0"), ("resnet101", *[f"efficientnet_b{i}" for i in range(1, 6)])


@pytest.mark.parametrize("name", [*SOME, *[pytest.param(name, marks=pytest.mark.slow) for name in OTHERS]])
def test_the_plans_backbones_are_accepted(name: str) -> None:
    found = check_backbone(ModelConfig(backbone=name, cbam="all", pretrained=True), image_size=224)
    assert found.maps
    assert found.channels == (2048 if name.startswith("resnet") else found.pooled)
