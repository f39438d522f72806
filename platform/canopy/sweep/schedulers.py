"""Early stopping of trials by Ray Tune's schedulers, with a memory that survives a restart.

The curves of trials that ended in an earlier start are fed to the scheduler before the first trial runs. A
trial that continues from a checkpoint reports its former epochs again, marked :data:`REPLAYED`: the scheduler
takes note of them but does not stop the trial for them.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any, assert_never

from ray.tune.schedulers import ASHAScheduler, FIFOScheduler, MedianStoppingRule, TrialScheduler

from canopy.config import FieldValues, SweepConfig
from canopy.sweep.records import TrialRecord

REPLAYED = "replayed"
"""Key of a reported epoch that a former start has trained."""
TIME = "reference_epochs"
"""Key of the position of a trial, in epochs of the untouched variant."""
MIN_SAMPLES = 3
"""Number of other trials that the median needs."""
NO_SLICE: Any = float("inf")
"""Epochs after which Tune would pause a trial to let others catch up: never.

Tune counts them from minus infinity, so no whole number is large enough.
"""


@dataclass(frozen=True)
class EndedTrial:
    """A trial of an earlier start, as the schedulers see it."""

    trial_id: str
    """Unique name."""


class ReplayedEpochs:
    """Mixin: epochs of a former start are noted, and stop no trial."""

    def on_trial_result(self, tune_controller: Any, trial: Any, result: dict[str, Any]) -> str:
        """Decide after an epoch whether the trial goes on."""
        decision: str = super().on_trial_result(tune_controller, trial, result)  # type: ignore[misc]
        return TrialScheduler.CONTINUE if result.get(REPLAYED) else decision


class ResumableAsha(ReplayedEpochs, ASHAScheduler):
    """ASHA (Li et al. 2020)."""


class ResumableMedian(ReplayedEpochs, MedianStoppingRule):
    """Median stopping (Golovin et al. 2017)."""


def make_scheduler(
    settings: SweepConfig,
    epochs: int,
    ended: Iterable[tuple[int, TrialRecord]],
    position: Callable[[FieldValues, int], float] = lambda _, epoch: epoch,
) -> TrialScheduler:
    """The configured scheduler, with the memory of ended trials.

    Args:
        settings: the sweep's config.
        epochs: maximum number of epochs of a trial of the untouched variant.
        ended: numbers and records of trials of earlier starts.
        position: takes a trial's values and its epoch; gives its :data:`TIME`.
    """
    grace = min(settings.grace_epochs, epochs)
    scheduler: TrialScheduler
    match settings.scheduler:
        case "none":
            return FIFOScheduler()  # type: ignore[no-untyped-call]
        case "asha":
            scheduler = ResumableAsha(
                time_attr=TIME,
                metric="score",
                mode="max",
                max_t=epochs,
                grace_period=grace,
                reduction_factor=settings.reduction_factor,
            )
        case "median":
            scheduler = ResumableMedian(
                time_attr=TIME,
                metric="score",
                mode="max",
                grace_period=grace,
                min_samples_required=MIN_SAMPLES,
                min_time_slice=NO_SLICE,
            )
        case _:
            assert_never(settings.scheduler)
    for number, record in ended:
        replay(scheduler, number, record, position)
    return scheduler


def replay(
    scheduler: TrialScheduler,
    number: int,
    record: TrialRecord,
    position: Callable[[FieldValues, int], float],
) -> None:
    """Feed the curve of an ended trial to ``scheduler``."""
    trial: Any = EndedTrial(f"earlier-{number}")
    controller: Any = None
    scheduler.on_trial_add(controller, trial)
    for epoch, score in enumerate(record.curve, start=1):
        result = {"epoch": epoch, TIME: position(record.values, epoch), "score": score, REPLAYED: True}
        scheduler.on_trial_result(controller, trial, result)
