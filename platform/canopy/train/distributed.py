"""What is put around a network before it trains: synchronised batch norm, DDP, torch.compile."""

from __future__ import annotations

from typing import cast

import torch
from timm.layers.norm_act import convert_sync_batchnorm
from torch import nn

from canopy.config import OptimConfig, ScaleConfig


def with_sync_batchnorm(network: nn.Module, config: OptimConfig, world: int) -> nn.Module:
    """``network`` with every batch norm over the global batch, if that is wanted and there are ranks.

    timm's conversion, since its fused batch norms hold an activation that torch's own would drop. Parameters
    and buffers stay the same objects under the same names.
    """
    if not config.sync_batchnorm or world == 1:
        return network
    converted: nn.Module = convert_sync_batchnorm(network)  # type: ignore[no-untyped-call]
    return converted


def compile_model(network: nn.Module, config: ScaleConfig) -> nn.Module:
    """``network`` through torch.compile, if that is wanted.

    Around DDP, not within: TorchDynamo then splits the graph where DDP's buckets end, so gradients are still
    exchanged while others are computed. Batches of training all have one shape, so one graph is made for it.
    """
    if not config.compile:
        return network
    return cast(nn.Module, torch.compile(network, dynamic=False))


def unwrap_model(network: nn.Module) -> nn.Module:
    """The network without what :func:`compiled` and DDP have put around it.

    It shares its parameters with them, has plain names, and runs as it is written: for evaluation, whose
    batches differ in shape, a graph for each would cost more than it saves.
    """
    inner = getattr(network, "_orig_mod", network)
    inner = getattr(inner, "module", inner)
    assert isinstance(inner, nn.Module)
    return inner
