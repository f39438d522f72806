"""Writes the progress of one training in one process to ``progress.json``, at most about once per second."""

from __future__ import annotations

import logging
import time
from dataclasses import dataclass, replace
from typing import Any

from canopy.storage import files
from canopy.train.monitor.progress_record import ProgressRecord, TrainingState
from canopy.train.monitor.suppressed_errors import SuppressedErrors

WRITE_EVERY_S = 1.0
WRITE_REMOTE_EVERY_S = 15.0
"""Seconds between two writes to an object store, where requests cost money and time."""

logger = logging.getLogger(__name__)


class ProgressFile:
    """The progress file of one rank. A write that fails is logged and does not end the training.

    Args:
        path: path or URI of the file.
        name: name of the training.
        ranks: number of ranks.
        rank: rank of this process.
    """

    def __init__(self, path: str, name: str, ranks: int, rank: int = 0) -> None:
        self.path = path
        self.record = ProgressRecord(name, "starting", rank, ranks)
        """The newest record; the file may be older."""
        self.steps_per_epoch = 0
        self._every_s = WRITE_REMOTE_EVERY_S if files.is_uri(path) else WRITE_EVERY_S
        self._errors = SuppressedErrors(logger)
        self._phase_start: tuple[int, float] | None = None
        self._pace: EpochPace | None = None
        self._written = float("-inf")

    def on_phase_start(self, epochs: int, steps_per_epoch: int) -> None:
        """Begin a phase of the training; its speed is measured separately.

        Args:
            epochs: planned number of epochs over all phases.
            steps_per_epoch: number of steps per epoch of this phase.
        """
        self.record = replace(self.record, epochs=epochs)
        self.steps_per_epoch = steps_per_epoch
        self._phase_start = self._pace = None

    def on_step_end(
        self, epoch: int, step: int, images: int, data_wait_s: float = 0.0, gpu_bytes: int | None = None
    ) -> bool:
        """Update the record after a step, and write it when the last write is long enough ago.

        Args:
            epoch: epoch, from 0.
            step: step in the epoch, from 1.
            images: number of images of this rank in the step.
            data_wait_s: seconds that this process has waited for batches, over all steps.
            gpu_bytes: peak of allocated GPU memory in bytes.

        Returns:
            Whether the file was written.
        """
        done, now = epoch * self.steps_per_epoch + step, time.monotonic()
        update: dict[str, Any] = {"epoch": epoch + 1, "step": step, "steps": self.steps_per_epoch}
        if gpu_bytes is not None:
            update["gpu_bytes"] = gpu_bytes
        if self._pace is None or self._pace.epoch != epoch:
            self._pace = EpochPace(epoch, now, data_wait_s)
        else:
            self._pace.images += images
            update |= self._pace.rates(now, data_wait_s)
        if self._phase_start is None:
            self._phase_start = done, now
            self.write("training", **update)
            return True
        steps_left = self.record.epochs * self.steps_per_epoch - done
        first, start = self._phase_start
        update["left_s"] = round((now - start) / (done - first) * max(0, steps_left), 1)
        if now - self._written < self._every_s:
            self.record = replace(self.record, **update)
            return False
        self.write("training", **update)
        return True

    def write(self, state: TrainingState, **update: Any) -> None:
        """Write the record now.

        Args:
            state: the new state.
            update: new values of fields of the record.
        """
        self.record = replace(self.record, state=state, time=time.time(), **update)
        self._written = time.monotonic()
        with self._errors.suppress(
            f"The progress file {files.shown(self.path)} could not be written", OSError, ValueError
        ):
            files.write_json(self.path, self.record.to_json())


@dataclass
class EpochPace:
    """Speed within one epoch, measured from the end of its first step, which includes start-up."""

    epoch: int
    """Number of the epoch, from 0."""
    start: float
    """``time.monotonic()`` at the end of the first step."""
    start_wait_s: float
    """Seconds spent on getting batches until then."""
    images: int = 0
    """Number of images of this rank since then."""

    def rates(self, now: float, data_wait_s: float) -> dict[str, float]:
        """``images_per_s`` and ``wait_share`` of the epoch until ``now``."""
        passed_s = max(now - self.start, 1e-9)
        share = min(1.0, (data_wait_s - self.start_wait_s) / passed_s)
        return {"images_per_s": round(self.images / passed_s, 1), "wait_share": round(share, 3)}
