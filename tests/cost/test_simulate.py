"""The simulated schedule: which nodes, when, for how long."""

from __future__ import annotations

import pytest

from canopy.cost.groups import Cluster, PricedGroup
from canopy.cost.simulate import Schedule, SimulatedJob, Unplaceable, simulate

GPU = {"CPU": 4.0, "GPU": 1.0}
HEAD = PricedGroup("head", {"CPU": 0.0}, 0, 0.5)
CPU = PricedGroup("cpu", {"CPU": 16.0}, 2, 1.0)
SPOT = PricedGroup("gpu1-spot", {"CPU": 16.0, "GPU": 1.0}, 2, 0.6, priority=1, is_spot=True)
DEMAND = PricedGroup("gpu1-on-demand", {"CPU": 16.0, "GPU": 1.0}, 2, 1.4)
FOUR = PricedGroup("gpu4", {"CPU": 48.0, "GPU": 4.0}, 1, 4.0)


def cluster(*groups: PricedGroup, max_nodes: int = 10, boot: float = 0.1, idle: float = 0.2) -> Cluster:
    return Cluster(HEAD, groups, max_nodes, idle_hours=idle, boot_hours=boot)


def jobs(count: int, hours: float = 1.0, needs: tuple[dict[str, float], ...] = (GPU,)) -> list[SimulatedJob]:
    return [SimulatedJob(f"job{n}", needs, hours) for n in range(count)]


def started(schedule: Schedule) -> dict[str, int]:
    names = [node.group for node in schedule.nodes]
    return {name: names.count(name) for name in dict.fromkeys(names)}


def test_a_job_waits_for_its_node_and_both_are_charged() -> None:
    schedule = simulate(jobs(1), cluster(SPOT))
    (job,) = schedule.jobs
    assert (job.start, job.end, job.nodes) == (0.1, 1.1, {"gpu1-spot": 1})
    assert schedule.hours == 1.1
    assert schedule.node_hours == pytest.approx(2.2)
    assert schedule.cost == pytest.approx(1.1 * 0.5 + 1.1 * 0.6)


def test_jobs_without_gpus_take_cpu_nodes_though_a_gpu_node_is_cheaper() -> None:
    schedule = simulate(jobs(1, needs=({"CPU": 1.0},)), cluster(SPOT, CPU))
    assert started(schedule) == {"head": 1, "cpu": 1}
    assert started(simulate(jobs(1, needs=({"CPU": 1.0},)), cluster(SPOT))) == {"head": 1, "gpu1-spot": 1}


def test_spot_comes_first_then_what_is_dearer_then_the_rest_waits() -> None:
    schedule = simulate(jobs(5), cluster(SPOT, DEMAND))
    assert started(schedule) == {"head": 1, "gpu1-spot": 2, "gpu1-on-demand": 2}
    assert [job.start for job in schedule.jobs] == [0.1] * 4 + [1.1]
    assert schedule.hours == pytest.approx(2.1), "the fifth finds a node that is there"


def test_the_limit_of_all_nodes_holds() -> None:
    schedule = simulate(jobs(4), cluster(SPOT, DEMAND, max_nodes=1))
    assert started(schedule) == {"head": 1, "gpu1-spot": 1}
    assert schedule.hours == pytest.approx(4.1)


def test_a_large_job_takes_a_large_node_and_several_small_ones_share_one() -> None:
    large = simulate(jobs(1, needs=({"CPU": 8.0, "GPU": 2.0},)), cluster(SPOT, FOUR))
    assert started(large) == {"head": 1, "gpu4": 1}
    shared = simulate(jobs(4, needs=({"CPU": 1.0, "GPU": 0.5},)), cluster(SPOT, FOUR))
    assert started(shared) == {"head": 1, "gpu1-spot": 2}


