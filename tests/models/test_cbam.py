"""CBAM: its gate, its maps."""

from __future__ import annotations

import torch
from tests.models.networks import images, model
from torch import nn

from canopy.models.cbam import CBAM, attention_maps
from canopy.models.network import (
    parameter_groups,
)


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
