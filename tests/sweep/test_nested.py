"""Trials of several workers as Ray Train runs inside Ray Tune."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from ray import tune
from tests.support import read_json, start_job, tiny_experiment, write_config

from canopy.config import Experiment, ResourcesConfig, SweepConfig, derive
from canopy.errors import ConfigError
from canopy.sweep.nested import WAITING, check_nested_trials, concurrent_trials, refuse_unplaceable

PATIENCE_S = 500
SPACE = {"optim.lr": [4e-3, 1e-7, 1e-8]}


def swept(processes: int, **settings: object) -> Experiment:
    """One variant of test size with ``processes`` workers, swept as it is trained."""
    plain = tiny_experiment(rows=240, variants=1, epochs=1)
    scale = ResourcesConfig(workers=processes, cpus_per_worker=0.25)
    given = {"space": SPACE, "sampler": "grid", "trials": 3, "epochs": 2, "finalists": 0, **settings}
    return derive(
        plain,
        variants=(derive(plain.variants[0], scale=scale),),
        sweep=SweepConfig.model_validate({"workers": "variant", **given}),
    )


def test_the_process_that_waits_can_be_placed() -> None:
    """Ray Tune refuses a trial without resources."""
    (bundle,) = tune.PlacementGroupFactory([WAITING]).bundles
    assert bundle == WAITING


def test_as_many_trials_run_at_a_time_as_the_nodes_hold() -> None:
    scale = ResourcesConfig(workers=2, cpus_per_worker=1)
    assert concurrent_trials(scale, 4, [{"CPU": 8}]) == 3, "each also needs CPUs for its data"
    assert concurrent_trials(scale, 2, [{"CPU": 8}]) == 2
    assert concurrent_trials(scale, 4, [{"CPU": 4}, {"CPU": 4}]) == 3
    assert concurrent_trials(scale, 4, [{"CPU": 1}]) == 1, "it waits for a node to come"


def test_more_workers_than_the_cluster_can_ever_give_are_one_clear_error() -> None:
    config = swept(8)
    (study,) = config.sweep_studies
    refuse_unplaceable(study, config.sweep, [{"CPU": 2}, {"CPU": 2}])
    with pytest.raises(
        ConfigError, match=r"with the 8 workers of a trial of resnet. Got: processes of .* CPU together"
    ):
        refuse_unplaceable(study, config.sweep, [{"CPU": 2}])


@pytest.mark.usefixtures("ray_here")
def test_without_the_dashboard_trials_of_several_workers_are_refused() -> None:
    with pytest.raises(ConfigError, match=r"sweep.workers variant needs Ray's dashboard"):
        check_nested_trials(swept(2))
    check_nested_trials(swept(1))
    check_nested_trials(swept(2, workers="one"))


@pytest.mark.slow
def test_trials_of_two_workers_are_trained_stopped_and_recorded(tmp_path: Path) -> None:
    """The second and third trial are stopped early; their workers' places must become free again."""
    arguments = ["--config", str(write_config(swept(2, concurrent=1), tmp_path / "c.yaml"))]
    arguments += ["--run-dir", str(tmp_path / "run")]
    env, log = {**os.environ, "RAY_AUTH_MODE": "disabled"}, tmp_path / "log"
    for name in ("prepare", "sweep"):
        assert start_job(name, *arguments, env=env, log=log).wait(PATIENCE_S) == 0, log.read_text()
    best, *others = read_json(tmp_path / "run" / "sweep" / "trials.json")
    assert (best["epochs"], best["stopped_early"], best["error"], len(best["curve"])) == (2, False, None, 2)
    assert [(one["epochs"], one["stopped_early"], one["error"]) for one in others] == [(1, True, None)] * 2
    assert "epoch 2/2" in log.read_text()
    assert log.read_text().count("images/s on 2 workers") == 4
    points = tmp_path / "run" / "sweep" / "points"
    assert not list(points.glob("*.tar")) + list(points.glob("*-ray")), "only points are left"
