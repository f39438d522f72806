"""The training loop: plain torch, no Ray. :func:`train` reads top to bottom.

Everything from outside is an argument: an iterator of batches on the device, a function that evaluates the
network, a function that saves a checkpoint. Under DDP every rank runs the same loop; sums and counts are
reduced over ranks before they are divided.

A training that is interrupted at any step and resumed gives the same result to the bit: random numbers are
seeded at each step and losses are added one by one, so nothing depends on where a checkpoint was made.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, field
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from canopy.config import OptimConfig
from canopy.models.weights import copy_weights
from canopy.train.epoch_accumulator import EpochAccumulator
from canopy.train.finetune import EpochHooks, drop_gradients_of_frozen_groups
from canopy.train.model_wrappers import unwrap_model
from canopy.train.schedule import Schedule, one_cycle
from canopy.train.training_records import EpochRecord, EpochTotals, TrainingPosition, ValidationScores


@dataclass
class TrainState:
    """Everything that one phase of a training changes: network, optimizer, schedule, moving average."""

    network: nn.Module
    """The network with its wrappers (DDP, torch.compile)."""
    loss: nn.Module
    """Maps logits (N, K) and targets (N, K) to a scalar mean."""
    optimizer: torch.optim.Optimizer
    lr_scheduler: torch.optim.lr_scheduler.LRScheduler
    model_ema: AveragedModel | None
    """Exponential moving average of the weights; None when ``optim.ema_decay`` is 0."""
    best_weights: dict[str, Tensor]
    """Weights of the best completed epoch, on the CPU; empty before the first epoch ends."""
    hooks: EpochHooks = field(default_factory=EpochHooks)
    """What fine-tuning does before and after each epoch."""
    first_weights: dict[str, Tensor] = field(default_factory=dict)
    """Weights at the start of the phase, on the CPU, where they are needed again at its end; else empty."""

    @property
    def unwrapped(self) -> nn.Module:
        """The network without its wrappers."""
        return unwrap_model(self.network)

    @property
    def eval_model(self) -> nn.Module:
        """The network that is evaluated and stored: the moving average if there is one."""
        return self.unwrapped if self.model_ema is None else self.model_ema.module


def make_train_state(
    network: nn.Module,
    loss: nn.Module,
    groups: list[dict[str, Any]],
    config: OptimConfig,
    total_steps: int,
    schedules: list[Schedule] | None = None,
) -> TrainState:
    """Create AdamW over ``groups`` with linear warm-up and cosine decay (Loshchilov and Hutter 2017, 2019).

    Args:
        network: the network with its wrappers.
        loss: maps (logits_NK, targets_NK) to a scalar mean.
        groups: parameter groups, each with its own peak ``lr`` and ``weight_decay``.
        config: learning rate, warm-up, weight decay, decay of the moving average.
        total_steps: number of steps of the phase.
        schedules: learning-rate schedule of each group; None: one cycle over the phase for all.
    """
    optimizer = torch.optim.AdamW(groups, lr=config.lr, weight_decay=config.weight_decay, fused=True)
    schedules = schedules or [one_cycle(config.warmup_fraction, total_steps)] * len(groups)
    lr_scheduler = torch.optim.lr_scheduler.LambdaLR(optimizer, schedules)
    model_ema = None
    if config.ema_decay:
        model_ema = AveragedModel(
            unwrap_model(network), multi_avg_fn=ema_update(config.ema_decay), use_buffers=True
        )
    return TrainState(network, loss, optimizer, lr_scheduler, model_ema, best_weights={})


def ema_update(decay: float) -> Callable[[Any, Any, Tensor | int], None]:
    """Update of an exponential moving average whose decay at step n is min(``decay``, (1 + n) / (10 + n)).

    The second term lets a short training forget its random start: with a constant decay of 0.999 the average
    would still hold a third of it after 1,000 steps. The rule is that of TensorFlow's
    ``ExponentialMovingAverage``.
    """

    def update(averages: Any, newest: Any, updates_done: Tensor | int) -> None:
        n = int(updates_done)
        get_ema_multi_avg_fn(min(decay, (1 + n) / (10 + n)))(averages, newest, n)  # type: ignore[no-untyped-call]

    return update


Batches = Iterator[tuple[Tensor, Tensor]]
"""Images (n, C, H, W) and targets (n, K) of this rank."""
Evaluate = Callable[[nn.Module], ValidationScores]
OnStepEnd = Callable[[int, int, int], None]
"""Takes the epoch (from 0), the step in it (from 1) and the number of images of this rank in the step."""
SaveCheckpoint = Callable[[TrainingPosition], None]
ShouldCheckpoint = Callable[[], bool]


def train(
    train_state: TrainState,
    batches: Batches,
    steps_per_epoch: int,
    config: OptimConfig,
    progress: TrainingPosition,
    *,
    evaluate: Evaluate,
    save_checkpoint: SaveCheckpoint,
    on_step_end: OnStepEnd,
    name: str,
    seed: int,
    should_checkpoint: ShouldCheckpoint = lambda: False,
) -> None:
    """Train from the position in ``progress`` to the end of its phase, or until ``patience`` runs out.

    Args:
        train_state: changed in place; ``train_state.best_weights`` ends as the weights to use.
        batches: normalized images (n, C, H, W) and targets (n, K) on the device, ``steps_per_epoch`` per
            epoch, the same number on every rank.
        steps_per_epoch: number of optimizer steps per epoch.
        config: epochs, clipping, patience, precision.
        progress: where to start; changed in place.
        evaluate: evaluates a network; returns the same scores on every rank.
        save_checkpoint: called on every rank after each epoch, and after steps where ``should_checkpoint`` is
            true.
        on_step_end: called after each step.
        name: name of the variant; used in error messages.
        seed: base seed of dropout and stochastic depth; each step derives its own.
        should_checkpoint: called after each step; returns the same on every rank.

    Raises:
        StageError: when the loss or the weights are not finite; names variant, step and last good checkpoint.
    """
    while progress.phase_epoch < config.epochs and not out_of_patience(progress, config):
        steps_done = progress.phase_epoch * steps_per_epoch + progress.step
        metrics = EpochAccumulator(
            progress.epoch_totals, steps_done, name, progress.position, config.precision
        )
        train_state.hooks.before_epoch(train_state.unwrapped, progress.phase_epoch)
        train_state.network.train()
        for step in range(progress.step, steps_per_epoch):
            images_NCHW, targets_NK = next(batches)
            seed_all(images_NCHW.device, hash_seed(seed, progress.epoch, step))
            metrics.add(train_step(train_state, images_NCHW, targets_NK, config), len(images_NCHW))
            on_step_end(progress.epoch, step + 1, len(images_NCHW))
            if should_checkpoint() and step + 1 < steps_per_epoch:
                progress.epoch_totals, progress.step = metrics.reduce(train_state.eval_model), step + 1
                save_checkpoint(progress)
                metrics.restart_clock(progress.position)
        train_state.hooks.after_epoch(train_state.unwrapped, progress.phase_epoch)
        totals, scores = metrics.reduce(train_state.eval_model), evaluate(train_state.eval_model)
        close_epoch(train_state, progress, totals, scores, metrics.clock_read_at)
        save_checkpoint(progress)


def close_epoch(
    train_state: TrainState,
    progress: TrainingPosition,
    totals: EpochTotals,
    scores: ValidationScores,
    evaluation_start: float,
) -> None:
    """Count an epoch as completed: append its record, and copy its weights if its score is the highest.

    Args:
        train_state: changed in place.
        progress: changed in place.
        totals: totals of the epoch over all ranks.
        scores: validation scores of the epoch.
        evaluation_start: ``time.monotonic()`` when the evaluation began.
    """
    progress.epoch, progress.step, progress.epoch_totals = progress.epoch + 1, 0, EpochTotals()
    if scores.score > progress.best_score:
        progress.best_score, progress.best_epoch = scores.score, progress.epoch
        train_state.best_weights = copy_weights(train_state.eval_model)
    record = EpochRecord(
        epoch=progress.epoch,
        phase=progress.phase,
        train_loss=totals.loss_sum / totals.steps,
        images_per_s=totals.images / totals.seconds,
        lr=float(train_state.lr_scheduler.get_last_lr()[-1]),
        seconds=totals.seconds + time.monotonic() - evaluation_start,
        **asdict(scores),
    )
    progress.history.append(record)


def train_step(
    train_state: TrainState, images_NCHW: Tensor, targets_NK: Tensor, config: OptimConfig
) -> Tensor:
    """Take one optimizer step and return the detached loss, a scalar on the device, without waiting for it.

    Args:
        train_state: network, loss, optimizer and schedule; changed in place.
        images_NCHW: normalized images on the device.
        targets_NK: targets in [0, 1] on the device.
        config: precision and clipping of gradients.
    """
    with torch.autocast(images_NCHW.device.type, torch.bfloat16, enabled=config.precision == "bfloat16"):
        logits_NK = train_state.network(images_NCHW)
    loss: Tensor = train_state.loss(logits_NK, targets_NK)
    train_state.optimizer.zero_grad(set_to_none=True)
    loss.backward()  # type: ignore[no-untyped-call]
    drop_gradients_of_frozen_groups(train_state.optimizer)
    if config.clip_norm is not None:
        nn.utils.clip_grad_norm_(train_state.network.parameters(), config.clip_norm)
    train_state.optimizer.step()
    train_state.lr_scheduler.step()
    if train_state.model_ema is not None:
        update_ema(train_state.model_ema, train_state.unwrapped)
    return loss.detach()


@torch.no_grad()
def update_ema(model_ema: AveragedModel, network: nn.Module) -> None:
    """Do what ``model_ema.update_parameters(network)`` does, without its wait for the device.

    Integer buffers (batch norm's ``num_batches_tracked``) are copied.
    """
    n = int(model_ema.n_averaged)  # lies on the CPU
    averages = [*model_ema.module.parameters(), *model_ema.module.buffers()]
    newest = [*network.parameters(), *network.buffers()]
    floats = [index for index, mean in enumerate(averages) if mean.is_floating_point()]
    if n:
        update: Any = model_ema.multi_avg_fn
        update([averages[index] for index in floats], [newest[index] for index in floats], n)
    for mean, value in zip(averages, newest, strict=True):
        if not n or not mean.is_floating_point():
            mean.copy_(value)
    model_ema.n_averaged += 1


def out_of_patience(progress: TrainingPosition, config: OptimConfig) -> bool:
    """Whether ``patience`` epochs of this phase have passed without a better score."""
    newest_start = max(progress.best_epoch, progress.phase_start)
    return config.patience is not None and progress.epoch - newest_start >= config.patience


def seed_all(device: torch.device, seed: int) -> None:
    """Seed torch's generators on the CPU and, for a GPU ``device``, on the GPU."""
    # ``torch.manual_seed`` does more and takes a hundred times as long.
    torch.default_generator.manual_seed(seed)
    if device.type == "cuda":
        torch.cuda.manual_seed(seed)


def hash_seed(*parts: int) -> int:
    """A seed below 2^63 that differs for different ``parts``."""
    value = 0
    for part in parts:
        value = (value * 1_000_003 + part + 0x9E3779B9) % (1 << 62)
    return value
