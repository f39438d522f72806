"""Node groups from a file for ``ray up``."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml
from tests.support import REPOSITORY

from canopy.cost.groups import read_cluster
from canopy.cost.prices import load_prices
from canopy.errors import ConfigError
from canopy.runtime.node_groups import node_groups

CLUSTER = REPOSITORY / "cluster.yaml"


def test_the_groups_are_those_of_the_file() -> None:
    cluster = read_cluster(str(CLUSTER), load_prices(None))
    assert (cluster.head.name, cluster.head.resources, cluster.max_nodes) == ("head", {"CPU": 0.0}, 12)
    groups = {group.name: group for group in cluster.groups}
    assert set(groups) == {"cpu", "gpu1-spot", "gpu1-on-demand", "gpu4-spot", "gpu4-on-demand"}
    assert groups["gpu4-spot"].resources == {"CPU": 48.0, "GPU": 4.0}
    assert groups["gpu4-spot"].max_nodes == 2
    assert [name for name, group in groups.items() if group.is_spot] == ["gpu1-spot", "gpu4-spot"]
    assert groups["gpu1-spot"].priority > groups["gpu1-on-demand"].priority
    assert cluster.idle_hours == pytest.approx(1 / 6)


def test_the_groups_and_limits_are_those_of_the_running_cluster(tmp_path: Path) -> None:
    content = yaml.safe_load(CLUSTER.read_text("utf-8"))
    kinds = content["available_node_types"]
    kinds["cpu"]["max_workers"] = 99
    kinds["gpu4-spot"]["max_workers"] = 0
    kinds["unpriced"] = {"resources": {"CPU": 1}, "max_workers": 0}
    (tmp_path / "c.yaml").write_text(yaml.safe_dump(content))
    cluster = read_cluster(str(tmp_path / "c.yaml"), load_prices(None))
    found = node_groups(yaml.safe_load((tmp_path / "c.yaml").read_text("utf-8")))
    assert [(one.name, one.resources, one.max_nodes) for one in cluster.groups] == [
        (one.name, one.resources, one.max_nodes) for one in found.groups
    ]
    assert {one.name: one.max_nodes for one in cluster.groups}["cpu"] == cluster.max_nodes == 12
    assert "gpu4-spot" not in {one.name for one in cluster.groups}


@pytest.mark.parametrize(
    ("change", "problem"),
    [
        ({"head_node_type": "gone"}, "budget.cluster must name available_node_types with resources"),
        (
            {"available_node_types": {"head": {}}},
            "budget.cluster must name available_node_types with resources",
        ),
        ({"available_node_types": []}, "budget.cluster must name available_node_types with resources"),
        (
            {"available_node_types": {"head": {"resources": {"CPU": 0}}, "tpu": {"resources": {"CPU": 1}}}},
            "budget.prices must have the price of each node group of budget.cluster. Got: none for tpu",
        ),
    ],
)
def test_a_bad_file_is_one_clear_error(change: dict[str, object], problem: str, tmp_path: Path) -> None:
    content = {**yaml.safe_load(CLUSTER.read_text("utf-8")), **change}
    (tmp_path / "c.yaml").write_text(yaml.safe_dump(content))
    with pytest.raises(ConfigError, match=problem):
        read_cluster(str(tmp_path / "c.yaml"), load_prices(None))


def test_a_missing_or_broken_file_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"must be a file for `ray up`\. Got: gone\.yaml"):
        read_cluster("gone.yaml", load_prices(None))
    with pytest.raises(ConfigError, match="must be a file for `ray up`"):
        read_cluster(str(tmp_path), load_prices(None))
    (tmp_path / "c.yaml").write_text("a: [")
    with pytest.raises(ConfigError, match=r"must be YAML\. Got: .*c\.yaml: .* \(line 1, column 5\)"):
        read_cluster(str(tmp_path / "c.yaml"), load_prices(None))


def test_a_group_without_a_market_has_the_price_on_demand() -> None:
    manifest = REPOSITORY / "platform" / "deploy" / "kuberay" / "raycluster.yaml"
    cluster = read_cluster(str(manifest), load_prices(None))
    table = load_prices(None).nodes
    prices = {group.name: group.price for group in (cluster.head, *cluster.groups)}
    assert prices == {
        "head": table["head"],
        "cpu": table["cpu"],
        "gpu1": table["gpu1-on-demand"],
        "gpu4": table["gpu4-on-demand"],
    }
