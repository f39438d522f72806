"""What data-parallel training asks of a network."""

from __future__ import annotations

from timm.layers.norm_act import convert_sync_batchnorm
from torch import nn

from canopy.config import OptimConfig


def synchronised(network: nn.Module, config: OptimConfig, world: int) -> nn.Module:
    """``network`` with every batch norm over the global batch, if that is wanted and there are ranks.

    timm's conversion, since its fused batch norms hold an activation that torch's own would drop. Parameters
    and buffers stay the same objects under the same names.
    """
    if not config.sync_batchnorm or world == 1:
        return network
    converted: nn.Module = convert_sync_batchnorm(network)  # type: ignore[no-untyped-call]
    return converted
