"""How trainings stand, as a table: in the terminal, in the job's log and for ``jobs/status.py``."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from rich.table import Table
from rich.text import Text

from canopy.runtime.console import clock

WIDTH = 120
"""Of a table in a log, where no terminal says how wide it is."""
STATE_STYLES = {"done": "green", "failed": "bold red", "training": "bold", "waiting": "dim", "queued": "dim"}
ALIVE = ("starting", "training", "predicting")
STALE_S = 180.0
"""A living training that has said nothing for so long is marked."""


def progress_table(rows: Iterable[Mapping[str, Any]], now: float) -> Table:
    """One line per row.

    Args:
        rows: the contents of progress files, as :class:`canopy.train.monitor.progress_file.ProgressFile` describes them;
            what a row does not hold stays empty.
        now: Unix seconds.
    """
    table = Table(box=None, pad_edge=False, header_style="dim", padding=(0, 2, 0, 0))
    table.add_column("training", no_wrap=True)
    table.add_column("state", no_wrap=True)
    for name in ("epoch", "step", "images/s", "waiting", "loss", "mAP", "macro-F1", "kept", "left"):
        table.add_column(name, justify="right", no_wrap=True)
    for row in rows:
        table.add_row(str(row["name"]), state(row, now), *cells(row))
    return table


def state(row: Mapping[str, Any], now: float) -> Text:
    """The state, and since when there has been no sign of life."""
    said = str(row["state"])
    silent_s = now - row.get("time", now)
    if said in ALIVE and silent_s > STALE_S:
        return Text(f"{said}, no sign for {ago(silent_s)}", style="bold yellow")
    return Text(said, style=STATE_STYLES.get(said, ""))


def cells(row: Mapping[str, Any]) -> list[str]:
    """The figures of a row as text, empty where there is none."""
    share, left_s, ended = row.get("wait_share"), row.get("left_s"), row["state"] in {"done", "failed"}
    return [
        f"{row['epoch']}/{row['epochs']}" if "epoch" in row else "",
        f"{row['step']}/{row['steps']}" if "step" in row and not ended else "",
        number(row.get("images_per_s"), ",.0f"),
        "" if share is None else f"{share:.0%}",
        number(row.get("train_loss"), ".4f"),
        number(row.get("val_map"), ".3f"),
        number(row.get("val_macro_f1"), ".3f"),
        number(row.get("kept"), "d"),
        "" if left_s is None or ended else clock(left_s),
    ]


def epoch_line(row: Mapping[str, Any]) -> str:
    """The last epoch that was scored, in one line of a log."""
    parts = [f"loss {row['train_loss']:.4f}", f"val mAP {row['val_map']:.3f}"]
    if "images_per_s" in row:
        parts.append(f"{row['images_per_s']:,.0f} images/s")
    if "wait_share" in row:
        parts.append(f"{row['wait_share']:.0%} waiting")
    if "left_s" in row:
        parts.append(f"{clock(row['left_s'])} left")
    return f"{row['name']} epoch {row['scored']}/{row['epochs']}: {', '.join(parts)}"


def number(value: float | None, form: str) -> str:
    """``value`` in ``form``, or nothing."""
    return "" if value is None else format(value, form)


def ago(seconds: float) -> str:
    """``40 s``, ``3 min``, ``5 h``, ``2 days``."""
    for size, unit in ((86400, "days"), (3600, "h"), (60, "min")):
        if seconds >= 2 * size or (unit == "min" and seconds >= size):
            return f"{seconds / size:.0f} {unit}"
    return f"{seconds:.0f} s"
