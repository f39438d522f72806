from __future__ import annotations

from typing import Any

import pytest
from ray.tune.schedulers import TrialScheduler

from canopy.config import SweepConfig
from canopy.config.sweep import SchedulerName
from canopy.sweep.records import TrialRecord
from canopy.sweep.schedulers import REPLAYED, TIME, EndedTrial, make_scheduler


def curve(*scores: float) -> TrialRecord:
    return TrialRecord({}, scores[-1], len(scores), False, None, tuple(scores))


GOOD = {n: curve(0.5 + 0.01 * n, 0.6 + 0.01 * n, 0.7, 0.8) for n in range(4)}


def decision(
    name: SchedulerName, ended: dict[int, TrialRecord], *scores: float, replayed: int = 0
) -> list[str]:
    """What the scheduler says after each epoch of a new trial."""
    scheduler = make_scheduler(SweepConfig(scheduler=name), 4, ended.items())
    trial: Any = EndedTrial("new")
    controller: Any = None
    scheduler.on_trial_add(controller, trial)
    said = []
    for epoch, score in enumerate(scores, start=1):
        result = {"epoch": epoch, TIME: epoch, "score": score} | (
            {REPLAYED: True} if epoch <= replayed else {}
        )
        said.append(scheduler.on_trial_result(controller, trial, result))
    return said


@pytest.mark.parametrize("name", ["asha", "median"])
def test_a_bad_trial_is_stopped_by_the_memory_of_an_earlier_start(name: SchedulerName) -> None:
    assert decision(name, GOOD, 0.1) == [TrialScheduler.STOP]
    assert decision(name, GOOD, 0.9) == [TrialScheduler.CONTINUE]
    assert decision(name, {}, 0.1) == [TrialScheduler.CONTINUE], "without memory it is the first"


def test_epochs_of_a_former_start_stop_no_trial_but_are_remembered() -> None:
    assert decision("asha", GOOD, 0.1, 0.1, replayed=1) == [TrialScheduler.CONTINUE, TrialScheduler.STOP]
    assert decision("asha", GOOD, 0.1, 0.65, 0.7, replayed=2) == [TrialScheduler.CONTINUE] * 3


def test_without_early_stopping_every_trial_goes_on() -> None:
    assert decision("none", GOOD, 0.1, 0.1) == [TrialScheduler.CONTINUE] * 2


def test_the_grace_period_is_at_most_the_epochs() -> None:
    scheduler = make_scheduler(SweepConfig(grace_epochs=9), 4, [])
    assert scheduler._brackets[0]._rungs[-1][0] == 4  # type: ignore[attr-defined]
