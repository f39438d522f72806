"""One training as a Ray Train run: its trainer, its start, and new starts after memory ran out."""

from __future__ import annotations

import logging
import os
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

from ray.train import FailureConfig, RunConfig, ScalingConfig
from ray.train.torch import TorchTrainer

from canopy.config import Experiment, FleetConfig
from canopy.data.loading.chip_source import ChipSource
from canopy.runtime.logging import log_context
from canopy.runtime.ray_errors import is_out_of_memory
from canopy.runtime.ray_internals.train import name_controllers
from canopy.runtime.task_names import task_name
from canopy.storage import files
from canopy.storage.run_dir import RunDir
from canopy.train.checkpoint.ray_checkpoint_list import restore_snapshot
from canopy.train.checkpoint.saver import checkpoint_config, storage_errors
from canopy.train.fleet.controller_callbacks import (
    ElasticTimeout,
    EndWithoutRestart,
    SnapshotCopier,
    WorkerNames,
)
from canopy.train.fleet.failures import causes, failure_reason
from canopy.train.fleet.outputs import SUMMARY, output_names
from canopy.train.fleet.resources import worker_resources
from canopy.train.fleet.worker import run_training
from canopy.train.fleet.worker_input import WorkerInput
from canopy.train.training_records import TrainingSummary
from canopy.train.training_run import TrainingRun

HEALTH_CHECK_EVERY_S = 0.5
"""Interval in seconds at which Ray Train's controller polls its workers."""

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class FleetContext:
    """What all trainings of a fleet share.

    Args:
        chips: the decoded images.
        run_dir: the run directory.
        config: config of the experiment.
        stopping: set when the fleet must end.
        on_wait: called with a training and the reason, before a wait that precedes its next start.
    """

    chips: ChipSource
    run_dir: RunDir
    config: Experiment
    stopping: threading.Event
    on_wait: Callable[[TrainingRun, str], None]


def configure_ray_train(config: FleetConfig) -> None:
    """Set what Ray Train reads in the process that starts a training."""
    name_controllers()
    os.environ["RAY_TRAIN_WORKER_GROUP_START_TIMEOUT_S"] = str(config.capacity_timeout_s)
    # The controller notices reports and the end of workers only at its health checks.
    os.environ.setdefault("RAY_TRAIN_HEALTH_CHECK_INTERVAL_S", str(HEALTH_CHECK_EVERY_S))


def fit(training_run: TrainingRun, context: FleetContext) -> str | None:
    """Run one training, from its newest checkpoint if there is one, and mark it as done.

    Returns:
        Position of its last checkpoint in words when a stop request ended it; None when it is done.
    """
    start, run_dir = time.monotonic(), context.run_dir
    with log_context(
        run=files.shown(run_dir.root), variant=training_run.variant.name, fold=training_run.fold
    ):
        withdraw_mark(run_dir, training_run)
        position = fit_with_oom_retries(
            training_run, context, lambda end_on_oom: fit_once(training_run, context, end_on_oom)
        )
    if position is not None:
        return position
    summary = TrainingSummary.from_json(files.read_json(run_dir.path(training_run.directory, "facts.json")))
    seconds = round(time.monotonic() - start, 2)
    outputs = output_files(run_dir, training_run)
    run_dir.finish(
        training_run.directory, training_run.fingerprint, outputs, seconds=seconds, **summary.to_json()
    )
    return None


def output_files(run_dir: RunDir, training_run: TrainingRun) -> list[str]:
    """Names of the files of a finished training on which later stages rely."""
    fixed = ("weights.safetensors", "config.json", "labels.json", "history.json")
    names = files.list_files(run_dir.path(training_run.directory))
    return [name for name in names if name in fixed or files.suffix(name) == ".parquet"]


def withdraw_mark(run_dir: RunDir, training_run: TrainingRun) -> None:
    """Remove the ``done.json`` of an earlier training in the same directory, before any file is replaced."""
    run_dir.withdraw(training_run.directory)


def mark_done(run_dir: RunDir, training_run: TrainingRun, seconds: float) -> None:
    """Write the ``done.json`` of a finished training, with its summary and the checksums of its outputs.

    Args:
        run_dir: the run directory.
        training_run: the training.
        seconds: duration of all its starts by this job.
    """
    summary = TrainingSummary.from_json(files.read_json(run_dir.path(training_run.directory, SUMMARY)))
    outputs = output_names(training_run, run_dir)
    run_dir.finish(
        training_run.directory, training_run.fingerprint, outputs, seconds=seconds, **summary.to_json()
    )


