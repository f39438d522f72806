"""Resources of trainings and of the cluster."""

from __future__ import annotations

import pytest

from canopy.config import FleetConfig, ResourcesConfig
from canopy.train.fleet.resources import bundles, cluster_capacity, worker_resources


def test_a_training_needs_its_workers_and_their_data_tasks() -> None:
    assert (
        bundles(ResourcesConfig(workers=2, cpus_per_worker=0.5)) == ({"CPU": 0.5},) * 2 + ({"CPU": 0.25},) * 2
    )
    worker, task = bundles(
        ResourcesConfig(workers=1, cpus_per_worker=1, gpus_per_worker=0.5, accelerator="l4")
    )
    assert (worker, task) == ({"CPU": 1.0, "GPU": 0.5, "l4": 1.0}, {"CPU": 0.25})


def test_a_worker_without_gpus_requests_none() -> None:
    assert worker_resources(ResourcesConfig(cpus_per_worker=2)) == {"CPU": 2}


@pytest.mark.usefixtures("ray_here")
def test_capacity_is_that_of_the_living_nodes_and_the_promised_rest() -> None:
    (node,) = cluster_capacity(FleetConfig())
    assert node["CPU"] == 4
    assert cluster_capacity(FleetConfig(promised={"GPU": 2}))[1:] == [{"GPU": 2.0}]
