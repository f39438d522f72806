"""CBAM attention behind a gate, so that adding it to a pretrained network changes nothing at first.

CBAM (Woo et al., "CBAM: Convolutional Block Attention Module", ECCV 2018) multiplies features by a
channel map and a spatial map, each a sigmoid that starts near 0.5. Inside a pretrained backbone this
shrinks the features to almost nothing. Here a learned gate g blends the block in,

    out = x + g (cbam(x) - x),    g = 0 at first,

so that step 0 is exactly the plain backbone and g = 1 is the paper's block. The gate is that of ReZero
(Bachlechner et al., UAI 2021).
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle


@dataclass(frozen=True)
class AttentionMaps:
    """Attention maps of one CBAM block for N images."""

    channel_NC: Tensor
    """Weight of each channel, in (0, 1)."""
    spatial_NHW: Tensor
    """Weight of each position, in (0, 1)."""
    gate: float
    """The gate g: 0 is the plain backbone, 1 the paper's CBAM. It can become negative; the block then
    strengthens the positions that its maps give little weight."""

    def relative_gain(self) -> Tensor:
        """Share by which each position is strengthened (> 0) or weakened (< 0, at least -1), shape (N, H, W).

        It is the block's factor 1 + g (channel x spatial - 1), in magnitude and averaged over channels,
        relative to its mean over the image; 0 everywhere while the gate is 0. Unlike the spatial map it has
        the right sign for a negative gate, and it is small when the gate is nearly closed.
        """
        product_NCHW = self.channel_NC[:, :, None, None] * self.spatial_NHW[:, None]
        factor_NHW = (1 + self.gate * (product_NCHW - 1)).abs().mean(dim=1)
        return factor_NHW / factor_NHW.mean(dim=(1, 2), keepdim=True).clamp_min(1e-12) - 1


class CBAM(nn.Module):
    """Channel attention, then spatial attention, over feature maps, behind a residual gate.

    Args:
        channels: C of maps of shape (N, C, H, W).
        channels_last: whether the maps are (N, H, W, C) instead, as in Swin.
        reduction: the hidden layer of the channel attention has C / reduction units, at least 4.
        kernel_size: kernel size of the spatial attention's convolution, odd.
    """

    def __init__(
        self, channels: int, channels_last: bool = False, *, reduction: int = 16, kernel_size: int = 7
    ) -> None:
        super().__init__()
        self.channels_last = channels_last
        hidden = max(channels // reduction, 4)
        self.squeeze = nn.Linear(channels, hidden)
        self.excite = nn.Linear(hidden, channels)
        self.spatial = nn.Conv2d(2, 1, kernel_size, padding=kernel_size // 2, bias=False)
        self.gate = nn.Parameter(torch.zeros(()))

    def maps(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Channel map (N, C, 1, 1) and spatial map (N, 1, H, W), both in (0, 1)."""
        x_NCHW = x.permute(0, 3, 1, 2) if self.channels_last else x
        pooled = (x_NCHW.mean(dim=(2, 3)), x_NCHW.amax(dim=(2, 3)))
        average_NC, peak_NC = (self.excite(torch.relu(self.squeeze(p))) for p in pooled)
        channel_NC11 = torch.sigmoid(average_NC + peak_NC)[:, :, None, None]
        weighted_NCHW = x_NCHW * channel_NC11
        summary_N2HW = torch.cat(
            [weighted_NCHW.mean(dim=1, keepdim=True), weighted_NCHW.amax(dim=1, keepdim=True)], dim=1
        )
        return channel_NC11, torch.sigmoid(self.spatial(summary_N2HW))

    def forward(self, x: Tensor) -> Tensor:
        """Maps of the same shape; equal to the input while the gate is 0."""
        channel_NC11, spatial_N1HW = self.maps(x)
        factor_NCHW = 1 + self.gate * (channel_NC11 * spatial_N1HW - 1)
        return x * (factor_NCHW.permute(0, 2, 3, 1) if self.channels_last else factor_NCHW)


class StageWithCBAM(nn.Module):
    """A stage of a backbone followed by CBAM; it replaces the stage.

    Args:
        stage: any module that returns feature maps.
        channels: number of channels of its maps.
        channels_last: see :class:`CBAM`.
    """

    def __init__(self, stage: nn.Module, channels: int, channels_last: bool = False) -> None:
        super().__init__()
        self.plain = stage
        self.cbam = CBAM(channels, channels_last)

    def forward(self, x: Tensor) -> Tensor:
        """Feature maps in the layout of the stage."""
        attended: Tensor = self.cbam(self.plain(x))
        return attended


@torch.no_grad()
def attention_maps(model: nn.Module, images_NCHW: Tensor) -> dict[str, AttentionMaps]:
    """Attention maps of every CBAM block of ``model`` for these images, by the block's module name.

    The model runs once and its mode is not changed. The result is empty for a model without CBAM.
    """
    found: dict[str, AttentionMaps] = {}
    handles: list[RemovableHandle] = []
    for name, module in model.named_modules():
        if isinstance(module, CBAM):

            def read(block: nn.Module, inputs: tuple[Tensor, ...], name: str = name) -> None:
                assert isinstance(block, CBAM)
                channel_NC11, spatial_N1HW = block.maps(inputs[0])
                found[name] = AttentionMaps(channel_NC11[:, :, 0, 0], spatial_N1HW[:, 0], float(block.gate))

            handles.append(module.register_forward_pre_hook(read))
    try:
        model(images_NCHW)
    finally:
        for handle in handles:
            handle.remove()
    return found
