"""The groups of nodes in a cluster's config."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import yaml
from tests.support import REPOSITORY

from canopy.runtime.node_groups import NodeGroup, NodeGroups, autoscaler_groups, node_groups

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
