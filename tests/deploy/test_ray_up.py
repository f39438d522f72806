"""``ray up`` and ``ray down`` with cluster.yaml against a mock of AWS on loopback: nothing leaves it."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import boto3  # type: ignore[import-untyped]
import pytest
import yaml
from tests.clusters import RAY, free_ports

ROOT = Path(__file__).resolve().parents[2]
REGION = "us-east-1"
STUB = '#!/bin/sh\necho "$(basename $0) $*" >> {log}\nexit 0\n'
START_S = 60

pytestmark = pytest.mark.slow


@pytest.fixture
def aws(tmp_path: Path) -> Iterator[str]:
    """Endpoint of a server that speaks EC2 and IAM on loopback."""
    (port,) = free_ports(1)
    env = {**os.environ, "MOTO_IAM_LOAD_MANAGED_POLICIES": "true"}
    command = [str(Path(sys.executable).with_name("moto_server")), "-H", "127.0.0.1", "-p", str(port)]
    with (tmp_path / "moto.log").open("wb") as log:
        server = subprocess.Popen(command, env=env, stdout=log, stderr=subprocess.STDOUT)
    endpoint, end = f"http://127.0.0.1:{port}", time.monotonic() + START_S
    while True:
        try:
            urllib.request.urlopen(f"{endpoint}/moto-api/data.json", timeout=5).close()
            break
        except OSError:
            assert server.poll() is None, (tmp_path / "moto.log").read_text()
            assert time.monotonic() < end
            time.sleep(0.2)
    yield endpoint
    server.terminate()
    server.wait(timeout=20)


class Laptop:
    """A user's machine: a home of its own, and stubs in place of ``ssh`` and ``rsync``.

    The stubs are what keeps the test here: the mock hands out real public addresses.
    """

    def __init__(self, folder: Path, endpoint: str) -> None:
        self.calls, stubs, home = folder / "calls", folder / "stubs", folder / "home"
        (home / ".ray").mkdir(parents=True)
        (home / ".ray" / "auth_token").write_text("a" * 64)
        stubs.mkdir()
        for name in ("ssh", "rsync", "scp"):
            (stubs / name).write_text(STUB.format(log=self.calls))
            (stubs / name).chmod(0o755)
        keys = {"AWS_ACCESS_KEY_ID": "testing", "AWS_SECRET_ACCESS_KEY": "testing"}
        self._env = {
            **os.environ,
            **keys,
            "AWS_ENDPOINT_URL": endpoint,
            "AWS_DEFAULT_REGION": REGION,
            "HOME": str(home),
            "PATH": f"{stubs}:{os.environ['PATH']}",
        }

    def ray(self, *arguments: str) -> str:
        """Run ``ray`` with ``arguments``; its output."""
        done = subprocess.run(
            [RAY, *arguments], env=self._env, capture_output=True, text=True, cwd=ROOT, timeout=300
        )
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout


def client(service: str, endpoint: str) -> Any:
    keys = {"aws_access_key_id": "testing", "aws_secret_access_key": "testing"}
    return boto3.client(service, endpoint_url=endpoint, region_name=REGION, **keys)


def living(ec2: Any) -> list[dict[str, Any]]:
    """All instances that are not terminated."""
    found = [one for group in ec2.describe_instances()["Reservations"] for one in group["Instances"]]
    return [one for one in found if one["State"]["Name"] not in ("terminated", "shutting-down")]


def test_ray_up_starts_one_head_and_ray_down_leaves_nothing(aws: str, tmp_path: Path) -> None:
    ec2, iam = client("ec2", aws), client("iam", aws)
    trust = (ROOT / "platform" / "deploy" / "aws" / "trust.json").read_text()
    for role in ("canopy-head", "canopy-worker"):
        iam.create_role(RoleName=role, AssumeRolePolicyDocument=trust)
        policy = json.loads(
            (ROOT / "platform/deploy/aws" / f"{role.removeprefix('canopy-')}.json").read_text()
        )
        iam.put_role_policy(RoleName=role, PolicyName="canopy", PolicyDocument=json.dumps(policy))
        iam.create_instance_profile(InstanceProfileName=role)
        iam.add_role_to_instance_profile(InstanceProfileName=role, RoleName=role)
    content = yaml.safe_load((ROOT / "cluster.yaml").read_text())
    image = ec2.describe_images()["Images"][0]["ImageId"]  # the pinned one is not in the mock
    for node in content["available_node_types"].values():
        node["node_config"]["ImageId"] = image
    content["file_mounts"]["~/requirements.lock"] = str(ROOT / "requirements.lock")
    (tmp_path / "cluster.yaml").write_text(yaml.safe_dump(content))
    laptop = Laptop(tmp_path, aws)

    laptop.ray("up", "--yes", "--no-config-cache", str(tmp_path / "cluster.yaml"))
    (head,) = living(ec2)
    tags = {tag["Key"]: tag["Value"] for tag in head["Tags"]}
    assert tags["ray-cluster-name"] == "canopy"
    assert tags["ray-user-node-type"] == "head"
    assert head["InstanceType"] == "m7i.2xlarge"
    assert head["IamInstanceProfile"]["Arn"].endswith("instance-profile/canopy-head")
    (group,) = head["SecurityGroups"]
    (rules,) = ec2.describe_security_groups(GroupIds=[group["GroupId"]])["SecurityGroups"]
    open_ports = [rule.get("FromPort") for rule in rules["IpPermissions"] if rule["IpRanges"]]
    assert open_ports == [22]
    assert head["KeyName"] in [key["KeyName"] for key in ec2.describe_key_pairs()["KeyPairs"]]
    calls = laptop.calls.read_text()
    for part in ("uv pip sync --require-hashes", "RAY_AUTH_MODE=token", "ray start --head", "auth_token"):
        assert part in calls
    assert "a" * 64 not in calls

    laptop.ray("down", "--yes", str(tmp_path / "cluster.yaml"))
    assert living(ec2) == []
