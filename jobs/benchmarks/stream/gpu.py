"""Training on Canopy's stream, compared with training on one batch that stays on the GPU."""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import islice, repeat
from pathlib import Path

import numpy as np
import torch
from jobs.benchmarks.chip_data import chip_files, decode_to_cache
from jobs.benchmarks.measurement import Report
from torch import Tensor

from canopy.config import AugmentConfig, LossConfig, ModelConfig, OptimConfig
from canopy.data.loading.batch_sampler import BatchSampler
from canopy.data.loading.batch_streams import training_batches
from canopy.data.loading.chip_source import ChipSource
from canopy.data.transforms.augment import apply_augmentation, draw_params
from canopy.data.transforms.normalize import normalize
from canopy.errors import ConfigError
from canopy.losses.multilabel import build_loss
from canopy.models.network import build_model, parameter_groups
from canopy.runtime.cluster import connect
from canopy.train.loop import TrainState, make_train_state, train_step
from canopy.train.training_phase import to_device

LABELS = 17
SIZE = 224
"""Height and width of the chips in pixels."""
WARM_STEPS = 10
"""First steps of each measurement, not timed."""
Batches = Iterator[tuple[Tensor, Tensor]]


@dataclass(frozen=True)
class StreamTraining:
    """Data and settings that both sides train with.

    Args:
        chips: source of the decoded chips.
        sampler: decides the rows of each batch.
        augment: augmentation of the stream.
        optim: optimizer settings.
        device: device to train on.
    """

    chips: ChipSource
    sampler: BatchSampler
    augment: AugmentConfig
    optim: OptimConfig
    device: torch.device

    def train_state(self, backbone: str) -> TrainState:
        """A new network with its loss and optimizer."""
        network = build_model(ModelConfig(backbone=backbone, pretrained=False), LABELS)
        network = network.to(self.device, memory_format=torch.channels_last)  # type: ignore[call-overload]
        loss = build_loss(LossConfig(name="bce"), np.full(LABELS, 100), 1000).to(self.device)
        groups = parameter_groups(network, self.optim.lr, self.optim.weight_decay)
        return make_train_state(network, loss, groups, self.optim, 10_000)

    def targets(self) -> Tensor:
        """Random targets for a batch, shape (batch size, labels)."""
        return torch.rand(self.sampler.batch_size, LABELS, device=self.device).round()

    def streamed(self, steps: int) -> Batches:
        """Yield ``steps`` batches from Ray Data, as in a training worker."""
        stream = training_batches(
            self.chips, self.sampler, self.augment, rank=0, world_size=1, first_step=0, stop_step=steps
        )
        targets_NK = self.targets()
        for step, batch in enumerate(stream):
            images = to_device(batch["image"], self.device)
            if self.augment.place == "device":
                images = apply_augmentation(
                    images, draw_params(self.augment, self.sampler.batch_size, self.sampler.step_rng(step))
                )
            yield normalize(images), targets_NK

    def resident_batches(self, steps: int) -> Batches:
        """Yield the same batch, already on the device, ``steps`` times."""
        images = torch.randint(0, 256, (self.sampler.batch_size, SIZE, SIZE, 3), dtype=torch.uint8)
        return islice(repeat((normalize(images.to(self.device)), self.targets())), steps)


def gpu(
    repeats: int = 3, rows: int = 20_000, batch_size: int = 256, steps: int = 100, out: Path | None = None
) -> None:
    """Ratio of training images/s on the stream to images/s on one resident random batch; the goal is 0.95.

    ResNet-50 and EfficientNet-B3 at 224 px, bfloat16, with flips and quarter turns in the stream or on the
    GPU. Needs a GPU; starts Ray on all cores of the machine.

    Raises:
        ConfigError: when there is no GPU.
    """
    if not torch.cuda.is_available():
        raise ConfigError(
            "The gpu benchmark", "needs a GPU", "none that torch can use", "Run it on a machine with a GPU."
        )
    files = chip_files(256, rows)
    connect()
    chips, sampler = decode_to_cache(files, SIZE), BatchSampler(np.arange(rows), batch_size, seed=0)
    optim = OptimConfig(batch_size=batch_size, precision="bfloat16")
    for backbone in ("resnet50", "efficientnet_b3"):
        report = Report(f"gpu, {backbone}, {torch.cuda.get_device_name()}", out)
        for place in ("data", "device"):
            bench = StreamTraining(chips, sampler, AugmentConfig(place=place), optim, torch.device("cuda"))
            train_state, ratios = bench.train_state(backbone), []
            for _ in range(repeats):
                still = rate(train_state, bench.resident_batches(WARM_STEPS + steps), optim, batch_size)
                real = rate(train_state, bench.streamed(WARM_STEPS + steps), optim, batch_size)
                report.add_value(f"images/s, augmented on the {place}: stream, resident", (real, still))
                ratios.append(real / still)
            report.add_ratio(f"augmented on the {place}: stream / resident", ratios, ">= 0.95")
        report.show()


def rate(train_state: TrainState, batches: Batches, optim: OptimConfig, batch_size: int) -> float:
    """Train on all batches; return images per second after the first :data:`WARM_STEPS`."""
    for _ in range(WARM_STEPS):
        train_step(train_state, *next(batches), optim)
    torch.cuda.synchronize()
    start, steps = time.perf_counter(), 0
    for images, targets in batches:
        train_step(train_state, images, targets, optim)
        steps += 1
    torch.cuda.synchronize()
    return steps * batch_size / (time.perf_counter() - start)
