"""Shared parts of the fleet benchmarks: a training on random chips, and a minimal loop on them."""

from __future__ import annotations

import itertools
import shutil
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from jobs.benchmarks.chip_data import CACHE_DIR, CORES, private_ray
from torch import Tensor, nn

from canopy.config import (
    AugmentConfig,
    Experiment,
    LossConfig,
    ModelConfig,
    OptimConfig,
    ResourcesConfig,
    TrackingConfig,
    VariantConfig,
)
from canopy.data.catalogue import Catalogue
from canopy.data.loading.chip_cache import ChipCache
from canopy.data.loading.chip_source import ChipSource
from canopy.data.loading.uri_list import UriList
from canopy.data.transforms.normalize import IMAGENET_MEAN, IMAGENET_STD
from canopy.errors import ConfigError
from canopy.labels import LabelSet
from canopy.storage.run_dir import RunDir
from canopy.train.loop import TrainState, train
from canopy.train.monitor.training_monitor import monitor_training
from canopy.train.training_phase import DistributedContext, TrainingPhase
from canopy.train.training_records import TrainingPosition, ValidationScores
from canopy.train.training_run import TrainingRun

LABELS = LabelSet(tuple(f"label{k:02}" for k in range(17)))
VAL_ROWS = 128
STORE_BYTES = 1 << 30
"""Bytes of the object store of a private Ray."""
NO_AUGMENTATION = AugmentConfig(flips=False)


