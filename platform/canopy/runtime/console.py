"""Progress lines of a job: one line per event, with the time since the start and the stage."""

from __future__ import annotations

import time
from collections.abc import Collection, Iterable, Sequence

from rich import box
from rich.console import Console as RichConsole
from rich.table import Table
from rich.text import Text

from canopy.errors import printable, without_credentials
from canopy.runtime.durations import clock_duration
from canopy.runtime.metrics import set_gauge
from canopy.runtime.stage import Stage

STAGE_COLORS: dict[str, str] = {
    Stage.PREPARE: "cyan",
    Stage.SWEEP: "magenta",
    Stage.TRAIN: "green",
    Stage.ENSEMBLE: "yellow",
    Stage.REPORT: "blue",
}


class Console:
    """Prints lines to the terminal and the job log; colors on a terminal only.

    Control characters in a text (from labels, file names, messages of libraries) are escaped and credentials
    are masked, so that data cannot forge or erase lines.
    """

    def __init__(self) -> None:
        self.rich = RichConsole(highlight=False, soft_wrap=True)
        self.start = time.monotonic()
        self._last: dict[str, float] = {}

    def __reduce__(self) -> tuple[type[Console], tuple[()]]:
        """Pickle as a new console: Ray Tune copies its callbacks, which hold one."""
        return (Console, ())

    def say(self, stage: str, text: str) -> None:
        """Print one line.

        Args:
            stage: name of the stage or the command.
            text: the message.
        """
        line = Text(f"{clock_duration(time.monotonic() - self.start):>7}  ", style="dim")
        line.append(f"{printable(stage):<9}", style=STAGE_COLORS.get(stage, "bold"))
        line.append(printable(without_credentials(text)), style="default")
        self.rich.print(line)

    def count(self, stage: str, what: str, done: int, total: int, since: float, every_s: float = 5.0) -> None:
        """Print the progress of a count with its rate and the time left, at most once in ``every_s`` seconds.

        Args:
            stage: name of the stage or the command.
            what: plural of the counted items.
            done: number of items that are done.
            total: number of items at the end; the line for it is always printed.
            since: ``time.monotonic()`` at the start of counting.
            every_s: seconds between two lines.
        """
        now = time.monotonic()
        if done < total and now - self._last.get(what, since) < every_s:
            return
        self._last[what] = now
        set_gauge("canopy_stage_done", done, stage=stage, what=what)
        set_gauge("canopy_stage_total", total, stage=stage, what=what)
        rate = done / max(now - since, 1e-9)
        left = f", {clock_duration((total - done) / rate)} left" if 0 < done < total else ""
        self.say(stage, f"{what} {done:,} of {total:,} ({rate:,.0f}/s{left})")


def table_lines(
    headings: Sequence[str], rows: Iterable[Sequence[str]], right: Collection[str] = ()
) -> list[str]:
    """Lines of a table that is as wide as its content.

    Args:
        headings: headings of the columns.
        rows: cells of each line.
        right: headings of the columns that are aligned to the right.
    """
    grid = Table(box=box.SIMPLE_HEAD, pad_edge=False, show_edge=False)
    for heading in headings:
        grid.add_column(heading, justify="right" if heading in right else "left", no_wrap=True)
    for row in rows:
        grid.add_row(*map(Text, row))
    console = RichConsole(width=240, color_system=None)
    with console.capture() as drawn:
        console.print(grid)
    return [line.rstrip() for line in drawn.get().splitlines()]
