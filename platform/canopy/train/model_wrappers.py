"""Wrappers around a network for training: synchronized batch norm, DDP, torch.compile."""

from __future__ import annotations

from collections.abc import Callable
from typing import cast

import torch
from timm.layers.norm_act import convert_sync_batchnorm
from torch import nn

from canopy.config import OptimConfig, ResourcesConfig


def wrap_model(
    network: nn.Module,
    optim: OptimConfig,
    scale: ResourcesConfig,
    world_size: int,
    to_ddp: Callable[[nn.Module], nn.Module],
) -> nn.Module:
    """Wrap ``network`` for training, in this order: synchronized batch norm, DDP, torch.compile.

    Args:
        network: the network on its device.
        optim: says whether batch norm is synchronized.
        scale: says whether the network is compiled.
        world_size: number of ranks.
        to_ddp: puts a network into DDP where there are other ranks.
    """
    return compile_model(to_ddp(with_sync_batchnorm(network, optim, world_size)), scale)


def with_sync_batchnorm(network: nn.Module, config: OptimConfig, world_size: int) -> nn.Module:
    """Synchronize every batch norm of ``network`` over the ranks, if the config says so and there are others.

    Parameters and buffers stay the same objects under the same names.
    """
    if not config.sync_batchnorm or world_size == 1:
        return network
    # timm's conversion keeps the activation of timm's fused batch norms; torch's conversion would drop it.
    converted: nn.Module = convert_sync_batchnorm(network)  # type: ignore[no-untyped-call]
    return converted


def compile_model(network: nn.Module, config: ResourcesConfig) -> nn.Module:
    """Compile ``network`` with torch.compile, if the config says so."""
    if not config.compile:
        return network
    # DDP is inside the compiled module: TorchDynamo then splits the graph at DDP's bucket boundaries, and
    # gradients are exchanged while others are still computed. All training batches have one shape, so one
    # static graph is enough.
    return cast(nn.Module, torch.compile(network, dynamic=False))


def unwrap_model(network: nn.Module) -> nn.Module:
    """The network inside :func:`compile_model` and DDP.

    It shares its parameters with the wrappers and has plain parameter names. It runs uncompiled. Evaluation
    uses it, because its batches differ in shape and each shape would need another graph.
    """
    inner = getattr(network, "_orig_mod", network)
    inner = getattr(inner, "module", inner)
    assert isinstance(inner, nn.Module)
    return inner