@dataclass(frozen=True)
class Workload:
    """A variant and random chips to train it on.

    Args:
        variant: the variant to train.
        catalogue: catalogue of the chips.
        chips: source of the decoded chips.
        run_dir: run directory.
    """

    variant: VariantConfig
    catalogue: Catalogue
    chips: ChipSource
    run_dir: RunDir

    @property
    def images(self) -> int:
        """Number of training images in all epochs."""
        optim = self.variant.optim
        return optim.epochs * (len(self.catalogue.rows("train")) // optim.batch_size) * optim.batch_size

    def training_run(self) -> TrainingRun:
        """The training run of the variant, as the fleet takes it."""
        return TrainingRun(self.variant, 0, 1, self.run_dir.root, self.variant.name, "")

    def experiment(self) -> Experiment:
        """An experiment with this variant only."""
        return Experiment(preset="benchmark", variants=(self.variant,))

    def phase(self, device: str = "cpu") -> TrainingPhase:
        """The training task of a single worker."""
        catalogue, dist_context = self.catalogue, DistributedContext(0, 1, torch.device(device))
        rows = catalogue.rows("train"), catalogue.rows("val")
        return TrainingPhase(self.variant, catalogue, self.chips, dist_context, *rows)


@contextmanager
def workload(
    name: str,
    model: ModelConfig,
    optim: OptimConfig,
    scale: ResourcesConfig,
    rows: int,
    size: int,
    augment: AugmentConfig = NO_AUGMENTATION,
) -> Iterator[Workload]:
    """Create a workload of random chips in a new run directory, and delete it when the context ends.

    Args:
        name: name of the variant and of the run directory.
        model: network to train.
        optim: optimizer settings.
        scale: workers of the training and their resources.
        rows: number of training chips.
        size: height and width of the chips in pixels.
        augment: augmentation; without one, all contenders see the same pixels.

    Raises:
        ConfigError: when the rows do not fill a batch.
    """
    if rows < optim.batch_size:
        got = f"{rows} and {optim.batch_size}"
        raise ConfigError("--rows", "must be at least --batch-size", got, "Raise it.")
    root = CACHE_DIR / f"fleet-{name}"
    shutil.rmtree(root, ignore_errors=True)
    rng, total = np.random.default_rng(0), rows + VAL_ROWS + 2
    run_dir = RunDir(str(root))
    cache = ChipCache.of_run(run_dir)
    chips_NHWC = cache.create(total, size)
    chips_NHWC[:] = rng.integers(0, 256, chips_NHWC.shape, np.uint8)
    ids = [f"chip{n:06}" for n in range(total)]
    targets_NK = (rng.random((total, len(LABELS))) < 0.2).astype(np.uint8)
    split = np.array(["train"] * rows + ["val"] * VAL_ROWS + ["test"] * 2)
    fold = np.array([0] * (rows + VAL_ROWS) + [-1] * 2, np.int8)
    catalogue = Catalogue(ids, ids, targets_NK, split, fold, np.array(ids), LABELS)
    cache.publish()
    catalogue.write(run_dir.path("prepare", "catalogue.parquet"))
    bce = LossConfig(name="bce")
    variant = VariantConfig(name=name, model=model, loss=bce, augment=augment, optim=optim, scale=scale)
    try:
        yield Workload(variant, catalogue, ChipSource(size, UriList(ids), cache.path), run_dir)
    finally:
        shutil.rmtree(root, ignore_errors=True)


def fleet_ray(cpus: int = CORES, **resources: float) -> AbstractContextManager[None]:
    """Run a private Ray with ``cpus`` logical CPUs and custom ``resources``."""
    return private_ray(STORE_BYTES, cpus, resources)


class PlainLoop:
    """Minimal training loop in torch with the network, loss, optimizer, schedule and batches of the variant.

    Like :class:`OurLoop`, it is built before the clock starts.

    Args:
        work: the training.
    """

    def __init__(self, work: Workload) -> None:
        phase = work.phase()
        self._train_state: TrainState = phase.train_state(lambda network: network)
        chips_NHWC = work.chips.array()
        assert chips_NHWC is not None
        self._work, self._sampler, self._chips_NHWC = work, phase.batch_sampler, chips_NHWC
        self.last_loss = float("nan")

    def __call__(self) -> int:
        """Train all epochs and return the number of images."""
        network, optimizer, schedule = (
            self._train_state.network,
            self._train_state.optimizer,
            self._train_state.lr_scheduler,
        )
        mean_C11 = torch.tensor(IMAGENET_MEAN)[:, None, None]
        std_C11 = torch.tensor(IMAGENET_STD)[:, None, None]
        targets_NK = torch.from_numpy(self._work.catalogue.targets_NK).float()
        optim, size, images = self._work.variant.optim, self._sampler.batch_size, 0
        network.train()
        for epoch in range(optim.epochs):
            order_N, total = self._sampler.epoch_order(epoch), 0.0
            for start in range(0, self._sampler.steps_per_epoch * size, size):
                rows_n = order_N[start : start + size]
                pixels_nCHW = torch.from_numpy(self._chips_NHWC[rows_n]).permute(0, 3, 1, 2)
                logits_nK = network((pixels_nCHW.float() / 255 - mean_C11) / std_C11)
                loss = nn.functional.binary_cross_entropy_with_logits(logits_nK, targets_NK[rows_n])
                optimizer.zero_grad(set_to_none=True)
                loss.backward()  # type: ignore[no-untyped-call]
                if optim.clip_norm is not None:
                    nn.utils.clip_grad_norm_(network.parameters(), optim.clip_norm)
                optimizer.step()
                schedule.step()
                total += loss.item()
                images += len(rows_n)
            self.last_loss = total / self._sampler.steps_per_epoch
        return images


class OurLoop:
    """A worker's training loop between its start and its predictions, with its stream and its monitor.

    Evaluation and checkpoints are omitted, as in :class:`PlainLoop`. The stream delivers its first batch
    before the clock starts.

    Args:
        work: the training.
    """

    def __init__(self, work: Workload) -> None:
        self._work, self._phase = work, work.phase()
        self._train_state = self._phase.train_state(lambda network: network)
        batches = self._phase.batches(0)
        self._batches: Iterator[tuple[Tensor, Tensor]] = itertools.chain([next(batches)], batches)
        self.progress = TrainingPosition()
        self.wait_share = float("nan")

    def __call__(self) -> int:
        """Train all epochs and return the number of images."""
        optim, steps, training_run = (
            self._work.variant.optim,
            self._phase.batch_sampler.steps_per_epoch,
            self._work.training_run(),
        )
        with monitor_training(
            training_run, TrackingConfig(), self._phase.dist_context, resumed=False
        ) as monitor:
            monitor.on_phase_start(optim.epochs, steps, 0)
            save = monitor.wrap_save(lambda _: None)
            rest: dict[str, Any] = {
                "on_step_end": monitor.on_step_end,
                "save_checkpoint": save,
                "name": training_run.name,
                "seed": 0,
            }
            rest["evaluate"] = lambda _: ValidationScores(0.0, 0.0, 0.0)
            batches = monitor.time_batches(self._batches)
            train(self._train_state, batches, steps, optim, self.progress, **rest)
            self.wait_share = monitor.progress.record.wait_share or float("nan")
        return self._work.images

    @property
    def last_loss(self) -> float:
        """Mean loss of the last epoch."""
        return float(self.progress.history[-1].train_loss)
