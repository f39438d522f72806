"""Callbacks of the training loop that log its progress: progress file, Ray metrics, TensorBoard, MLflow."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Protocol, TypeVar

import torch

from canopy.config import TrackingConfig
from canopy.runtime.ray_internals import core
from canopy.storage.run_dir import RunDir
from canopy.train.monitor.loggers import MLflowLogger, TensorBoardLogger
from canopy.train.monitor.progress_file import ProgressFile
from canopy.train.monitor.progress_record import LIVE_METRICS, TrainingState, progress_file_name
from canopy.train.monitor.ray_metrics import RayMetrics
from canopy.train.training_phase import DistributedContext
from canopy.train.training_records import EpochRecord, TrainingPosition
from canopy.train.training_run import TrainingRun

Item = TypeVar("Item")


class MetricsLogger(Protocol):
    """A destination of metrics. Its errors are logged and never raised: they must not end a training."""

    def log_live(self, step: int, metrics: Mapping[str, float]) -> None:
        """Log metrics of this rank between the ends of epochs, about once per second.

        Args:
            step: number of optimizer steps since the training began.
            metrics: some of ``LIVE_METRICS``, and ``gpu_utilization``.
        """

    def log_epoch(self, step: int, record: EpochRecord) -> None:
        """Log the metrics of a completed epoch.

        Args:
            step: number of optimizer steps since the training began.
            record: the epoch's record, reduced over ranks.
        """

    def close(self) -> None:
        """Release what the logger holds, at the end of the training or after an error."""


@dataclass
class TrainingMonitor:
    """Sends the progress of one training in one process to the progress file and to loggers.

    Args:
        progress: the progress file of this rank.
        loggers: further destinations.
        device: device that trains.
    """

    progress: ProgressFile
    loggers: Sequence[MetricsLogger]
    device: torch.device
    data_wait_s: float = 0.0
    """Seconds spent on getting batches: waiting for the stream, the copy to the device, augmentation there.

    A GPU works on queued steps meanwhile, so this is an upper bound of what the data costs.
    """
    _step: int = 0
    _step_offset: int = 0

    def on_phase_start(self, epochs: int, steps_per_epoch: int, epochs_done: int) -> None:
        """Begin or resume a phase.

        Args:
            epochs: planned number of epochs over all phases.
            steps_per_epoch: number of steps per epoch of this phase.
            epochs_done: number of completed epochs over all phases.
        """
        # The logged step keeps counting when a phase with another number of steps per epoch begins.
        before = epochs_done * steps_per_epoch
        self._step_offset = self._step - before if self._step else 0
        self._step = self._step_offset + before
        self.progress.on_phase_start(epochs, steps_per_epoch)

    def time_batches(self, batches: Iterator[Item]) -> Iterator[Item]:
        """``batches``; the time that each takes is added to ``data_wait_s``."""
        while True:
            start = time.perf_counter()
            batch = next(batches, None)
            self.data_wait_s += time.perf_counter() - start
            if batch is None:
                return
            yield batch

    def on_step_end(self, epoch: int, step: int, images: int) -> None:
        """The training loop's ``on_step_end``."""
        self._step = self._step_offset + epoch * self.progress.steps_per_epoch + step
        cuda = self.device.type == "cuda"
        gpu_bytes = torch.cuda.max_memory_allocated(self.device) if cuda else None
        if self.progress.on_step_end(epoch, step, images, self.data_wait_s, gpu_bytes):
            self._log_live()

    def wrap_save(self, save: Callable[[TrainingPosition], None]) -> Callable[[TrainingPosition], None]:
        """The loop's ``save_checkpoint``: logs a completed epoch, calls ``save``, logs the position."""

        def log_and_save(progress: TrainingPosition) -> None:
            if not progress.step:
                self._log_epoch(progress.history[-1])
            save(progress)
            self.progress.write("training", kept=progress.epoch, kept_at=progress.position)

        return log_and_save

    def set_state(self, state: TrainingState) -> None:
        """Write a new state to the progress file."""
        self.progress.write(state)

    def close(self) -> None:
        """Close every logger."""
        for logger in self.loggers:
            logger.close()

    def _log_epoch(self, record: EpochRecord) -> None:
        self._log_live()
        for logger in self.loggers:
            logger.log_epoch(self._step, record)
        scores = {"score": record.score, "val_map": record.val_map, "val_macro_f1": record.val_macro_f1}
        self.progress.write("training", scored=record.epoch, train_loss=record.train_loss, **scores)

    def _log_live(self) -> None:
        values: dict[str, Any] = {name: getattr(self.progress.record, name) for name in LIVE_METRICS}
        if self.device.type == "cuda":
            values["gpu_utilization"] = gpu_utilization(self.device)
        metrics = {name: value for name, value in values.items() if value is not None}
        for logger in self.loggers:
            logger.log_live(self._step, metrics)


def gpu_utilization(device: torch.device) -> float | None:
    """Share of the last moment in which a GPU was busy, in [0, 1]; None where the driver does not say."""
    return core.gpu_utilization(str(torch.cuda.get_device_properties(device).uuid))


@contextmanager
def monitor_training(
    training_run: TrainingRun, tracking: TrackingConfig, dist_context: DistributedContext, resumed: bool
) -> Iterator[TrainingMonitor]:
    """A monitor of this process with the configured loggers, which are closed at the end.

    Rank 0 writes ``progress.json``, rank R ``progress-rankR.json`` in the same directory.

    Args:
        training_run: the training.
        tracking: which loggers are wanted.
        dist_context: this process.
        resumed: whether the training resumes from a checkpoint.

    Raises:
        ConfigError: when MLflow is configured and cannot be used.
    """
    run_dir, rank = RunDir(training_run.run_root), dist_context.rank
    path = run_dir.path(training_run.directory, progress_file_name(rank))
    progress = ProgressFile(path, training_run.name, dist_context.world_size, rank)
    progress.write("starting")
    tags = {
        "run": training_run.run_root,
        "variant": training_run.variant.name,
        "fold": str(training_run.fold),
        "rank": str(rank),
    }
    loggers: list[MetricsLogger] = [RayMetrics(tags)]
    if tracking.tensorboard:
        folder = run_dir.path(training_run.directory, "tensorboard", f"rank{rank}")
        loggers.append(TensorBoardLogger(folder, log_scores=rank == 0))
    if tracking.mlflow_uri is not None and rank == 0:
        run_file = run_dir.path(training_run.directory, "mlflow.json")
        loggers.append(MLflowLogger(tracking, run_file, training_run, resumed))
    monitor = TrainingMonitor(progress, loggers, dist_context.device)
    try:
        yield monitor
    finally:
        monitor.close()
