"""What runs inside a Ray Train worker, or inside a Tune trial: one training, fed by Ray Data."""

from __future__ import annotations

import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from canopy import files
from canopy.config import VariantConfig
from canopy.data.augment import apply, draw, normalise
from canopy.data.catalogue import Catalogue
from canopy.data.mixing import mix
from canopy.data.plan import BatchPlan, rank_slice
from canopy.data.stream import Chips, rows_in_order, training_batches
from canopy.ensemble.predictions import Predictions, write_predictions
from canopy.loss_weights import starting_rates
from canopy.losses import build_loss
from canopy.models.classifier import build_model, parameter_groups
from canopy.rundir import RunDir
from canopy.train.checkpoint import load_checkpoint, save_checkpoint
from canopy.train.loop import Learner, Progress, make_learner, train
from canopy.train.score import Scored, gathered, logits_of, selection_scores, share_buffers, sigmoid
from canopy.train.tell import ProgressFile
from canopy.train.unit import Unit

KEEP_SCORED_BYTES = 512 << 20
"""Selection rows up to this size stay in the worker's memory between epochs."""
SCORE_BATCH = 256


@dataclass(frozen=True)
class Seat:
    """Where in a training this process sits."""

    rank: int
    world: int
    device: torch.device


@dataclass
class Lesson:
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
    seat: Seat
    training_rows: NDArray[np.int64]
    selection_rows: NDArray[np.int64]
    _kept: list[tuple[NDArray[np.int64], Tensor]] | None = field(default=None, init=False)

    @property
    def plan(self) -> BatchPlan:
        """Which rows make up which batch."""
        return BatchPlan(self.training_rows, self.variant.optim.batch_size, self.variant.seed)

    def learner(self, wrap: Callable[[nn.Module], nn.Module]) -> Learner:
        """The network at its start, the same on every rank, with loss, optimizer and schedule."""
        variant, labels = self.variant, self.catalogue.labels
        counts_K = self.catalogue.targets_NK[self.training_rows].sum(0, dtype=np.int64)
        torch.manual_seed(variant.seed)
        rates_K = starting_rates(variant.loss, counts_K, len(self.training_rows))
        network = build_model(variant.model, len(labels), rates_K)
        network = network.to(self.seat.device, memory_format=torch.channels_last)  # type: ignore[call-overload]
        loss = build_loss(variant.loss, counts_K, len(self.training_rows), labels.names).to(self.seat.device)
        groups = parameter_groups(network, variant.optim.lr, variant.optim.weight_decay)
        total_steps = variant.optim.epochs * self.plan.steps_per_epoch
        return make_learner(wrap(network), loss, groups, variant.optim, total_steps)

    def batches(self, first_step: int) -> Iterator[tuple[Tensor, Tensor]]:
        """Normalised images and targets of this rank, on its device, from ``first_step`` to the end."""
        plan, augment, seat = self.plan, self.variant.augment, self.seat
        share = rank_slice(plan.batch_size, seat.rank, seat.world)
        last_step = self.variant.optim.epochs * plan.steps_per_epoch
        stream = training_batches(
            self.chips,
            plan,
            augment,
            rank=seat.rank,
            world=seat.world,
            first_step=first_step,
            last_step=last_step,
        )
        for step, batch in enumerate(stream, first_step):
            images = to_device(batch["image"], seat.device)
            if augment.place == "device":
                images = apply(images, draw(augment, plan.batch_size, plan.step_rng(step))[share])
            targets_nK = to_device(self.catalogue.targets_NK[batch["row"]], seat.device).float()
            mixing_rng = np.random.default_rng([self.variant.seed, step, seat.rank, 0x319])
            yield mix(normalise(images), targets_nK, augment, mixing_rng)

    def evaluate(self, network: nn.Module) -> dict[str, float]:
        """Selection scores, the same on every rank."""
        logits_NK = self.logits(network, self.selection_rows, keep=True)
        targets_NK = self.catalogue.targets_NK[self.selection_rows]
        return selection_scores(targets_NK, logits_NK, self.variant.optim.select_by)

    def logits(
        self, network: nn.Module, rows_N: NDArray[np.int64], keep: bool = False
    ) -> NDArray[np.float32]:
        """Logits (N, K) of ``rows_N`` in their order, from all ranks, on every rank."""
        share_buffers(network)
        mine = rows_N[rank_slice(len(rows_N), self.seat.rank, self.seat.world)]
        part: Scored = logits_of(
            network, self._images(mine, keep), len(self.catalogue.labels), self.variant.optim
        )
        return gathered(part, rows_N)

    def _images(self, rows_n: NDArray[np.int64], keep: bool) -> Iterator[tuple[NDArray[np.int64], Tensor]]:
        """Row numbers and normalised images; with ``keep``, small sets are read once and remembered."""
        if keep and self._kept is not None:
            for rows, images in self._kept:
                yield rows, normalise(images.to(self.seat.device, non_blocking=True))
            return
        size = len(rows_n) * self.chips.size**2 * 3
        kept: list[tuple[NDArray[np.int64], Tensor]] = []
        for batch in rows_in_order(self.chips, rows_n, SCORE_BATCH):
            images = to_device(batch["image"], self.seat.device)
            if keep and size <= KEEP_SCORED_BYTES:
                kept.append((batch["row"].copy(), images.cpu()))
            yield batch["row"], normalise(images)
        if keep and size <= KEEP_SCORED_BYTES:
            self._kept = kept


