"""What runs in Ray Train's controller, a process that each training starts: this module imports little."""

from __future__ import annotations

import contextlib
import json
import os
import time
from typing import Any

from ray.train import UserCallback
from ray.train.v2._internal.execution.callback import ControllerCallback

from canopy.errors import CanopyError, FleetError
from canopy.storage import files

LIST = "checkpoint_manager_snapshot.json"
LIST_COPY = "checkpoints.json"


class EndAtOnce(UserCallback):
    """Ends a run without restarts when a worker raised what would come again at each of them.

    Ray Train restarts after any error of a worker; an error raised by a callback in its controller ends the
    run.
    """

    def after_exception(self, run_context: Any, worker_exceptions: dict[int, Exception]) -> None:  # noqa: ARG002
        """Called by Ray Train's controller before it decides on a restart."""
        for error in worker_exceptions.values():
            if isinstance(error, CanopyError):
                raise error


class CopyList(UserCallback):
    """Copies Ray Train's list of checkpoints after each report, in its controller.

    Args:
        folder: path or URI of one training in Ray Train's storage.
    """

    def __init__(self, folder: str) -> None:
        self._folder = folder

    def after_report(self, run_context: Any, metrics: Any, checkpoint: Any) -> None:  # noqa: ARG002
        """Called after Ray Train has written its list, and removed what is no longer in it."""
        with contextlib.suppress(OSError, ValueError):
            data = files.read_bytes(files.join(self._folder, LIST))
            json.loads(data)
            files.write_bytes(files.join(self._folder, LIST_COPY), data)


WAITING = ("InitializingState", "RestartingState", "ReschedulingState")
PACE_S = 0.5
PLACEMENT_S = 30.0


class ElasticPatience(ControllerCallback):
    """Waiting for the first workers of an elastic training, or for new ones, ends at some time.

    With a fixed number of workers Ray Train waits for a placement group, and that wait has a limit. With an
    elastic one it asks a coordinator, which looks at the nodes every 20 seconds, how many workers there is
    room for: without a pause and for ever where there are too few. And for up to 20 seconds after a node's
    death it places workers that nothing can hold, so that wait must be short.

    Args:
        capacity_timeout_s: how long to wait for the fewest workers.
    """

    def __init__(self, capacity_timeout_s: float) -> None:
        self._limit_s = capacity_timeout_s
        self._since: float | None = None

    def after_controller_start(self, train_run_context: Any) -> None:  # noqa: ARG002
        """In the controller's process, before it places workers."""
        os.environ["RAY_TRAIN_WORKER_GROUP_START_TIMEOUT_S"] = str(min(PLACEMENT_S, self._limit_s))

    def after_controller_state_update(self, previous_state: Any, current_state: Any) -> None:  # noqa: ARG002
        """Called each time that the controller has looked; raising ends the training."""
        if type(current_state).__name__ not in WAITING:
            self._since = None
            return
        self._since = self._since or time.monotonic()
        if time.monotonic() - self._since > self._limit_s:
            problem = f"no room for scale.min_workers within {self._limit_s:g} s (fleet.capacity_timeout_s)"
            raise FleetError(f"The cluster had {problem}. Give the cluster more, or the workers less.")
        time.sleep(PACE_S)
