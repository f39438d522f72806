"""Timeline of one training over all its processes: events and their times, as lines of a file."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from canopy.runtime.ray_internals.train import ControllerCallback, WorkerCallback, WorkerGroupCallback

if TYPE_CHECKING:
    from canopy.train.fleet.worker_input import WorkerInput

Timeline = dict[str, float]
"""Unix seconds by event. The prefix ``CPU: `` marks CPU seconds of the process, ``seconds: `` a duration."""


def record_event(path: str, event: str, at: float | None = None) -> None:
    """Append an event at Unix seconds ``at``; None means now, and also records the process's CPU seconds."""
    with Path(path).open("a") as file:
        file.write(json.dumps([event, time.time() if at is None else at]) + "\n")
        if at is None:
            file.write(json.dumps([f"CPU: {event}", time.process_time()]) + "\n")


def read_timeline(path: str) -> Timeline:
    """The first time of each event."""
    timeline: Timeline = {}
    for line in Path(path).read_text().splitlines():
        event, at = json.loads(line)
        timeline.setdefault(event, at)
    return timeline


def process_start_time() -> float:
    """The start of this process in Unix seconds, accurate to 0.01 s."""
    import psutil  # type: ignore[import-untyped]  # a dependency of Ray

    return float(psutil.Process(os.getpid()).create_time())


class TimelineCallback(ControllerCallback, WorkerGroupCallback, WorkerCallback):
    """Records the steps of Ray Train in its controller and its workers."""

    def __init__(self, path: str) -> None:
        self._path = path

    def after_controller_start(self, *_: Any) -> None:
        """Record that the controller is running."""
        record_event(self._path, "controller process", process_start_time())
        record_event(self._path, "controller up")

    def before_worker_group_start(self, *_: Any) -> None:
        """Record that the controller requests workers."""
        record_event(self._path, "workers wanted")

    def after_init_train_context(self) -> None:
        """Record that a worker is running."""
        record_event(self._path, "worker process", process_start_time())
        record_event(self._path, "worker up")

    def after_worker_group_start(self, *_: Any) -> None:
        """Record that all workers are running and form a process group."""
        record_event(self._path, "group up")

    def after_worker_group_training_start(self, *_: Any) -> None:
        """Record that the controller has called the training function."""
        record_event(self._path, "entry called")

    def before_worker_group_shutdown(self, *_: Any) -> None:
        """Record that the controller has noticed the end of the training."""
        record_event(self._path, "end seen")

    def after_worker_group_shutdown(self, *_: Any) -> None:
        """Record that the workers have been shut down."""
        record_event(self._path, "workers gone")

    def after_controller_finish(self, *_: Any) -> None:
        """Record that the controller has finished."""
        record_event(self._path, "controller finished")


def run_timed_training(job: WorkerInput) -> Any:
    """Run a training in the worker, and record the time of its parts."""
    path = job.training_run.run_root + "/marks"
    record_event(path, "entry")
    from canopy.train.fleet import worker

    seconds_by_part: Timeline = {}
    with time_functions(seconds_by_part, path):
        result = worker.run_training(job)
    record_event(path, "entry left")
    for part, seconds in seconds_by_part.items():
        record_event(path, f"seconds: {part}", seconds)
    return result


@contextmanager
def time_functions(seconds_by_part: Timeline, path: str) -> Iterator[None]:
    """Measure the parts of a worker by wrapping their functions until the context ends, like a profiler.

    Args:
        seconds_by_part: receives the total seconds by part.
        path: file of the timeline.
    """
    import ray.train.torch

    from canopy.train.fleet import worker
    from canopy.train.monitor.training_monitor import TrainingMonitor
    from canopy.train.training_phase import TrainingPhase

    def timed(part: str, function: Callable[..., Any]) -> Callable[..., Any]:
        def call(*args: Any, **kwargs: Any) -> Any:
            start = time.perf_counter()
            try:
                return function(*args, **kwargs)
            finally:
                seconds_by_part[part] = seconds_by_part.get(part, 0.0) + time.perf_counter() - start

        return call

    def time_first_batch(self: TrainingMonitor, batches: Iterator[Any]) -> Iterator[Any]:
        for n, batch in enumerate(batches_of(self, batches)):
            if n == 0:
                seconds_by_part.setdefault("first batch", self.data_wait_s)
                record_event(path, "first batch")
            yield batch

    def wrap_save(self: TrainingMonitor, save: Callable[[Any], None]) -> Callable[[Any], None]:
        return timed("checkpoints", wrap_save_of(self, save))

    def train(*args: Any, **kwargs: Any) -> None:
        train_before(*args, **kwargs)
        record_event(path, "last epoch")

    train_before = vars(worker)["train"]
    batches_of, wrap_save_of = TrainingMonitor.time_batches, TrainingMonitor.wrap_save
    changes: list[tuple[Any, str, Any]] = [
        (ray.train.torch, "prepare_model", timed("prepare_model", ray.train.torch.prepare_model)),
        (TrainingPhase, "train_state", timed("network and optimizer", TrainingPhase.train_state)),
        (TrainingPhase, "evaluate", timed("evaluation", TrainingPhase.evaluate)),
        (TrainingMonitor, "time_batches", time_first_batch),
        (TrainingMonitor, "wrap_save", wrap_save),
        (worker, "train", train),
        (worker, "write_outputs", timed("finish", vars(worker)["write_outputs"])),
    ]
    before = [(owner, name, getattr(owner, name)) for owner, name, _ in changes]
    try:
        for owner, name, value in changes:
            setattr(owner, name, value)
        yield
    finally:
        for owner, name, value in before:
            setattr(owner, name, value)
