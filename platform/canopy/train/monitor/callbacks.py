"""What a training process tells the world while it trains: progress file, metrics, TensorBoard, MLflow."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Protocol, TypeVar

import torch

from canopy.config import TrackingConfig
from canopy.storage.run_dir import RunDir
from canopy.train.loop import Progress
from canopy.train.monitor.loggers import MLflowLogger, TensorBoardLogger
from canopy.train.monitor.progress_file import ProgressFile
from canopy.train.monitor.ray_metrics import RayMetrics
from canopy.train.training_run import TrainingRun

Item = TypeVar("Item")
LIVE = ("images_per_s", "wait_share", "left_s", "gpu_bytes")
"""What is known between epochs."""


class MetricsLogger(Protocol):
    """A place that takes figures. It keeps its troubles to itself: no figure is worth a training."""

    def live(self, step: int, figures: Mapping[str, float]) -> None:
        """About once per second: some of ``LIVE``, of this rank; ``step`` counts from the beginning."""

    def epoch(self, step: int, record: Mapping[str, float]) -> None:
        """After each epoch: its record as in ``history.json``, reduced over ranks."""

    def close(self) -> None:
        """At the end, well or not."""


@dataclass
class TrainingMonitor:
    """Listens to one training of one process.

    Args:
        progress: the file that is always written.
        sinks: besides.
        device: that trains.
    """

    progress: ProgressFile
    loggers: Sequence[MetricsLogger]
    device: torch.device
    waited_s: float = 0.0
    """Seconds spent getting batches: waiting for the stream, the copy to the device, augmentation there.

    On a GPU the work queued before goes on meanwhile, so it bounds from above what the data costs.
    """
    _step: int = 0
    _offset: int = 0

    def begin(self, epochs: int, steps_per_epoch: int, epochs_done: int) -> None:
        """A phase begins, or is gone on with: ``steps_per_epoch`` may be another than before."""
        before = epochs_done * steps_per_epoch
        self._offset = self._step - before if self._step else 0  # steps count on over the phases
        self._step = self._offset + before
        self.progress.begin(epochs, steps_per_epoch)

    def timed(self, batches: Iterator[Item]) -> Iterator[Item]:
        """``batches``, the time that they take counted in ``waited_s``."""
        while True:
            start = time.perf_counter()
            batch = next(batches, None)
            self.waited_s += time.perf_counter() - start
            if batch is None:
                return
            yield batch

    def step(self, epoch: int, step: int, images: int) -> None:
        """The training loop's ``tell``."""
        self._step = self._offset + epoch * self.progress.steps_per_epoch + step
        if self.device.type == "cuda":
            self.progress.latest["gpu_bytes"] = torch.cuda.max_memory_allocated(self.device)
        if self.progress.step(epoch, step, images, self.waited_s):
            self._live()

    def after_epoch(self, keep: Callable[[Progress], None]) -> Callable[[Progress], None]:
        """The training loop's ``keep``, around the one that makes a checkpoint."""

        def kept(progress: Progress) -> None:
            if not progress.step:
                self._epoch(progress.history[-1])
            keep(progress)
            self.progress.say("training", kept=progress.epoch, kept_at=progress.place)

        return kept

    def say(self, state: str, **facts: Any) -> None:
        """Tell a new state."""
        self.progress.say(state, **facts)

    def close(self) -> None:
        """Let go of every sink."""
        for sink in self.loggers:
            sink.close()

    def _epoch(self, record: Mapping[str, float]) -> None:
        self._live()
        for sink in self.loggers:
            sink.epoch(self._step, record)
        self.progress.say("training", **figures_of(record))

    def _live(self) -> None:
        figures = {name: self.progress.latest[name] for name in LIVE if name in self.progress.latest}
        for sink in self.loggers:
            sink.live(self._step, figures)


def figures_of(record: Mapping[str, float]) -> dict[str, float]:
    """What of an epoch's record stands in the progress file: loss and scores, not the rates."""
    known = {name: value for name, value in record.items() if name in EPOCH_FIGURES}
    return {**known, "scored": int(record["epoch"])}


EPOCH_FIGURES = ("train_loss", "score", "val_map", "val_macro_f1")


@contextmanager
def watching(
    training_run: TrainingRun,
    tracking: TrackingConfig,
    rank: int,
    world: int,
    device: torch.device,
    resumed: bool,
) -> Iterator[TrainingMonitor]:
    """A watcher of this process, its sinks closed at the end.

    Rank 0 writes ``progress.json``; the others write beside it, for whoever looks for stragglers.

    Raises:
        ConfigError: when the tracker that is asked for cannot be had.
    """
    run = RunDir(training_run.run)
    file = "progress.json" if rank == 0 else f"progress-rank{rank}.json"
    progress = ProgressFile(run.path(training_run.directory, file), training_run.name, world, rank)
    progress.say("starting")
    tags = {
        "run": training_run.run,
        "variant": training_run.variant.name,
        "fold": str(training_run.fold),
        "rank": str(rank),
    }
    loggers: list[MetricsLogger] = [RayMetrics(tags)]
    if tracking.tensorboard:
        folder = run.path(training_run.directory, "tensorboard", f"rank{rank}")
        loggers.append(TensorBoardLogger(folder, scores=rank == 0))
    if tracking.mlflow_uri is not None and rank == 0:
        loggers.append(
            MLflowLogger(tracking, run.path(training_run.directory, "mlflow.json"), training_run, resumed)
        )
    monitor = TrainingMonitor(progress, loggers, device)
    try:
        yield monitor
    finally:
        monitor.close()
