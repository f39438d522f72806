"""The estimate of an experiment's nodes and cost."""

from __future__ import annotations

from dataclasses import replace

import pytest
from tests.support import REPOSITORY

from canopy.config import BudgetConfig, Experiment, SweepConfig, derive
from canopy.config.presets import preset
from canopy.cost.estimate import cpus_of_a_node, estimate, jobs_of, refuse_over_budget, training_hours
from canopy.cost.groups import read_cluster
from canopy.cost.prices import load_prices
from canopy.errors import ConfigError
from canopy.runtime.stage import Stage
from canopy.train.fleet.scheduler import multiply_adds

CLUSTER = str(REPOSITORY / "cluster.yaml")


def test_the_hours_of_a_training_are_its_operations_over_the_speed(on_gpus: Experiment) -> None:
    prices = derive(load_prices(None), start_seconds=0, gpu_teraflops=1e-6)
    one, two = on_gpus.variants
    rows = on_gpus.training_rows(600)
    assert rows == 200  # half of them train; of these, two of three folds
    operations = 6 * multiply_adds("test_resnet", None, 32) * rows * one.optim.epochs
    assert training_hours(one, rows, on_gpus, prices) == pytest.approx(operations / 1e6 / 3600)
    twice = derive(two, scale=derive(two.scale, workers=1))
    assert training_hours(twice, rows, on_gpus, prices) == pytest.approx(
        2 * training_hours(two, rows, on_gpus, prices)
    )


def test_stages_follow_each_other_and_trials_run_as_many_at_once_as_the_sweep_says(
    on_gpus: Experiment,
) -> None:
    prices = load_prices(None)
    jobs = jobs_of(on_gpus, 600, tuple(Stage), read_cluster(CLUSTER, prices), prices)
    assert [job.name.split()[0] for job in jobs] == ["prepare"] + ["sweep"] * 5 + ["train"] * 6
    assert [job.after for job in jobs] == [0] + [1] * 5 + [6] * 6
    assert [job.together for job in jobs] == [None] + [2] * 5 + [None] * 6
    found = estimate(on_gpus, 600)
    spans = found.schedule.jobs
    trials = [span for span in spans if span.name.startswith("sweep")]
    first_training = min(span.start for span in spans if span.name.startswith("train"))
    assert max(trial.end for trial in trials) <= first_training
    for trial in trials:
        beside = [other for other in trials if other.start <= trial.start < other.end]
        assert len(beside) <= 2
    (prepare,) = (span for span in spans if span.name.startswith("prepare"))
    assert prepare.nodes == {"cpu": 1}
    only = estimate(on_gpus, 600, [Stage.TRAIN])
    assert {span.name.split()[0] for span in only.schedule.jobs} == {"train"}
    assert only.cost < found.cost


def test_members_are_trained_in_place_of_their_variant_and_trials_take_its_workers_where_asked(
    on_gpus: Experiment,
) -> None:
    prices, table = load_prices(None), read_cluster(CLUSTER, load_prices(None))
    two = derive(on_gpus.variants[1], swept=True, loss={"name": "focal"})
    config = derive(on_gpus, folds=1, variants=(two,))
    sweep = SweepConfig(trials=4, members=3)
    jobs = jobs_of(derive(config, sweep=sweep), 600, tuple(Stage), table, prices)
    trained = [job.name.partition(" ")[2] for job in jobs if job.name.startswith("train")]
    assert sorted(trained) == [f"{two.name}-{n}" for n in (1, 2, 3)]
    own, shared = (
        jobs_of(derive(config, sweep=derive(sweep, workers=workers)), 600, [Stage.SWEEP], table, prices)
        for workers in ("variant", "one")
    )
    assert two.scale.workers == 2
    assert sum("GPU" in bundle for bundle in own[0].bundles) == 2
    assert sum("GPU" in bundle for bundle in shared[0].bundles) == 1


@pytest.mark.parametrize(
    ("limits", "problem"),
    [
        ({"max_cost": 0.01}, r"--max-cost must be at least the estimate. Got: 0.01 and an estimate of \d"),
        ({"max_node_hours": 0.01}, r"--max-node-hours must be at least the estimate. Got: 0.01 and an est"),
    ],
)
def test_an_estimate_above_a_limit_is_refused(
    on_gpus: Experiment, limits: dict[str, float], problem: str
) -> None:
    found = estimate(on_gpus, 600)
    refuse_over_budget(on_gpus, found)
    limited = derive(on_gpus, budget=derive(on_gpus.budget, **limits))
    with pytest.raises(ConfigError, match=problem):
        refuse_over_budget(limited, found)
    enough = derive(on_gpus.budget, max_cost=found.cost, max_node_hours=found.node_hours)
    refuse_over_budget(derive(on_gpus, budget=enough), found)


def test_prepare_counts_on_nodes_without_gpus_though_those_with_them_are_cheaper() -> None:
    groups = {group.name: group for group in read_cluster(CLUSTER, load_prices(None)).groups}
    cpu, spot = replace(groups["cpu"], resources={"CPU": 8.0}), groups["gpu1-spot"]
    assert cpu.price > spot.price
    whole = read_cluster(CLUSTER, load_prices(None))
    assert cpus_of_a_node(replace(whole, groups=(spot, cpu))) == 8
    assert cpus_of_a_node(replace(whole, groups=(spot,))) == 16
    assert cpus_of_a_node(replace(whole, groups=())) == 1


def test_a_training_that_no_group_can_hold_is_an_error_at_once(on_gpus: Experiment) -> None:
    (one, two) = on_gpus.variants
    giant = derive(one, scale=derive(one.scale, gpus_per_worker=8))
    with pytest.raises(ConfigError, match=r"must have node groups that can hold every training. Got: none"):
        estimate(derive(on_gpus, variants=(giant, two), sweep=SweepConfig(trials=0)), 600)


def test_every_preset_has_an_estimate_on_cluster_yaml() -> None:
    config = derive(preset("planet32"), budget=BudgetConfig(cluster=CLUSTER))
    found = estimate(config, 40_479)
    assert 0 < found.cost < 1000
