"""How far a run is, from its files alone: at any time, from any terminal, without Ray."""

from __future__ import annotations

import contextlib
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated

import tyro
from rich.console import Console

from canopy.cli import run_job
from canopy.stages.status import overview
from canopy.storage.run_dir import RunDir
from canopy.train.monitor.progress_table import WIDTH


@dataclass(frozen=True)
class Options:
    """Which run, and for how long."""

    run_dir: Annotated[str, tyro.conf.Positional, tyro.conf.arg(metavar="RUN_DIR")]
    """Directory or URI of the run."""
    watch: Annotated[bool, tyro.conf.FlagCreatePairsOff] = False
    """Show it again and again, until interrupted."""
    every: float = 5.0
    """Seconds between two looks."""


def status(argv: Sequence[str]) -> None:
    """Look once, or until interrupted."""
    options = tyro.cli(Options, args=list(argv), description=__doc__)
    run = RunDir(options.run_dir)
    console = Console(width=None if sys.stdout.isatty() else WIDTH, highlight=False)
    with contextlib.suppress(KeyboardInterrupt):
        console.print(overview(run, time.time()))
        while options.watch:
            time.sleep(options.every)
            shown = overview(run, time.time())
            console.clear()
            console.print(shown)


def main(argv: Sequence[str] | None = None) -> int:
    """Run the job; returns the exit status."""
    return run_job(status, argv)


if __name__ == "__main__":
    sys.exit(main())