def to_device(array: NDArray[Any], device: torch.device) -> Tensor:
    """A tensor of its own (the stream's arrays are views of shared memory), copied without waiting."""
    tensor = torch.from_numpy(np.array(array))
    if device.type == "cuda":
        return tensor.pin_memory().to(device, non_blocking=True)
    return tensor


def train_unit(job: dict[str, Any]) -> None:
    """Ray Train's entry: train ``job["unit"]``, keep checkpoints, write weights and predictions.

    Raises:
        CanopyError: as the stages of the training do.
    """
    import ray.train
    from ray.train.torch import get_device, prepare_model

    unit: Unit = job["unit"]
    torch.set_num_threads(unit.variant.scale.threads_per_worker)
    context = ray.train.get_context()
    seat = Seat(context.get_world_rank(), context.get_world_size(), get_device())
    run = RunDir(unit.run)
    catalogue = Catalogue.read(run.path("prepare", "catalogue.parquet"))
    rows = unit.training_rows(catalogue), unit.selection_rows(catalogue)
    lesson = Lesson(unit.variant, catalogue, job["chips"], seat, *rows)
    learner = lesson.learner(lambda network: prepare_model(network, move_to_device=False))
    progress = Progress()
    checkpoint = ray.train.get_checkpoint()
    if checkpoint is not None:
        with checkpoint.as_directory() as directory:
            progress = load_checkpoint(Path(directory), learner, seat.device)

    tell = progress_file(unit, run, lesson.plan, seat)
    start = time.time()
    train(
        learner,
        lesson.batches(progress.epoch * lesson.plan.steps_per_epoch),
        lesson.plan.steps_per_epoch,
        unit.variant.optim,
        progress,
        evaluate=lesson.evaluate,
        keep=lambda progress: keep(learner, progress, unit, catalogue, seat),
        tell=tell.step,
        name=unit.name,
        seed=unit.variant.seed * 1000 + seat.rank,
    )
    tell.say("predicting")
    finish(unit, run, lesson, learner, progress, {"start": start, "resumed": checkpoint is not None})
    tell.say("done")


def progress_file(unit: Unit, run: RunDir, plan: BatchPlan, seat: Seat) -> ProgressFile:
    """Rank 0 writes ``progress.json``; the others write beside it, for whoever looks for stragglers."""
    file = "progress.json" if seat.rank == 0 else f"progress-rank{seat.rank}.json"
    path = run.path(unit.directory, file)
    tell = ProgressFile(path, unit.name, unit.variant.optim.epochs, plan.steps_per_epoch, seat.world)
    tell.say("starting")
    return tell


def keep(learner: Learner, progress: Progress, unit: Unit, catalogue: Catalogue, seat: Seat) -> None:
    """Report the newest epoch to Ray Train with a checkpoint; a barrier over the ranks."""
    import ray.train

    record = progress.history[-1]
    if seat.rank != 0:
        ray.train.report(record)
        return
    with tempfile.TemporaryDirectory() as directory:
        save_checkpoint(Path(directory), learner, progress, unit.variant, catalogue.labels)
        ray.train.report(record, checkpoint=ray.train.Checkpoint.from_directory(directory))


def finish(
    unit: Unit, run: RunDir, lesson: Lesson, learner: Learner, progress: Progress, facts: dict[str, Any]
) -> None:
    """Predict with the best weights and write everything that later stages read; rank 0 writes."""
    from safetensors.torch import save

    best = learner.judged
    best.load_state_dict(learner.best)
    parts = unit.scored_rows(lesson.catalogue)
    everything = np.concatenate(list(parts.values()))
    logits_NK = lesson.logits(best, everything)
    if lesson.seat.rank != 0:
        return
    start = 0
    for name, rows in parts.items():
        path = run.path(unit.directory, f"{name}.parquet")
        write_predictions(
            path, predictions_of(lesson.catalogue, rows, logits_NK[start : start + len(rows)], unit)
        )
        start += len(rows)
    files.write_bytes(run.path(unit.directory, "weights.safetensors"), save(learner.best))
    files.write_json(run.path(unit.directory, "config.json"), unit.variant.model_dump(mode="json"))
    files.write_json(run.path(unit.directory, "labels.json"), list(lesson.catalogue.labels.names))
    files.write_json(run.path(unit.directory, "history.json"), progress.history)
    facts |= {"end": time.time(), "epochs": progress.epoch, "best_epoch": progress.best_epoch}
    facts["images_per_s"] = float(np.median([record["images_per_s"] for record in progress.history]))
    files.write_json(run.path(unit.directory, "facts.json"), facts)


def predictions_of(
    catalogue: Catalogue, rows_N: NDArray[np.int64], logits_NK: NDArray[np.float32], unit: Unit
) -> Predictions:
    """The contract's form of what a network says of ``rows_N``."""
    return Predictions(
        ids=np.array(catalogue.ids)[rows_N],
        probs_NK=sigmoid(logits_NK),
        labels=catalogue.labels,
        logits_NK=logits_NK,
        targets_NK=catalogue.targets_NK[rows_N],
        config_hash=unit.config_hash,
    )
