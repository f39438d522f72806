"""A lesson: one phase of one variant, the data that it learns from, and this process's seat in it."""

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

from canopy.config import VariantConfig
from canopy.data.catalogue import Catalogue
from canopy.data.loading.batch_sampler import BatchSampler, rank_slice
from canopy.data.loading.class_balance import expected_copies, seen_counts
from canopy.data.loading.loader import Chips, rank_part, rows_in_order, training_batches
from canopy.data.loading.unreadable import UnreadableImages
from canopy.data.transforms.augment import apply_augmentation, draw_params, normalize
from canopy.data.transforms.crop import center_crop
from canopy.data.transforms.mixup import apply_mix, draw_mix_params
from canopy.losses.class_weights import starting_rates
from canopy.losses.multilabel import build_loss
from canopy.models.classifier import build_model, parameter_groups
from canopy.train.evaluate import Scored, Symmetries, gathered, logits_of, selection_scores, share_buffers
from canopy.train.loop import TrainState, make_train_state
from canopy.train.phases import retrain_head

KEEP_SCORED_BYTES = 512 << 20
"""Selection rows up to this size stay in the worker's memory between epochs."""
SCORE_BATCH = 256


@dataclass(frozen=True)
class DistributedContext:
    """Where in a training this process sits."""

    rank: int
    world: int
    device: torch.device


