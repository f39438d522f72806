from __future__ import annotations

import json
import logging
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from canopy.config import FieldRange, LossConfig, Space, Study, SweepConfig, VariantConfig
from canopy.errors import RunDirError
from canopy.sweep.outputs import trials_summary
from canopy.sweep.records import TrialRecord
from canopy.sweep.samplers import next_point
from canopy.sweep.warm_start import (
    EarlierSearch,
    by_rank,
    is_offered,
    prior_trials,
    ranked_ended,
    read_searches,
    warm_start_text,
)

VARIANT = VariantConfig(name="a", loss=LossConfig(name="focal"))
SPACE: Space = {
    "optim.lr": FieldRange(low=1e-4, high=1e-1, log=True),
    "loss.name": ("bce", "focal"),
    "optim.batch_size": FieldRange(low=8, high=64, step=8),
}


def study(space: Space = SPACE) -> Study:
    return Study(VARIANT, space, "tpe", "sweep.space")


def trial(score: float | None, *, stopped: bool = False, **values: Any) -> TrialRecord:
    named = {name.replace("_", ".", 1): value for name, value in values.items()}
    return TrialRecord(named, score, 4, stopped, "killed" if score is None else None)


def store(folder: Path, trials: dict[str, list[TrialRecord]], *, former: bool = False) -> str:
    """A run directory with a finished sweep."""
    (folder / "sweep").mkdir(parents=True)
    (folder / "sweep" / "trials.json").write_text(json.dumps(trials_summary(trials, former)))
    return str(folder)


def test_searches_are_read_by_variant_also_those_of_former_versions(tmp_path: Path) -> None:
    trials = {"a": [trial(0.5, optim_lr=0.01), trial(None, optim_lr=0.1)], "b": [trial(0.4, optim_lr=0.02)]}
    found = read_searches(store(tmp_path / "new", trials))
    assert [(one.variant, [t.score for t in one.trials]) for one in found] == [
        ("a", [0.5, None]),
        ("b", [0.4]),
    ]
    focal = [trial(0.5, loss_gamma=1.0, loss_alpha=0.5)]
    (former,) = read_searches(store(tmp_path / "former", {"a": focal}, former=True))
    assert former.trials[0].values == {"loss.gamma": 1.0, "loss.alpha": 0.5}


@pytest.mark.parametrize(
    ("content", "got"),
    [
        (None, "no sweep/trials.json"),
        ("{", "unreadable trials"),
        ('[{"score": 1}]', "unreadable trials"),
        ("3", "unreadable trials"),
        ("[]", "no trial that ran to its end"),
    ],
)
def test_a_run_without_trials_is_one_clear_error(tmp_path: Path, content: str | None, got: str) -> None:
    if content is not None:
        (tmp_path / "sweep").mkdir()
        (tmp_path / "sweep" / "trials.json").write_text(content)
    need = rf"sweep.warm_start {tmp_path} must be a run directory with a finished sweep. Got: {got}"
    with pytest.raises(RunDirError, match=need):
        read_searches(str(tmp_path))


def test_scores_become_ranks_within_their_search() -> None:
    """The scores of another data set lie on another scale."""
    low = by_rank([trial(0.1, optim_lr=0.01), trial(0.3, optim_lr=0.02), trial(0.1, optim_lr=0.03)])
    high = by_rank([trial(0.91, optim_lr=0.01), trial(0.93, optim_lr=0.02), trial(0.91, optim_lr=0.03)])
    assert [one.score for one in low] == [one.score for one in high]
    assert [one.score for one in low] == pytest.approx([1 / 3, 5 / 6, 1 / 3])
    stopped = trial(0.99, stopped=True, optim_lr=0.05)
    own = ranked_ended({3: trial(0.5, optim_lr=0.1), 5: stopped, 6: trial(0.4, optim_lr=0.2)})
    assert [own[n].score for n in (3, 5, 6)] == [0.75, 0.99, 0.25]


