"""``jobs/benchmarks/fleet simulate``: the simulated fleet on several numbers of GPUs."""

from __future__ import annotations

import pytest
from jobs.benchmarks.fleet.__main__ import main
from jobs.benchmarks.fleet.simulate import hours_between_checkpoints, lower_bound, outcome, with_gpus
from tests.support import REPOSITORY

from canopy.config import Experiment, derive
from canopy.config.presets import preset
from canopy.cost.estimate import jobs_of, training_hours
from canopy.cost.groups import Cluster, read_cluster
from canopy.cost.prices import load_prices
from canopy.cost.simulate import SimulatedJob
from canopy.runtime.stage import Stage

CLUSTER = str(REPOSITORY / "cluster.yaml")


@pytest.fixture(scope="module")
def amazon() -> Experiment:
    """The preset with small networks in place of the large ones, whose operations take seconds to count."""
    config = preset("amazon")
    small = [derive(v, model=derive(v.model, backbone="test_resnet")) for v in config.variants]
    return derive(config, variants=tuple(small))


def on(gpus: int) -> Cluster:
    return with_gpus(read_cluster(CLUSTER, load_prices(None)), "gpu4-spot", gpus)


def test_more_gpus_are_never_slower_and_the_bound_holds(amazon: Experiment) -> None:
    # So slow that the work outweighs starts and boots.
    prices = derive(load_prices(None), gpu_teraflops=0.001)
    hours, shares = [], []
    for gpus in (4, 16, 64):
        cluster = on(gpus)
        jobs = jobs_of(amazon, 40_479, tuple(Stage), cluster, prices)
        found = outcome(jobs, cluster, 0.0, 0.0, 0)
        bound = lower_bound(jobs, gpus, amazon)
        assert bound <= found.schedule.hours
        hours.append(found.schedule.hours)
        shares.append(found.gpu_share)
        if gpus == 4:
            assert found.schedule.hours < 1.6 * bound
    assert hours == sorted(hours, reverse=True)
    assert all(0 < share <= 1 for share in shares)


def test_the_same_work_costs_more_time_with_preemptions(amazon: Experiment) -> None:
    prices = derive(load_prices(None), gpu_teraflops=0.001)
    jobs = jobs_of(amazon, 40_479, tuple(Stage), on(4), prices)
    calm, rough = (outcome(jobs, on(4), rate, 0.2, seed=1) for rate in (0.0, 0.3))
    assert calm.preemptions == 0 < rough.preemptions
    assert rough.schedule.hours > calm.schedule.hours


def test_the_bound_counts_the_gpus_of_every_job_and_the_trials_at_a_time(amazon: Experiment) -> None:
    two_gpus = ({"GPU": 1.0},) * 2
    jobs = [SimulatedJob("sweep v trials", two_gpus, 3.0)] * 8 + [SimulatedJob("train v", two_gpus, 5.0)]
    config = derive(amazon, sweep=derive(amazon.sweep, concurrent=4))
    assert lower_bound(jobs, 4, config) == pytest.approx(8 * 3 * 2 / 4 + 5 * 2 / 4)
    assert lower_bound(jobs, 64, config) == pytest.approx(3 + 5), "the longest of each stage"
    assert lower_bound(jobs[1:], 20, config) == pytest.approx(max(3 + 5, 7 * 3 / 4 + 5 * 2 / 20))


def test_without_checkpoints_by_time_a_lost_node_costs_up_to_an_epoch(amazon: Experiment) -> None:
    prices = derive(load_prices(None), start_seconds=0)
    assert hours_between_checkpoints(amazon, 40_479, prices) == pytest.approx(10 / 60)
    by_epoch = derive(amazon, fleet=derive(amazon.fleet, checkpoint_minutes=None))
    longest = max(
        training_hours(v, amazon.training_rows(40_479), amazon, prices)
        / (v.optim.epochs + v.optim.rebalance_epochs)
        for v in amazon.variants
    )
    assert 0 < longest == hours_between_checkpoints(by_epoch, 40_479, prices)


def test_the_command_prints_a_row_per_number_of_gpus(capsys: pytest.CaptureFixture[str]) -> None:
    arguments = [
        "--preset-name",
        "planet32",
        "--gpus",
        "1",
        "4",
        "--cluster",
        CLUSTER,
        "--group",
        "gpu1-spot",
    ]
    assert main(["simulate", *arguments, "--seeds", "2"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == "planet32, 40,479 chips, nodes of gpu1-spot, 0.05 preemptions per hour"
    assert [line.split()[0] for line in lines[3:5]] == ["1", "4"]


@pytest.mark.parametrize(
    ("arguments", "problem"),
    [
        (["--preset-name", "amazn"], "--preset-name must be a preset. Got: amazn. Nearest: amazon"),
        (["--gpus", "6"], "--gpus must be multiples of the 4 GPUs of a node of gpu4-spot. Got: 6."),
        (["--group", "cpu"], "--group must be a node group with GPUs. Got: cpu."),
        (["--cluster", "gone.yaml"], "budget.cluster must be a file for `ray up`. Got: gone.yaml."),
    ],
)
def test_bad_input_is_one_clear_error(
    arguments: list[str], problem: str, capsys: pytest.CaptureFixture[str]
) -> None:
    words = arguments if "--cluster" in arguments else [*arguments, "--cluster", CLUSTER]
    assert main(["simulate", *words]) == 2
    assert capsys.readouterr().err.startswith(f"error: {problem}")
