from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from canopy.config import EnsembleConfig
from canopy.labels import LabelSet
from canopy.sweep.members import Member, ValidationRows, by_score, choose_members, next_to_complete
from canopy.sweep.records import TrialRecord

LABELS = LabelSet(("a", "b"))
ROWS = 600


def record(lr: float, score: float | None, epochs: int = 4) -> TrialRecord:
    error = None if score is not None else "out of memory"
    return TrialRecord({"optim.lr": lr}, score, epochs, stopped_early=epochs < 4, error=error)


RECORDS = {
    0: record(0.01, 0.60),
    1: record(0.02, 0.59),
    2: record(0.03, 0.55),
    3: record(0.04, 0.70, epochs=2),
    4: record(0.01, 0.60),
    5: record(0.05, 0.72, epochs=1),
}


def test_complete_trials_compete_each_point_once() -> None:
    assert by_score(RECORDS) == [0, 1, 2]


def test_of_the_stopped_trials_the_longest_are_completed_first() -> None:
    assert next_to_complete(RECORDS) == [3, 5]
    assert next_to_complete({**RECORDS, 6: record(0.06, 0.71, epochs=2)}) == [6, 3, 5]


def test_a_point_of_which_a_trial_is_complete_is_not_completed_again() -> None:
    again = {6: record(0.01, 0.9, epochs=3), 7: record(0.04, 0.1, epochs=1)}
    assert next_to_complete({**RECORDS, **again}) == [3, 5]


def drawn(targets_NK: NDArray[np.uint8], signal: float, noise: int) -> NDArray[np.float32]:
    errors_NK = np.random.default_rng(noise).normal(0, 1, targets_NK.shape)
    return (1 / (1 + np.exp(2 - signal * targets_NK - errors_NK))).astype(np.float32)


def test_the_members_are_those_that_help_each_other_not_the_best_alone() -> None:
    rng = np.random.default_rng(0)
    targets_NK = (rng.random((ROWS, 2)) < 0.3).astype(np.uint8)
    probs = {
        0: drawn(targets_NK, 3.0, noise=1),
        1: drawn(targets_NK, 2.95, noise=1),  # the same errors as trial 0
        2: drawn(targets_NK, 2.7, noise=2),
    }
    rows = ValidationRows(np.array([f"chip{n}" for n in range(ROWS)]), targets_NK, LABELS)
    config = EnsembleConfig(folds=4, objective="macro_f1", calibration="platt")
    members = choose_members(RECORDS, probs, rows, config, 2)
    assert {one.trial for one in members} in ({0, 2}, {1, 2})
    taken = next(one for one in members if one.trial == 2)
    assert (taken.rank, taken.values) == (3, {"optim.lr": 0.03})
    assert members[1].together > members[0].together == members[0].alone
    assert Member.from_json(members[0].to_json()) == members[0]