def test_fields_and_trials_that_do_not_fit_are_left_out_and_named(caplog: pytest.LogCaptureFixture) -> None:
    fitting = trial(0.5, optim_lr=0.01, loss_name="bce", loss_tau=1.0)
    search = EarlierSearch(
        "runs/x",
        "b",
        (
            fitting,
            trial(0.6, optim_lr=0.5, loss_name="bce"),
            trial(0.7, optim_lr=0.01, loss_name="asymmetric"),
            trial(0.2, optim_batch_size=12),
            trial(0.4, stopped=True, optim_lr=0.02),
            trial(None, optim_lr=0.03),
        ),
    )
    with caplog.at_level(logging.WARNING):
        (prior,) = prior_trials(study(), [search])
    assert prior.values == {"optim.lr": 0.01, "loss.name": "bce"}
    assert prior.score == pytest.approx(0.375), "ranked among all complete trials of its search"
    fields, beyond = caplog.messages
    assert fields == (
        "warm start of a from runs/x, variant b: these fields are not searched here and left out: loss.tau"
    )
    assert (
        "3 trials lie beyond the space and are left out: lr 0.5, name bce; lr 0.01, name asymmetric" in beyond
    )
    assert warm_start_text([prior]) == (
        "warm start from 1 earlier trials of optim.lr, loss.name; best lr 0.01, name bce"
    )


def test_a_search_without_a_shared_field_gives_nothing(caplog: pytest.LogCaptureFixture) -> None:
    search = EarlierSearch("runs/x", "", (trial(0.5, loss_tau=1.0),))
    with caplog.at_level(logging.WARNING):
        assert prior_trials(study(), [search]) == ()
    assert "no field is shared: it searched loss.tau" in caplog.text


def test_the_variant_of_the_same_name_comes_before_others_of_its_run() -> None:
    same = EarlierSearch("runs/x", "a", (trial(0.5, optim_lr=0.01),))
    other = EarlierSearch("runs/x", "b", (trial(0.5, optim_lr=0.02),))
    elsewhere = EarlierSearch("runs/y", "c", (trial(0.5, optim_lr=0.03),))
    priors = prior_trials(study(), [same, other, elsewhere])
    assert [one.values["optim.lr"] for one in priors] == [0.01, 0.03]


@pytest.mark.parametrize(
    ("name", "value", "offered"),
    [
        ("optim.lr", 0.01, True),
        ("optim.lr", 0.2, False),
        ("loss.name", "asymmetric", False),
        ("optim.batch_size", 16, True),
        ("optim.batch_size", 20, False),
        ("optim.batch_size", 16.5, False),
        ("optim.batch_size", "16", False),
    ],
)
def test_values_must_be_ones_that_the_sampler_could_draw(name: str, value: Any, offered: bool) -> None:
    assert is_offered(SPACE, name, value) == offered


def test_earlier_trials_guide_the_first_points_and_are_not_repeated_as_results() -> None:
    """The earlier search found that a learning rate near 0.05 is best; its scores are far above today's."""
    rng = np.random.default_rng(0)
    rates = 10 ** rng.uniform(-4, -1, 20)
    trials = tuple(trial(0.99 - abs(np.log10(rate / 0.05)) / 9, optim_lr=float(rate)) for rate in rates)
    space: Space = {"optim.lr": SPACE["optim.lr"]}
    priors = prior_trials(study(space), [EarlierSearch("runs/x", "a", trials)])
    assert len(priors) == 20
    records = {0: trial(0.2, optim_lr=2e-3)}

    def drawn(priors: tuple[TrialRecord, ...]) -> list[float]:
        points = [
            next_point(study(space), SweepConfig(seed=seed), 1, records, [], priors) for seed in range(20)
        ]
        return [abs(np.log10(point["optim.lr"] / 0.05)) for point in points if point]

    assert np.median(drawn(priors)) < np.median(drawn(())) / 2
    own = {"optim.lr": VARIANT.optim.lr}
    assert next_point(study(space), SweepConfig(), 0, {}, [], priors) == own, "the variant itself comes first"


def test_a_file_in_place_of_a_run_is_one_clear_error(tmp_path: Path) -> None:
    (tmp_path / "run").write_text("")
    with pytest.raises(RunDirError, match=r"run must be a run directory.*Got: no sweep/trials.json"):
        read_searches(str(tmp_path / "run"))
