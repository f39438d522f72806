"""A timeline of one training over its processes: who did what when, as lines of a file."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ray.train.v2._internal.execution.callback import ControllerCallback, WorkerCallback, WorkerGroupCallback

if TYPE_CHECKING:
    from canopy.train.fleet.job import TrainingJob

Marks = dict[str, float]


def mark(path: str, what: str, at: float | None = None) -> None:
    """Note that ``what`` happened, now (with the process's CPU seconds so far) or at Unix seconds ``at``."""
    with Path(path).open("a") as file:
        file.write(json.dumps([what, time.time() if at is None else at]) + "\n")
        if at is None:
            file.write(json.dumps([f"CPU: {what}", time.process_time()]) + "\n")


def read_marks(path: str) -> Marks:
    """The first time of each."""
    marks: Marks = {}
    for line in Path(path).read_text().splitlines():
        what, at = json.loads(line)
        marks.setdefault(what, at)
    return marks


def process_created() -> float:
    """When this process was started, in Unix seconds, to a hundredth."""
    import psutil  # type: ignore[import-untyped]  # Ray brings it along

    return float(psutil.Process(os.getpid()).create_time())


class ControllerMarks(ControllerCallback, WorkerGroupCallback, WorkerCallback):
    """Marks of Ray Train's own steps, in its controller and its workers."""

    def __init__(self, path: str) -> None:
        self._path = path

    def after_controller_start(self, *_: Any) -> None:
        """The controller is up."""
        mark(self._path, "controller process", process_created())
        mark(self._path, "controller up")

    def before_worker_group_start(self, *_: Any) -> None:
        """It asks for workers."""
        mark(self._path, "workers wanted")

    def after_init_train_context(self) -> None:
        """A worker is up."""
        mark(self._path, "worker process", process_created())
        mark(self._path, "worker up")

    def after_worker_group_start(self, *_: Any) -> None:
        """All are, and know each other."""
        mark(self._path, "group up")

    def after_worker_group_training_start(self, *_: Any) -> None:
        """They were told to begin."""
        mark(self._path, "entry called")

    def before_worker_group_shutdown(self, *_: Any) -> None:
        """The controller knows that they have ended."""
        mark(self._path, "end seen")

    def after_worker_group_shutdown(self, *_: Any) -> None:
        """They are gone."""
        mark(self._path, "workers gone")

    def after_controller_finish(self, *_: Any) -> None:
        """The controller is through."""
        mark(self._path, "controller finished")


def timed_training(job: TrainingJob) -> Any:
    """The worker's entry, with a stopwatch around its stages."""
    path = job.training_run.run + "/marks"
    mark(path, "entry")
    from canopy.train.fleet import worker

    spent: Marks = {}
    with stopwatches(spent, path):
        result = worker.run_training(job)
    mark(path, "entry left")
    for what, seconds in spent.items():
        mark(path, f"seconds: {what}", seconds)
    return result


@contextmanager
def stopwatches(spent: Marks, path: str) -> Iterator[None]:
    """Time the worker's stages by wrapping their functions, as a profiler would."""
    import ray.train.torch

    from canopy.train.fleet import worker
    from canopy.train.monitor.callbacks import TrainingMonitor
    from canopy.train.task import TrainTask

    def timed(what: str, function: Callable[..., Any]) -> Callable[..., Any]:
        def call(*args: Any, **kwargs: Any) -> Any:
            start = time.perf_counter()
            try:
                return function(*args, **kwargs)
            finally:
                spent[what] = spent.get(what, 0.0) + time.perf_counter() - start

        return call

    def first_timed(self: TrainingMonitor, batches: Iterator[Any]) -> Iterator[Any]:
        for n, batch in enumerate(batches_of(self, batches)):
            if n == 0:
                spent.setdefault("first batch", self.data_wait_s)
                mark(path, "first batch")
            yield batch

    def wrap_save(self: TrainingMonitor, save: Callable[[Any], None]) -> Callable[[Any], None]:
        return timed("checkpoints", wrap_save_of(self, save))

    def train(*args: Any, **kwargs: Any) -> None:
        train_before(*args, **kwargs)
        mark(path, "last epoch")

    train_before = vars(worker)["train"]
    batches_of, wrap_save_of = TrainingMonitor.time_batches, TrainingMonitor.wrap_save
    changes: list[tuple[Any, str, Any]] = [
        (ray.train.torch, "prepare_model", timed("prepare_model", ray.train.torch.prepare_model)),
        (TrainTask, "train_state", timed("network and optimizer", TrainTask.train_state)),
        (TrainTask, "evaluate", timed("evaluation", TrainTask.evaluate)),
        (TrainingMonitor, "time_batches", first_timed),
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
