"""A round: which points its trials get, and when no further one begins."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from ray.tune.search import Searcher
from tests.support import tiny_experiment

from canopy.config import SweepConfig, derive
from canopy.storage.run_dir import RunDir
from canopy.sweep.records import TrialRecord, TrialRecords
from canopy.sweep.rounds import PointSearcher, RoundClock
from canopy.sweep.trials import TrialContext, search_parameters

SETTINGS = SweepConfig(trials=3, epochs=4, grace_epochs=9)
KEY = "0123456789abcdef"


class Draws:
    """A sampler that notes what it was given."""

    def __init__(self, limit: int = 99) -> None:
        self.limit = limit
        self.given: list[tuple[int, int, int]] = []

    def __call__(
        self, number: int, done: dict[int, TrialRecord], running: list[Any]
    ) -> dict[str, Any] | None:
        self.given.append((number, len(done), len(running)))
        return {"optim.lr": number + 1.0} if number < self.limit else None


def searcher_in(
    folder: Path, numbers: list[int], draws: Draws, minutes_s: float | None = None
) -> PointSearcher:
    records = TrialRecords(RunDir(str(folder)), KEY)
    return PointSearcher(numbers, draws, records, RoundClock(records.file("clock.json"), minutes_s))


def test_points_are_drawn_once_and_kept_by_a_second_start(tmp_path: Path) -> None:
    draws = Draws()
    first = searcher_in(tmp_path, [0, 1], draws)
    assert first.suggest("a") == search_parameters(0, {"optim.lr": 1.0})
    assert first.suggest("b") == search_parameters(1, {"optim.lr": 2.0})
    assert first.suggest("c") == Searcher.FINISHED
    assert draws.given == [(0, 0, 0), (1, 0, 1)]
    again = Draws()
    second = searcher_in(tmp_path, [1], again)
    assert json.loads(second.suggest("d")["values"]) == {"optim.lr": 2.0}
    assert again.given == []


def test_the_sampler_sees_the_trials_that_ended_meanwhile(tmp_path: Path) -> None:
    draws = Draws()
    searcher = searcher_in(tmp_path, [0, 1], draws)
    searcher.suggest("a")
    # Another object, as Ray Tune may copy its callbacks.
    record = TrialRecord({"optim.lr": 1.0}, 0.5, 4, False, None)
    TrialRecords(RunDir(str(tmp_path)), KEY).write(0, record)
    searcher.on_trial_complete("a")
    searcher.suggest("b")
    assert draws.given == [(0, 0, 0), (1, 1, 0)]


def test_a_space_without_further_points_ends_the_round(tmp_path: Path) -> None:
    searcher = searcher_in(tmp_path, [0, 1], Draws(limit=1))
    searcher.suggest("a")
    assert searcher.suggest("b") == Searcher.FINISHED


def test_no_trial_begins_after_the_time_is_used_up_over_all_starts(tmp_path: Path) -> None:
    searcher = searcher_in(tmp_path, [0, 1, 2], Draws(), minutes_s=100)
    clock = searcher._clock
    clock.former_s = 99.9
    searcher.suggest("a")
    clock.former_s = 200
    assert searcher.suggest("b") != Searcher.FINISHED, "no trial has ended: there would be no result"
    TrialRecords(RunDir(str(tmp_path)), KEY).write(0, TrialRecord({}, 0.5, 4, False, None))
    searcher.on_trial_complete("a")
    assert searcher.suggest("c") == Searcher.FINISHED
    later = RoundClock(clock.path, 100)
    later.load()
    assert later.is_over


def test_a_damaged_clock_starts_at_zero(tmp_path: Path) -> None:
    path = tmp_path / "clock.json"
    path.write_text("{")
    clock = RoundClock(str(path), 1)
    clock.load()
    assert clock.former_s == 0


def test_a_round_counts_the_epochs_of_both_phases() -> None:
    variant = tiny_experiment().variants[0]
    longer = derive(variant, optim=derive(variant.optim, epochs=3, rebalance_epochs=2))
    chips: Any = None
    context = TrialContext(longer, SETTINGS, chips, TrialRecords(RunDir("/nowhere"), KEY))
    assert context.epochs == 5
