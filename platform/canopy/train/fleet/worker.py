"""The function that Ray Train runs in each worker: the phases of a training, its checkpoints and outputs."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from canopy.config import FleetConfig, VariantConfig
from canopy.data.catalogue import Catalogue
from canopy.models.autotune import on_threads
from canopy.models.execution import Execution
from canopy.runtime.collectives import gather_objects
from canopy.runtime.logging import configure_logging, log_context
from canopy.runtime.malloc import keep_freed_memory
from canopy.storage import files
from canopy.storage.run_dir import RunDir
from canopy.train.autotune import training_execution
from canopy.train.checkpoint.ray_checkpoint_list import remove_unlisted_checkpoints
from canopy.train.checkpoint.saver import CheckpointSaver
from canopy.train.checkpoint.state_io import load_checkpoint, read_progress
from canopy.train.checkpoint.trigger import (
    POLL_EVERY_S,
    POLL_REMOTE_EVERY_S,
    CheckpointTrigger,
    TrainingStopped,
    TriggerDecision,
)
from canopy.train.distillation import soft_labels
from canopy.train.fleet.failures import error_for_controller
from canopy.train.fleet.outputs import write_outputs
from canopy.train.fleet.shutdown import stop_file
from canopy.train.fleet.worker_input import WorkerInput
from canopy.train.loop import TrainState, train
from canopy.train.model_wrappers import wrap_model
from canopy.train.monitor.suppressed_errors import SuppressedErrors
from canopy.train.monitor.training_monitor import TrainingMonitor, monitor_training
from canopy.train.phase_plan import Phase, PhaseKind, planned_epochs, training_phases
from canopy.train.training_phase import DistributedContext, TrainingPhase
from canopy.train.training_records import TrainingPosition

if TYPE_CHECKING:
    import ray.train

logger = logging.getLogger(__name__)

PHASE_NAMES: dict[PhaseKind, str] = {"probe": ", probe", "whole": "", "classifier": ", rebalancing"}
"""What follows the name of a training in the error messages of a phase."""


def run_training(job: WorkerInput) -> str | None:
    """Run one training in this worker; Ray Train calls it on every rank.

    Returns:
        Position of the last checkpoint in words when a stop request ended the training; None when it is done.

    Raises:
        CanopyError: see :func:`canopy.train.fleet.failures.error_for_controller`.
    """
    import ray.train
    from ray.train.torch import get_device

    configure_logging("worker")
    training_run, context = job.training_run, ray.train.get_context()
    dist_context = DistributedContext(context.get_world_rank(), context.get_world_size(), get_device())
    resumed = ray.train.get_checkpoint() is not None
    fields = {"variant": training_run.variant.name, "run": training_run.run_root}
    with log_context(**fields, fold=training_run.fold, rank=dist_context.rank):
        if dist_context.rank == 0:
            storage = context.get_storage()
            remove_unlisted_checkpoints(storage.storage_filesystem, storage.experiment_fs_path)
        try:
            with monitor_training(training_run, job.tracking, dist_context, resumed) as monitor:
                try:
                    train_phases(job, dist_context, monitor)
                except TrainingStopped as stopped:
                    monitor.set_state("stopped")
                    return str(stopped)
        except Exception as error:
            raise error_for_controller(error) from error
    return None


def train_phases(job: WorkerInput, dist_context: DistributedContext, monitor: TrainingMonitor) -> None:
    """Train through all phases from the newest checkpoint, then write the outputs.

    Args:
        job: the training.
        dist_context: this process.
        monitor: monitor of this process.
    """
    import ray.train

    training_run, start_time = job.training_run, time.time()
    torch.set_num_threads(training_run.variant.scale.threads_per_worker)
    keep_freed_memory()
    run_dir = RunDir(training_run.run_root)
    catalogue = Catalogue.read(run_dir.path("prepare", "catalogue.parquet"))
    rows = training_run.training_rows(catalogue), training_run.selection_rows(catalogue)
    checkpoint = ray.train.get_checkpoint()
    progress, train_state = stored_progress(checkpoint), None
    storage = files.shown(run_dir.path("train", "ray"))
    saver = CheckpointSaver(training_run, catalogue.labels, dist_context, storage, progress.position)
    checkpoint_trigger = make_checkpoint_trigger(job.fleet, run_dir, dist_context)
    wrap = model_wrapper(training_run.variant, dist_context)
    progress.execution = shared_execution(job, len(catalogue.labels), rows, progress, dist_context)
    make_phase = phase_maker(job, catalogue, rows, progress.execution, dist_context)
    phases = training_phases(training_run.variant)
    scores: dict[str, float] = {}
    for number, phase in enumerate(phases, start=1):
        training_phase = make_phase(phase)
        train_state = training_phase.train_state(wrap, previous=train_state)
        if number < progress.phase:
            continue  # an earlier start completed it
        enter_phase(training_phase, number, train_state, progress, checkpoint)
        steps = training_phase.batch_sampler.steps_per_epoch
        last_epoch = progress.phase_start + planned_epochs(phases[number - 1 :])
        monitor.on_phase_start(last_epoch, steps, progress.epoch)
        save = monitor.wrap_save(partial(saver.save, train_state))
        train(
            train_state,
            monitor.time_batches(training_phase.batches(progress.phase_epoch * steps + progress.step)),
            steps,
            phase.variant.optim,
            progress,
            evaluate=training_phase.evaluate,
            save_checkpoint=checkpoint_trigger.wrap_save(save),
            on_step_end=monitor.on_step_end,
            should_checkpoint=checkpoint_trigger.should_checkpoint,
            name=training_run.name + PHASE_NAMES[phase.kind],
            seed=phase.variant.seed * 1000 + dist_context.rank,
        )
        scores |= training_phase.after_last_step(train_state, progress)
    assert train_state is not None
    monitor.set_state("predicting")
    write_outputs(
        training_run, run_dir, training_phase, train_state, progress, start_time, checkpoint is not None
    )
    if scores and dist_context.rank == 0:
        files.write_json(run_dir.path(training_run.directory, "finetune.json"), scores)
    monitor.set_state("done")


def phase_maker(
    job: WorkerInput,
    catalogue: Catalogue,
    rows: tuple[NDArray[np.int64], NDArray[np.int64]],
    execution: Execution | None,
    dist_context: DistributedContext,
) -> Callable[[Phase], TrainingPhase]:
    """What makes the phases of a training; they share soft labels and the list of unreadable chips.

    Args:
        job: the training.
        catalogue: its chips.
        rows: the rows to train on, and those that select the epoch.
        execution: how the network is executed; None for the defaults.
        dist_context: this process.
    """
    soft = soft_labels(job.training_run.variant, catalogue)
    soft_NK = None if soft is None else soft.probs_NK
    unreadable: dict[int, str] = {}

    def make(phase: Phase) -> TrainingPhase:
        made = TrainingPhase(
            phase.variant, catalogue, job.chips, dist_context, *rows, phase.kind, execution, soft_NK
        )
        made.unreadable.reasons = unreadable
        return made

    return make


def shared_execution(
    job: WorkerInput,
    labels: int,
    rows: tuple[NDArray[np.int64], NDArray[np.int64]],
    progress: TrainingPosition,
    dist_context: DistributedContext,
) -> Execution | None:
    """How all ranks execute the network, set up in this process; None for the defaults. Rank 0 chooses.

    Args:
        job: the training.
        labels: number of labels K.
        rows: the rows to train on, and those that select the epoch.
        progress: position of the training, from its newest checkpoint if there is one.
        dist_context: this process.
    """
    variant, found = job.training_run.variant, progress.execution
    if dist_context.rank == 0:
        found = training_execution(
            variant,
            progress,
            dist_context.device,
            labels,
            side=variant.augment.crop or job.chips.size,
            bands=job.chips.statistics,
            batch_size=variant.optim.batch_size // dist_context.world_size,
            evaluated_share=max(len(rows[1]), 1) / max(len(rows[0]), 1),
        )
    shared: Execution | None = gather_objects(found)[0]
    if shared is not None:
        on_threads(shared)
    return shared


def enter_phase(
    training_phase: TrainingPhase,
    number: int,
    train_state: TrainState,
    progress: TrainingPosition,
    checkpoint: ray.train.Checkpoint | None,
) -> None:
    """Restore the state of a phase that a checkpoint interrupted, or prepare its first step.

    Args:
        training_phase: the phase.
        number: its number, from 1.
        train_state: receives the checkpoint's weights and optimizer.
        progress: position of the training.
        checkpoint: newest checkpoint of the training, if any.
    """
    if checkpoint is not None and number == progress.phase:
        with checkpoint.as_directory() as directory:
            load_checkpoint(Path(directory), train_state, training_phase.dist_context.device)
    elif number == 1:
        training_phase.before_first_step(train_state)
    progress.start_phase(number)


def model_wrapper(
    variant: VariantConfig, dist_context: DistributedContext
) -> Callable[[nn.Module], nn.Module]:
    """The function that wraps a network for this process: batch norm over ranks, DDP, compilation."""
    from ray.train.torch import prepare_model

    def to_ddp(network: nn.Module) -> nn.Module:
        wrapped: nn.Module = prepare_model(network, move_to_device=False)
        return wrapped

    def wrap(network: nn.Module) -> nn.Module:
        return wrap_model(network, variant.optim, variant.scale, dist_context.world_size, to_ddp)

    return wrap


def stored_progress(checkpoint: ray.train.Checkpoint | None) -> TrainingPosition:
    """The progress in a checkpoint; that of a new training for None."""
    if checkpoint is None:
        return TrainingPosition()
    with checkpoint.as_directory() as directory:
        return read_progress(Path(directory))


def make_checkpoint_trigger(
    config: FleetConfig, run_dir: RunDir, dist_context: DistributedContext
) -> CheckpointTrigger:
    """The trigger of this process: it polls the stop file, and Ray for announced preemptions."""
    import ray.train
    from ray.train.collective import broadcast_from_rank_zero

    path, errors = stop_file(run_dir), SuppressedErrors(logger)

    def stop_requested() -> bool:
        with errors.suppress("The stop file could not be looked for", OSError, ValueError):
            return files.exists(path)
        return False

    def preemption_announced() -> bool:
        return ray.train.get_preemption_info() is not None

    def broadcast(decision: TriggerDecision | None) -> TriggerDecision | None:
        return broadcast_from_rank_zero(decision) if dist_context.world_size > 1 else decision

    every_s = POLL_REMOTE_EVERY_S if files.is_uri(path) else POLL_EVERY_S
    is_rank_zero = dist_context.rank == 0
    return CheckpointTrigger(config, is_rank_zero, stop_requested, preemption_announced, broadcast, every_s)
