"""One phase of a training on one rank: its network, batches, evaluation and predictions."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from canopy.bands import chip_bytes
from canopy.config import VariantConfig
from canopy.data.catalogue import Catalogue
from canopy.data.loading.batch_sampler import BatchSampler, rank_slice
from canopy.data.loading.batch_streams import rank_batch_slice, scoring_batches, training_batches
from canopy.data.loading.chip_source import ChipSource
from canopy.data.loading.class_balance import epoch_label_counts, expected_copies
from canopy.data.loading.unreadable import UnreadableImages
from canopy.data.transforms.augment import apply_augmentation, draw_params
from canopy.data.transforms.crop import center_crop
from canopy.data.transforms.mixup import apply_mix, draw_mix_params
from canopy.data.transforms.normalize import normalize
from canopy.losses.class_weights import initial_rates
from canopy.losses.distillation import DistillationLoss
from canopy.losses.multilabel import build_loss
from canopy.models.execution import Execution
from canopy.models.network import MultiLabelNetwork, build_model
from canopy.runtime.collectives import broadcast_buffers
from canopy.train.autotune import EVALUATION_BATCH_SIZE
from canopy.train.classifier_retraining import retrain_classifier
from canopy.train.final_weights import choose_final_weights
from canopy.train.finetune import reestimate_batch_norm
from canopy.train.logits import Symmetries, gather_logits, predict_logits, selection_scores
from canopy.train.loop import TrainState
from canopy.train.phase_plan import PhaseKind, after_probe, fine_tuning_state
from canopy.train.probe_batches import ProbeBatches
from canopy.train.training_records import TrainingPosition, ValidationScores

EVALUATION_CACHE_BYTES = 512 << 20
"""Selection chips of up to this size in all stay in the worker's memory between epochs."""
CALIBRATION_STEPS = 50
"""Training batches over which batch-norm statistics are measured."""


@dataclass(frozen=True)
class DistributedContext:
    """This process's place among the processes of one training."""

    rank: int
    """Number of this process, from 0."""
    world_size: int
    """Number of processes."""
    device: torch.device
    """Device that this process trains on."""


