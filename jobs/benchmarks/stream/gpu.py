"""Training with the real stream beside training on one batch that lies on the GPU."""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import islice, repeat
from pathlib import Path

import numpy as np
import torch
from jobs.benchmarks.chip_data import chip_files, decoded_once
from jobs.benchmarks.measurement import Report
from torch import Tensor

from canopy.config import AugmentConfig, LossConfig, ModelConfig, OptimConfig
from canopy.data.loading.batch_sampler import BatchSampler
from canopy.data.loading.chip_source import ChipSource
from canopy.data.loading.loader import training_batches
from canopy.data.transforms.augment import apply_augmentation, draw_params, normalize
from canopy.errors import ConfigError
from canopy.losses.multilabel import build_loss
from canopy.models.classifier import build_model, parameter_groups
from canopy.runtime.cluster import connect
from canopy.train.loop import TrainState, make_train_state, train_step
from canopy.train.task import to_device

LABELS = 17
SIZE = 224
WARM_STEPS = 10
Batches = Iterator[tuple[Tensor, Tensor]]


@dataclass(frozen=True)
class Bench:
    """What both sides train with."""

    chips: ChipSource
    plan: BatchSampler
    augment: AugmentConfig
    optim: OptimConfig
    device: torch.device

    def train_state(self, backbone: str) -> TrainState:
        """A fresh network with its loss and optimizer."""
        network = build_model(ModelConfig(backbone=backbone, pretrained=False), LABELS)
        network = network.to(self.device, memory_format=torch.channels_last)  # type: ignore[call-overload]
        loss = build_loss(LossConfig(name="bce"), np.full(LABELS, 100), 1000).to(self.device)
        groups = parameter_groups(network, self.optim.lr, self.optim.weight_decay)
        return make_train_state(network, loss, groups, self.optim, 10_000)

    def targets(self) -> Tensor:
        """Some targets for a batch."""
        return torch.rand(self.plan.batch_size, LABELS, device=self.device).round()

    def streamed(self, steps: int) -> Batches:
        """Batches from Ray Data, as a worker makes them."""
        stream = training_batches(
            self.chips, self.plan, self.augment, rank=0, world=1, first_step=0, last_step=steps
        )
        targets_NK = self.targets()
        for step, batch in enumerate(stream):
            images = to_device(batch["image"], self.device)
            if self.augment.place == "device":
                images = apply_augmentation(
                    images, draw_params(self.augment, self.plan.batch_size, self.plan.step_rng(step))
                )
            yield normalize(images), targets_NK

    def decoded_once(self, steps: int) -> Batches:
        """One batch over and over, on the device already."""
        images = torch.randint(0, 256, (self.plan.batch_size, SIZE, SIZE, 3), dtype=torch.uint8)
        return islice(repeat((normalize(images.to(self.device)), self.targets())), steps)


def gpu(
    repeats: int = 3, rows: int = 20_000, batch_size: int = 256, steps: int = 100, out: Path | None = None
) -> None:
    """Training images/s with the real stream over images/s with a resident synthetic batch; goal 0.95.

    ResNet-50 and EfficientNet-B3 at 224 px, bfloat16, flips and turns in the stream and on the GPU. Needs
    a GPU; starts a Ray of its own with all cores of the machine.
    """
    if not torch.cuda.is_available():
        raise ConfigError(
            "The gpu benchmark", "needs a GPU", "none that torch can use", "Run it where one is."
        )
    files = chip_files(256, rows)
    connect()
    chips, plan = decoded_once(files, SIZE), BatchSampler(np.arange(rows), batch_size, seed=0)
    optim = OptimConfig(batch_size=batch_size, precision="bfloat16")
    for backbone in ("resnet50", "efficientnet_b3"):
        report = Report(f"gpu, {backbone}, {torch.cuda.get_device_name()}", out)
        for place in ("data", "device"):
            bench = Bench(chips, plan, AugmentConfig(place=place), optim, torch.device("cuda"))
            train_state, ratios = bench.train_state(backbone), []
            for _ in range(repeats):
                still = rate(train_state, bench.decoded_once(WARM_STEPS + steps), optim, batch_size)
                real = rate(train_state, bench.streamed(WARM_STEPS + steps), optim, batch_size)
                report.note(f"images/s, augmented on the {place}: stream, resident", (real, still))
                ratios.append(real / still)
            report.ratio(f"augmented on the {place}: stream / resident", ratios, ">= 0.95")
        report.show()


def rate(train_state: TrainState, batches: Batches, optim: OptimConfig, batch_size: int) -> float:
    """Images per second of training, the first steps left out."""
    for _ in range(WARM_STEPS):
        train_step(train_state, *next(batches), optim)
    torch.cuda.synchronize()
    start, steps = time.perf_counter(), 0
    for images, targets in batches:
        train_step(train_state, images, targets, optim)
        steps += 1
    torch.cuda.synchronize()
    return steps * batch_size / (time.perf_counter() - start)
