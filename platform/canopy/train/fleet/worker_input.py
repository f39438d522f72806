"""The input of a training worker, as Ray Train sends it to every rank."""

from __future__ import annotations

from dataclasses import dataclass

from canopy.config import FleetConfig, TrackingConfig
from canopy.data.loading.chip_source import ChipSource
from canopy.train.training_run import TrainingRun


@dataclass(frozen=True)
class WorkerInput:
    """Everything that a worker needs to train one variant on one fold.

    Args:
        training_run: the training.
        chips: the decoded images.
        tracking: where to log metrics.
        fleet: interval between checkpoints.
    """

    training_run: TrainingRun
    chips: ChipSource
    tracking: TrackingConfig
    fleet: FleetConfig
