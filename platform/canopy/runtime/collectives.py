"""Collective operations of torch.distributed, which also work in a process that has no group.

Every function here except :func:`is_distributed` and :func:`is_rank_zero` must be called by all ranks at the
same point. In a process without other ranks each returns its argument at once.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
import torch.distributed as dist
from torch import nn


def is_distributed() -> bool:
    """Whether there are other ranks than this process."""
    return dist.is_available() and dist.is_initialized() and dist.get_world_size() > 1


def is_rank_zero() -> bool:
    """Whether this process is rank 0, or has no other ranks."""
    return not is_distributed() or dist.get_rank() == 0


def sum_over_ranks(values: Sequence[float]) -> list[float]:
    """The sum of each value over all ranks, in float64, on every rank."""
    if not is_distributed():
        return list(values)
    device = "cuda" if dist.get_backend() == "nccl" else "cpu"
    sums = torch.tensor(values, dtype=torch.float64, device=device)
    dist.all_reduce(sums)
    totals: list[float] = sums.tolist()
    return totals


def gather_objects(value: Any) -> list[Any]:
    """The ``value`` of every rank, in the order of the ranks, on every rank.

    Args:
        value: any object that pickles.
    """
    if not is_distributed():
        return [value]
    values: list[Any] = [None] * dist.get_world_size()
    dist.all_gather_object(values, value)
    return values


def broadcast_buffers(module: nn.Module) -> None:
    """Copy rank 0's buffers of ``module`` (batch-norm statistics) to every rank."""
    if is_distributed():
        for buffer in module.buffers():
            dist.broadcast(buffer, 0)
