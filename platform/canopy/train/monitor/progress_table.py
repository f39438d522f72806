"""The progress of trainings as a table: in the terminal, in the job's log and for ``canopy status``."""

from __future__ import annotations

from collections.abc import Iterable

from rich.table import Table
from rich.text import Text

from canopy.runtime.durations import clock_duration, rounded_duration
from canopy.train.monitor.progress_record import ProgressRecord

WIDTH = 120
"""Characters per line of a table in a log, which has no terminal to give the width."""
STATE_STYLES = {"done": "green", "failed": "bold red", "training": "bold", "waiting": "dim", "queued": "dim"}
RUNNING_STATES = ("starting", "training", "predicting")
STALE_S = 180.0
"""Seconds without a write after which a running training is marked as silent."""


def progress_table(records: Iterable[ProgressRecord], now: float) -> Table:
    """A table with one line per record; fields that are None stay empty.

    Args:
        records: records in the order of the lines.
        now: Unix time in seconds.
    """
    table = Table(box=None, pad_edge=False, header_style="dim", padding=(0, 2, 0, 0))
    table.add_column("training", no_wrap=True)
    table.add_column("state", no_wrap=True)
    for name in ("epoch", "step", "images/s", "waiting", "loss", "mAP", "macro-F1", "kept", "left"):
        table.add_column(name, justify="right", no_wrap=True)
    for record in records:
        table.add_row(Text(record.name), state_text(record, now), *metric_cells(record))
    return table


def state_text(record: ProgressRecord, now: float) -> Text:
    """The state, and for how long a running training has been silent."""
    silent_s = 0.0 if record.time is None else now - record.time
    if record.state in RUNNING_STATES and silent_s > STALE_S:
        return Text(f"{record.state}, no sign for {rounded_duration(silent_s)}", style="bold yellow")
    return Text(record.state, style=STATE_STYLES.get(record.state, ""))


def metric_cells(record: ProgressRecord) -> list[str]:
    """The numbers of a record as text, in the order of the table's columns."""
    ended = record.state in {"done", "failed"}
    share, left_s = record.wait_share, record.left_s
    return [
        "" if record.epoch is None else f"{record.epoch}/{record.epochs}",
        "" if record.step is None or ended else f"{record.step}/{record.steps}",
        number_text(record.images_per_s, ",.0f"),
        "" if share is None else f"{share:.0%}",
        number_text(record.train_loss, ".4f"),
        number_text(record.val_map, ".3f"),
        number_text(record.val_macro_f1, ".3f"),
        number_text(record.kept, "d"),
        "" if left_s is None or ended else clock_duration(left_s),
    ]


def epoch_line(record: ProgressRecord) -> str:
    """The last evaluated epoch as one line of a log."""
    parts = [f"loss {number_text(record.train_loss, '.4f')}", f"val mAP {number_text(record.val_map, '.3f')}"]
    if record.images_per_s is not None:
        parts.append(f"{record.images_per_s:,.0f} images/s")
    if record.wait_share is not None:
        parts.append(f"{record.wait_share:.0%} waiting")
    if record.left_s is not None:
        parts.append(f"{clock_duration(record.left_s)} left")
    return f"{record.name} epoch {record.scored}/{record.epochs}: {', '.join(parts)}"


def number_text(value: float | None, form: str) -> str:
    """``value`` in the format ``form``; empty for None."""
    return "" if value is None else format(value, form)
