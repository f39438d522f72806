"""The policies of the nodes: no more than Ray's AWS provider calls, and enough for that."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import boto3  # type: ignore[import-untyped]
import pytest
import yaml
from moto import mock_aws
from ray.autoscaler._private.aws.node_provider import AWSNodeProvider

ROOT = Path(__file__).resolve().parents[2]
POLICIES = ROOT / "platform" / "deploy" / "aws"
WORKER_ROLE = "arn:aws:iam::ACCOUNT:role/canopy-worker"


def statements(name: str) -> list[dict[str, Any]]:
    """The statements of a policy."""
    policy = json.loads((POLICIES / f"{name}.json").read_text("utf-8"))
    assert policy["Version"] == "2012-10-17"
    found: list[dict[str, Any]] = policy["Statement"]
    return found


def actions(name: str) -> set[str]:
    return {action for one in statements(name) for action in one["Action"]}


def cluster() -> dict[str, Any]:
    found: dict[str, Any] = yaml.safe_load((ROOT / "cluster.yaml").read_text("utf-8"))
    return found


@pytest.mark.parametrize("name", ["head", "worker"])
def test_every_action_is_named_and_only_looking_has_no_limit(name: str) -> None:
    for one in statements(name):
        assert one["Effect"] == "Allow"
        for action in one["Action"]:
            assert re.fullmatch(r"(ec2|iam|s3):[A-Za-z]+", action), action
        assert one["Resource"] != "*" or one["Action"] == ["ec2:DescribeInstances"]


def test_workers_reach_one_bucket_and_nothing_else() -> None:
    resources = {one["Resource"] for one in statements("worker")}
    assert resources == {"arn:aws:s3:::BUCKET", "arn:aws:s3:::BUCKET/*"}
    assert all(action.startswith("s3:") for action in actions("worker"))


def test_the_head_passes_the_workers_role_alone() -> None:
    (passing,) = [one for one in statements("head") if any(a.startswith("iam:") for a in one["Action"])]
    assert passing["Action"] == ["iam:PassRole"]
    assert passing["Resource"] == WORKER_ROLE
    assert passing["Condition"] == {"StringEquals": {"iam:PassedToService": "ec2.amazonaws.com"}}


def test_the_head_starts_what_cluster_yaml_names_and_touches_its_own_instances() -> None:
    file = cluster()
    types = file["available_node_types"]
    head = types.pop(file["head_node_type"])["node_config"]
    assert head["IamInstanceProfile"] == {"Name": "canopy-head"}
    nodes = [node["node_config"] for node in types.values()]
    assert all(node["IamInstanceProfile"] == {"Name": "canopy-worker"} for node in nodes)
    by_name = {one["Sid"]: one for one in statements("head")}
    start = by_name["StartWorkersOfThisCluster"]["Condition"]
    assert set(start["StringEquals"]["ec2:InstanceType"]) == {node["InstanceType"] for node in nodes}
    assert start["ArnEquals"]["ec2:InstanceProfile"].endswith("instance-profile/canopy-worker")
    image = by_name["StartThemFromThisImage"]["Resource"]
    assert image == f"arn:aws:ec2:{file['provider']['region']}::image/{head['ImageId']}"
    for one in by_name.values():
        if "instance/*" in one["Resource"]:
            limits = one["Condition"]["StringEquals"]
            tags = [limits.get(f"aws:{kind}Tag/ray-cluster-name") for kind in ("Request", "Resource")]
            assert file["cluster_name"] in tags, one["Sid"]


def test_rays_provider_calls_what_the_head_may_call_and_no_more(monkeypatch: pytest.MonkeyPatch) -> None:
    """Ray's provider starts, tags, lists and ends a spot worker of cluster.yaml against a mock of EC2."""
    monkeypatch.delenv("AWS_ENDPOINT_URL", raising=False)
    file, called = cluster(), set[str]()
    node = file["available_node_types"]["gpu1-spot"]["node_config"]
    with mock_aws():
        ec2 = boto3.client("ec2", region_name="us-east-1")
        subnet = ec2.describe_subnets()["Subnets"][0]["SubnetId"]
        boto3.client("iam").create_instance_profile(InstanceProfileName="canopy-worker")
        provider: Any = AWSNodeProvider(file["provider"], file["cluster_name"])  # type: ignore[no-untyped-call]
        for resource in (provider.ec2, provider.ec2_fail_fast):
            resource.meta.client.meta.events.register(
                "before-call.ec2", lambda model, **_: called.add(f"ec2:{model.name}")
            )
        (node_id,) = provider.create_node({**node, "SubnetIds": [subnet]}, {"ray-node-kind": "worker"}, 1)
        assert provider.non_terminated_nodes({}) == [node_id]
        provider.set_node_tags(node_id, {"ray-node-status": "up-to-date"})
        tags = {tag["Key"]: tag["Value"] for tag in provider.ec2.Instance(node_id).tags}
        assert tags["ray-cluster-name"] == file["cluster_name"]
        provider.terminate_nodes([node_id])
        assert provider.non_terminated_nodes({}) == []
    assert called == {action for action in actions("head") if action.startswith("ec2:")}