@dataclass
class TrainTask:
    """One variant, its data, and the seat that this process has in it.

    Args:
        variant: complete.
        catalogue: of the run.
        chips: decoded images.
        seat: rank, world, device.
        training_rows: catalogue rows to learn from.
        selection_rows: catalogue rows that choose the epoch.
    """

    variant: VariantConfig
    catalogue: Catalogue
    chips: Chips
    dist_context: DistributedContext
    training_rows: NDArray[np.int64]
    selection_rows: NDArray[np.int64]
    _kept: list[tuple[NDArray[np.int64], Tensor]] | None = field(default=None, init=False)

    @cached_property
    def plan(self) -> BatchSampler:
        """Which rows make up which batch."""
        expected_N = expected_copies(self.variant.sampling, self.catalogue.targets_NK[self.training_rows])
        return BatchSampler(self.training_rows, self.variant.optim.batch_size, self.variant.seed, expected_N)

    @cached_property
    def unreadable(self) -> UnreadableImages:
        """What could not be read so far."""
        return UnreadableImages(len(self.catalogue), self.chips.max_bad_fraction)

    def train_state(
        self, wrap: Callable[[nn.Module], nn.Module], after: TrainState | None = None
    ) -> TrainState:
        """The network at its start, the same on every rank, with loss, optimizer and schedule.

        Args:
            wrap: puts the network into DDP, where there are ranks.
            after: the learner of the phase before this one, whose classifier is to be trained anew.
        """
        optim, labels, device = self.variant.optim, self.catalogue.labels, self.dist_context.device
        targets_NK = self.catalogue.targets_NK[self.training_rows]
        counts_K, shown = seen_counts(targets_NK, self.plan.expected_N)
        loss = build_loss(self.variant.loss, counts_K, shown, labels.names).to(device)
        rates_K = starting_rates(self.variant.loss, counts_K, shown)
        total_steps = optim.epochs * self.plan.steps_per_epoch
        torch.manual_seed(self.variant.seed)
        if after is not None:
            return retrain_head(after, wrap, rates_K, loss, optim, total_steps)
        network = build_model(self.variant.model, len(labels), rates_K)
        network = network.to(device, memory_format=torch.channels_last)  # type: ignore[call-overload]
        rates = (optim.lr, optim.weight_decay, optim.backbone_lr_factor, optim.layer_decay)
        return make_train_state(wrap(network), loss, parameter_groups(network, *rates), optim, total_steps)

    def batches(self, first_step: int) -> Iterator[tuple[Tensor, Tensor]]:
        """Normalised images and targets of this rank, on its device, from ``first_step`` to the end."""
        plan, augment, dist_context = self.plan, self.variant.augment, self.dist_context
        share = rank_slice(plan.batch_size, dist_context.rank, dist_context.world)
        part = rank_part(
            augment, plan, dist_context.rank, dist_context.world
        )  # the share, and partners to mix it with
        own = slice(share.start - part.start, share.stop - part.start)
        last_step = self.variant.optim.epochs * plan.steps_per_epoch
        stream = training_batches(
            self.chips,
            plan,
            augment,
            rank=dist_context.rank,
            world=dist_context.world,
            first_step=first_step,
            last_step=last_step,
        )
        for step, batch in enumerate(stream, first_step):
            self.unreadable.note(batch)
            images = to_device(batch["image"], dist_context.device)
            if augment.place == "device":
                images = apply_augmentation(
                    images, draw_params(augment, plan.batch_size, plan.step_rng(step))[part]
                )
            targets_nK = to_device(self.catalogue.targets_NK[batch["row"]], dist_context.device).float()
            params = draw_mix_params(augment, plan.batch_size, self.variant.seed, step)
            mixed, soft_nK = apply_mix(normalize(images), targets_nK, params and params[part])
            yield mixed[own], soft_nK[own]

    def evaluate(self, network: nn.Module) -> dict[str, float]:
        """Selection scores, the same on every rank."""
        logits_NK = self.logits(network, self.selection_rows, keep=True)
        targets_NK = self.catalogue.targets_NK[self.selection_rows]
        return selection_scores(targets_NK, logits_NK, self.variant.optim.select_by)

    def logits(
        self, network: nn.Module, rows_N: NDArray[np.int64], keep: bool = False, tta: Symmetries = "none"
    ) -> NDArray[np.float32]:
        """Logits (N, K) of ``rows_N`` in their order, from all ranks, on every rank.

        Args:
            network: to score, without its DDP wrapper.
            rows_N: of the catalogue.
            keep: whether to remember the chips for the next call, which scores the same rows.
            tta: the symmetries of the chip that its logits are averaged over.
        """
        share_buffers(network)
        mine = rows_N[rank_slice(len(rows_N), self.dist_context.rank, self.dist_context.world)]
        part: Scored = logits_of(
            network, self._images(mine, keep), len(self.catalogue.labels), self.variant.optim, tta
        )
        rates_K = self.catalogue.targets_NK[self.training_rows].mean(0)
        self.unreadable.fill(*part, rates_K)
        self.unreadable.agree()
        return gathered(part, rows_N)

    def _images(self, rows_n: NDArray[np.int64], keep: bool) -> Iterator[tuple[NDArray[np.int64], Tensor]]:
        """Row numbers and normalised images; with ``keep``, small sets are read once and remembered."""
        if keep and self._kept is not None:
            for rows, images in self._kept:
                yield rows, normalize(images.to(self.dist_context.device, non_blocking=True))
            return
        size = len(rows_n) * (self.variant.augment.crop or self.chips.size) ** 2 * 3
        kept: list[tuple[NDArray[np.int64], Tensor]] = []
        for batch in rows_in_order(self.chips, rows_n, SCORE_BATCH):
            self.unreadable.note(batch, scoring=True)
            images = center_crop(
                to_device(batch["image"], self.dist_context.device), self.variant.augment.crop
            )
            if keep and size <= KEEP_SCORED_BYTES:
                # a copy: what is held must not be the object store's memory
                kept.append((batch["row"].copy(), images.to("cpu", copy=True)))
            yield batch["row"], normalize(images)
        if keep and size <= KEEP_SCORED_BYTES:
            self._kept = kept


def to_device(array: NDArray[Any], device: torch.device) -> Tensor:
    """A tensor to read only, copied to a GPU without waiting; on the CPU it is the array's memory itself.

    That may be memory which all processes share, mapped to read: a write to it would end this process.
    """
    with warnings.catch_warnings(action="ignore"):  # torch warns of just that
        tensor = torch.from_numpy(array)
    if device.type == "cuda":
        return tensor.pin_memory().to(device, non_blocking=True)
    return tensor
