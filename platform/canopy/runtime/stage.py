"""The names of an experiment's stages, in the order in which they run."""

from __future__ import annotations

from enum import StrEnum


class Stage(StrEnum):
    """A stage; its value is its name on the console and its directory in the run."""

    PREPARE = "prepare"
    SWEEP = "sweep"
    TRAIN = "train"
    ENSEMBLE = "ensemble"
    REPORT = "report"
