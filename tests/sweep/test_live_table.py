from __future__ import annotations

import io
import pickle

from rich.console import Console as RichConsole

from canopy.runtime.console import Console
from canopy.sweep.live_table import LiveTrials, RunningTrial

TRIALS = [
    RunningTrial(8, "lr 0.01", 2, 4, 0.5, 1234.5),
    RunningTrial(2, "lr [red]0.1\x1b[2J", 0, 4),
]


def console_on(terminal: bool) -> tuple[Console, io.StringIO]:
    console, out = Console(), io.StringIO()
    console.rich = RichConsole(file=out, force_terminal=terminal, width=100, color_system=None)
    return console, out


def test_a_terminal_shows_the_running_trials_below_the_lines() -> None:
    console, out = console_on(terminal=True)
    live = LiveTrials(console)
    live.show(TRIALS, "3 of 9 done, 2 running, best so far 0.500, about 1:20 left")
    text = out.getvalue()
    rows = [line.split() for line in text.splitlines()]
    assert ["9", "lr", "0.01", "2/4", "0.500", "1,234"] in rows
    assert text.index("lr [red]0.1") < text.index("lr 0.01"), "by number, and no text is taken for markup"
    assert "\x1b[2J" not in text
    assert "3 of 9 done, 2 running, best so far 0.500, about 1:20 left" in text
    live.show(TRIALS[:1], "4 of 9 done")
    console.say("sweep", "a line")
    assert "a line" in out.getvalue()
    live.stop()
    live.stop()


def test_a_log_gets_no_table() -> None:
    console, out = console_on(terminal=False)
    LiveTrials(console).show(TRIALS, "3 of 9 done")
    assert out.getvalue() == ""


def test_it_is_copied_without_the_table() -> None:
    console, _ = console_on(terminal=True)
    live = LiveTrials(console)
    live.show(TRIALS, "3 of 9 done")
    assert isinstance(pickle.loads(pickle.dumps(live)), LiveTrials)
    live.stop()
