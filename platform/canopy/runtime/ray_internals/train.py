"""Private interfaces of Ray Train 2.60: whether a run waits for workers, names of controllers and workers."""

from __future__ import annotations

import importlib
import re
from typing import Any

from ray.train.v2._internal.execution.callback import (
    ControllerCallback,
    WorkerCallback,
    WorkerGroupCallback,
)
from ray.train.v2._internal.execution.controller import TrainController

__all__ = [
    "ControllerCallback",
    "WorkerCallback",
    "WorkerGroupCallback",
    "is_waiting_for_workers",
    "name_controllers",
    "name_workers",
]
# ``ControllerCallback`` is the base class of callbacks that see the state of Ray Train's controller,
# ``WorkerCallback`` and ``WorkerGroupCallback`` of those that see the start and the end of its workers.
# ``RunConfig.callbacks`` accepts all of them; the public ``UserCallback`` sees reports and exceptions only.

WAITING_STATES = ("InitializingState", "RestartingState", "ReschedulingState")


def is_waiting_for_workers(state: Any) -> bool:
    """Whether a state of Ray Train's controller means that it waits for workers.

    Private use: class names in ``ray.train.v2._internal.execution.controller.state``. They are compared by
    name, so that no more of Ray Train is imported.
    """
    return type(state).__name__ in WAITING_STATES


class NamedController(TrainController):
    """Ray Train's controller with the name of its run, which Ray's dashboard shows instead of the class."""

    def __repr__(self) -> str:
        return f"control {self._train_run_context.run_config.name}"


NamedController.__name__ = TrainController.__name__  # the class that the dashboard and the process show


def name_controllers() -> None:
    """Give the controllers that this process starts from now on the names of their runs.

    Private use: ``data_parallel_trainer.TrainController``, the class of the actor, and its
    ``_train_run_context``. Ray Train has no setting for the name of its actors.
    """
    trainer: Any = importlib.import_module("ray.train.v2.api.data_parallel_trainer")
    trainer.TrainController = NamedController


def name_workers(name: str, count: int) -> None:
    """Give the workers that this process, a controller, starts from now on a name for Ray's dashboard.

    Private use: ``WorkerGroup._worker_cls``. Ray reads the name of an actor once, when it is created. Ranks
    are known later, so the workers are numbered in the order in which they are created.

    Args:
        name: what the workers work on.
        count: number of workers.
    """
    group: Any = importlib.import_module("ray.train.v2._internal.execution.worker_group.worker_group")
    worker: Any = importlib.import_module("ray.train.v2._internal.execution.worker_group.worker")
    group.WorkerGroup._worker_cls = named_worker(worker.RayTrainWorker, name, count)


def named_worker(base: type, name: str, count: int) -> type:
    """A subclass of ``base`` with a ``__repr__``; Ray sends it by value, as no module holds it."""

    def description(self: object) -> str:  # noqa: ARG001 (signature of __repr__)
        return f"{name} worker {bundle_number() + 1} of {count}"

    return type(base.__name__, (base,), {"__repr__": description})


def bundle_number() -> int:
    """Number of this process's bundle in its placement group, from 0; 0 without a placement group.

    Private use: ``core_worker.resource_ids``. The public list of resources leaves the bundle out.
    """
    worker: Any = importlib.import_module("ray._private.worker")
    resources = worker.global_worker.core_worker.resource_ids()
    found = (re.fullmatch(r"\w+_group_(\d+)_[0-9a-f]{8,}", name) for name in resources)
    return next((int(match[1]) for match in found if match), 0)
