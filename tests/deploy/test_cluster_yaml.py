"""cluster.yaml through Ray's own loader and validation, and its node types through EC2's own API model."""

from __future__ import annotations

import re
import socket
from pathlib import Path
from typing import Any

import botocore.session
import pytest
import yaml
from botocore.validate import ParamValidator
from ray.autoscaler._private.util import prepare_config, validate_config

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


def test_ray_accepts_it(cluster: dict[str, Any]) -> None:
    prepared = prepare_config(cluster)
    validate_config(prepared)
    assert prepared["setup_commands"] == cluster["setup_commands"]
    assert prepared["head_setup_commands"] == cluster["setup_commands"]  # none of Ray's own is left


def test_ray_would_refuse_a_mistake(cluster: dict[str, Any]) -> None:
    del cluster["available_node_types"]["gpu"]["resources"]
    with pytest.raises(Exception, match="'resources' is a required property"):
        validate_config(prepare_config(cluster))


def test_a_cpu_head_and_one_group_of_gpu_workers_that_scales_from_zero(cluster: dict[str, Any]) -> None:
    types = cluster["available_node_types"]
    for node_type in types.values():
        assert node_type["resources"]["CPU"] > 0
    head = types.pop(cluster["head_node_type"])
    assert "GPU" not in head["resources"]
    assert head["max_workers"] == 0
    (gpu,) = types.values()
    assert gpu["resources"]["GPU"] == 1
    assert gpu["min_workers"] == 0 < gpu["max_workers"] <= cluster["max_workers"]
    assert 0 < cluster["idle_timeout_minutes"] <= 30
    assert cluster["provider"]["cache_stopped_nodes"] is False


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
