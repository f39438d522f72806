"""The names of an experiment's stages."""

from __future__ import annotations

from enum import StrEnum


class Stage(StrEnum):
    """A stage; members are in the order of execution.

    The value is the stage's name on the console and the name of its directory in the run directory.
    """

    PREPARE = "prepare"
    SWEEP = "sweep"
    TRAIN = "train"
    ENSEMBLE = "ensemble"
    REPORT = "report"


ON_RAY = (Stage.PREPARE, Stage.SWEEP, Stage.TRAIN)
"""Stages that run Ray tasks or actors."""
