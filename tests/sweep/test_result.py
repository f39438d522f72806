from __future__ import annotations

from typing import Any

import pytest

from canopy.config import Experiment, SearchSpace, derive
from canopy.sweep.members import Member
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
    filled, _, unchanged = result.variants(tiny)
    assert (filled.loss.gamma, filled.loss.alpha) == (1.5, 0.25)
    assert derive(filled, loss=swept.loss) == swept
    assert unchanged == plain
    part = derive(follower, swept=("loss.gamma",))
    partly = derive(tiny, variants=(swept, part, plain))
    assert result.variants(partly)[1].loss == derive(follower.loss, gamma=1.5)
    stays = SweepResult((StudyResult("resnet", {}, 0.5, FOCAL, (DEFAULT,)),))
    assert stays.variants(tiny)[0] == swept


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


MEMBERS = (
    Member(4, {"optim.lr": 0.01}, rank=1, alone=0.6, together=0.6),
    Member(2, {"optim.lr": 0.03}, rank=3, alone=0.55, together=0.66),
)


def with_members(searched: Experiment) -> tuple[Experiment, SweepResult]:
    config = derive(searched, sweep=derive(searched.sweep, members=2, finalists=None))
    best = MEMBERS[0].values
    return config, SweepResult((StudyResult("resnet", best, 0.5, best, members=MEMBERS),))


def test_members_take_the_place_of_the_swept_variant(searched: Experiment) -> None:
    config, result = with_members(searched)
    swept, *others = config.variants
    first, second, *rest = result.variants(config)
    assert [one.name for one in result.variants(config)] == [one.name for one in config.trained_variants]
    assert (first.name, first.optim.lr, first.seed) == ("resnet-1", 0.01, swept.seed)
    assert (second.name, second.optim.lr, second.seed) == ("resnet-2", 0.03, swept.seed + 1)
    assert derive(second, name="resnet", seed=swept.seed, optim=swept.optim) == swept
    assert len(rest) == len(others)


def test_members_are_read_back_and_must_be_as_many_as_the_config_says(searched: Experiment) -> None:
    config, result = with_members(searched)
    assert SweepResult.from_json(result.to_json(), config) == result
    with pytest.raises(ValueError, match="2 members"):
        SweepResult.from_json(result.to_json(), searched)
    fewer = SweepResult((StudyResult("resnet", {}, 0.5, {}, members=MEMBERS[:1]),))
    with pytest.raises(ValueError, match="1 members"):
        SweepResult.from_json(fewer.to_json(), config)


def test_the_verdict_names_the_members_with_their_ranks_and_gain(searched: Experiment) -> None:
    _, result = with_members(searched)
    (study,) = result.studies
    assert study.verdict == (
        "members of resnet: trials 5 (rank 1), 3 (rank 3) with lr 0.01; lr 0.03; together 0.660, "
        "+0.060 over the first alone"
    )
