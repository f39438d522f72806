"""The one argument of every stage: the experiment, its run directory and the console."""

from __future__ import annotations

from dataclasses import dataclass

from canopy.config import Experiment
from canopy.runtime.console import Console
from canopy.storage.run_dir import RunDir


@dataclass(frozen=True)
class StageContext:
    """What a stage works with.

    Args:
        config: the whole experiment.
        run_dir: the run directory that the stage reads and writes.
        console: receives one line per event.
    """

    config: Experiment
    run_dir: RunDir
    console: Console
