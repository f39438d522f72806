"""Resources of trainings and of the cluster."""

from __future__ import annotations

import pytest

from canopy.config import Experiment, FleetConfig, ResourcesConfig, derive
from canopy.errors import ConfigError
from canopy.runtime.node_groups import NodeGroup, NodeGroups
from canopy.train.fleet import resources
from canopy.train.fleet.resources import bundles, check_demand, cluster_capacity, worker_resources


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


@pytest.mark.usefixtures("ray_here")
@pytest.mark.parametrize(
    ("scale", "reason"),
    [
        ({"gpus_per_worker": 1}, "a process of 0.25 CPU, 1 GPU, which no node has"),
        ({"accelerator": "l4"}, "a process of 0.25 CPU, 1 l4, which no node has"),
        ({"cpus_per_worker": 4}, "processes of 4.25 CPU together, and all nodes have 4"),
        ({"workers": 2, "min_workers": 1, "cpus_per_worker": 5}, "a process of 5 CPU, which no node has"),
    ],
)
def test_a_variant_that_never_fits_is_refused(
    tiny: Experiment, scale: dict[str, object], reason: str
) -> None:
    variant = derive(tiny.variants[0], scale=derive(tiny.variants[0].scale, **scale))
    config = derive(tiny, variants=(variant, *tiny.variants[1:]))
    check_demand(tiny)
    with pytest.raises(
        ConfigError, match=f"variant {variant.name}: scale must fit.*Got: {reason}.* such as GPU 4"
    ):
        check_demand(config)
    check_demand(derive(config, fleet=FleetConfig(promised={"GPU": 1, "l4": 1, "CPU": 16})))


@pytest.mark.usefixtures("ray_here")
def test_groups_of_the_autoscaler_are_nodes_to_come(
    tiny: Experiment, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of a cluster that was joined; this process has started its Ray itself."""
    monkeypatch.setattr(resources, "started_here", lambda: False)
    config = derive(
        tiny, variants=(derive(tiny.variants[0], scale=derive(tiny.variants[0].scale, accelerator="l4")),)
    )
    check_demand(config)  # which nodes may come is not known
    monkeypatch.setattr(
        resources, "autoscaler_groups", lambda: NodeGroups((NodeGroup("l4", {"CPU": 4.0, "l4": 1.0}, 2),), 2)
    )
    assert cluster_capacity(FleetConfig())[1:] == [{"CPU": 4.0, "l4": 1.0}] * 2
    check_demand(config)
    monkeypatch.setattr(
        resources, "autoscaler_groups", lambda: NodeGroups((NodeGroup("cpu", {"CPU": 4.0}, 2),), 2)
    )
    with pytest.raises(ConfigError, match="which no node has"):
        check_demand(config)
