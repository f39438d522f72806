from __future__ import annotations

from typing import Any

import pytest

from canopy.sweep.selection import SweepResult, select_best
from canopy.sweep.trials import TrialRecord


def record(gamma: float, score: float | None, epochs: int = 4) -> TrialRecord:
    error = "out of memory" if score is None else None
    return TrialRecord(gamma, 0.5, score=score, epochs=epochs, stopped_early=epochs < 4, error=error)


def test_the_highest_score_wins() -> None:
    best = select_best([record(0, 0.4), record(1, 0.6), record(2, 0.5), record(3, None, 0)])
    assert best == SweepResult(gamma=1, alpha=0.5, score=0.6)


def test_trials_that_were_stopped_early_do_not_compete() -> None:
    best = select_best([record(0, 0.9, epochs=1), record(1, 0.5)])
    assert best is not None
    assert best.gamma == 1


def test_of_equal_trials_the_first_wins() -> None:
    best = select_best([record(1, 0.5), record(2, 0.5)])
    assert best is not None
    assert best.gamma == 1


@pytest.mark.parametrize("records", [[], [record(0, None, 0)]])
def test_without_a_score_there_is_no_best(records: list[TrialRecord]) -> None:
    assert select_best(records) is None


def test_json_round_trip() -> None:
    result = SweepResult(1.5, 0.25, 0.7)
    assert result.to_json() == {"gamma": 1.5, "alpha": 0.25, "score": 0.7}
    assert list(result.to_json()) == ["gamma", "alpha", "score"]
    assert SweepResult.from_json(result.to_json()) == result


@pytest.mark.parametrize(
    "content",
    [
        None,
        [],
        {},
        {"gamma": 1, "alpha": 0.5},
        {"gamma": "1", "alpha": 0.5, "score": 0.5},
        {"gamma": float("nan"), "alpha": 0.5, "score": 0.5},
        {"gamma": -1, "alpha": 0.5, "score": 0.5},
        {"gamma": 1, "alpha": 1.5, "score": 0.5},
    ],
)
def test_a_damaged_result_is_refused(content: Any) -> None:
    with pytest.raises(ValueError, match="gamma"):
        SweepResult.from_json(content)
