"""What runs inside a Ray Train worker: the phases of one training, watched, kept and finished."""

from __future__ import annotations

import contextlib
import time
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from canopy.config import FleetConfig, VariantConfig
from canopy.data.catalogue import Catalogue
from canopy.predictions.io import Predictions, write_predictions
from canopy.runtime.malloc import keep_freed_memory
from canopy.storage import files
from canopy.storage.run_dir import RunDir
from canopy.train.checkpoint.manager import Keeper, clear_leftovers
from canopy.train.checkpoint.state_io import load_checkpoint, read_progress
from canopy.train.checkpoint.trigger import LOOK_EVERY_S, LOOK_REMOTE_EVERY_S, Ending, Lookout, Word
from canopy.train.distributed import compiled, synchronised
from canopy.train.evaluate import sigmoid
from canopy.train.fleet.failures import for_the_controller
from canopy.train.fleet.shutdown import stop_file
from canopy.train.loop import Learner, Progress, train
from canopy.train.monitor.callbacks import Watcher, watching
from canopy.train.phases import phases_of
from canopy.train.task import Lesson, Seat
from canopy.train.training_run import Unit

if TYPE_CHECKING:
    import ray.train


def train_unit(job: dict[str, Any]) -> str | None:
    """Ray Train's entry: train ``job["unit"]``, watched.

    Returns:
        Where its last checkpoint stands, when it was told to stop; None when it is done.

    Raises:
        CanopyError: when a restart would end in the same way.
    """
    import ray.train
    from ray.train.torch import get_device

    unit: Unit = job["unit"]
    context = ray.train.get_context()
    seat = Seat(context.get_world_rank(), context.get_world_size(), get_device())
    resumed = ray.train.get_checkpoint() is not None
    if seat.rank == 0:
        clear_leftovers(context.get_storage().storage_filesystem, context.get_storage().experiment_fs_path)
    try:
        with watching(unit, job["tracking"], seat.rank, seat.world, seat.device, resumed) as watcher:
            try:
                train_phases(job, seat, watcher)
            except Ending as ending:
                watcher.say("stopped")
                return str(ending)
    except Exception as error:
        raise for_the_controller(error) from error
    return None


def train_phases(job: dict[str, Any], seat: Seat, watcher: Watcher) -> None:
    """Train ``job["unit"]``, keep checkpoints, write weights and predictions.

    Raises:
        CanopyError: as the stages of the training do.
    """
    import ray.train
    from ray.train.torch import prepare_model

    unit: Unit = job["unit"]
    torch.set_num_threads(unit.variant.scale.threads_per_worker)
    keep_freed_memory()
    run = RunDir(unit.run)
    catalogue = Catalogue.read(run.path("prepare", "catalogue.parquet"))
    rows = unit.training_rows(catalogue), unit.selection_rows(catalogue)
    checkpoint = ray.train.get_checkpoint()
    facts = {"start": time.time(), "resumed": checkpoint is not None}
    progress, learner = progress_of(checkpoint), None
    keeper = Keeper(unit, catalogue.labels, seat, files.shown(run.path("train", "ray")), progress.place)
    lookout = lookout_of(job["fleet"], run, seat)

    def wrap(network: nn.Module) -> nn.Module:
        network = synchronised(network, unit.variant.optim, seat.world)
        wrapped: nn.Module = prepare_model(network, move_to_device=False)
        return compiled(wrapped, unit.variant.scale)

    unread: dict[int, str] = {}
    for phase, variant in enumerate(phases_of(unit.variant), start=1):
        lesson = Lesson(variant, catalogue, job["chips"], seat, *rows)
        lesson.unread.reasons = unread  # one account for all phases
        learner = lesson.learner(wrap, after=learner)
        if phase < progress.phase:
            continue  # an earlier start went through it
        if checkpoint is not None and phase == progress.phase:
            with checkpoint.as_directory() as directory:
                load_checkpoint(Path(directory), learner, seat.device)
        progress.enter(phase)
        steps = lesson.plan.steps_per_epoch
        watcher.begin(progress.phase_start + epochs_of(variant), steps, progress.epoch)
        train(
            learner,
            watcher.timed(lesson.batches(progress.phase_epoch * steps + progress.step)),
            steps,
            variant.optim,
            progress,
            evaluate=lesson.evaluate,
            keep=lookout.after(watcher.after_epoch(partial(keeper.keep, learner))),
            tell=watcher.step,
            due=lookout.due,
            name=unit.name if phase == 1 else f"{unit.name}, rebalancing",
            seed=variant.seed * 1000 + seat.rank,
        )
    assert learner is not None
    watcher.say("predicting")
    finish(unit, run, lesson, learner, progress, facts)
    watcher.say("done")


def progress_of(checkpoint: ray.train.Checkpoint | None) -> Progress:
    """How far an earlier start had come."""
    if checkpoint is None:
        return Progress()
    with checkpoint.as_directory() as directory:
        return read_progress(Path(directory))


def epochs_of(variant: VariantConfig) -> int:
    """Of all its phases."""
    return variant.optim.epochs + variant.optim.rebalance_epochs


def lookout_of(config: FleetConfig, run: RunDir, seat: Seat) -> Lookout:
    """What decides when a checkpoint is due, alike on all ranks."""
    import ray.train
    from ray.train.collective import broadcast_from_rank_zero

    path = stop_file(run)

    def stop_asked() -> bool:
        with contextlib.suppress(OSError, ValueError):  # a store that is out of reach asks nothing
            return files.exists(path)
        return False

    def notice_given() -> bool:
        return ray.train.get_preemption_info() is not None

    def agree(word: Word | None) -> Word | None:
        return broadcast_from_rank_zero(word) if seat.world > 1 else word

    every_s = LOOK_REMOTE_EVERY_S if files.is_uri(path) else LOOK_EVERY_S
    return Lookout(config, seat.rank == 0, stop_asked, notice_given, agree, every_s)


def finish(
    unit: Unit, run: RunDir, lesson: Lesson, learner: Learner, progress: Progress, facts: dict[str, Any]
) -> None:
    """Predict with the best weights and write everything that later stages read; rank 0 writes."""
    from safetensors.torch import save

    best = learner.judged
    best.load_state_dict(learner.best)
    parts = unit.scored_rows(lesson.catalogue)
    everything = np.concatenate(list(parts.values()))
    logits_NK = lesson.logits(best, everything, tta=unit.variant.tta)
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
    lesson.unread.write(run.path(unit.directory, "bad_images.json"), lesson.catalogue.ids)
    facts |= {"end": time.time(), "epochs": progress.epoch, "best_epoch": progress.best_epoch}
    facts["images_per_s"] = float(np.median([record["images_per_s"] for record in progress.history]))
    facts["bad_images"] = len(lesson.unread.reasons)
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
