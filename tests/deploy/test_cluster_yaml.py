"""cluster.yaml through Ray's own loader and validation, and its node types through EC2's own API model."""

from __future__ import annotations

import re
import socket
from collections import Counter
from pathlib import Path
from typing import Any

import botocore.session
import pytest
import yaml
from botocore.validate import ParamValidator
from ray.autoscaler._private.util import prepare_config, validate_config
from ray.autoscaler.v2.instance_manager.config import AutoscalingConfig
from ray.autoscaler.v2.scheduler import ResourceDemandScheduler, SchedulingRequest
from ray.autoscaler.v2.utils import ResourceRequestUtil
from ray.core.generated.autoscaler_pb2 import ResourceRequestByCount  # type: ignore[attr-defined]

from canopy.config.presets import PRESETS, preset
from canopy.train.fleet.resources import bundles
from canopy.train.fleet.scheduler import ResourceRequest, fits, place

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(autouse=True)
def offline(monkeypatch: pytest.MonkeyPatch) -> None:
    """No test here may reach out, nor know credentials."""

    def refuse(*_: object) -> None:
        raise AssertionError("cluster.yaml is checked offline")

    monkeypatch.setattr(socket.socket, "connect", refuse)
    for name in ("AWS_PROFILE", "AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.delenv(name, raising=False)


@pytest.fixture
def cluster() -> dict[str, Any]:
    """The file as ``ray up`` sees it, before Ray fills in defaults."""
    found: dict[str, Any] = yaml.safe_load((ROOT / "cluster.yaml").read_text(encoding="utf-8"))
    return found


def validated(cluster: dict[str, Any]) -> dict[str, Any]:
    """The config with Ray's defaults, after its validation."""
    prepared: dict[str, Any] = prepare_config(cluster)
    validate_config(prepared)
    return prepared


def test_ray_accepts_it(cluster: dict[str, Any]) -> None:
    prepared = validated(cluster)
    assert prepared["setup_commands"] == cluster["setup_commands"]
    assert prepared["head_setup_commands"] == cluster["setup_commands"]  # none of Ray's own is left


def test_ray_would_refuse_a_mistake(cluster: dict[str, Any]) -> None:
    del cluster["available_node_types"]["gpu1-spot"]["resources"]
    with pytest.raises(Exception, match="'resources' is a required property"):
        validate_config(prepare_config(cluster))


def test_a_head_without_tasks_and_groups_that_scale_from_zero(cluster: dict[str, Any]) -> None:
    types = cluster["available_node_types"]
    head = types.pop(cluster["head_node_type"])
    assert head["resources"] == {"CPU": 0}
    assert head["max_workers"] == 0
    assert {name: node["resources"].get("GPU", 0) for name, node in types.items()} == {
        "cpu": 0,
        "gpu1-spot": 1,
        "gpu1-on-demand": 1,
        "gpu4-spot": 4,
        "gpu4-on-demand": 4,
    }
    for node in types.values():
        assert node["min_workers"] == 0 < node["max_workers"] <= cluster["max_workers"]
    assert 0 < cluster["idle_timeout_minutes"] <= 30
    assert cluster["provider"]["cache_stopped_nodes"] is False


@pytest.mark.parametrize("group", ["gpu1", "gpu4"])
def test_a_spot_group_differs_from_its_fallback_in_the_market_alone(
    cluster: dict[str, Any], group: str
) -> None:
    spot, fallback = (cluster["available_node_types"][f"{group}-{end}"] for end in ("spot", "on-demand"))
    assert spot["node_config"].pop("InstanceMarketOptions") == {"MarketType": "spot"}
    assert spot.pop("priority") > fallback.pop("priority")
    assert spot.pop("labels") == {"canopy/group": group, "canopy/market": "spot"}
    assert fallback.pop("labels") == {"canopy/group": group, "canopy/market": "on-demand"}
    assert spot == fallback


def started(
    cluster: dict[str, Any], demands: list[dict[str, float]], failed: str | None = None
) -> Counter[str]:
    """Nodes that Ray's autoscaler would start for tasks or actors with these resources.

    Args:
        cluster: the file.
        demands: resources of each.
        failed: node type whose last start has failed.
    """
    config = AutoscalingConfig(validated(cluster), skip_content_hash=True)
    reply = ResourceDemandScheduler(None).schedule(
        SchedulingRequest(
            disable_launch_config_check=True,
            node_type_configs=config.get_node_type_configs(),
            max_num_nodes=config.get_max_num_nodes(),
            resource_requests=[
                ResourceRequestByCount(request=ResourceRequestUtil.make(demand), count=1)
                for demand in demands
            ],
            recoverable_resource_availabilities={failed: 0.0} if failed else {},
        )
    )
    assert not reply.infeasible_resource_requests
    return Counter(one.instance_type for one in reply.to_launch for _ in range(one.count))


def test_the_autoscaler_takes_spot_first_then_on_demand_and_cpu_nodes_for_cpu_tasks(
    cluster: dict[str, Any],
) -> None:
    one_gpu = {"CPU": 4.0, "GPU": 1.0}
    assert started(cluster, [one_gpu]) == {"gpu1-spot": 1}
    assert started(cluster, [one_gpu], failed="gpu1-spot") == {"gpu1-on-demand": 1}
    assert started(cluster, [one_gpu] * 4) == {"gpu4-spot": 1}
    assert started(cluster, [one_gpu] * 4, failed="gpu4-spot") == {"gpu4-on-demand": 1}
    assert started(cluster, [{"CPU": 1.0}] * 16) == {"cpu": 1}


@pytest.mark.parametrize("name", PRESETS)
def test_some_group_satisfies_every_demand_of_a_preset(cluster: dict[str, Any], name: str) -> None:
    types = cluster["available_node_types"]
    groups = [node["resources"] for node in types.values() if node["max_workers"]]
    for variant in preset(name).variants:
        for demand in [*bundles(variant.scale), {"CPU": 1.0}]:  # the last one is a task of prepare
            assert any(fits(demand, group) for group in groups), (variant.name, demand)
        training = ResourceRequest(variant.name, 1.0, bundles(variant.scale))
        assert place([training], groups) is not None, variant.name


def test_object_stores_and_disks_hold_forty_thousand_chips(cluster: dict[str, Any]) -> None:
    chips = 40_000 * 256 * 256 * 3
    for part in ("head", "worker"):
        (size,) = re.findall(r"--object-store-memory=(\d+)", cluster[f"{part}_start_ray_commands"][1])
        assert int(size) > chips, part
    for name, node in cluster["available_node_types"].items():
        (disk,) = node["node_config"]["BlockDeviceMappings"]
        assert disk["Ebs"]["VolumeSize"] << 30 > 10 * chips, name


def test_every_node_boots_one_pinned_image(cluster: dict[str, Any]) -> None:
    images = {node["node_config"]["ImageId"] for node in cluster["available_node_types"].values()}
    assert len(images) == 1
    assert re.fullmatch(r"ami-[0-9a-f]{17}", images.pop())


def test_ec2_knows_every_field_of_a_node(cluster: dict[str, Any]) -> None:
    client_model = botocore.session.Session().get_service_model("ec2")
    shape = client_model.operation_model("RunInstances").input_shape
    for name, node in cluster["available_node_types"].items():
        request = {**node["node_config"], "MinCount": 1, "MaxCount": 1}
        report = ParamValidator().validate(request, shape)
        assert not report.has_errors(), f"{name}: {report.generate_report()}"


def test_the_token_guards_it_and_the_lock_fills_it(cluster: dict[str, Any]) -> None:
    for part in ("head", "worker"):
        stop, start = cluster[f"{part}_start_ray_commands"]
        assert stop == "ray stop"
        assert "RAY_AUTH_MODE=token ray start" in start
    assert "~/.ray/auth_token" in cluster["file_mounts"]
    assert (ROOT / cluster["file_mounts"]["~/requirements.lock"]).is_file()
    assert any("--require-hashes ~/requirements.lock" in line for line in cluster["setup_commands"])
