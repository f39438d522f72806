"""Which trainings start: order, room, overtaking, promised nodes."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from canopy.config import ModelConfig, OptimConfig, VariantConfig, derive
from canopy.train.fleet.scheduler import (
    ResourceRequest,
    estimate_work,
    longest_first,
    multiply_adds,
    never_fits,
    place,
    startable,
    with_promised_node,
)


def request(
    name: str, work: float, cpus: float = 0.0, gpus: float = 0.0, workers: int = 1, **more: float
) -> ResourceRequest:
    """A request of ``workers`` equal bundles."""
    amounts = {"CPU": cpus, "GPU": gpus, **more}
    return ResourceRequest(name, work, ({k: v for k, v in amounts.items() if v},) * workers)


def names(requests: list[ResourceRequest]) -> list[str]:
    return [one.name for one in requests]


def test_multiply_adds_match_published_numbers() -> None:
    assert multiply_adds("resnet18", 224, 64) == pytest.approx(1.82e9, rel=0.01)  # He et al. 2016: 1.8e9
    assert multiply_adds("test_resnet", None, 64) == multiply_adds("test_resnet", 64, 256)


def test_work_grows_with_epochs_size_and_network_and_shrinks_with_workers() -> None:
    base = VariantConfig(name="v", model=ModelConfig(backbone="test_resnet"), optim=OptimConfig(epochs=2))
    work = estimate_work(base, 1000, 32)
    assert estimate_work(derive(base, optim=derive(base.optim, epochs=4)), 1000, 32) == pytest.approx(
        2 * work
    )
    assert estimate_work(derive(base, scale=derive(base.scale, workers=2)), 1000, 32) == pytest.approx(
        work / 2
    )
    assert estimate_work(base, 2000, 32) == pytest.approx(2 * work)
    assert estimate_work(base, 1000, 64) == pytest.approx(4 * work, rel=0.05)
    smaller = derive(base, model=derive(base.model, backbone="test_byobnet"))
    assert estimate_work(smaller, 1000, 32) < work


def test_longest_first_keeps_the_order_of_equals() -> None:
    requests = [request("a", 1), request("b", 5), request("c", 5), request("d", 3)]
    assert names(longest_first(requests)) == ["b", "c", "d", "a"]


def test_as_many_start_as_fit_and_the_rest_wait() -> None:
    nodes = [{"CPU": 4.0}]
    requests = [request("a", 3, cpus=2), request("b", 2, cpus=2), request("c", 1, cpus=0.5)]
    assert startable(requests, [], nodes) == requests[:2]
    assert startable(requests[1:], requests[:1], nodes) == [requests[1]]
    assert startable(requests[2:], requests[:2], nodes) == []


def test_four_whole_gpus_run_beside_two_halves() -> None:
    nodes = [{"CPU": 32.0, "GPU": 4.0}, {"CPU": 8.0, "GPU": 1.0}]
    large = request("b5", 9, cpus=2, gpus=1, workers=4)
    small = [request(f"b0-{n}", 1, cpus=1, gpus=0.5) for n in range(3)]
    assert names(startable([large, *small], [], nodes)) == ["b5", "b0-0", "b0-1"]


def test_a_bundle_lies_on_one_node() -> None:
    nodes = [{"GPU": 1.0}, {"GPU": 1.0}]
    assert place([request("a", 1, gpus=0.6), request("b", 1, gpus=0.6)], nodes) is not None
    assert (
        place([request("a", 1, gpus=0.6), request("b", 1, gpus=0.6), request("c", 1, gpus=0.6)], nodes)
        is None
    )
    assert place([request("a", 1, gpus=2)], nodes) is None
    # A training without GPUs leaves the GPU nodes free.
    left = place([request("a", 1, cpus=2)], [{"CPU": 2.0, "GPU": 1.0}, {"CPU": 2.0}])
    assert left == [{"CPU": 2.0, "GPU": 1.0}, {"CPU": 0.0}]


def test_a_large_training_is_overtaken_only_without_delay() -> None:
    nodes = [{"GPU": 4.0}]
    running = [request("old", 10, gpus=1)]
    large, long, short = (
        request("large", 50, gpus=4),
        request("long", 20, gpus=1),
        request("short", 5, gpus=1),
    )
    # ``large`` waits for ``old``; ``short`` is expected to end before ``old``, ``long`` is not.
    assert names(startable([large, long, short], running, nodes)) == ["short"]
    # A training that leaves enough room for ``large`` may take any time.
    nodes = [{"GPU": 5.0}]
    assert names(startable([large, long], [request("old", 10, gpus=2)], nodes)) == ["long"]


@pytest.mark.parametrize("seed", range(20))
def test_no_training_starves_and_no_resource_is_used_twice(seed: int) -> None:
    """A random fleet, simulated to its end: the first in the queue starts within its bound."""
    rng = np.random.default_rng(seed)
    nodes = [{"CPU": 16.0, "GPU": 4.0}, {"CPU": 8.0, "GPU": 2.0}]
    gpus = enumerate(rng.choice([0.5, 1, 2, 4, 6], 40))
    requests = longest_first(
        request(f"u{n}", float(rng.integers(1, 30)), cpus=1, gpus=min(1.0, g), workers=max(1, int(g)))
        for n, g in gpus
    )
    waiting, running = list(requests), list[ResourceRequest]()
    clock, started = 0.0, dict[str, float]()
    bound: dict[str, float] = {}
    while waiting or running:
        for one in startable(waiting, running, nodes):
            waiting.remove(one)
            running.append(one)
            started[one.name] = clock
        assert place(running, nodes) is not None, "more trainings run than fit"
        assert running, "nothing runs and a training waits"
        if waiting and waiting[0].name not in bound:  # it is first in the queue: it waits for these at most
            bound[waiting[0].name] = clock + max(one.work for one in running)
        passed = min(one.work for one in running)
        clock += passed
        running = [replace(one, work=one.work - passed) for one in running if one.work - passed > 1e-9]
    assert set(started) == set(names(requests))
    for name, latest in bound.items():
        assert started[name] <= latest + 1e-6, f"{name} waited too long"


def test_trainings_that_fit_nowhere_start_one_at_a_time_and_block_no_other() -> None:
    """An autoscaler adds a node only for a pending request."""
    nodes = [{"CPU": 2.0}]
    first, second = request("first", 9, cpus=1, tpu=1), request("second", 8, cpus=1, tpu=1)
    small = request("small", 1, cpus=1)
    assert startable([first, second, small], [], nodes) == [first, small]
    assert startable([second], [first, small], nodes) == []


def test_promised_nodes_count_as_one_more_node() -> None:
    nodes = [{"CPU": 6.0}, {"CPU": 16.0, "GPU": 1.0}]
    grown = with_promised_node(nodes, {"CPU": 54.0, "GPU": 4.0})
    assert grown == [*nodes, {"CPU": 32.0, "GPU": 3.0}]
    assert with_promised_node(nodes, {"GPU": 1.0}) == nodes
    requests = [request(f"u{n}", 1, cpus=1, gpus=1) for n in range(5)]
    assert len(startable(requests, [], nodes)) == 1
    assert len(startable(requests, [], grown)) == 4


def test_nothing_starts_while_a_running_training_has_lost_its_node() -> None:
    running = [request("a", 5, gpus=1), request("b", 5, gpus=1)]
    assert startable([request("c", 1, gpus=1)], running, [{"GPU": 1.0}]) == []


def test_what_no_placement_can_hold_is_named() -> None:
    nodes = [{"CPU": 4.0}, {"CPU": 2.0, "GPU": 1.0}]
    assert never_fits(({"CPU": 2.0, "GPU": 1.0}, {"CPU": 4.0}), nodes) is None
    assert never_fits(({"CPU": 2.0},) * 3, nodes) is None
    assert never_fits(({"CPU": 1.0}, {"CPU": 3.0, "GPU": 1.0}), nodes) == (
        "a process of 3 CPU, 1 GPU, which no node has"
    )
    assert never_fits(({"CPU": 2.0},) * 4, nodes) == "processes of 8 CPU together, and all nodes have 6"
