"""What the fleet's own process shows: a live table where a person watches, lines and a table in a log."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Sequence
from types import TracebackType
from typing import Any, Self

from rich.console import Console as RichConsole
from rich.live import Live

from canopy.data.loading.unreadable import unreadable_summary
from canopy.runtime.console import Console
from canopy.storage import files
from canopy.storage.run_dir import RunDir
from canopy.train.monitor.progress_table import WIDTH, epoch_line, progress_table
from canopy.train.training_run import TrainingRun

LOOK_EVERY_S = 1.0
LOOK_REMOTE_EVERY_S = 15.0


class LiveDisplay:
    """All units of a fleet, from what their progress files say.

    Args:
        units: in the order of the table.
        run: where they write.
        console: gets the lines.
        table_minutes: between two tables in a log.
    """

    def __init__(
        self, training_runs: Sequence[TrainingRun], run: RunDir, console: Console, table_minutes: float
    ) -> None:
        self._run, self._console = run, console
        self._since = time.time()
        self._rows: dict[str, dict[str, Any]] = {
            training_run.name: {"name": training_run.name, "state": "queued"}
            for training_run in training_runs
        }
        self._told: dict[str, int] = {}
        self._table_s, self._table_at = table_minutes * 60, time.monotonic()
        self._look_s = LOOK_REMOTE_EVERY_S if files.is_uri(run.root) else LOOK_EVERY_S
        self._looked = float("-inf")
        self._live = Live(console=console.rich, auto_refresh=False, transient=True)

    def __enter__(self) -> Self:
        if self._console.rich.is_terminal:
            self._live.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._live.stop()

    def started(self, training_run: TrainingRun, what: str) -> None:
        """``unit`` was handed to Ray."""
        self._rows[training_run.name]["state"] = "starting"
        self._say(f"{training_run.name} starts: {what}")

    def ended(self, training_run: TrainingRun) -> None:
        """``unit`` is done."""
        self._refresh(training_run)
        self._rows[training_run.name]["state"] = "done"
        history = files.read_json(self._run.path(training_run.directory, "history.json"))
        best = max(history, key=lambda record: record["score"])
        self._say(f"{training_run.name} done: best epoch {best['epoch']:.0f}, val mAP {best['val_map']:.3f}")
        if (bad := unreadable_summary(self._run.path(training_run.directory, "bad_images.json"))) is not None:
            self._say(f"{training_run.name}: {bad}")

    def failed(self, training_run: TrainingRun, why: str) -> None:
        """``unit`` has failed for good; its progress file says so, too."""
        self._refresh(training_run)
        row = self._rows[training_run.name]
        row |= {"state": "failed", "reason": why, "time": time.time()}
        with contextlib.suppress(OSError, ValueError):
            files.write_json(self._run.path(training_run.directory, "progress.json"), {"epochs": 0, **row})
        self._say(f"{training_run.name} FAILED: {why}")

    def look(self, running: Sequence[TrainingRun]) -> None:
        """Read what the running units say, and show what is new."""
        if time.monotonic() - self._looked < self._look_s:
            return
        for training_run in running:
            self._refresh(training_run)
        self._looked = time.monotonic()
        if self._live.is_started:
            self._live.update(self._table(), refresh=True)
            return
        for training_run in running:
            row = self._rows[training_run.name]
            if row.get("scored", 0) > self._told.get(training_run.name, 0):
                self._told[training_run.name] = row["scored"]
                self._say(epoch_line(row))
        if time.monotonic() - self._table_at > self._table_s:
            self._table_at = time.monotonic()
            RichConsole(file=self._console.rich.file, width=WIDTH).print(self._table())

    def left(self, training_run: TrainingRun) -> float:
        """The share of a unit's training that is still to be done, in [0, 1]."""
        row = self._rows[training_run.name]
        if "step" not in row or not row["steps"] or not row["epochs"]:
            return 1.0
        done = (row["epoch"] - 1) * row["steps"] + row["step"]
        return float(min(1.0, max(0.0, 1 - done / (row["epochs"] * row["steps"]))))

    def _table(self) -> Any:
        return progress_table(self._rows.values(), time.time())

    def _say(self, text: str) -> None:
        self._console.say("train", text)

    def _refresh(self, training_run: TrainingRun) -> None:
        """What rank 0 says; every rank is as fast as it, since all take their steps together."""
        try:
            found = files.read_json(self._run.path(training_run.directory, "progress.json"))
        except (OSError, ValueError):
            return
        if found["time"] < self._since:  # left by an earlier start
            return
        if "images_per_s" in found:
            found["images_per_s"] *= found.get("ranks", 1)
        self._rows[training_run.name] = found
