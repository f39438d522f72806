"""The one-cycle learning rate as a factor of the step, and when each parameter group starts."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

from canopy.config import FinetuneConfig, OptimConfig

Schedule = Callable[[int], float]
FLOOR = 0.005
"""Factor at the end of the decay."""


def one_cycle(warmup_fraction: float, total_steps: int, floor: float = FLOOR) -> Schedule:
    """Linear warm-up, then cosine decay to ``floor`` (Loshchilov and Hutter 2017), which stays afterwards."""
    warmup = max(1, round(warmup_fraction * total_steps))

    def factor(step: int) -> float:
        if step < warmup:
            return (step + 1) / warmup
        done = (step - warmup) / max(1, total_steps - warmup)
        return floor + (1 - floor) * 0.5 * (1 + math.cos(math.pi * min(1.0, done)))

    return factor


def group_schedules(
    groups: list[dict[str, Any]], optim: OptimConfig, finetune: FinetuneConfig, steps_per_epoch: int
) -> list[Schedule]:
    """The schedule of each parameter group of a phase.

    With ``swa_epochs`` the rate is constant in the last epochs: averaging needs weights that still move. With
    ``unfreeze_epochs`` the rate of a layer is 0 until its epoch: the nearer to the head, the sooner.

    Args:
        groups: parameter groups; with ``unfreeze_epochs`` each has its ``distance`` from the head, 0 for the
            head itself.
        optim: epochs and warm-up.
        finetune: averaging and unfreezing.
        steps_per_epoch: number of optimizer steps per epoch.
    """
    decaying = (optim.epochs - finetune.swa_epochs) * steps_per_epoch
    floor = finetune.swa_lr if finetune.swa_epochs else FLOOR
    common = one_cycle(optim.warmup_fraction, decaying, floor)
    if not finetune.unfreeze_epochs:
        return [common] * len(groups)
    deepest = max(group["distance"] for group in groups)
    first_epochs = [
        math.ceil(group["distance"] * finetune.unfreeze_epochs / max(deepest, 1)) for group in groups
    ]
    return [starting_at(common, epoch * steps_per_epoch) for epoch in first_epochs]


def starting_at(schedule: Schedule, first_step: int) -> Schedule:
    """``schedule`` from ``first_step`` on, and 0 before."""
    return lambda step: schedule(step) if step >= first_step else 0.0
