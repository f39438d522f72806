"""The training loop: plain torch, no Ray. :func:`train` reads top to bottom.

Everything that comes from outside is an argument: an iterator of device batches, a function that scores the
network, a function that keeps a checkpoint. Under DDP the same loop runs in every rank; sums and counts are
reduced over ranks before anybody divides.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from canopy.config import OptimConfig
from canopy.errors import StageError

FINITE_CHECK_STEPS = 50
"""Steps between looks at the loss: a look waits for the device."""


@dataclass
class Progress:
    """How far the training is; what a checkpoint restores beside weights and optimizer."""

    epoch: int = 0
    """Epochs completed, over all phases."""
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

    def enter(self, phase: int) -> None:
        """Begin ``phase``, unless a restart has brought us into it already."""
        if self.phase != phase:
            self.phase, self.phase_start = phase, self.epoch


@dataclass
class Learner:
    """What learns: the network (DDP-wrapped when there are ranks), its loss, optimizer and schedule."""

    network: nn.Module
    loss: nn.Module
    optimizer: torch.optim.Optimizer
    schedule: torch.optim.lr_scheduler.LRScheduler
    average: AveragedModel | None
    best: dict[str, Tensor]
    """Weights of the best epoch so far, on the CPU."""

    @property
    def bare(self) -> nn.Module:
        """The network without its DDP wrapper."""
        inner = getattr(self.network, "module", self.network)
        assert isinstance(inner, nn.Module)
        return inner

    @property
    def judged(self) -> nn.Module:
        """The network that is scored and kept: the moving average where there is one."""
        return self.bare if self.average is None else self.average.module


def make_learner(
    network: nn.Module, loss: nn.Module, groups: list[dict[str, Any]], config: OptimConfig, total_steps: int
) -> Learner:
    """AdamW over ``groups`` with linear warm-up and cosine decay (Loshchilov and Hutter 2017, 2019).

    Args:
        network: the network, wrapped for DDP already if it will be.
        loss: maps (logits_NK, targets_NK) to a scalar mean.
        groups: parameter groups, each with its own peak ``lr`` and ``weight_decay``.
        config: the schedule.
        total_steps: steps of the whole training.
    """
    optimizer = torch.optim.AdamW(groups, lr=config.lr, weight_decay=config.weight_decay)
    warmup = max(1, round(config.warmup_fraction * total_steps))

    def factor(step: int) -> float:
        if step < warmup:
            return (step + 1) / warmup
        done = (step - warmup) / max(1, total_steps - warmup)
        return 0.005 + 0.995 * 0.5 * (1 + math.cos(math.pi * min(1.0, done)))

    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, factor)
    average = None
    if config.ema_decay:
        bare = getattr(network, "module", network)
        average = AveragedModel(bare, multi_avg_fn=moving_average(config.ema_decay), use_buffers=True)
    return Learner(network, loss, optimizer, schedule, average, best={})


def moving_average(decay: float) -> Callable[[Any, Any, Tensor | int], None]:
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


def train(
    learner: Learner,
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
        keep: called on every rank after each epoch, to checkpoint.
        tell: called after each step with (epoch, step, images of this rank in the step).
        name: of the variant, for errors.
        seed: of dropout and its like; each epoch's follows from it.

    Raises:
        StageError: when loss or weights are not finite; names variant, step and last good checkpoint.
    """
    while progress.phase_epoch < config.epochs and not out_of_patience(progress, config):
        epoch, steps_done = progress.epoch, progress.phase_epoch * steps_per_epoch
        started = time.monotonic()
        torch.manual_seed(hash_seed(seed, epoch))
        learner.network.train()
        losses, images_seen = [], 0
        for step in range(steps_per_epoch):
            images_NCHW, targets_NK = next(batches)
            losses.append(step_once(learner, images_NCHW, targets_NK, config))
            images_seen += len(images_NCHW)
            if (step + 1) % FINITE_CHECK_STEPS == 0 or step + 1 == steps_per_epoch:
                check_finite(losses, steps_done + step + 1, name, epoch)
            tell(epoch, step + 1, len(images_NCHW))
        check_weights(learner.judged, steps_done + steps_per_epoch, name, epoch)
        trained_s = time.monotonic() - started
        train_loss, images = reduced(torch.stack(losses).sum().item(), len(losses), images_seen)

        scores = evaluate(learner.judged)
        progress.epoch += 1
        if scores["score"] > progress.best_score:
            progress.best_score, progress.best_epoch = scores["score"], progress.epoch
            learner.best = kept_weights(learner.judged)
        rates = {"images_per_s": images / trained_s, "lr": float(learner.schedule.get_last_lr()[-1])}
        record = {"epoch": progress.epoch, "phase": progress.phase, "train_loss": train_loss}
        progress.history.append({**record, **scores, **rates, "seconds": time.monotonic() - started})
        keep(progress)


