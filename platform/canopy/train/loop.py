"""The training loop: plain torch, no Ray. :func:`train` reads top to bottom.

Everything that comes from outside is an argument: an iterator of device batches, a function that scores the
network, a function that keeps a checkpoint. Under DDP the same loop runs in every rank; sums and counts are
reduced over ranks before anybody divides.

A training cut off at any step goes on as if it had not been: random numbers are seeded anew for each step
and losses are added up one by one, so nothing depends on where a checkpoint fell.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from canopy.config import OptimConfig
from canopy.train.distributed import unwrap_model
from canopy.train.epoch_metrics import EpochMetrics, EpochTotals


@dataclass
class Progress:
    """How far the training is; what a checkpoint restores beside weights and optimizer."""

    epoch: int = 0
    """Epochs completed, over all phases."""
    step: int = 0
    """Steps of the epoch after these that the newest checkpoint holds."""
    so_far: EpochTotals = field(default_factory=EpochTotals)
    """Over those steps and all ranks."""
    phase: int = 1
    """1, or 2 while the classifier is trained anew on balanced data (``optim.rebalance_epochs``)."""
    phase_start: int = 0
    """Epochs completed when this phase began."""
    best_score: float = float("-inf")
    best_epoch: int = 0
    """The epoch (from 1) whose weights are kept."""
    history: list[dict[str, float]] = field(default_factory=list)
    """One record per epoch: epoch, phase, train_loss, the validation scores, images_per_s, seconds, lr."""

    @property
    def phase_epoch(self) -> int:
        """Epochs completed in this phase."""
        return self.epoch - self.phase_start

    @property
    def place(self) -> str:
        """Where the newest checkpoint stands, in words; empty when there is none."""
        if self.step:
            return f"epoch {self.epoch + 1}, step {self.step}"
        return f"epoch {self.epoch}" if self.epoch else ""

    def enter(self, phase: int) -> None:
        """Begin ``phase``, unless a restart has brought us into it already."""
        if self.phase != phase:
            self.phase, self.phase_start = phase, self.epoch


@dataclass
class TrainState:
    """What learns: the network (within DDP when there are ranks), its loss, optimizer and schedule."""

    network: nn.Module
    loss: nn.Module
    optimizer: torch.optim.Optimizer
    schedule: torch.optim.lr_scheduler.LRScheduler
    model_ema: AveragedModel | None
    best: dict[str, Tensor]
    """Weights of the best epoch so far, on the CPU."""

    @property
    def unwrapped(self) -> nn.Module:
        """The network without its wrappers."""
        return unwrap_model(self.network)

    @property
    def eval_model(self) -> nn.Module:
        """The network that is scored and kept: the moving average where there is one."""
        return self.unwrapped if self.model_ema is None else self.model_ema.module


def make_train_state(
    network: nn.Module, loss: nn.Module, groups: list[dict[str, Any]], config: OptimConfig, total_steps: int
) -> TrainState:
    """AdamW over ``groups`` with linear warm-up and cosine decay (Loshchilov and Hutter 2017, 2019).

    Args:
        network: the network, wrapped for DDP already if it will be.
        loss: maps (logits_NK, targets_NK) to a scalar mean.
        groups: parameter groups, each with its own peak ``lr`` and ``weight_decay``.
        config: the schedule.
        total_steps: steps of the whole training.
    """
    optimizer = torch.optim.AdamW(groups, lr=config.lr, weight_decay=config.weight_decay, fused=True)
    warmup = max(1, round(config.warmup_fraction * total_steps))

    def factor(step: int) -> float:
        if step < warmup:
            return (step + 1) / warmup
        done = (step - warmup) / max(1, total_steps - warmup)
        return 0.005 + 0.995 * 0.5 * (1 + math.cos(math.pi * min(1.0, done)))

    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, factor)
    model_ema = None
    if config.ema_decay:
        model_ema = AveragedModel(
            unwrap_model(network), multi_avg_fn=ema_update(config.ema_decay), use_buffers=True
        )
    return TrainState(network, loss, optimizer, schedule, model_ema, best={})


def ema_update(decay: float) -> Callable[[Any, Any, Tensor | int], None]:
    """The update of an exponential moving average: it keeps min(``decay``, (1 + n) / (10 + n)) at step n.

    The second term lets a short training forget its random start; without it a decay of 0.999 would still
    hold a third of it after 1,000 steps. It is that of TensorFlow's ``ExponentialMovingAverage``.
    """

    def update(averages: Any, newest: Any, updates_done: Tensor | int) -> None:
        n = int(updates_done)
        get_ema_multi_avg_fn(min(decay, (1 + n) / (10 + n)))(averages, newest, n)  # type: ignore[no-untyped-call]

    return update


Batches = Iterator[tuple[Tensor, Tensor]]
Evaluate = Callable[[nn.Module], dict[str, float]]
Keep = Callable[[Progress], None]
Tell = Callable[[int, int, int], None]
Due = Callable[[], bool]


def train(
    train_state: TrainState,
    batches: Batches,
    steps_per_epoch: int,
    config: OptimConfig,
    progress: Progress,
    *,
    evaluate: Evaluate,
    keep: Keep,
    tell: Tell,
    name: str,
    seed: int,
    due: Due = lambda: False,
) -> None:
    """Train from where ``progress`` stands to the end of its phase, or until ``patience`` runs out.

    Args:
        learner: changed in place; ``learner.best`` ends as the weights to use.
        batches: normalised images (n, C, H, W) and targets (n, K) on the device, ``steps_per_epoch`` per
            epoch, on every rank the same number.
        steps_per_epoch: optimizer steps per epoch.
        config: epochs, clipping, patience, precision.
        progress: where a restart goes on; changed in place.
        evaluate: scores a network on all ranks alike; its result holds ``score``, which selects.
        keep: called on every rank to checkpoint: after each epoch, and after steps that are ``due``.
        tell: called after each step with (epoch, step, images of this rank in the step).
        name: of the variant, for errors.
        seed: of dropout and its like; each step's follows from it.
        due: called after each step: whether to checkpoint now; the same on every rank.

    Raises:
        StageError: when loss or weights are not finite; names variant, step and last good checkpoint.
    """
    while progress.phase_epoch < config.epochs and not out_of_patience(progress, config):
        steps_done = progress.phase_epoch * steps_per_epoch + progress.step
        epoch = EpochMetrics(progress.so_far, steps_done, name, progress.place)
        train_state.network.train()
        for step in range(progress.step, steps_per_epoch):
            images_NCHW, targets_NK = next(batches)
            seed_all(images_NCHW.device, hash_seed(seed, progress.epoch, step))
            epoch.add(step_once(train_state, images_NCHW, targets_NK, config), len(images_NCHW))
            tell(progress.epoch, step + 1, len(images_NCHW))
            if due() and step + 1 < steps_per_epoch:
                progress.so_far, progress.step = epoch.close(train_state.eval_model), step + 1
                keep(progress)
                epoch.go_on(progress.place)
        totals, scores = epoch.close(train_state.eval_model), evaluate(train_state.eval_model)
        close_epoch(train_state, progress, totals, scores, epoch.since)
        keep(progress)


def close_epoch(
    train_state: TrainState,
    progress: Progress,
    totals: EpochTotals,
    scores: dict[str, float],
    scoring_since: float,
) -> None:
    """Count an epoch as completed: its record, and its weights if they are the best so far."""
    progress.epoch, progress.step, progress.so_far = progress.epoch + 1, 0, EpochTotals()
    if scores["score"] > progress.best_score:
        progress.best_score, progress.best_epoch = scores["score"], progress.epoch
        train_state.best = kept_weights(train_state.eval_model)
    rates = {
        "images_per_s": totals.images / totals.seconds,
        "lr": float(train_state.schedule.get_last_lr()[-1]),
        "seconds": totals.seconds + time.monotonic() - scoring_since,
    }
    record = {"epoch": progress.epoch, "phase": progress.phase, "train_loss": totals.loss_sum / totals.steps}
    progress.history.append({**record, **scores, **rates})


def kept_weights(network: nn.Module) -> dict[str, Tensor]:
    """A copy of the weights on the CPU, laid out plainly (safetensors refuses channels_last)."""
    return {
        name: tensor.detach().cpu().clone(memory_format=torch.contiguous_format)
        for name, tensor in network.state_dict().items()
    }


def step_once(
    train_state: TrainState, images_NCHW: Tensor, targets_NK: Tensor, config: OptimConfig
) -> Tensor:
    """One optimizer step; the detached loss stays on the device, so nothing waits for it."""
    with torch.autocast(images_NCHW.device.type, torch.bfloat16, enabled=config.precision == "bfloat16"):
        logits_NK = train_state.network(images_NCHW)
    loss: Tensor = train_state.loss(logits_NK, targets_NK)
    train_state.optimizer.zero_grad(set_to_none=True)
    loss.backward()  # type: ignore[no-untyped-call]
    if config.clip_norm is not None:
        nn.utils.clip_grad_norm_(train_state.network.parameters(), config.clip_norm)
    train_state.optimizer.step()
    train_state.schedule.step()
    if train_state.model_ema is not None:
        update_ema(train_state.model_ema, train_state.unwrapped)
    return loss.detach()


@torch.no_grad()
def update_ema(model_ema: AveragedModel, network: nn.Module) -> None:
    """As ``average.update_parameters(network)``, which would make the device count and wait for its answer.

    Counters (batch norm's ``num_batches_tracked``) are taken as they are.
    """
    n = int(model_ema.n_averaged)  # lies on the CPU
    averages = [*model_ema.module.parameters(), *model_ema.module.buffers()]
    newest = [*network.parameters(), *network.buffers()]
    floats = [at for at, mean in enumerate(averages) if mean.is_floating_point()]
    if n:
        update: Any = model_ema.multi_avg_fn
        update([averages[at] for at in floats], [newest[at] for at in floats], n)
    for mean, value in zip(averages, newest, strict=True):
        if not n or not mean.is_floating_point():
            mean.copy_(value)
    model_ema.n_averaged += 1


def out_of_patience(progress: Progress, config: OptimConfig) -> bool:
    """Whether ``patience`` epochs of this phase have passed without a better score."""
    newest_start = max(progress.best_epoch, progress.phase_start)
    return config.patience is not None and progress.epoch - newest_start >= config.patience


def seed_all(device: torch.device, seed: int) -> None:
    """Seed what draws random numbers in a step: a hundredth of the time that ``torch.manual_seed`` takes."""
    torch.default_generator.manual_seed(seed)
    if device.type == "cuda":
        torch.cuda.manual_seed(seed)


def hash_seed(*parts: int) -> int:
    """A seed below 2^63 that differs for different ``parts``."""
    value = 0
    for part in parts:
        value = (value * 1_000_003 + part + 0x9E3779B9) % (1 << 62)
    return value
