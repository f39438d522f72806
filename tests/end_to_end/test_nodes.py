"""A private cluster of several nodes: nodes die, come late, or do not come."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import pytest
from tests.clusters import Job, Nodes, trains_on
from tests.support import committed, read_json, tiny_experiment

from canopy.config import Experiment, FleetConfig, derive

pytestmark = pytest.mark.slow

PATIENCE_S = 400
LATE_S = 75
"""Seconds; more than the minute after which Ray Train itself gives up a placement."""


def experiment(epochs: int, fleet: FleetConfig, **scale: Any) -> Experiment:
    config = tiny_experiment(variants=1, trials=0)
    (variant,) = config.variants
    seats = derive(variant.scale, accelerator="seat", **scale)
    variant = derive(variant, scale=seats, optim=derive(variant.optim, epochs=epochs))
    return derive(config, variants=(variant,), fleet=fleet)


def test_a_training_resumes_on_another_node_when_its_own_is_lost(
    nodes: Nodes, start: Callable[[Experiment], Job]
) -> None:
    """The chips lie in the object store of the driver's node; tasks of the lost node run again."""
    seats = [nodes.add(), nodes.add()]
    job = start(experiment(30, FleetConfig(max_failures=1)))
    job.wait_for("a checkpoint", lambda: committed(job.run))
    (lost,) = [node for node in seats if trains_on(node)]
    nodes.kill(lost)
    assert job.progress()["epoch"] < 30
    history = job.ends_well()
    assert [record["epoch"] for record in history] == list(range(1, 31))
    facts = read_json(job.train / "facts.json")
    assert facts["resumed"], "it began from the start"


def test_an_elastic_training_resumes_with_fewer_workers_when_a_node_is_lost(
    nodes: Nodes, start: Callable[[Experiment], Job]
) -> None:
    seats = [nodes.add(), nodes.add()]
    job = start(experiment(30, FleetConfig(max_failures=1), workers=2, min_workers=1))
    job.wait_for("a checkpoint", lambda: committed(job.run))
    assert job.progress()["ranks"] == 2
    assert all(trains_on(node) for node in seats)
    nodes.kill(seats[1])
    history = job.ends_well()
    assert job.progress()["ranks"] == 1
    assert [record["epoch"] for record in history] == list(range(1, 31))
    assert read_json(job.train / "facts.json")["resumed"], "it began from the start"
    # Batch size and learning rate are global, so the schedule ends at its lowest rate.
    assert history[-1]["lr"] < 0.02 * max(record["lr"] for record in history)


def test_waiting_for_a_slow_node_is_no_failure(nodes: Nodes, start: Callable[[Experiment], Job]) -> None:
    limits = FleetConfig(max_failures=0, controller_failure_limit=0, max_preemption_failures=0)
    job = start(experiment(2, limits))
    job.wait_for("the placement of workers", nodes.placement_requested)
    time.sleep(LATE_S)
    assert job.process.poll() is None, job.log.read_text()
    assert not job.progress(), "it trains without a seat"
    nodes.add()
    assert [record["epoch"] for record in job.ends_well()] == [1, 2]


def test_nodes_that_never_come_end_an_elastic_training_in_time(
    nodes: Nodes, start: Callable[[Experiment], Job]
) -> None:
    limits = FleetConfig(capacity_timeout_s=5)
    job = start(experiment(2, limits, workers=2, min_workers=1))
    assert job.process.wait(timeout=PATIENCE_S) == 1
    line = "The cluster had no room for scale.min_workers within 5 s (fleet.capacity_timeout_s)"
    assert line in job.log.read_text()
