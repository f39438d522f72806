"""The account of one epoch: losses added up, looked at and reduced over ranks."""

from __future__ import annotations

import math
import time
from dataclasses import dataclass, replace

import torch
import torch.distributed as dist
from torch import Tensor, nn

from canopy.errors import StageError

FINITE_CHECK_STEPS = 50
"""Steps between looks at the losses: a look waits for the device."""


@dataclass
class EpochTotals:
    """What an epoch has come to so far."""

    loss_sum: float = 0.0
    """Of the mean losses of ``steps`` slices."""
    steps: int = 0
    """Slices: each step counts once per rank."""
    images: int = 0
    seconds: float = 0.0
    """Spent on steps."""


class EpochMetrics:
    """Counts one epoch of this rank, and looks at its losses from time to time.

    Args:
        so_far: what earlier starts counted, over all ranks.
        steps_done: of this phase.
        name: of the variant, for errors.
        kept: where the last checkpoint stands, for errors; empty when there is none.
    """

    def __init__(self, so_far: EpochTotals, steps_done: int, name: str, kept: str) -> None:
        # What earlier starts counted over all ranks goes on in rank 0; the others begin at nothing.
        self._tally = replace(so_far) if is_leader() else EpochTotals()
        self._step, self._name, self._kept = steps_done, name, kept
        self._losses: list[Tensor] = []
        self.since = time.monotonic()
        """When the clock was last read."""

    def add(self, loss: Tensor, images: int) -> None:
        """After a step."""
        self._losses.append(loss)
        self._step += 1
        self._tally.images += images
        self._tally.steps += 1
        if len(self._losses) == FINITE_CHECK_STEPS:
            self._settle()

    def close(self, network: nn.Module) -> EpochTotals:
        """The epoch so far, over all ranks; the clock stops.

        Raises:
            StageError: when a loss, or a weight of ``network``, is not finite.
        """
        self._settle()
        check_weights(network, self._step, self._name, self._kept)
        now = time.monotonic()
        self._tally.seconds += now - self.since
        self.since = now
        return reduced(self._tally)

    def go_on(self, kept: str) -> None:
        """The clock goes on, after a checkpoint."""
        self.since, self._kept = time.monotonic(), kept

    def _settle(self) -> None:
        """Add up the losses, in their order. This waits for the device."""
        losses = torch.stack(self._losses).tolist() if self._losses else []
        check_finite(losses, self._step, self._name, self._kept)
        for loss in losses:  # (``sum`` compensates for rounding, from Python 3.12 on: then cuts would matter)
            self._tally.loss_sum += loss
        self._losses.clear()


def check_finite(losses: list[float], step: int, name: str, kept: str) -> None:
    """Raise ``StageError`` when one of the last losses is NaN or Inf; ``step`` is the newest one's."""
    for at, loss in enumerate(losses, start=step - len(losses) + 1):
        if not math.isfinite(loss):
            raise not_finite(f"the loss became {loss} at step {at}", name, kept)


def check_weights(network: nn.Module, step: int, name: str, kept: str) -> None:
    """Raise ``StageError`` when the last gradient has spoilt the weights: no loss would tell of it."""
    if not torch.isfinite(nn.utils.get_total_norm([p.detach() for p in network.parameters()])):
        raise not_finite(f"weights are not finite after step {step}", name, kept)


def not_finite(what: str, name: str, kept: str) -> StageError:
    """The error for a training that has left the numbers."""
    kept = f"the checkpoint of {kept}" if kept else "no checkpoint yet"
    remedy = "Lower optim.lr, set optim.clip_norm, or use float32."
    return StageError(f"variant {name}: {what}; last good: {kept}. {remedy}")


def reduced(totals: EpochTotals) -> EpochTotals:
    """Sums over all ranks; the seconds are this rank's."""
    if not is_distributed():
        return replace(totals)
    device = "cuda" if dist.get_backend() == "nccl" else "cpu"
    sums = torch.tensor([totals.loss_sum, totals.steps, totals.images], dtype=torch.float64, device=device)
    dist.all_reduce(sums)
    loss_sum, steps, images = sums.tolist()
    return EpochTotals(loss_sum, round(steps), round(images), totals.seconds)


def is_distributed() -> bool:
    """Whether there are other ranks."""
    return dist.is_available() and dist.is_initialized() and dist.get_world_size() > 1


def is_leader() -> bool:
    """Whether this process is rank 0, or alone."""
    return not is_distributed() or dist.get_rank() == 0
