"""Graceful shutdown: a signal to the job becomes a stop file that every training polls.

The file lies in the run directory, which all nodes reach. Rank 0 of each training looks for it about once per
second; then all ranks checkpoint and the training ends.
"""

from __future__ import annotations

import logging
import signal
import sys
import threading
import time
from collections.abc import Sequence
from concurrent.futures import Future
from types import FrameType, TracebackType
from typing import Any, Self

from canopy.errors import SIGTERM_STATUS, Stopped
from canopy.runtime.console import Console
from canopy.runtime.stage import Stage
from canopy.storage import files
from canopy.storage.run_dir import RunDir
from canopy.train.fleet.failures import failure_reason
from canopy.train.monitor.progress_record import ProgressRecord, progress_file_name, read_progress_record
from canopy.train.monitor.suppressed_errors import SuppressedErrors
from canopy.train.training_run import TrainingRun

SIGNALS = (signal.SIGTERM, signal.SIGINT)
NOTHING_TO_SAVE = ("starting", "waiting")
"""States of a training that has not trained since the fleet started."""

logger = logging.getLogger(__name__)


def stop_file(run_dir: RunDir) -> str:
    """Path of the file that makes the trainings of a run checkpoint and end."""
    return run_dir.path("train", "stop.json")


class ShutdownHandler:
    """Handles SIGTERM and Ctrl-C: the first makes the trainings end, a second one ends the wait for them.

    Args:
        run_dir: run directory of the trainings.
        grace_s: seconds that the trainings get to checkpoint and end.
        console: console of the job.
    """

    def __init__(self, run_dir: RunDir, grace_s: float, console: Console) -> None:
        self._run_dir, self._grace_s, self._console = run_dir, grace_s, console
        self._start_time = time.time()
        self._previous: dict[signal.Signals, Any] = {}
        self._errors = SuppressedErrors(logger)
        self._number = 0
        self._stop_time = 0.0
        self.stopping = threading.Event()
        """Set once the trainings must end; threads that wait for a restart wait on it."""
        self.checkpoints: dict[str, str] = {}
        """Position of the last checkpoint, in words, of each training that a signal ended."""

    def __enter__(self) -> Self:
        self._remove_stop_file()  # left by a start that was killed while it stopped
        if threading.current_thread() is threading.main_thread():
            self._previous = {number: signal.signal(number, self._handle) for number in SIGNALS}
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for number, handler in self._previous.items():
            signal.signal(number, handler)
        if self._number:
            self._remove_stop_file()

    @property
    def requested(self) -> bool:
        """Whether a signal has come."""
        return self._number != 0

    def request_stop(self, running: Sequence[TrainingRun]) -> None:
        """Write the stop file and say so on the console; does nothing when called again.

        Args:
            running: the trainings that run; nothing is written without any.
        """
        if self.stopping.is_set() or not running:
            return
        self._stop_time = time.monotonic()
        name = signal.Signals(self._number).name
        self._console.say(Stage.TRAIN, f"{name}: every training makes a checkpoint and ends")
        with self._errors.suppress("The stop file could not be written", OSError, ValueError):
            files.write_json(stop_file(self._run_dir), {"signal": self._number, "time": time.time()})
        self.stopping.set()

    def should_abort(self, running: Sequence[TrainingRun]) -> bool:
        """Whether to stop waiting for ``running``.

        That is so when the grace period is over, or when none of them has anything to save: a training that
        still starts, or waits for a node, has not trained since the fleet started.
        """
        if not running:
            return False
        waited_s = time.monotonic() - self._stop_time
        return waited_s >= self._grace_s or not any(self._has_trained(training) for training in running)

    def on_training_end(self, training_run: TrainingRun, ended: Future[str | None]) -> bool:
        """Note the last checkpoint of a training that the signal ended or that failed after it.

        Returns:
            False when there was no signal, or when the training is done.
        """
        if not self.requested or (ended.exception() is None and ended.result() is None):
            return False
        error = ended.exception()
        record = self._read_record(training_run)
        position = (record and record.kept_at) if error else ended.result()
        reason = f" ({failure_reason(error)})" if error and not isinstance(error, SystemExit) else ""
        self.checkpoints[training_run.name] = (position or "its last checkpoint, if it has one") + reason
        return True

    def stopped_error(self) -> Stopped:
        """The error that ends the job."""
        kept = "; ".join(f"{name} is kept at {place}" for name, place in self.checkpoints.items())
        return Stopped(self._number, kept or "nothing was running")

    def _handle(self, number: int, frame: FrameType | None) -> None:  # noqa: ARG002 (signature of signal handlers)
        if self._number:
            self._grace_s = 0.0
        self._number = self._number or number

    def _has_trained(self, training_run: TrainingRun) -> bool:
        # The state "stopped" counts too: Ray Train may still be storing the checkpoint.
        record = self._read_record(training_run)
        return record is not None and record.state not in NOTHING_TO_SAVE

    def _read_record(self, training_run: TrainingRun) -> ProgressRecord | None:
        """The record of rank 0, if it was written since the fleet started."""
        path = self._run_dir.path(training_run.directory, progress_file_name(0))
        record = None
        problem = f"The progress file of {training_run.name} could not be read"
        with self._errors.suppress(problem, OSError, ValueError):
            record = read_progress_record(path)
        return record if record is not None and (record.time or 0.0) >= self._start_time else None

    def _remove_stop_file(self) -> None:
        path = stop_file(self._run_dir)
        with self._errors.suppress("The stop file could not be removed", OSError, ValueError):
            if files.exists(path):
                filesystem, inner = files.resolve(path)
                filesystem.delete_file(inner)


def end_on_sigterm() -> None:
    """Make SIGTERM end this process like Ctrl-C, through its ``finally`` blocks, with exit status 143.

    Ray replaces the handler when it connects; call this afterwards.
    """

    def end(number: int, frame: FrameType | None) -> None:  # noqa: ARG001 (signature of signal handlers)
        sys.exit(SIGTERM_STATUS)

    if threading.current_thread() is threading.main_thread():
        signal.signal(signal.SIGTERM, end)
