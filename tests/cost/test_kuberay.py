"""Node groups from KubeRay's manifests."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml
from tests.support import REPOSITORY

from canopy.config import BudgetConfig, derive
from canopy.config.presets import preset
from canopy.cost.estimate import estimate
from canopy.cost.groups import read_cluster
from canopy.cost.kuberay import as_cluster_config, is_manifest, number, resources_of
from canopy.cost.prices import load_prices
from canopy.errors import ConfigError
from canopy.runtime.stage import Stage

FOLDER = REPOSITORY / "platform" / "deploy" / "kuberay"


@pytest.mark.parametrize("name", ["raycluster", "rayjob"])
def test_the_shipped_manifests_have_the_groups_of_cluster_yaml(name: str) -> None:
    cluster = read_cluster(str(FOLDER / f"{name}.yaml"), load_prices(None))
    assert cluster.head.resources == {"CPU": 0.0}
    assert {group.name: (group.resources, group.max_nodes) for group in cluster.groups} == {
        "cpu": ({"CPU": 14.0}, 4),
        "gpu1": ({"CPU": 14.0, "GPU": 1.0}, 4),
        "gpu4": ({"CPU": 44.0, "GPU": 4.0}, 2),
    }
    assert cluster.max_nodes == 10
    assert cluster.idle_hours == pytest.approx(1 / 6)


def test_the_estimate_reads_them() -> None:
    config = preset("amazon")
    small = [derive(v, model=derive(v.model, backbone="test_resnet")) for v in config.variants]
    budget = BudgetConfig(cluster=str(FOLDER / "rayjob.yaml"))
    found = estimate(derive(config, variants=tuple(small), budget=budget), 40_479, [Stage.TRAIN])
    assert {node.group for node in found.schedule.nodes} <= {"head", "gpu1", "gpu4"}
    assert found.cost > 0


def pod(limits: dict[str, Any], **group: Any) -> dict[str, Any]:
    """A group whose pods have these limits."""
    return {"template": {"spec": {"containers": [{"resources": {"limits": limits}}]}}, **group}


@pytest.mark.parametrize(
    ("group", "expected"),
    [
        (pod({"cpu": "3500m", "memory": "4Gi"}), {"CPU": 4.0}),
        (pod({"cpu": 8, "nvidia.com/gpu": 2}), {"CPU": 8.0, "GPU": 2.0}),
        (pod({"cpu": 8}, rayStartParams={"num-cpus": "0"}), {"CPU": 0.0}),
        (pod({"cpu": 1}, rayStartParams={"resources": '\'"{\\"seat\\": 2}"\''}), {"CPU": 1.0, "seat": 2.0}),
    ],
)
def test_a_pod_has_what_the_operator_gives_it(group: dict[str, Any], expected: dict[str, float]) -> None:
    assert resources_of(group) == expected


def test_quantities_of_kubernetes_are_numbers() -> None:
    assert [number(text) for text in ("14", 14, "500m", "2k")] == [14.0, 14.0, 0.5, 2000.0]


def test_groups_of_several_hosts_count_each(tmp_path: Path) -> None:
    manifest = yaml.safe_load((FOLDER / "raycluster.yaml").read_text("utf-8"))
    manifest["spec"]["workerGroupSpecs"][0]["numOfHosts"] = 3
    assert as_cluster_config(manifest)["available_node_types"]["cpu"]["max_workers"] == 12


def test_a_broken_manifest_is_one_clear_error(tmp_path: Path) -> None:
    assert not is_manifest([])
    assert not is_manifest({"head_node_type": "head"})
    text = (FOLDER / "raycluster.yaml").read_text("utf-8")
    without_head, without_pod, repeated, endless = (yaml.safe_load(text) for _ in range(4))
    del without_head["spec"]["headGroupSpec"]
    without_pod["spec"]["headGroupSpec"]["template"]["spec"]["containers"] = []
    repeated["spec"]["workerGroupSpecs"][0]["groupName"] = "gpu1"
    endless["spec"]["workerGroupSpecs"][0]["template"] = pod({"cpu": "inf"})["template"]
    for manifest in (without_head, without_pod, repeated, endless):
        (tmp_path / "c.yaml").write_text(yaml.safe_dump(manifest))
        with pytest.raises(ConfigError, match="or be one KubeRay manifest"):
            read_cluster(str(tmp_path / "c.yaml"), load_prices(None))
