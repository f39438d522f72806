"""The table that closes a run in the terminal."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from rich import box
from rich.table import Table
from rich.text import Text

from canopy.report.page import METRICS, best_member
from canopy.report.plots import finite


def closing_table(summary: Mapping[str, Any]) -> Table:
    """Every member, the ensemble and (where known) the best reachable score on the test split.

    Args:
        summary: the content of ``summary.json``.

    Returns:
        A table that fits 80 columns: scores in [0, 1] without their zero, then the 95% interval.
    """
    rows = summary["data"]["rows"]["test"]
    table = Table(
        title=f"Test split, {rows:,} chips (95% interval)", box=box.SIMPLE_HEAD, title_justify="left"
    )
    table.add_column("", overflow="fold")
    for title in METRICS.values():
        table.add_column(title, justify="left", no_wrap=True)
    members, best = summary["members"], best_member(summary)
    for name in sorted(members, key=lambda n: (finite([members[n].get("macro_f1")]) or [-1.0])[0]):
        table.add_row(
            Text(f"{name} *" if name == best and len(members) > 1 else name), *_cells(members[name])
        )
    table.add_section()
    table.add_row(Text("Ensemble"), *_cells(summary["ensemble"]), style="bold")
    if summary["ceiling"]:
        table.add_row(Text("Best reachable"), *_cells(summary["ceiling"]), style="dim")
    if len(members) > 1:
        table.caption = "* the best single member on the tuning data"
        table.caption_justify = "left"
    return table


def _cells(scores: Mapping[str, Any]) -> list[str]:
    """One cell per metric: ``.871  .861–.880``."""
    intervals = scores.get("intervals") or {}
    cells = []
    for metric in METRICS:
        cell = _short(scores.get(metric))
        if len(finite(intervals.get(metric) or ())) == 2:
            low, high = intervals[metric]
            cell += f"  {_short(low)}–{_short(high)}"
        cells.append(cell)
    return cells


def _short(value: Any) -> str:
    """Three digits, without the zero before the point."""
    return f"{value:.3f}".removeprefix("0") if finite([value]) else "–"
