from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from canopy.sweep.records import TrialRecord
from canopy.sweep.selection import Finalist, finalists, judge, ranked, verdict, winner


def record(gamma: float, score: float | None, epochs: int = 4) -> TrialRecord:
    error = "out of memory" if score is None else None
    return TrialRecord(
        {"loss.gamma": gamma}, score=score, epochs=epochs, stopped_early=epochs < 4, error=error
    )


def gammas(records: list[TrialRecord]) -> list[Any]:
    return [one.values["loss.gamma"] for one in records]


def test_the_highest_score_comes_first() -> None:
    found = ranked([record(0, 0.4), record(1, 0.6), record(2, 0.5), record(3, None, 0)])
    assert gammas(found) == [1, 2, 0]


def test_trials_that_were_stopped_early_do_not_compete() -> None:
    assert gammas(ranked([record(0, 0.9, epochs=1), record(1, 0.5)])) == [1]


def test_of_equal_trials_the_first_wins() -> None:
    assert gammas(ranked([record(1, 0.5), record(2, 0.5)])) == [1, 2]


@pytest.mark.parametrize("records", [[], [record(0, None, 0)]])
def test_without_a_score_there_is_no_best(records: list[TrialRecord]) -> None:
    assert ranked(records) == []


def test_finalists_are_distinct_and_not_the_default() -> None:
    records = [record(0, 0.9), record(1, 0.8), record(1, 0.7), record(2, 0.6), record(3, 0.95, epochs=1)]
    assert finalists(records, {"loss.gamma": 0}, 2) == [{"loss.gamma": 1}, {"loss.gamma": 2}]
    assert finalists(records, None, 1) == [{"loss.gamma": 0}]


SEED_NOISE, ROW_NOISE, SEARCH_NOISE = 0.01, 0.003, 0.01


def world(
    rng: np.random.Generator, effect: float, trials: int = 12, count: int = 2, seeds: int = 3
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """A made-up sweep: ``trials`` points, all as good as the default but the first, which gains ``effect``.

    A score is the point's merit, plus what its errors cost on these rows, plus the seed's noise. The search
    sees each point with one seed and chooses the best ``count``; these run again with new seeds. The rows are
    the same in both, as in a real sweep.
    """
    merit = np.zeros(trials + 1)
    merit[1] = effect
    on_rows = merit + rng.normal(0, ROW_NOISE, trials + 1)
    searched = on_rows[1:] + rng.normal(0, SEARCH_NOISE, trials)
    chosen = np.concatenate([[0], 1 + np.argsort(-searched)[:count]])
    scores_CS = on_rows[chosen][:, None] + rng.normal(0, SEED_NOISE, (count + 1, seeds))
    drawn_CB = scores_CS.mean(1)[:, None] + rng.normal(0, ROW_NOISE, (count + 1, 400))
    return scores_CS, drawn_CB


def replaced(effect: float, worlds: int = 800) -> float:
    """Share of made-up sweeps in which the default is replaced."""
    rng, won = np.random.default_rng(1), 0
    for _ in range(worlds):
        scores_CS, drawn_CB = world(rng, effect)
        points = [{}, *({"optim.lr": float(c)} for c in range(1, len(scores_CS)))]
        judged = verdict(points, scores_CS.tolist(), drawn_CB, [None] * len(points))
        won += bool(winner(judged).values)
    return won / worlds


def test_without_an_effect_the_default_stays() -> None:
    """The promise: at most one default in twenty is replaced by chance (Monte Carlo error about .008)."""
    assert replaced(effect=0.0) <= 0.05 + 0.01


def test_taking_the_highest_score_would_replace_it_nearly_always() -> None:
    rng = np.random.default_rng(2)
    scores = [world(rng, 0.0)[0].mean(1) for _ in range(400)]
    assert np.mean([means.argmax() > 0 for means in scores]) > 0.6


def test_a_large_effect_is_found() -> None:
    assert replaced(effect=0.08, worlds=200) > 0.9


def test_noise_shared_by_a_seed_does_not_count() -> None:
    shared = np.array([0.0, 0.3, -0.2])
    scores_CS = np.stack([0.5 + shared, 0.52 + shared + [0.001, -0.001, 0]])
    gains = judge(scores_CS, np.stack([np.full(50, 0.5), np.full(50, 0.52)]))
    assert gains.gain_C == pytest.approx([0.02])
    assert gains.seed_margin < 0.01
    assert gains.row_low_C == pytest.approx([0.02])


def test_rows_that_do_not_agree_keep_the_default() -> None:
    scores_CS = np.array([[0.50, 0.50, 0.50], [0.52, 0.52, 0.5201]])
    drawn_CB = np.stack([np.full(400, 0.5), np.random.default_rng(0).normal(0.52, 0.05, 400)])
    judged = verdict([{}, {"optim.lr": 1.0}], scores_CS.tolist(), drawn_CB, [None, None])
    assert judged[1].gain is not None
    assert judged[1].seed_margin is not None
    assert judged[1].gain > judged[1].seed_margin
    assert winner(judged) is judged[0]


def test_a_failed_finalist_does_not_compete() -> None:
    points = [{}, {"optim.lr": 1.0}, {"optim.lr": 2.0}]
    drawn_CB = np.stack([np.full(50, 0.1), np.full(50, np.nan), np.full(50, 0.3)])
    judged = verdict(points, [[0.1, 0.1], [], [0.3, 0.3001]], drawn_CB, [None, "out of memory", None])
    assert (judged[1].gain, judged[1].error) == (None, "out of memory")
    assert winner(judged) is judged[2]
    alone = verdict(points[:2], [[0.1, 0.1], []], drawn_CB[:2], [None, "out of memory"])
    assert winner(alone) is alone[0]


def test_finalists_round_trip() -> None:
    one = Finalist({"optim.lr": 1.0}, (0.5, 0.6), gain=0.2, seed_margin=0.1, row_low=0.05)
    assert Finalist.from_json(one.to_json()) == one
    assert one.to_json()["is_better"] is True
