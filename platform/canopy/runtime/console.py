"""What a job says while it works: one line per event, with the time since the start and the stage."""

from __future__ import annotations

import time

from rich.console import Console as RichConsole
from rich.text import Text

STAGE_COLORS = {
    "prepare": "cyan",
    "sweep": "magenta",
    "train": "green",
    "ensemble": "yellow",
    "report": "blue",
}


def clock(seconds: float) -> str:
    """``0:42``, ``12:05``, ``1:02:03``."""
    minutes, s = divmod(round(max(0.0, seconds)), 60)
    hours, m = divmod(minutes, 60)
    return f"{hours}:{m:02}:{s:02}" if hours else f"{m}:{s:02}"


class Console:
    """Lines for the terminal and the job log alike; colours only where a person watches."""

    def __init__(self) -> None:
        self.rich = RichConsole(highlight=False, soft_wrap=True)
        self.start = time.monotonic()
        self._last: dict[str, float] = {}

    def __reduce__(self) -> tuple[type[Console], tuple[()]]:
        """Ray Tune keeps a copy of its callbacks; a copy of a console is a fresh one."""
        return (Console, ())

    def say(self, stage: str, text: str) -> None:
        """Print one line."""
        line = Text(f"{clock(time.monotonic() - self.start):>7}  ", style="dim")
        line.append(f"{stage:<9}", style=STAGE_COLORS.get(stage, "bold"))
        line.append(text, style="default")
        self.rich.print(line)

    def count(self, stage: str, what: str, done: int, total: int, since: float, every_s: float = 5.0) -> None:
        """Print how far a count has come, with rate and time left, at most once in ``every_s`` seconds.

        Args:
            stage: of the pipeline.
            what: is counted.
            done: so far.
            total: in the end; reaching it always prints.
            since: ``time.monotonic()`` at the start of counting.
            every_s: seconds between lines.
        """
        now = time.monotonic()
        if done < total and now - self._last.get(what, since) < every_s:
            return
        self._last[what] = now
        rate = done / max(now - since, 1e-9)
        left = f", {clock((total - done) / rate)} left" if 0 < done < total else ""
        self.say(stage, f"{what} {done:,} of {total:,} ({rate:,.0f}/s{left})")
