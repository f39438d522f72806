"""Telling a fleet to stop: a signal to its own process becomes a file that every training looks for.

The file lies in the run directory, which all nodes reach. Rank 0 of each training looks for it about once per
second, checkpoints with all ranks, and ends.
"""

from __future__ import annotations

import contextlib
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
from canopy.storage import files
from canopy.storage.run_dir import RunDir
from canopy.train.fleet.failures import reason
from canopy.train.training_run import TrainingRun

SIGNALS = (signal.SIGTERM, signal.SIGINT)


def stop_file(run: RunDir) -> str:
    """The file that tells the trainings of a run to checkpoint and end."""
    return run.path("train", "stop.json")


class ShutdownHandler:
    """While it is entered, SIGTERM and Ctrl-C ask for an end; a second one ends the wait for it.

    Args:
        run: of the trainings.
        grace_s: what they may take.
        console: gets a line when the signal has come.
    """

    def __init__(self, run: RunDir, grace_s: float, console: Console) -> None:
        self._run, self._grace_s, self._console = run, grace_s, console
        self._since, self._told_at = time.time(), 0.0
        self._before: dict[signal.Signals, Any] = {}
        self._number = 0
        self.kept: dict[str, str] = {}
        """Trainings that have ended on request, and where their last checkpoints stand."""

    def __enter__(self) -> Self:
        remove(stop_file(self._run))  # of a start that was killed while it stopped
        if threading.current_thread() is threading.main_thread():
            self._before = {number: signal.signal(number, self._handle) for number in SIGNALS}
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)
        if self._number:
            remove(stop_file(self._run))

    @property
    def asked(self) -> bool:
        """Whether a signal has come."""
        return self._number != 0

    def over(self, running: Sequence[TrainingRun]) -> bool:
        """Tell the trainings, and say whether to wait for those that still run no longer.

        That is when the grace is over, or when none of them has anything to lose: one that still starts, or
        waits for a node, has not trained since the fleet started.
        """
        if not running:
            return False
        if not self._told_at:
            self._told_at = time.monotonic()
            name = signal.Signals(self._number).name
            self._console.say("train", f"{name}: every training makes a checkpoint and ends")
            with contextlib.suppress(OSError, ValueError):
                files.write_json(stop_file(self._run), {"signal": self._number, "time": time.time()})
        waited_s = time.monotonic() - self._told_at
        return waited_s >= self._grace_s or not any(self._holds(training_run) for training_run in running)

    def took(self, training_run: TrainingRun, ended: Future[str | None]) -> bool:
        """Whether ``unit`` has ended because it was told to, or broke off while it was."""
        if not self.asked or (ended.exception() is None and ended.result() is None):
            return False
        error = ended.exception()
        kept = self._said(training_run).get("kept_at") if error else ended.result()
        why = f" ({reason(error)})" if error and not isinstance(error, SystemExit) else ""
        self.kept[training_run.name] = (kept or "its last checkpoint, if it has one") + why
        return True

    def stopped(self) -> Stopped:
        """The error to end with."""
        told = "; ".join(f"{name} is kept at {place}" for name, place in self.kept.items())
        return Stopped(self._number, told or "nothing was running")

    def _handle(self, number: int, frame: FrameType | None) -> None:  # noqa: ARG002 (as signals call)
        if self._number:
            self._grace_s = 0.0
        self._number = self._number or number

    def _holds(self, training_run: TrainingRun) -> bool:
        # (One that says it has stopped holds on until Ray Train has put its checkpoint down.)
        return bool(self._said(training_run).get("state", "starting") != "starting")

    def _said(self, training_run: TrainingRun) -> dict[str, Any]:
        """The progress file of rank 0, if it was written since the fleet started."""
        try:
            said: dict[str, Any] = files.read_json(self._run.path(training_run.directory, "progress.json"))
        except (OSError, ValueError):
            return {}
        return said if said["time"] >= self._since else {}


def remove(path: str) -> None:
    """Remove a file, if it is there."""
    with contextlib.suppress(OSError, ValueError):
        if files.exists(path):
            filesystem, inner = files.resolve(path)
            filesystem.delete_file(inner)


def end_on_sigterm() -> None:
    """SIGTERM ends this process as Ctrl-C does, through its ``finally`` blocks, with status 143.

    Ray, when it connects, has it end with status 15; call this afterwards.
    """

    def end(number: int, frame: FrameType | None) -> None:  # noqa: ARG001 (as signals call)
        sys.exit(SIGTERM_STATUS)

    if threading.current_thread() is threading.main_thread():
        signal.signal(signal.SIGTERM, end)
