"""Whole sweeps on Ray Tune: the search, the finalists, what becomes of bad trials."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any, cast

import numpy as np
import pytest
from tests.stages.prepared import prepared_context
from tests.support import read_json, tiny_experiment, write_config

from canopy.cli.options import load_config_file
from canopy.config import Experiment, SearchSpace, SweepConfig, derive
from canopy.data.loading.chip_source import ChipSource
from canopy.errors import StageError
from canopy.runtime.console import Console
from canopy.stages.prepare import load_catalogue
from canopy.storage import files
from canopy.sweep.equal_cost import EqualCost
from canopy.sweep.finals import FinalPoints
from canopy.sweep.records import TrialRecord
from canopy.sweep.search import StudySearch
from canopy.sweep.selection import Finalist
from canopy.sweep.stored_logits import write_logits
from jobs import pipeline, prepare, sweep

BEST = {"optim.lr": 0.01}


def search_with_finals(folder: Path, *, better: bool, dead: int | None = None) -> StudySearch:
    """A search whose runs of the default and of one finalist have ended; only their logits are made up."""
    space = SearchSpace({"optim.lr": [0.01, 0.02]})
    config = derive(tiny_experiment(), sweep=SweepConfig(space=space, finalists=1, objective="macro_f1"))
    prepared = prepared_context(folder, config)
    catalogue, chips = load_catalogue(prepared), cast(ChipSource, None)  # nothing is trained
    search = StudySearch(config, config.sweep_studies[0], catalogue, chips, prepared.run_dir, Console())
    context = search.final_context([{}, BEST])
    targets_NK = catalogue.targets_NK[catalogue.rows("val", fold=0)]
    draw = FinalPoints(({}, BEST), 3, config.variants[0].seed)
    for number in range(6):
        signal = 2.5 if better and number >= 3 else 1.0
        noise_NK = np.random.default_rng(number).normal(0, 1, targets_NK.shape)
        write_logits(
            context.logits_path(number), (signal * (2 * targets_NK - 1.0) + noise_NK).astype(np.float32)
        )
        error = "killed" if number == dead else None
        values = draw(number, {}, [])
        context.records.write(number, TrialRecord(values, None if error else 0.5, 2, False, error))
    return search


TRIALS = [TrialRecord(BEST, 0.6, 2, False, None), TrialRecord({"optim.lr": 0.02}, 0.5, 2, False, None)]


def test_a_clearly_better_finalist_replaces_the_default(tmp_path: Path) -> None:
    result = search_with_finals(tmp_path, better=True).judge(TRIALS)
    assert result.values == BEST
    assert [len(one.scores) for one in result.finalists] == [3, 3]
    assert "beats the default" in result.verdict


def test_an_equal_finalist_does_not(tmp_path: Path) -> None:
    result = search_with_finals(tmp_path, better=False).judge(TRIALS)
    assert result.values == {}
    assert result.best_trial == BEST
    assert result.verdict.startswith("the default stays: the best finalist, lr 0.01, gains ")


def test_without_another_complete_trial_nothing_is_run_again(tmp_path: Path) -> None:
    search = search_with_finals(tmp_path, better=True)
    own = TrialRecord({"optim.lr": 0.004}, 0.6, 2, False, None)
    config = derive(
        search.config, sweep=derive(search.settings, space=SearchSpace({"optim.lr": [0.004, 0.02]}))
    )
    search = replace(search, config=config, study=config.sweep_studies[0])
    result = search.judge([own, TrialRecord({"optim.lr": 0.02}, 0.9, 1, True, None)])
    assert (result.values, result.finalists) == ({}, ())


def finals_of(search: StudySearch) -> list[Finalist]:
    """The judgement of runs that have ended, without starting those that failed again."""
    return search.judge_finals([{}, BEST], search.final_context([{}, BEST]))


def test_a_finalist_that_failed_leaves_the_default_and_a_default_that_failed_is_an_error(
    tmp_path: Path,
) -> None:
    judged = finals_of(search_with_finals(tmp_path / "a", better=True, dead=4))
    assert [one.error for one in judged] == [None, "killed"]
    with pytest.raises(StageError, match="the untouched resnet failed to train: killed"):
        finals_of(search_with_finals(tmp_path / "b", better=True, dead=1))


def test_damaged_logits_are_named_and_their_run_is_repeated(tmp_path: Path) -> None:
    search = search_with_finals(tmp_path, better=True)
    context = search.final_context([{}, BEST])
    Path(context.logits_path(2)).write_bytes(b"damaged")
    with pytest.raises(StageError, match=r"2\.npy cannot be read .*Start again: its run is repeated"):
        search.judge(TRIALS)
    assert not context.records.is_finished(2)


def tiny_sweep(rows: int = 300, **settings: Any) -> Experiment:
    """An experiment of one variant of test size, swept over its loss and learning rate."""
    plain = tiny_experiment(rows=rows, variants=1, epochs=1)
    space = {
        "loss.name": ["bce", "focal"],
        "loss.gamma": {"low": 0, "high": 3},
        "optim.lr": {"low": 1e-3, "high": 1e-1, "log": True},
    }
    given = {"space": space, "trials": 3, "epochs": 2, "finalists": 1, "final_seeds": 2, **settings}
    return derive(plain, sweep=SweepConfig.model_validate(given))


def arguments_of(config: Experiment, folder: Path) -> list[str]:
    file = write_config(config, folder / "c.yaml")
    return ["--config", str(file), "--run-dir", str(folder / "run")]


@pytest.mark.slow
@pytest.mark.usefixtures("ray_here")
def test_a_search_its_finalists_and_a_second_start(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    config = tiny_sweep(rows=240, trials=2, epochs=1, scheduler="none")
    arguments, run = arguments_of(config, tmp_path), tmp_path / "run" / "sweep"
    assert prepare.main(arguments) == 0
    assert sweep.main(arguments) == 0
    output = capsys.readouterr().out
    assert "2 trials of resnet, up to 1 epochs, 2 at a time" in output
    assert "2 of 2 done, 0 running" in output
    assert "finalists of resnet: the default, " in output
    assert "4 final runs of resnet, up to 1 epochs" in output
    (study,) = read_json(run / "best.json")["studies"]
    assert study["variant"] == "resnet"
    assert [len(one["scores"]) for one in study["finalists"]] == [2, 2]
    assert study["values"] in ({}, study["finalists"][1]["values"])
    trials = read_json(run / "trials.json")
    assert trials[0]["values"] == {"loss.name": "focal", "loss.gamma": 2.0, "optim.lr": 4e-3}
    assert all(len(one["curve"]) == one["epochs"] for one in trials)
    assert files.read_table(str(run / "trials.parquet")).num_rows == sum(one["epochs"] for one in trials)
    assert not list((run / "points").glob("*.tar")), "ended trials need no checkpoint"
    assert sweep.main(arguments) == 0
    assert "done already: resnet: " in capsys.readouterr().out


@pytest.mark.slow
@pytest.mark.usefixtures("ray_here")
def test_a_diverging_trial_is_one_failed_trial(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    space = {"optim.lr": [4e-3, 1e30]}
    config = tiny_sweep(space=space, sampler="grid", trials=2, finalists=0)
    (variant,) = config.variants
    config = derive(config, variants=(derive(variant, optim=derive(variant.optim, clip_norm=None)),))
    arguments, run = arguments_of(config, tmp_path), tmp_path / "run" / "sweep"
    assert prepare.main(arguments) == 0
    assert sweep.main(arguments) == 0
    good, bad = read_json(run / "trials.json")
    assert good["error"] is None
    assert "the loss became" in bad["error"] or "not finite" in bad["error"]
    assert read_json(run / "best.json")["studies"][0]["values"] == {"optim.lr": 4e-3}
    assert "1 failed" in capsys.readouterr().out


@pytest.mark.slow
@pytest.mark.usefixtures("ray_here")
def test_two_variants_are_swept_each_over_its_own_space(tmp_path: Path) -> None:
    plain = tiny_experiment(rows=300, variants=2, epochs=1)
    first, second = plain.variants
    second = derive(second, loss={"name": "asymmetric"})
    settings = SweepConfig.model_validate(
        {
            "space": "focal-grid",
            "trials": 9,
            "epochs": 1,
            "finalists": 0,
            "variants": {"resnet-cbam": {"loss.clip": [0.0, 0.1]}},
            "sampler": "grid",
            "scheduler": "median",
            "objective": "ensemble",
        }
    )
    config = derive(plain, variants=(first, second), sweep=settings)
    arguments, run = arguments_of(config, tmp_path), tmp_path / "run" / "sweep"
    assert prepare.main(arguments) == 0
    assert sweep.main(arguments) == 0
    one, two = read_json(run / "best.json")["studies"]
    assert set(one["values"]) == {"loss.gamma", "loss.alpha"}
    assert set(two["values"]) == {"loss.clip"}
    counts = [trial["variant"] for trial in read_json(run / "trials.json")]
    assert (counts.count("resnet"), counts.count("resnet-cbam")) == (9, 2)


@pytest.mark.slow
@pytest.mark.usefixtures("ray_here")
def test_chosen_trials_are_trained_as_members_and_stopped_ones_are_completed(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    settings = {"space": {"optim.lr": [4e-3, 1e-7, 1e-8]}, "sampler": "grid", "concurrent": 1}
    config = tiny_sweep(rows=400, **settings, members=2, finalists=None)
    arguments, run = arguments_of(config, tmp_path), tmp_path / "run"
    assert pipeline.main(arguments) == 0
    output = capsys.readouterr().out
    assert "2 members need 1 more complete trials: of those that were stopped early, 1 run again" in output
    (study,) = read_json(run / "sweep" / "best.json")["studies"]
    trials = read_json(run / "sweep" / "trials.json")
    complete = {trial["number"] for trial in trials if not trial["stopped_early"]}
    assert len(complete) == 2
    assert {member["trial"] for member in study["members"]} == complete
    assert [member["values"] for member in study["members"]] == [
        trials[member["trial"]]["values"] for member in study["members"]
    ]
    trained = sorted(path.parent.parent.name for path in (run / "train").glob("*/*/done.json"))
    assert trained == ["resnet-1", "resnet-2"]
    settled = load_config_file(str(run / "sweep" / "best.yaml"))
    assert [(one.name, one.optim.lr) for one in settled.variants] == [
        (f"resnet-{n + 1}", member["values"]["optim.lr"]) for n, member in enumerate(study["members"])
    ]
    assert "Members of resnet: trials " in (run / "report" / "index.html").read_text()
    assert pipeline.main(arguments) == 0
    assert "resnet-2 done already" in capsys.readouterr().out


@pytest.mark.slow
@pytest.mark.usefixtures("ray_here")
def test_trials_of_equal_cost_and_another_sweep_that_starts_from_them(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    space = {"model.backbone": ["test_resnet", "test_efficientnet"]}
    given = {"finalists": 0, "epochs": 3, "scheduler": "none", "equal_cost": True}
    config = tiny_sweep(rows=240, space=space, sampler="grid", trials=2, **given)
    arguments, run = arguments_of(config, tmp_path), tmp_path / "run"
    assert prepare.main(arguments) == 0
    assert sweep.main(arguments) == 0
    rule = EqualCost(config.variants[0], 32)
    trials = read_json(run / "sweep" / "trials.json")
    assert [one["epochs"] for one in trials] == [rule.epochs(one["values"], 3) for one in trials]
    assert not any(one["stopped_early"] for one in trials)
    assert len({one["epochs"] for one in trials}) == 2
    (study,) = read_json(run / "sweep" / "best.json")["studies"]
    assert study["values"] == rule.at_full_length(study["best_trial"])

    capsys.readouterr()
    (tmp_path / "next").mkdir()
    wider = {**space, "optim.lr": {"low": 1e-3, "high": 1e-2, "log": True}}
    following = tiny_sweep(rows=300, space=wider, trials=2, warm_start=[str(run)], **given)
    arguments = arguments_of(following, tmp_path / "next")
    assert prepare.main(arguments) == 0
    assert sweep.main(arguments) == 0
    output = capsys.readouterr().out
    assert "warm start from 2 earlier trials of model.backbone; best backbone " in output
    assert len(read_json(tmp_path / "next" / "run" / "sweep" / "trials.json")) == 2
