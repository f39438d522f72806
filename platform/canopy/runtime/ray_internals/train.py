"""Private interfaces of Ray Train 2.60 (``ray.train.v2._internal``): whether a run waits for its workers."""

from __future__ import annotations

from typing import Any

from ray.train.v2._internal.execution.callback import (
    ControllerCallback,
    WorkerCallback,
    WorkerGroupCallback,
)

__all__ = ["ControllerCallback", "WorkerCallback", "WorkerGroupCallback", "is_waiting_for_workers"]
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
