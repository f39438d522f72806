from __future__ import annotations

from canopy.sweep.finals import FinalPoints


def test_final_runs_are_every_candidate_with_every_further_seed() -> None:
    draw = FinalPoints(({}, {"optim.lr": 0.1}), seeds=2, first=4)
    points = [draw(number, {}, []) for number in range(4)]
    assert points == [{"seed": 5}, {"seed": 6}, {"optim.lr": 0.1, "seed": 5}, {"optim.lr": 0.1, "seed": 6}]
