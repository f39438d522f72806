"""Metrics of the fleet: nodes by group, lost nodes, trainings by state."""

from __future__ import annotations

from typing import Any

import pytest
import ray
from ray.core.generated import common_pb2
from tests.ray_metrics_page import Values, metric_values, wait_for_values

from canopy.train.fleet.fleet_metrics import PLANNED_ENDS, FleetMetrics, group_of, lost_nodes


def node(alive: bool = True, reason: int = 0, **labels: str) -> dict[str, Any]:
    names = {"group": "canopy/group", "market": "canopy/market", "type": "ray.io/node-group"}
    labels = {names[name]: value for name, value in labels.items()}
    return {"Alive": alive, "DeathReason": reason, "Labels": labels}


def test_the_group_of_a_node_names_its_market() -> None:
    assert group_of(node(group="gpu1", market="spot")) == "gpu1-spot"
    assert group_of(node(type="gpu1-spot", market="spot")) == "gpu1-spot"
    assert group_of(node(group="head")) == "head"
    assert group_of({"Alive": True}) == "other"


def test_only_nodes_that_were_not_meant_to_end_are_lost() -> None:
    messages: Any = common_pb2
    reasons = dict(messages.NodeDeathInfo.Reason.items())
    planned = {reasons["EXPECTED_TERMINATION"], reasons["AUTOSCALER_DRAIN_IDLE"]}
    assert planned == set(PLANNED_ENDS)
    dead = [node(False, reason, group="gpu1", market="spot") for reason in reasons.values()]
    assert lost_nodes([node(group="gpu1"), *dead]) == {"gpu1-spot": len(reasons) - 2}


@pytest.mark.usefixtures("ray_here")
def test_the_gauges_reach_prometheus_and_count_from_the_start() -> None:
    dead = node(False, 2, group="gpu1", market="spot")
    metrics = FleetMetrics("/runs/fleet-metrics", 6, [dead])
    nodes = [*ray.nodes(), dead, dead]  # type: ignore[no-untyped-call]

    def seen() -> dict[tuple[str, ...], float]:
        metrics.update(running=2, queued=1, failed=1, nodes=nodes)
        states = metric_values("canopy_trainings", "/runs/fleet-metrics", "state")
        lost = metric_values("canopy_nodes_lost", "/runs/fleet-metrics", "group")
        return {**states, **lost, **metric_values("canopy_nodes", "/runs/fleet-metrics", "group")}

    wanted: Values = {
        ("queued",): 1,
        ("running",): 2,
        ("failed",): 1,
        ("done",): 2,
        ("other",): 1,
        ("gpu1-spot",): 0,
    }
    assert wait_for_values(seen, wanted) == wanted
    assert metric_values("canopy_nodes_lost", "/runs/fleet-metrics", "group") == {
        ("gpu1-spot",): 1,
        ("other",): 0,
    }
