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
from canopy.train.checkpoint.manager import CheckpointManager, clear_leftovers
from canopy.train.checkpoint.state_io import load_checkpoint, read_progress
from canopy.train.checkpoint.trigger import (
    LOOK_EVERY_S,
    LOOK_REMOTE_EVERY_S,
    CheckpointTrigger,
    TrainingStopped,
    Word,
)
from canopy.train.distributed import compile_model, with_sync_batchnorm
from canopy.train.evaluate import sigmoid
from canopy.train.fleet.failures import for_the_controller
from canopy.train.fleet.shutdown import stop_file
from canopy.train.loop import Progress, TrainState, train
from canopy.train.monitor.callbacks import TrainingMonitor, watching
from canopy.train.phases import phases_of
from canopy.train.task import DistributedContext, TrainTask
from canopy.train.training_run import TrainingRun

if TYPE_CHECKING:
    import ray.train


def run_training(job: dict[str, Any]) -> str | None:
    """Ray Train's entry: train ``job["unit"]``, watched.

    Returns:
        Where its last checkpoint stands, when it was told to stop; None when it is done.

    Raises:
        CanopyError: when a restart would end in the same way.
    """
    import ray.train
    from ray.train.torch import get_device

    training_run: TrainingRun = job["unit"]
    context = ray.train.get_context()
    dist_context = DistributedContext(context.get_world_rank(), context.get_world_size(), get_device())
    resumed = ray.train.get_checkpoint() is not None
    if dist_context.rank == 0:
        clear_leftovers(context.get_storage().storage_filesystem, context.get_storage().experiment_fs_path)
    try:
        with watching(
            training_run, job["tracking"], dist_context.rank, dist_context.world, dist_context.device, resumed
        ) as monitor:
            try:
                train_phases(job, dist_context, monitor)
            except TrainingStopped as ending:
                monitor.say("stopped")
                return str(ending)
    except Exception as error:
        raise for_the_controller(error) from error
    return None


def train_phases(job: dict[str, Any], dist_context: DistributedContext, monitor: TrainingMonitor) -> None:
    """Train ``job["unit"]``, keep checkpoints, write weights and predictions.

    Raises:
        CanopyError: as the stages of the training do.
    """
    import ray.train
    from ray.train.torch import prepare_model

    training_run: TrainingRun = job["unit"]
    torch.set_num_threads(training_run.variant.scale.threads_per_worker)
    keep_freed_memory()
    run = RunDir(training_run.run)
    catalogue = Catalogue.read(run.path("prepare", "catalogue.parquet"))
    rows = training_run.training_rows(catalogue), training_run.selection_rows(catalogue)
    checkpoint = ray.train.get_checkpoint()
    facts = {"start": time.time(), "resumed": checkpoint is not None}
    progress, train_state = progress_of(checkpoint), None
    checkpoint_manager = CheckpointManager(
        training_run, catalogue.labels, dist_context, files.shown(run.path("train", "ray")), progress.place
    )
    checkpoint_trigger = make_checkpoint_trigger(job["fleet"], run, dist_context)

    def wrap(network: nn.Module) -> nn.Module:
        network = with_sync_batchnorm(network, training_run.variant.optim, dist_context.world)
        wrapped: nn.Module = prepare_model(network, move_to_device=False)
        return compile_model(wrapped, training_run.variant.scale)

    unreadable: dict[int, str] = {}
    for phase, variant in enumerate(phases_of(training_run.variant), start=1):
        task = TrainTask(variant, catalogue, job["chips"], dist_context, *rows)
        task.unreadable.reasons = unreadable  # one account for all phases
        train_state = task.train_state(wrap, after=train_state)
        if phase < progress.phase:
            continue  # an earlier start went through it
        if checkpoint is not None and phase == progress.phase:
            with checkpoint.as_directory() as directory:
                load_checkpoint(Path(directory), train_state, dist_context.device)
        progress.enter(phase)
        steps = task.plan.steps_per_epoch
        monitor.begin(progress.phase_start + epochs_of(variant), steps, progress.epoch)
        train(
            train_state,
            monitor.timed(task.batches(progress.phase_epoch * steps + progress.step)),
            steps,
            variant.optim,
            progress,
            evaluate=task.evaluate,
            keep=checkpoint_trigger.after(monitor.after_epoch(partial(checkpoint_manager.keep, train_state))),
            tell=monitor.step,
            due=checkpoint_trigger.due,
            name=training_run.name if phase == 1 else f"{training_run.name}, rebalancing",
            seed=variant.seed * 1000 + dist_context.rank,
        )
    assert train_state is not None
    monitor.say("predicting")
    finish(training_run, run, task, train_state, progress, facts)
    monitor.say("done")


