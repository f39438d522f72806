"""The fleet's progress on the console: a live table in a terminal; lines and some tables in a log."""

from __future__ import annotations

import logging
import time
from collections.abc import Sequence
from dataclasses import replace
from types import TracebackType
from typing import Any, Self

from rich.console import Console as RichConsole
from rich.live import Live

from canopy.data.loading.unreadable import unreadable_summary
from canopy.runtime.console import Console
from canopy.runtime.stage import Stage
from canopy.storage import files
from canopy.storage.run_dir import RunDir
from canopy.train.monitor.progress_record import ProgressRecord, progress_file_name, read_progress_record
from canopy.train.monitor.progress_table import WIDTH, epoch_line, progress_table
from canopy.train.monitor.suppressed_errors import SuppressedErrors
from canopy.train.training_records import EpochRecord
from canopy.train.training_run import TrainingRun

REFRESH_EVERY_S = 1.0
REFRESH_REMOTE_EVERY_S = 15.0
"""Seconds between two readings of the progress files; the second for an object store."""

logger = logging.getLogger(__name__)


class LiveDisplay:
    """Shows all trainings of a fleet, from their progress files.

    Args:
        training_runs: trainings in the order of the table.
        run_dir: run directory that they write to.
        console: console of the job.
        table_minutes: minutes between two tables in a log.
    """

    def __init__(
        self, training_runs: Sequence[TrainingRun], run_dir: RunDir, console: Console, table_minutes: float
    ) -> None:
        self._run_dir, self._console = run_dir, console
        self._start_time = time.time()
        self._records = {
            training_run.name: ProgressRecord(training_run.name, "queued") for training_run in training_runs
        }
        self._printed_epochs: dict[str, int] = {}
        self._errors = SuppressedErrors(logger)
        self._table_every_s, self._table_time = table_minutes * 60, time.monotonic()
        self._refresh_every_s = REFRESH_REMOTE_EVERY_S if files.is_uri(run_dir.root) else REFRESH_EVERY_S
        self._refresh_time = float("-inf")
        self._live = Live(console=console.rich, auto_refresh=False, transient=True)

    def __enter__(self) -> Self:
        if self._console.rich.is_terminal:
            self._live.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._live.stop()

    def on_start(self, training_run: TrainingRun, description: str) -> None:
        """Show that a training was submitted to Ray."""
        self._records[training_run.name] = replace(self._records[training_run.name], state="starting")
        self._print(f"{training_run.name} starts: {description}")

    def on_wait(self, training_run: TrainingRun, reason: str) -> None:
        """Show that a training waits before its next start; its progress file gets the state ``waiting``."""
        self._refresh(training_run)
        self._store(training_run, replace(self._records[training_run.name], state="waiting", reason=reason))
        self._print(f"{training_run.name} waits: {reason}")

    def on_end(self, training_run: TrainingRun) -> None:
        """Show that a training is done, with its best epoch."""
        self._refresh(training_run)
        self._records[training_run.name] = replace(self._records[training_run.name], state="done")
        stored = files.read_json(self._run_dir.path(training_run.directory, "history.json"))
        best = max(map(EpochRecord.from_json, stored), key=lambda record: record.score)
        self._print(f"{training_run.name} done: best epoch {best.epoch:.0f}, val mAP {best.val_map:.3f}")
        unreadable = unreadable_summary(self._run_dir.path(training_run.directory, "bad_images.json"))
        if unreadable is not None:
            self._print(f"{training_run.name}: {unreadable}")

    def on_failure(self, training_run: TrainingRun, reason: str) -> None:
        """Show that a training has failed; its progress file gets the state ``failed``."""
        self._refresh(training_run)
        self._store(training_run, replace(self._records[training_run.name], state="failed", reason=reason))
        self._print(f"{training_run.name} FAILED: {reason}")

    def update(self, running: Sequence[TrainingRun]) -> None:
        """Read the progress files of the running trainings and show what is new, when it is time to."""
        if time.monotonic() - self._refresh_time < self._refresh_every_s:
            return
        for training_run in running:
            self._refresh(training_run)
        self._refresh_time = time.monotonic()
        if self._live.is_started:
            self._live.update(self._table(), refresh=True)
            return
        for training_run in running:
            record = self._records[training_run.name]
            if (record.scored or 0) > self._printed_epochs.get(training_run.name, 0):
                self._printed_epochs[training_run.name] = record.scored or 0
                self._print(epoch_line(speed_of_all_ranks(record)))
        if time.monotonic() - self._table_time > self._table_every_s:
            self._table_time = time.monotonic()
            RichConsole(file=self._console.rich.file, width=WIDTH).print(self._table())

    def remaining_fraction(self, training_run: TrainingRun) -> float:
        """Share of a training's steps that is still to be done, in [0, 1]; 1 when it is not known."""
        record = self._records[training_run.name]
        if record.epoch is None or record.step is None or not record.steps or not record.epochs:
            return 1.0
        done = (record.epoch - 1) * record.steps + record.step
        return float(min(1.0, max(0.0, 1 - done / (record.epochs * record.steps))))

    def _table(self) -> Any:
        return progress_table(map(speed_of_all_ranks, self._records.values()), time.time())

    def _print(self, text: str) -> None:
        self._console.say(Stage.TRAIN, text)

    def _path(self, training_run: TrainingRun) -> str:
        return self._run_dir.path(training_run.directory, progress_file_name(0))

    def _store(self, training_run: TrainingRun, record: ProgressRecord) -> None:
        record = replace(record, time=time.time())
        self._records[training_run.name] = record
        problem = f"The progress file of {training_run.name} could not be written"
        with self._errors.suppress(problem, OSError, ValueError):
            files.write_json(self._path(training_run), record.to_json())

    def _refresh(self, training_run: TrainingRun) -> None:
        """Read the record of rank 0."""
        found = None
        with self._errors.suppress(
            f"The progress file of {training_run.name} could not be read", OSError, ValueError
        ):
            found = read_progress_record(self._path(training_run))
        if found is None or (found.time or 0.0) < self._start_time:  # written by an earlier start
            return
        self._records[training_run.name] = found


def speed_of_all_ranks(record: ProgressRecord) -> ProgressRecord:
    """``record`` with the speed of all ranks together; they are equally fast, as they step together."""
    if record.images_per_s is None:
        return record
    return replace(record, images_per_s=record.images_per_s * record.ranks)