def fit_once(training_run: TrainingRun, context: FleetContext, end_on_oom: bool) -> str | None:
    """Run Ray Train once; the result is that of :func:`fit`, ``end_on_oom`` as in :func:`make_trainer`."""
    with storage_errors(training_run.name, files.shown(context.run_dir.path("train", "ray"))):
        trainer = make_trainer(
            training_run, context.chips, context.run_dir, context.config, end_on_oom=end_on_oom
        )
        position: str | None = trainer.fit().return_value  # type: ignore[attr-defined]
    return position


def fit_with_oom_retries(
    training_run: TrainingRun, context: FleetContext, fit_once: Callable[[bool], str | None]
) -> str | None:
    """Run a training; when Ray's memory monitor kills it, wait and run it again from its last checkpoint.

    The memory may belong to something else on the machine and become free again. The waits double:
    ``fleet.oom_wait_s`` × 1, 2, 4, … After ``fleet.oom_retries`` of them such a kill counts as a crash
    (``fleet.max_failures``).

    Args:
        training_run: the training.
        context: context of the fleet.
        fit_once: runs the training; its argument is ``end_on_oom`` of :func:`fit_once`.
    """
    retries = context.config.fleet.oom_retries
    for retry in range(retries):
        try:
            return fit_once(True)
        except Exception as error:
            if not is_out_of_memory(causes(error)) or context.stopping.is_set():
                raise
            wait_s = context.config.fleet.oom_wait_s * 2**retry
            reason = f"{failure_reason(error)} Restart {retry + 1} of {retries} in {wait_s:g} s."
            logger.info("%s: %s", training_run.name, reason)
            context.on_wait(training_run, reason)
            if context.stopping.wait(wait_s):
                raise
    return fit_once(False)


def make_trainer(
    training_run: TrainingRun,
    chips: ChipSource,
    run_dir: RunDir,
    config: Experiment,
    train_fn: Callable[[WorkerInput], Any] = run_training,
    callbacks: Sequence[Any] = (),
    end_on_oom: bool = True,
) -> TorchTrainer:
    """Ray Train's trainer of a training.

    Args:
        training_run: the training.
        chips: the decoded images.
        run_dir: the run directory.
        config: config of the experiment.
        train_fn: function that the workers run.
        callbacks: callbacks for Ray Train's controller, added to those of the fleet.
        end_on_oom: see :class:`canopy.train.fleet.controller_callbacks.EndWithoutRestart`.
    """
    scale = training_run.variant.scale
    filesystem, storage = files.resolve(run_dir.path("train", "ray"))
    # The name holds the fingerprint: a restart finds its checkpoints; a changed config finds none.
    name = f"{training_run.variant.name}-fold{training_run.fold}-{training_run.fingerprint[:12]}"
    folder = run_dir.path("train", "ray", name)
    restore_snapshot(folder)
    workers: Any = scale.workers  # Ray's type stubs lack elastic numbers of workers
    owner = {"run": run_dir.root, "variant": training_run.variant.name, "fold": str(training_run.fold)}
    fleet_callbacks: list[Any] = [EndWithoutRestart(end_on_oom), SnapshotCopier(folder)]
    fleet_callbacks.append(WorkerNames(task_name("train", owner)))
    if scale.min_workers is not None:
        workers = scale.min_workers, scale.workers
        fleet_callbacks.append(ElasticTimeout(config.fleet.capacity_timeout_s))
    return TorchTrainer(
        # Bound, not passed as train_loop_config: that goes to the controller, which would import its classes.
        partial(train_fn, WorkerInput(training_run, chips, config.tracking, config.fleet)),
        scaling_config=ScalingConfig(
            num_workers=workers,
            use_gpu=scale.gpus_per_worker > 0,
            resources_per_worker=worker_resources(scale),
        ),
        run_config=RunConfig(
            name=name,
            storage_path=storage,
            storage_filesystem=filesystem,
            failure_config=FailureConfig(**failure_limits(config.fleet)),
            checkpoint_config=checkpoint_config(config.fleet.keep_checkpoints),
            callbacks=[*fleet_callbacks, *callbacks],
        ),
    )


def failure_limits(config: FleetConfig) -> dict[str, Any]:
    """Ray Train's limits of restarts, by the kind of failure; all are finite."""
    names = ("max_failures", "max_preemption_failures", "controller_failure_limit")
    return {name: getattr(config, name) for name in names}
