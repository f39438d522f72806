"""The live table of a round of trials in a terminal: the running trials below the state of the round."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from rich.console import Group
from rich.live import Live
from rich.table import Table
from rich.text import Text

from canopy.errors import printable
from canopy.runtime.console import Console

HEADINGS = ("trial", "values", "epoch", "val score", "images/s")


@dataclass(frozen=True)
class RunningTrial:
    """A running trial.

    Args:
        number: its number, from 0.
        values: its point in words.
        epoch: completed epochs.
        epochs: number of epochs when it is not stopped.
        score: score after its last epoch; None before the first.
        images_per_s: speed of its last epoch; None before the first.
    """

    number: int
    values: str
    epoch: int
    epochs: int
    score: float | None = None
    images_per_s: float | None = None


class LiveTrials:
    """Shows the table in a terminal; a log gets lines alone.

    Args:
        console: console of the job, whose lines appear above the table.
    """

    def __init__(self, console: Console) -> None:
        self._console = console
        self._live: Live | None = None

    def __reduce__(self) -> tuple[type[LiveTrials], tuple[Console]]:
        """Pickle without the table: Ray Tune copies its callbacks, which hold one."""
        return (LiveTrials, (self._console,))

    def show(self, running: Sequence[RunningTrial], standing: str) -> None:
        """Replace the table.

        Args:
            running: the running trials.
            standing: state of the round in one line.
        """
        if not self._console.rich.is_terminal:
            return
        if self._live is None:
            self._live = Live(console=self._console.rich, auto_refresh=False, transient=True)
            self._live.start()
        self._live.update(Group(trial_table(running), Text(standing, style="bold")), refresh=True)

    def stop(self) -> None:
        """Remove the table."""
        if self._live is not None:
            self._live.stop()
            self._live = None


def trial_table(running: Sequence[RunningTrial]) -> Table:
    """The table of the running trials."""
    table = Table(box=None, pad_edge=False)
    for heading in HEADINGS:
        table.add_column(heading, justify="left" if heading == "values" else "right", style="default")
    for trial in sorted(running, key=lambda one: one.number):
        table.add_row(
            str(trial.number + 1),
            Text(printable(trial.values)),
            f"{trial.epoch}/{trial.epochs}",
            "" if trial.score is None else f"{trial.score:.3f}",
            "" if trial.images_per_s is None else f"{trial.images_per_s:,.0f}",
        )
    return table
