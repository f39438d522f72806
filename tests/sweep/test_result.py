from __future__ import annotations

from typing import Any

import pytest

from canopy.config import Experiment, SearchSpace, derive
from canopy.sweep.result import StudyResult, SweepResult
from canopy.sweep.selection import Finalist

FOCAL = {"loss.gamma": 1.5, "loss.alpha": 0.25}
FORMER = {"gamma": 1.5, "alpha": 0.25, "score": 0.7}
DEFAULT = Finalist({}, (0.5, 0.5))
WINNER = Finalist({"optim.lr": 0.01}, (0.6, 0.6), gain=0.1, seed_margin=0.05, row_low=0.02)


@pytest.fixture
def searched(tiny: Experiment) -> Experiment:
    """An experiment whose sweep is over other fields."""
    space = SearchSpace({"optim.lr": (0.01, 0.02), "loss.name": ("bce", "focal")})
    return derive(tiny, sweep=derive(tiny.sweep, space=space))


def test_the_file_of_a_focal_sweep_is_that_of_former_versions(tiny: Experiment) -> None:
    result = SweepResult((StudyResult("resnet", FOCAL, 0.7, FOCAL),), former=True)
    assert result.to_json() == FORMER
    assert list(result.to_json()) == ["gamma", "alpha", "score"]
    assert SweepResult.from_json(FORMER, tiny) == result


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
def test_a_damaged_focal_result_is_refused(content: Any, tiny: Experiment) -> None:
    with pytest.raises(ValueError, match="gamma"):
        SweepResult.from_json(content, tiny)


def test_other_fields_round_trip(searched: Experiment) -> None:
    result = SweepResult((StudyResult("resnet", WINNER.values, 0.6, WINNER.values, (DEFAULT, WINNER)),))
    assert SweepResult.from_json(result.to_json(), searched) == result


@pytest.mark.parametrize(
    "content",
    [
        None,
        {},
        {"studies": []},
        {"studies": [{}]},
        {"studies": [{**StudyResult("resnet", {"optim.lr": -1}, 0.5, {}).to_json()}]},
        {"studies": [{**StudyResult("resnet", {"optim.lrr": 1}, 0.5, {}).to_json()}]},
        {"studies": [{**StudyResult("other", {}, 0.5, {}).to_json()}]},
    ],
)
def test_damaged_results_are_refused(content: Any, searched: Experiment) -> None:
    with pytest.raises(ValueError, match=r"studies|optim\.lr|lrr"):
        SweepResult.from_json(content, searched)


def test_variants_take_the_values_that_they_ask_for(tiny: Experiment) -> None:
    swept, follower, plain = tiny.variants
    result = SweepResult((StudyResult("resnet", FOCAL, 0.5, FOCAL),), former=True)
    filled = result.apply(tiny, swept)
    assert (filled.loss.gamma, filled.loss.alpha) == (1.5, 0.25)
    assert derive(filled, loss=swept.loss) == swept
    assert result.apply(tiny, plain) == plain
    part = derive(follower, swept=("loss.gamma",))
    assert result.apply(tiny, part).loss == derive(follower.loss, gamma=1.5)
    stays = SweepResult((StudyResult("resnet", {}, 0.5, FOCAL, (DEFAULT,)),))
    assert stays.apply(tiny, swept) == swept


def test_verdicts_say_what_was_found() -> None:
    best = {"optim.lr": 0.01}
    assert StudyResult("a", best, 0.5, best).verdict == "best: lr 0.01 (val score 0.500)"
    won = StudyResult("a", best, 0.5, best, (DEFAULT, WINNER)).verdict
    assert (
        won == "lr 0.01 beats the default by +0.1000 (seeds alone reach 0.0500; over rows at least +0.0200)"
    )
    noisy = Finalist(best, (0.6, 0.6), gain=0.01, seed_margin=0.05, row_low=-0.02)
    stays = StudyResult("a", {}, 0.5, best, (DEFAULT, noisy)).verdict
    assert stays.startswith("the default stays: the best finalist, lr 0.01, gains +0.0100")
    alone = StudyResult("a", {}, 0.5, best).verdict
    assert alone == "the default stays: no other trial ran to its end"
    failed = StudyResult("a", {}, 0.5, best, (DEFAULT, Finalist(best, (), error="killed"))).verdict
    assert failed == "the default stays: the runs of every finalist failed"