def test_idle_nodes_end_and_give_their_places_to_others() -> None:
    first, second = jobs(1, needs=({"CPU": 1.0},)), jobs(1)
    schedule = simulate(
        [*first, SimulatedJob("later", second[0].bundles, 1.0, after=1)], cluster(SPOT, CPU, max_nodes=1)
    )
    cpu = next(node for node in schedule.nodes if node.group == "cpu")
    assert cpu.end == pytest.approx(1.1 + 0.2)
    later = next(job for job in schedule.jobs if job.name == "later")
    assert later.start == pytest.approx(1.3 + 0.1)


def test_the_place_of_a_node_that_became_idle_is_taken_while_others_work() -> None:
    prepare = SimulatedJob("prepare", ({"CPU": 1.0},), 1.0)
    trainings = [SimulatedJob(f"train{n}", (GPU,), 10.0, after=1) for n in range(2)]
    schedule = simulate([prepare, *trainings], cluster(DEMAND, CPU, max_nodes=2))
    assert started(schedule) == {"head": 1, "cpu": 1, "gpu1-on-demand": 2}
    starts = {job.name: job.start for job in schedule.jobs}
    # The first takes the second place; the other one waits for the end of the idle CPU node.
    assert starts["train0"] == pytest.approx(1.1 + 0.1)
    assert starts["train1"] == pytest.approx(1.1 + 0.2 + 0.1)


def test_jobs_of_one_name_run_as_many_at_a_time_as_they_may() -> None:
    hours = (3.0, 1.0, 1.0, 1.0)
    trials = [SimulatedJob("trial", (GPU,), one, together=2) for one in hours]
    schedule = simulate(trials, cluster(SPOT, DEMAND))
    # The short ones follow each other beside the long one, in whichever order they end.
    assert sorted(job.start for job in schedule.jobs) == pytest.approx([0.1, 0.1, 1.1, 2.1])
    assert schedule.hours == pytest.approx(3.1)
    other = SimulatedJob("other", (GPU,), 1.0)
    assert (
        min(j.start for j in simulate([*trials, other], cluster(SPOT, DEMAND)).jobs if j.name == "other")
        == 0.1
    )


def test_a_job_starts_after_those_before_it() -> None:
    trials = [SimulatedJob(f"trial{n}", (GPU,), 1.0, after=max(0, n - 1)) for n in range(4)]
    schedule = simulate(trials, cluster(SPOT))
    assert [job.start for job in schedule.jobs] == pytest.approx([0.1, 0.1, 1.1, 1.1])


def test_what_no_group_can_hold_is_named() -> None:
    with pytest.raises(Unplaceable, match="job0"):
        simulate(jobs(1, needs=({"GPU": 8.0},)), cluster(SPOT, FOUR))
    with pytest.raises(Unplaceable, match="job0"):
        simulate(jobs(1, needs=(GPU,) * 3), cluster(SPOT))  # three nodes of a group of two


def test_preemptions_cost_time_and_are_reproducible() -> None:
    calm = simulate(jobs(6, hours=3.0), cluster(SPOT))
    rough = [simulate(jobs(6, hours=3.0), cluster(SPOT), 0.5, 0.2, seed) for seed in (0, 0, 1)]
    assert rough[0] == rough[1] != rough[2]
    for schedule in rough:
        assert sum(job.preemptions for job in schedule.jobs) > 0
        assert schedule.hours > calm.hours
        assert {job.name for job in schedule.jobs} == {f"job{n}" for n in range(6)}
        # Each preemption costs at most the time since the last checkpoint and the boot of a new node.
        lost = sum(job.preemptions for job in schedule.jobs) * (0.2 + 0.1)
        assert schedule.hours <= calm.hours + lost + 1e-9
    assert simulate(jobs(6, hours=3.0), cluster(DEMAND), 0.5, 0.2).hours == calm.hours, "not on demand"


def test_without_jobs_nothing_is_charged() -> None:
    assert simulate([], cluster(SPOT)).cost == 0