def kept_weights(network: nn.Module) -> dict[str, Tensor]:
    """A copy of the weights on the CPU, laid out plainly (safetensors refuses channels_last)."""
    return {
        name: tensor.detach().cpu().clone(memory_format=torch.contiguous_format)
        for name, tensor in network.state_dict().items()
    }


def step_once(learner: Learner, images_NCHW: Tensor, targets_NK: Tensor, config: OptimConfig) -> Tensor:
    """One optimizer step; the detached loss stays on the device, so nothing waits for it."""
    with torch.autocast(images_NCHW.device.type, torch.bfloat16, enabled=config.precision == "bfloat16"):
        logits_NK = learner.network(images_NCHW)
    loss: Tensor = learner.loss(logits_NK, targets_NK)
    learner.optimizer.zero_grad(set_to_none=True)
    loss.backward()  # type: ignore[no-untyped-call]
    if config.clip_norm is not None:
        nn.utils.clip_grad_norm_(learner.network.parameters(), config.clip_norm)
    learner.optimizer.step()
    learner.schedule.step()
    if learner.average is not None:
        learner.average.update_parameters(learner.bare)
    return loss.detach()


def check_finite(losses: list[Tensor], step: int, name: str, epochs_done: int) -> None:
    """Raise ``StageError`` when one of the last losses is NaN or Inf; ``step`` is the newest one's."""
    recent = torch.stack(losses[-FINITE_CHECK_STEPS:])
    bad = torch.nonzero(~torch.isfinite(recent))
    if len(bad):
        at = step - len(recent) + 1 + int(bad[0])
        raise not_finite(f"the loss became {recent[int(bad[0])].item()} at step {at}", name, epochs_done)


def check_weights(network: nn.Module, step: int, name: str, epochs_done: int) -> None:
    """Raise ``StageError`` when the last gradient of an epoch has spoilt the weights: no loss would tell."""
    if not torch.isfinite(nn.utils.get_total_norm([p.detach() for p in network.parameters()])):
        raise not_finite(f"weights are not finite after step {step}", name, epochs_done)


def not_finite(what: str, name: str, epochs_done: int) -> StageError:
    """The error for a training that has left the numbers."""
    kept = f"the checkpoint of epoch {epochs_done}" if epochs_done else "no checkpoint yet"
    remedy = "Lower optim.lr, set optim.clip_norm, or use float32."
    return StageError(f"variant {name}: {what}; last good: {kept}. {remedy}")


def out_of_patience(progress: Progress, config: OptimConfig) -> bool:
    """Whether ``patience`` epochs of this phase have passed without a better score."""
    newest_start = max(progress.best_epoch, progress.phase_start)
    return config.patience is not None and progress.epoch - newest_start >= config.patience


def reduced(loss_sum: float, steps: int, images: int) -> tuple[float, float]:
    """Mean loss and total images over all ranks."""
    totals = torch.tensor([loss_sum, steps, images], dtype=torch.float64)
    if is_distributed():
        device = "cuda" if dist.get_backend() == "nccl" else "cpu"
        totals = totals.to(device)
        dist.all_reduce(totals)
    return float(totals[0] / totals[1]), float(totals[2])


def is_distributed() -> bool:
    """Whether there are other ranks."""
    return dist.is_available() and dist.is_initialized() and dist.get_world_size() > 1


def hash_seed(*parts: int) -> int:
    """A seed below 2^63 that differs for different ``parts``."""
    value = 0
    for part in parts:
        value = (value * 1_000_003 + part + 0x9E3779B9) % (1 << 62)
    return value