@dataclass
class TrainingPhase:
    """One phase of one variant in this process.

    Args:
        variant: the phase's variant, swept parameters filled in.
        catalogue: the run's catalogue.
        chips: decoded images.
        dist_context: rank, number of ranks and device.
        training_rows: catalogue rows to train on.
        selection_rows: catalogue rows that select the best epoch.
        kind: what the phase trains.
        execution: how the network is executed; None: the defaults.
        soft_NK: soft labels of all catalogue rows, NaN but for training rows; None: hard labels alone.
    """

    variant: VariantConfig
    catalogue: Catalogue
    chips: ChipSource
    dist_context: DistributedContext
    training_rows: NDArray[np.int64]
    selection_rows: NDArray[np.int64]
    kind: PhaseKind = "whole"
    execution: Execution | None = None
    soft_NK: NDArray[np.float32] | None = None
    _network: MultiLabelNetwork | None = field(default=None, init=False)
    _cached_batches: list[tuple[NDArray[np.int64], Tensor]] | None = field(default=None, init=False)
    _cached_features: list[tuple[NDArray[np.int64], Tensor]] | None = field(default=None, init=False)

    @cached_property
    def batch_sampler(self) -> BatchSampler:
        """Decides which rows make up which batch."""
        expected_copies_N = expected_copies(
            self.variant.sampling, self.catalogue.targets_NK[self.training_rows]
        )
        return BatchSampler(
            self.training_rows, self.variant.optim.batch_size, self.variant.seed, expected_copies_N
        )

    @cached_property
    def unreadable(self) -> UnreadableImages:
        """Images that could not be read up to now."""
        return UnreadableImages(len(self.catalogue), self.chips.max_bad_fraction)

    def train_state(
        self, wrap: Callable[[nn.Module], nn.Module], previous: TrainState | None = None
    ) -> TrainState:
        """Build the initial network, loss, optimizer and schedule; they are the same on every rank.

        Args:
            wrap: wraps a network for training, in DDP where there are other ranks.
            previous: state of the phase before this one, whose best weights this one starts from.

        Raises:
            ConfigError: when the network or loss of the config cannot be built.
            DataError: when the loss needs the frequency of a label that has no positives or no negatives.
        """
        optim, labels, device = self.variant.optim, self.catalogue.labels, self.dist_context.device
        targets_NK = self.catalogue.targets_NK[self.training_rows]
        counts_K, shown = epoch_label_counts(targets_NK, self.batch_sampler.expected_copies_N)
        loss: nn.Module = build_loss(self.variant.loss, counts_K, shown, labels.names).to(device)
        if self.soft_NK is not None:
            distill = self.variant.distill
            loss = DistillationLoss(loss, distill.weight, distill.temperature)
        rates_K = initial_rates(self.variant.loss, counts_K, shown)
        total_steps = optim.epochs * self.batch_sampler.steps_per_epoch
        torch.manual_seed(self.variant.seed)
        if self.kind == "classifier":
            assert previous is not None
            return retrain_classifier(previous, wrap, rates_K, loss, optim, total_steps)

        def make(network: MultiLabelNetwork) -> TrainState:
            steps = self.batch_sampler.steps_per_epoch
            return fine_tuning_state(network, wrap, loss, self.variant, steps, keep_head=previous is not None)

        if previous is not None:
            return after_probe(previous, make)
        network = build_model(self.variant.model, len(labels), rates_K, self.chips.statistics)
        memory_format = torch.channels_last if self.execution is None else self.execution.torch_format
        network = network.to(device, memory_format=memory_format)  # type: ignore[call-overload]
        if self.kind == "probe":
            network.freeze_backbone()
            self._network = network
        return make(network)

    def before_first_step(self, train_state: TrainState) -> None:
        """Measure the batch-norm statistics on the training chips, if the variant says so.

        All ranks must call it, at the start of a new training.
        """
        if self.variant.finetune.batch_norm == "reestimated":
            reestimate_batch_norm(train_state.unwrapped, self.calibration_images())
            broadcast_buffers(train_state.unwrapped)

    def after_last_step(self, train_state: TrainState, progress: TrainingPosition) -> dict[str, float]:
        """Let averages of weights compete with the best epoch's; the validation scores by name.

        All ranks must call it.
        """
        if self.kind != "whole":
            return {}
        return choose_final_weights(
            train_state, progress, self.variant.finetune, self.evaluate, self.calibration_images
        )

    def calibration_images(self) -> Iterator[Tensor]:
        """This rank's images of the first training batches, for batch-norm statistics."""
        steps = min(CALIBRATION_STEPS, self.batch_sampler.steps_per_epoch)
        for images_nCHW, _ in self._image_batches(0, steps):
            yield images_nCHW

    def batches(self, first_step: int) -> Iterator[tuple[Tensor, Tensor]]:
        """This rank's share of each batch: the network's inputs and targets (n, K) on its device.

        The inputs are normalized images (n, C, H, W), or pooled features (n, D) in a probe.

        Args:
            first_step: first step of the phase to yield, from 0; the iterator ends at the end of the
                phase.

        Raises:
            DataError: when more images are unreadable than ``data.max_bad_fraction`` allows.
        """
        epochs, steps = self.variant.optim.epochs, self.batch_sampler.steps_per_epoch
        if self.kind != "probe":
            return self._image_batches(first_step, epochs * steps)

        def view_batches(view: int) -> Iterator[tuple[Tensor, Tensor]]:
            return self._image_batches(view * steps, (view + 1) * steps)

        views, rank = min(self.variant.finetune.probe_views, epochs), self.dist_context.rank
        probe = ProbeBatches(self._features, view_batches, views, seed=self.variant.seed * 1000 + rank)
        return probe.batches(*divmod(first_step, steps), epochs)

    def _features(self, images_nCHW: Tensor) -> Tensor:
        """Pooled features (n, D) of the frozen backbone."""
        assert self._network is not None
        precision = self.variant.optim.precision
        with torch.autocast(images_nCHW.device.type, torch.bfloat16, enabled=precision == "bfloat16"):
            return self._network.pooled(images_nCHW).float()

    def _image_batches(self, first_step: int, stop_step: int) -> Iterator[tuple[Tensor, Tensor]]:
        """This rank's share of some steps' batches: normalized images (n, C, H, W) and targets (n, K)."""
        sampler, augment = self.batch_sampler, self.variant.augment
        rank, world_size, device = (
            self.dist_context.rank,
            self.dist_context.world_size,
            self.dist_context.device,
        )
        share = rank_slice(sampler.batch_size, rank, world_size)
        part = rank_batch_slice(augment, sampler, rank, world_size)  # the share with its mixing partners
        own = slice(share.start - part.start, share.stop - part.start)
        stream = training_batches(
            self.chips,
            sampler,
            augment,
            rank=rank,
            world_size=world_size,
            first_step=first_step,
            stop_step=stop_step,
        )
        bands = self.chips.statistics
        for step, batch in enumerate(stream, first_step):
            self.unreadable.record(batch)
            images = to_device(batch["image"], device)
            if augment.place == "device":
                rng = sampler.step_rng(step)
                drawn = draw_params(augment, sampler.batch_size, rng, self.chips.bands, self.chips.colors)
                images = apply_augmentation(images, drawn[part])
            targets_nK = to_device(self._targets(batch["row"]), device).float()
            params = draw_mix_params(augment, sampler.batch_size, self.variant.seed, step)
            mixed, soft_nK = apply_mix(normalize(images, bands), targets_nK, params and params[part])
            yield self._ordered(mixed[own]), soft_nK[own]

    def _targets(self, rows_n: NDArray[np.int64]) -> NDArray[Any]:
        """Targets (n, K) of some rows, and behind them their soft labels (n, K), where the phase has such."""
        hard_nK = self.catalogue.targets_NK[rows_n]
        if self.soft_NK is None:
            return hard_nK
        return np.concatenate([hard_nK.astype(np.float32), self.soft_NK[rows_n]], axis=1)

    def _ordered(self, images_nCHW: Tensor) -> Tensor:
        """The images in the chosen memory format; as they are without a choice."""
        if self.execution is None:
            return images_nCHW
        return images_nCHW.contiguous(memory_format=self.execution.torch_format)

    def evaluate(self, network: nn.Module) -> ValidationScores:
        """Scores of ``network`` on the selection rows, the same on every rank.

        Raises:
            DataError: when no label has positives there, or too many images are unreadable.
        """
        logits_NK = self.logits(network, self.selection_rows, cache=True)
        targets_NK = self.catalogue.targets_NK[self.selection_rows]
        return selection_scores(targets_NK, logits_NK, self.variant.optim.select_by)

    def logits(
        self, network: nn.Module, rows_N: NDArray[np.int64], cache: bool = False, tta: Symmetries = "none"
    ) -> NDArray[np.float32]:
        """Logits (N, K) of ``rows_N`` in their order, computed by all ranks together, on every rank.

        Args:
            network: the network to evaluate, without its wrappers.
            rows_N: row numbers in the catalogue.
            cache: whether to keep the chips in memory for the next call with ``cache``, which must have the
                same rows.
            tta: symmetries of the chip that the logits are averaged over.

        Raises:
            DataError: when more images are unreadable than ``data.max_bad_fraction`` allows.
        """
        broadcast_buffers(network)  # batch-norm statistics differ by rank: all must evaluate one network
        rank, world_size = self.dist_context.rank, self.dist_context.world_size
        own_rows_n = rows_N[rank_slice(len(rows_N), rank, world_size)]
        batches = self._evaluation_batches(own_rows_n, cache)
        if cache and self.kind == "probe":
            batches = self._evaluation_features(batches)
        part = predict_logits(network, batches, len(self.catalogue.labels), self.variant.optim, tta)
        rates_K = self.catalogue.targets_NK[self.training_rows].mean(0)
        self.unreadable.fill_logits(*part, rates_K)
        self.unreadable.gather()
        return gather_logits(part, rows_N)

    def _evaluation_features(
        self, batches: Iterator[tuple[NDArray[np.int64], Tensor]]
    ) -> Iterator[tuple[NDArray[np.int64], Tensor]]:
        """The same pairs with pooled features, which are computed once."""
        if self._cached_features is None:
            assert self._network is not None
            self._network.eval()
            with torch.no_grad():
                self._cached_features = [(rows_n, self._features(images)) for rows_n, images in batches]
        yield from self._cached_features

    def _evaluation_batches(
        self, rows_n: NDArray[np.int64], cache: bool
    ) -> Iterator[tuple[NDArray[np.int64], Tensor]]:
        """Pairs of row numbers and normalized images; with ``cache``, small sets are read only once."""
        device, crop = self.dist_context.device, self.variant.augment.crop
        if cache and self._cached_batches is not None:
            for cached_rows_n, chips in self._cached_batches:
                images = chips.to(device, non_blocking=True)
                yield cached_rows_n, self._ordered(normalize(images, self.chips.statistics))
            return
        size = len(rows_n) * chip_bytes(crop or self.chips.size, self.chips.layout)
        cached: list[tuple[NDArray[np.int64], Tensor]] = []
        batch_size = EVALUATION_BATCH_SIZE if self.execution is None else self.execution.batch_size
        for batch in scoring_batches(self.chips, rows_n, batch_size):
            self.unreadable.record(batch, scoring=True)
            images = center_crop(to_device(batch["image"], device), crop)
            if cache and size <= EVALUATION_CACHE_BYTES:
                # Copies: the arrays of the batch may lie in the object store, which must be able to free
                # them.
                cached.append((batch["row"].copy(), images.to("cpu", copy=True)))
            yield batch["row"], self._ordered(normalize(images, self.chips.statistics))
        if cache and size <= EVALUATION_CACHE_BYTES:
            self._cached_batches = cached


def to_device(array: NDArray[Any], device: torch.device) -> Tensor:
    """A read-only tensor of ``array`` on ``device``.

    On a GPU it is a copy, made without waiting. On the CPU it shares the array's memory, which may be a
    read-only mapping shared by all processes: writing to the tensor would crash this process.
    """
    with warnings.catch_warnings(action="ignore"):  # torch warns that the array is not writable
        tensor = torch.from_numpy(array)
    if device.type == "cuda":
        return tensor.pin_memory().to(device, non_blocking=True)
    return tensor
