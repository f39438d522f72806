"""Ray Train callbacks: end without restart, copy the checkpoint list, name workers, limit the wait for them.

They run in Ray Train's controller, one process per training, so this module imports little.
"""

from __future__ import annotations

import logging
import os
import time
from typing import Any

from ray.train import UserCallback

from canopy.errors import FleetError
from canopy.runtime.ray_errors import is_out_of_memory
from canopy.runtime.ray_internals.train import (
    ControllerCallback,
    WorkerGroupCallback,
    is_waiting_for_workers,
    name_workers,
)
from canopy.train.checkpoint.ray_checkpoint_list import copy_snapshot
from canopy.train.fleet.failures import causes, is_permanent
from canopy.train.monitor.suppressed_errors import SuppressedErrors

POLL_EVERY_S = 0.5
"""Seconds between two attempts of the controller to place workers."""
PLACEMENT_TIMEOUT_S = 30.0
"""Longest wait for a placement group of an elastic training, in seconds."""

logger = logging.getLogger(__name__)


class EndWithoutRestart(UserCallback):
    """Ends a training whose workers raised an error after which Ray Train must not restart them.

    Ray Train restarts the workers after any error of theirs; an error raised by a callback in its controller
    ends the training.

    Args:
        end_on_oom: whether the training also ends when Ray's memory monitor killed a worker; the fleet then
            waits and starts it again.
    """

    def __init__(self, end_on_oom: bool) -> None:
        self._end_on_oom = end_on_oom

    def after_exception(self, run_context: Any, worker_exceptions: dict[int, Exception]) -> None:  # noqa: ARG002
        """Called by Ray Train's controller before it decides on a restart.

        Raises:
            Exception: the worker's error, when the training must end.
        """
        for error in worker_exceptions.values():
            if is_permanent(error):
                raise error
        for error in worker_exceptions.values():
            for cause in causes(error):
                if self._end_on_oom and is_out_of_memory([cause]):
                    raise cause


class SnapshotCopier(UserCallback):
    """Copies Ray Train's list of checkpoints after each report.

    Args:
        folder: path or URI of one training in Ray Train's storage.
    """

    def __init__(self, folder: str) -> None:
        self._folder = folder
        self._errors = SuppressedErrors(logger)

    def after_report(self, run_context: Any, metrics: Any, checkpoint: Any) -> None:  # noqa: ARG002
        """Called after Ray Train has written its list and removed the checkpoints that it no longer names."""
        with self._errors.suppress("The list of checkpoints could not be copied", OSError, ValueError):
            copy_snapshot(self._folder)


class WorkerNames(WorkerGroupCallback):
    """Names the workers of a training for Ray's dashboard.

    Args:
        name: what they work on.
    """

    def __init__(self, name: str) -> None:
        self._name = name

    def before_worker_group_start(self, worker_group_context: Any) -> None:
        """Called in the controller before it creates workers, each time with their number."""
        name_workers(self._name, worker_group_context.num_workers)


class ElasticTimeout(ControllerCallback):
    """Limits how long an elastic training waits for its minimum number of workers.

    With a fixed number of workers Ray Train waits for a placement group, and that wait has a limit. With an
    elastic number it polls a coordinator for the number of workers that fit, without a pause, and without a
    limit while there are too few. The coordinator refreshes every 20 seconds. For up to 20 seconds after the
    death of a node it also tries to place workers that no node can hold, so the wait for a placement group
    must be short.

    Args:
        capacity_timeout_s: seconds to wait for the minimum number of workers.
    """

    def __init__(self, capacity_timeout_s: float) -> None:
        self._timeout_s = capacity_timeout_s
        self._waiting_since: float | None = None

    def after_controller_start(self, train_run_context: Any) -> None:  # noqa: ARG002
        """Called in the controller's process before it places workers."""
        timeout_s = min(PLACEMENT_TIMEOUT_S, self._timeout_s)
        os.environ["RAY_TRAIN_WORKER_GROUP_START_TIMEOUT_S"] = str(timeout_s)

    def after_controller_state_update(self, previous_state: Any, current_state: Any) -> None:  # noqa: ARG002
        """Called after each attempt to place workers; an error raised here ends the training.

        Raises:
            FleetError: when the wait is over.
        """
        if not is_waiting_for_workers(current_state):
            self._waiting_since = None
            return
        self._waiting_since = self._waiting_since or time.monotonic()
        if time.monotonic() - self._waiting_since > self._timeout_s:
            raise FleetError(
                f"The cluster had no room for scale.min_workers within {self._timeout_s:g} s "
                "(fleet.capacity_timeout_s). Add nodes, or lower the resources per worker."
            )
        time.sleep(POLL_EVERY_S)
