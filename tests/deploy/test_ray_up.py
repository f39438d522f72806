"""``ray up``, autoscaler, ``ray down`` with cluster.yaml against a mock of AWS: nothing leaves loopback."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import boto3  # type: ignore[import-untyped]
import pytest
import yaml
from tests.autoscaling import end_all, wait_for_start
from tests.clusters import RAY, free_ports, head_command

ROOT = Path(__file__).resolve().parents[2]
REGION = "us-east-1"
STUB = """#!/bin/sh
echo "$(basename $0) $*" >> {log}
for word in "$@"; do case "$word" in
    */ray-bootstrap-*) test -f "$word" && cp "$word" {bootstrap} ;;
esac; done
exit 0
"""
"""Stands for a program: writes down its call, and keeps the config that ``ray up`` sends to the head."""
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
        self.bootstrap = folder / "bootstrap.yaml"
        (home / ".ray").mkdir(parents=True)
        (home / ".ray" / "auth_token").write_text("a" * 64)
        # Once the laptop's home is the head's, these are what `ray up` has sent there.
        (home / "requirements.lock").write_bytes((ROOT / "requirements.lock").read_bytes())
        (home / "ray_bootstrap_key.pem").write_text("a key that the stub does not read")
        stubs.mkdir()
        for name in ("ssh", "rsync", "scp"):
            (stubs / name).write_text(STUB.format(log=self.calls, bootstrap=self.bootstrap))
            (stubs / name).chmod(0o755)
        keys = {"AWS_ACCESS_KEY_ID": "testing", "AWS_SECRET_ACCESS_KEY": "testing"}
        self.env = {
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
            [RAY, *arguments], env=self.env, capture_output=True, text=True, cwd=ROOT, timeout=300
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


def prepare_account(endpoint: str) -> None:
    """The roles of the nodes, as cluster.md makes them."""
    iam = client("iam", endpoint)
    trust = (ROOT / "platform" / "deploy" / "aws" / "trust.json").read_text()
    for role in ("canopy-head", "canopy-worker"):
        iam.create_role(RoleName=role, AssumeRolePolicyDocument=trust)
        policy = json.loads(
            (ROOT / "platform/deploy/aws" / f"{role.removeprefix('canopy-')}.json").read_text()
        )
        iam.put_role_policy(RoleName=role, PolicyName="canopy", PolicyDocument=json.dumps(policy))
        iam.create_instance_profile(InstanceProfileName=role)
        iam.add_role_to_instance_profile(InstanceProfileName=role, RoleName=role)


def write_cluster(ec2: Any, path: Path) -> str:
    """Write cluster.yaml with an image of the mock, which does not have the pinned one; its path."""
    content = yaml.safe_load((ROOT / "cluster.yaml").read_text())
    image = ec2.describe_images()["Images"][0]["ImageId"]
    for node in content["available_node_types"].values():
        node["node_config"]["ImageId"] = image
    content["file_mounts"]["~/requirements.lock"] = str(ROOT / "requirements.lock")
    path.write_text(yaml.safe_dump(content))
    return str(path)


def tags_of(instance: dict[str, Any]) -> dict[str, str]:
    """The tags of an instance."""
    return {tag["Key"]: tag["Value"] for tag in instance["Tags"]}


def test_ray_up_starts_one_head_and_ray_down_leaves_nothing(aws: str, tmp_path: Path) -> None:
    ec2 = client("ec2", aws)
    prepare_account(aws)
    file = write_cluster(ec2, tmp_path / "cluster.yaml")
    laptop = Laptop(tmp_path, aws)

    laptop.ray("up", "--yes", "--no-config-cache", file)
    (head,) = living(ec2)
    tags = tags_of(head)
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

    laptop.ray("down", "--yes", file)
    assert living(ec2) == []


DEMAND = """
import sys, time
import ray

ray.init(sys.argv[1], log_to_driver=False, logging_level="ERROR")
held = ray.util.placement_group([{"GPU": 1, "CPU": 4}])
print("asked", flush=True)
time.sleep(600)
"""
"""A program that asks for what only a node with a GPU has."""


def test_the_autoscaler_starts_a_spot_worker_with_the_workers_role(aws: str, tmp_path: Path) -> None:
    """The head's own autoscaler, from the config that ``ray up`` sent it, calls the mock of EC2."""
    ec2 = client("ec2", aws)
    prepare_account(aws)
    file = write_cluster(ec2, tmp_path / "cluster.yaml")
    laptop = Laptop(tmp_path, aws)
    laptop.ray("up", "--yes", "--no-config-cache", file)
    (head,) = living(ec2)

    env = {
        **laptop.env,
        "RAY_AUTH_MODE": "disabled",
        "RAY_CLOUD_INSTANCE_ID": head["InstanceId"],  # `ray up` gives these three to the head
        "RAY_NODE_TYPE_NAME": "head",
        "RAY_enable_autoscaler_v2": "1",
        "AUTOSCALER_UPDATE_INTERVAL_S": "1",
    }
    (gcs,) = free_ports(1)
    log = tmp_path / "head.log"
    with tempfile.TemporaryDirectory(prefix="cec2", ignore_cleanup_errors=True) as folder:
        command = [*head_command(folder, gcs), "--num-cpus=0", "--include-dashboard=false"]
        command += [f"--autoscaling-config={laptop.bootstrap}", "--object-store-memory=104857600"]
        with log.open("wb") as out, (tmp_path / "demand.log").open("wb") as said:
            ray_head = subprocess.Popen(
                command, env=env, stdout=out, stderr=subprocess.STDOUT, start_new_session=True, cwd=tmp_path
            )
            demand: subprocess.Popen[bytes] | None = None
            try:
                wait_for_start(ray_head, log)
                demand = subprocess.Popen(
                    [sys.executable, "-c", DEMAND, f"127.0.0.1:{gcs}"], env=env, stdout=said, stderr=said
                )
                worker = wait_for_worker(ec2, Path(folder), demand)
            finally:
                if demand is not None:
                    demand.kill()
                    demand.wait()
                end_all(ray_head, folder)

    assert worker["InstanceType"] == "g6.4xlarge"
    assert worker["InstanceLifecycle"] == "spot"
    assert worker["IamInstanceProfile"]["Arn"].endswith("instance-profile/canopy-worker")
    assert tags_of(worker)["ray-cluster-name"] == "canopy"
    assert tags_of(worker)["ray-user-node-type"] == "gpu1-spot"
    assert "ray start --address=" in laptop.calls.read_text()
    laptop.ray("down", "--yes", file)
    assert living(ec2) == []


def wait_for_worker(ec2: Any, folder: Path, demand: subprocess.Popen[bytes]) -> dict[str, Any]:
    """Wait until an instance besides the head is set up; that instance."""
    end = time.monotonic() + 180
    while True:
        for one in living(ec2):
            tags = tags_of(one)
            if (tags["ray-node-type"], tags["ray-node-status"]) == ("worker", "up-to-date"):
                return one
        logs = [path for path in folder.glob("session_latest/logs/monitor*") if path.is_file()]
        assert demand.poll() is None, "the program ended"
        assert time.monotonic() < end, "\n".join(path.read_text()[-4000:] for path in logs)
        time.sleep(1)
