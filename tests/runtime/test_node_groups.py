"""The groups of nodes in a cluster's config."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import yaml
from ray.core.generated import common_pb2
from tests.support import REPOSITORY

from canopy.cost.prices import load_prices
from canopy.runtime.node_groups import (
    PLANNED_ENDS,
    NodeGroup,
    NodeGroups,
    autoscaler_groups,
    group_or_other,
    labelled_group,
    living_by_group,
    lost_by_group,
    node_groups,
)

CONFIG = {
    "max_workers": 3,
    "head_node_type": "head",
    "available_node_types": {
        "head": {"resources": {"CPU": 0}, "max_workers": 0},
        "cpu": {"resources": {"CPU": 8}, "max_workers": 2},
        "gpu": {"resources": {"CPU": 4, "GPU": 1}, "max_workers": 9},
        "off": {"resources": {"CPU": 4}, "max_workers": 0},
        "unknown": {"max_workers": 2},
    },
}
CPU, GPU = NodeGroup("cpu", {"CPU": 8.0}, 2), NodeGroup("gpu", {"CPU": 4.0, "GPU": 1.0}, 3)
GROUPS = NodeGroups((CPU, GPU), 3)
CLUSTER = yaml.safe_load((REPOSITORY / "cluster.yaml").read_text("utf-8"))


def test_groups_of_workers_within_the_limits_of_the_cluster() -> None:
    assert node_groups(CONFIG) == GROUPS


def test_the_config_is_read_where_ray_up_leaves_it(tmp_path: Path) -> None:
    file = tmp_path / "ray_bootstrap_config.yaml"
    assert not autoscaler_groups(file)
    file.write_text(yaml.safe_dump(CONFIG))
    assert autoscaler_groups(file) == GROUPS
    file.write_text("[not: a mapping")
    assert not autoscaler_groups(file)


def test_the_shipped_cluster_has_groups_for_every_purpose() -> None:
    path = REPOSITORY / "cluster.yaml"
    groups = autoscaler_groups(path).groups
    assert any("GPU" not in group.resources for group in groups)
    assert {group.resources["GPU"] for group in groups if "GPU" in group.resources} == {1, 4}


def test_living_nodes_of_a_group_count_against_its_limit() -> None:
    unlabelled = {"Resources": {"CPU": 4.0, "GPU": 1.0, "memory": 1e9, "node:10.0.0.1": 1.0}}
    living: list[dict[str, Any]] = [{"Labels": {"ray.io/node-group": "cpu"}}, {"Labels": {}}, {}, unlabelled]
    assert GROUPS.possible(living) == [CPU.resources, *[GPU.resources] * 2]


def test_nodes_that_may_come_together_are_of_all_groups() -> None:
    assert GROUPS.to_come([]) == [CPU.resources, GPU.resources, CPU.resources]
    assert GROUPS.to_come([{"Labels": {"ray.io/node-group": "gpu"}}, {}]) == [CPU.resources, GPU.resources]


def test_the_labelled_head_takes_no_place_of_a_worker() -> None:
    groups, head = node_groups(CLUSTER), {"Labels": {"ray.io/node-group": "head", "canopy/group": "head"}}
    assert len(groups.to_come([head])) == CLUSTER["max_workers"] == 12
    assert len(groups.to_come([head, {"Labels": {"ray.io/node-group": "cpu"}}])) == 11


def test_all_nodes_without_accelerators_may_come_where_only_they_are_counted() -> None:
    groups = node_groups(CLUSTER)
    assert groups.to_come([], only_plain=True) == [{"CPU": 16.0}] * 4
    gpus = [{"Labels": {"ray.io/node-group": name}} for name in ("gpu1-spot",) * 4 + ("gpu1-on-demand",) * 4]
    others = [{"Labels": {"ray.io/node-group": "gpu4-spot"}}] * 2
    assert groups.to_come([*gpus, *others], only_plain=True) == [{"CPU": 16.0}] * 2, "the limit of all groups"


def test_the_labels_of_every_group_of_the_shipped_cluster_name_it_and_its_price() -> None:
    prices = load_prices(None)
    for name, kind in CLUSTER["available_node_types"].items():
        for labels in (kind["labels"], {**kind["labels"], "ray.io/node-group": name}):
            assert labelled_group({"Labels": labels}, CLUSTER["available_node_types"]) == name
            assert labelled_group({"Labels": labels}, prices.nodes) == name
        assert prices.price(name) is not None


def test_nodes_are_counted_by_their_group() -> None:
    spot = {"Labels": {"canopy/group": "gpu1", "canopy/market": "spot"}}
    assert group_or_other({"Alive": True}, ()) == "other"
    assert labelled_group({"Labels": {}}, ()) is None
    living: list[dict[str, Any]] = [{**spot, "Alive": True}, {"Alive": True}, {**spot, "Alive": False}]
    assert living_by_group(living, ["gpu1-spot"]) == {"gpu1-spot": 1, "other": 1}


def test_only_nodes_that_were_not_meant_to_end_are_lost() -> None:
    messages: Any = common_pb2
    reasons = dict(messages.NodeDeathInfo.Reason.items())
    planned = {reasons["EXPECTED_TERMINATION"], reasons["AUTOSCALER_DRAIN_IDLE"]}
    assert planned == set(PLANNED_ENDS)
    spot = {"Labels": {"canopy/group": "gpu1", "canopy/market": "spot"}}
    dead = [{**spot, "Alive": False, "DeathReason": reason} for reason in reasons.values()]
    assert lost_by_group([{**spot, "Alive": True}, *dead], ["gpu1-spot"]) == {"gpu1-spot": len(reasons) - 2}