def progress_of(checkpoint: ray.train.Checkpoint | None) -> Progress:
    """How far an earlier start had come."""
    if checkpoint is None:
        return Progress()
    with checkpoint.as_directory() as directory:
        return read_progress(Path(directory))


def epochs_of(variant: VariantConfig) -> int:
    """Of all its phases."""
    return variant.optim.epochs + variant.optim.rebalance_epochs


def make_checkpoint_trigger(
    config: FleetConfig, run: RunDir, dist_context: DistributedContext
) -> CheckpointTrigger:
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
        return broadcast_from_rank_zero(word) if dist_context.world > 1 else word

    every_s = LOOK_REMOTE_EVERY_S if files.is_uri(path) else LOOK_EVERY_S
    return CheckpointTrigger(config, dist_context.rank == 0, stop_asked, notice_given, agree, every_s)


def finish(
    training_run: TrainingRun,
    run: RunDir,
    task: TrainTask,
    train_state: TrainState,
    progress: Progress,
    facts: dict[str, Any],
) -> None:
    """Predict with the best weights and write everything that later stages read; rank 0 writes."""
    from safetensors.torch import save

    best = train_state.eval_model
    best.load_state_dict(train_state.best)
    parts = training_run.scored_rows(task.catalogue)
    everything = np.concatenate(list(parts.values()))
    logits_NK = task.logits(best, everything, tta=training_run.variant.tta)
    if task.dist_context.rank != 0:
        return
    start = 0
    for name, rows in parts.items():
        path = run.path(training_run.directory, f"{name}.parquet")
        write_predictions(
            path, predictions_of(task.catalogue, rows, logits_NK[start : start + len(rows)], training_run)
        )
        start += len(rows)
    files.write_bytes(run.path(training_run.directory, "weights.safetensors"), save(train_state.best))
    files.write_json(
        run.path(training_run.directory, "config.json"), training_run.variant.model_dump(mode="json")
    )
    files.write_json(run.path(training_run.directory, "labels.json"), list(task.catalogue.labels.names))
    files.write_json(run.path(training_run.directory, "history.json"), progress.history)
    task.unreadable.write(run.path(training_run.directory, "bad_images.json"), task.catalogue.ids)
    facts |= {"end": time.time(), "epochs": progress.epoch, "best_epoch": progress.best_epoch}
    facts["images_per_s"] = float(np.median([record["images_per_s"] for record in progress.history]))
    facts["bad_images"] = len(task.unreadable.reasons)
    files.write_json(run.path(training_run.directory, "facts.json"), facts)


def predictions_of(
    catalogue: Catalogue, rows_N: NDArray[np.int64], logits_NK: NDArray[np.float32], training_run: TrainingRun
) -> Predictions:
    """The contract's form of what a network says of ``rows_N``."""
    return Predictions(
        ids=np.array(catalogue.ids)[rows_N],
        probs_NK=sigmoid(logits_NK),
        labels=catalogue.labels,
        logits_NK=logits_NK,
        targets_NK=catalogue.targets_NK[rows_N],
        config_hash=training_run.config_hash,
    )
