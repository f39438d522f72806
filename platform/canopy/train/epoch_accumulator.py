"""Metrics of one epoch: sums of losses and images, checked to be finite and reduced over ranks."""

from __future__ import annotations

import math
import time
from dataclasses import replace

import torch
from torch import Tensor, nn

from canopy.errors import StageError
from canopy.runtime.collectives import is_rank_zero, sum_over_ranks
from canopy.train.training_records import EpochTotals

FINITE_CHECK_STEPS = 50
"""Steps between two checks of the losses. A check waits for the device."""


class EpochAccumulator:
    """Adds up losses, images and seconds of one epoch on this rank.

    Args:
        totals: totals of the epoch's earlier steps over all ranks, from a checkpoint.
        steps_done: steps completed in this phase; used in error messages.
        name: name of the variant; used in error messages.
        last_checkpoint: position of the last checkpoint in words, empty without one; used in error messages.
        precision: ``optim.precision``; used in error messages.
    """

    def __init__(
        self,
        totals: EpochTotals,
        steps_done: int,
        name: str,
        last_checkpoint: str,
        precision: str = "float32",
    ) -> None:
        # The totals of all ranks continue on rank 0; the other ranks start from zero.
        self._totals = replace(totals) if is_rank_zero() else EpochTotals()
        self._step, self._name, self._last_checkpoint = steps_done, name, last_checkpoint
        self._precision = precision
        self._losses: list[Tensor] = []
        self.clock_read_at = time.monotonic()
        """``time.monotonic()`` when the epoch's clock was last read."""

    def add(self, loss: Tensor, images: int) -> None:
        """Record one step.

        Args:
            loss: scalar mean loss of the step; it may still be computed on the device.
            images: number of images of this rank.
        """
        self._losses.append(loss)
        self._step += 1
        self._totals.images += images
        self._totals.steps += 1
        if len(self._losses) == FINITE_CHECK_STEPS:
            self._add_up_losses()

    def reduce(self, network: nn.Module) -> EpochTotals:
        """Reduce the epoch's totals over all ranks and stop the clock. All ranks must call it together.

        Raises:
            StageError: when a loss or a weight of ``network`` is not finite.
        """
        self._add_up_losses()
        check_weights_finite(network, self._step, self._name, self._last_checkpoint, self._precision)
        now = time.monotonic()
        self._totals.seconds += now - self.clock_read_at
        self.clock_read_at = now
        return reduce_totals(self._totals)

    def restart_clock(self, last_checkpoint: str) -> None:
        """Start the clock again after a checkpoint, whose position is ``last_checkpoint``."""
        self.clock_read_at, self._last_checkpoint = time.monotonic(), last_checkpoint

    def _add_up_losses(self) -> None:
        """Add the pending losses to the totals, in their order. This waits for the device."""
        losses = torch.stack(self._losses).tolist() if self._losses else []
        check_losses_finite(losses, self._step, self._name, self._last_checkpoint, self._precision)
        # Not ``sum``: from Python 3.12 on it compensates for rounding, and then the result would depend on
        # how the losses are split over calls.
        for loss in losses:
            self._totals.loss_sum += loss
        self._losses.clear()


def check_losses_finite(
    losses: list[float], step: int, name: str, last_checkpoint: str, precision: str = "float32"
) -> None:
    """Raise ``StageError`` when one of ``losses`` is NaN or infinite; ``step`` is the last one's step."""
    for loss_step, loss in enumerate(losses, start=step - len(losses) + 1):
        if not math.isfinite(loss):
            raise not_finite_error(
                f"the loss became {loss} at step {loss_step}", name, last_checkpoint, precision
            )


def check_weights_finite(
    network: nn.Module, step: int, name: str, last_checkpoint: str, precision: str = "float32"
) -> None:
    """Raise ``StageError`` when a weight is NaN or infinite: no loss reflects the last update yet."""
    if not torch.isfinite(nn.utils.get_total_norm([p.detach() for p in network.parameters()])):
        raise not_finite_error(f"weights are not finite after step {step}", name, last_checkpoint, precision)


def not_finite_error(problem: str, name: str, last_checkpoint: str, precision: str) -> StageError:
    """The error of a training that has diverged."""
    position = f"the checkpoint of {last_checkpoint}" if last_checkpoint else "no checkpoint yet"
    remedy = "Lower optim.lr, or set a lower optim.clip_norm."
    if precision != "float32":
        remedy = "Lower optim.lr, set a lower optim.clip_norm, or set optim.precision to float32."
    return StageError(f"variant {name}: {problem}; last good: {position}. {remedy}")


def reduce_totals(totals: EpochTotals) -> EpochTotals:
    """Sum losses, steps and images over all ranks; the seconds stay those of this rank."""
    loss_sum, steps, images = sum_over_ranks([totals.loss_sum, totals.steps, totals.images])
    return EpochTotals(loss_sum, round(steps), round(images), totals.seconds)
