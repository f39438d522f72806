"""Tables printed at the end of a run."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from rich import box
from rich.table import Table
from rich.text import Text

from canopy.report.axes import finite_values
from canopy.report.page import METRICS, best_member
from canopy.report.score_tables import rounded

FURTHER = ("tuned\nF2", "at 0.5\nmacro", "\nmicro", "\nF2", "ranking\nloss", "calibr.\nerror")


def closing_table(summary: Mapping[str, Any]) -> Table:
    """Main figures of every member, of the ensemble and, where known, the best reachable scores.

    Args:
        summary: content of ``summary.json``.

    Returns:
        A table for 80 columns: scores in [0, 1] without the leading zero, then the 95% interval.
    """
    rows = summary["data"]["rows"]["test"]
    table = Table(
        title=f"Test split, {rows:,} chips (95% interval)", box=box.SIMPLE_HEAD, title_justify="left"
    )
    table.add_column("", overflow="fold")
    for title in METRICS.values():
        table.add_column(title, justify="left", no_wrap=True)
    members, best = summary["members"], best_member(summary)
    for name in _worst_first(members):
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


def further_table(summary: Mapping[str, Any]) -> Table:
    """Other figures of the same models, without intervals: F2 per image, decisions at 0.5, probabilities.

    Args:
        summary: content of ``summary.json``.

    Returns:
        A table for 80 columns; scores and losses in [0, 1] without the leading zero.
    """
    title = "F2 per image; scores at 0.5; scores without thresholds"
    table = Table(title=title, box=box.SIMPLE_HEAD, title_justify="left")
    table.add_column("", overflow="fold")
    for heading in FURTHER:
        table.add_column(heading, justify="left", no_wrap=True)
    members = summary["members"]
    for name in _worst_first(members):
        table.add_row(Text(name), *_further(members[name]))
    table.add_section()
    table.add_row(Text("Ensemble"), *_further(summary["ensemble"]), style="bold")
    return table


def _worst_first(members: Mapping[str, Mapping[str, Any]]) -> list[str]:
    """Names by rising macro-F1, so that the best member is printed next to the ensemble."""
    return sorted(members, key=lambda n: (finite_values([members[n].get("macro_f1")]) or [-1.0])[0])


def _further(scores: Mapping[str, Any]) -> list[str]:
    half = scores.get("at_half") or {}
    tuned = [_short(scores.get("samples_f2"))]
    at_half = [_short(half.get(key)) for key in ("macro_f1", "micro_f1", "samples_f2")]
    losses = [rounded(scores.get(key), 4).removeprefix("0") for key in ("ranking_loss", "calibration_error")]
    return [*tuned, *at_half, *losses]


def _cells(scores: Mapping[str, Any]) -> list[str]:
    """One cell per metric: ``.871  .861–.880``."""
    intervals = scores.get("intervals") or {}
    cells = []
    for metric in METRICS:
        cell = _short(scores.get(metric))
        if len(finite_values(intervals.get(metric) or ())) == 2:
            low, high = intervals[metric]
            cell += f"  {_short(low)}–{_short(high)}"
        cells.append(cell)
    return cells


def _short(value: Any) -> str:
    """Three decimals without the leading zero; a dash where unknown."""
    return f"{value:.3f}".removeprefix("0") if finite_values([value]) else "–"
