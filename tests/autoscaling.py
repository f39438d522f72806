"""A private cluster whose real autoscaler starts nodes as processes of this machine."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml
from tests.clusters import START_S, end_group, free_ports, head_command

HEAD_ID = "f" * 51 + "00000"
"""The id that Ray's provider of fake nodes expects of the head."""
HEAD_TYPE = "ray.head.default"
"""The name that it expects of the head's group."""
STORE_BYTES = 100 << 20
WATCH = """
import json, sys, time
import ray

GROUPS = {"small_gpu": "small", "large_gpu": "large", "CPU": "cpu"}

def group(resources):
    return next((name for key, name in GROUPS.items() if key in resources), "head")

ray.init(sys.argv[1], log_to_driver=False, logging_level="ERROR")
while True:
    groups = sorted(group(node["Resources"]) for node in ray.nodes() if node["Alive"])
    print(json.dumps({"time": time.time(), "groups": groups}), flush=True)
    time.sleep(0.5)
"""


@dataclass(frozen=True)
class AutoscalingCluster:
    """A running cluster.

    Attributes:
        address: of its control service, for ``RAY_ADDRESS``.
        home: ``HOME`` of a job on the head, where the cluster's config lies as ``ray up`` leaves it.
        log: the head's output.
    """

    address: str
    home: Path
    log: Path

    @property
    def env(self) -> dict[str, str]:
        """Environment of a job on the head."""
        return {
            **os.environ,
            "RAY_AUTH_MODE": "disabled",
            "RAY_ADDRESS": self.address,
            "HOME": str(self.home),
        }

    @contextmanager
    def watched(self, path: Path) -> Iterator[None]:
        """Write the groups of the living nodes to ``path``, a JSON line twice a second."""
        with path.open("wb") as out:
            command = [sys.executable, "-c", WATCH, self.address]
            process = subprocess.Popen(command, stdout=out, stderr=subprocess.DEVNULL, env=self.env)
            try:
                yield
            finally:
                process.kill()
                process.wait()


def timeline(path: Path) -> list[tuple[float, list[str]]]:
    """Times and the groups of the living nodes, from the file of :meth:`AutoscalingCluster.watched`."""
    lines = [json.loads(line) for line in path.read_text().splitlines() if line.endswith("}")]
    return [(line["time"], line["groups"]) for line in lines]


def raylets_with(resource: str) -> list[Any]:
    """The processes of the raylets of fake nodes that have ``resource``."""
    import psutil  # type: ignore[import-untyped]  # Ray brings it along

    found = []
    for process in psutil.process_iter(["cmdline"]):
        line = " ".join(process.info["cmdline"] or ())
        if "raylet/raylet" in line and f"{resource}," in line:
            found.append(process)
    return found


def cluster_config(groups: dict[str, dict[str, Any]], gcs: int, idle_minutes: float) -> dict[str, Any]:
    """The config of a cluster of fake nodes, as ``ray up`` would fill it in.

    Args:
        groups: resources and ``max_workers`` of each group of workers.
        gcs: port of the control service.
        idle_minutes: minutes after which an idle node ends.
    """
    store = {"object_store_memory": STORE_BYTES}
    kinds = {
        name: {"resources": {**group["resources"], **store}, "node_config": {}, "min_workers": 0}
        | {"max_workers": group["max_workers"]}
        for name, group in groups.items()
    }
    commands = ("initialization", "setup", "head_setup", "worker_setup", "head_start_ray", "worker_start_ray")
    return {
        "cluster_name": "fake",
        "max_workers": sum(group["max_workers"] for group in groups.values()),
        "upscaling_speed": 1.0,
        "idle_timeout_minutes": idle_minutes,
        "provider": {
            "type": "external",
            "module": "ray.autoscaler._private.fake_multi_node.node_provider.FakeMultiNodeProvider",
            "use_node_id_as_ip": True,
            "disable_node_updaters": True,
            "disable_launch_config_check": True,
            "launch_multiple": True,
            "head_node_id": HEAD_ID,
            "gcs_address": f"127.0.0.1:{gcs}",
        },
        "auth": {"ssh_user": "nobody"},
        "docker": {},
        "file_mounts": {},
        "cluster_synced_files": [],
        "file_mounts_sync_continuously": False,
        "rsync_exclude": [],
        "rsync_filter": [],
        **{f"{command}_commands": [] for command in commands},
        "head_node_type": HEAD_TYPE,
        "available_node_types": {
            HEAD_TYPE: {"resources": {"CPU": 0, **store}, "node_config": {}, "max_workers": 0},
            **kinds,
        },
    }


@contextmanager
def autoscaling_cluster(
    folder: Path, groups: dict[str, dict[str, Any]], idle_minutes: float = 0.1
) -> Iterator[AutoscalingCluster]:
    """Start a head without CPUs and Ray's autoscaler, version 2, over ``groups``.

    Ray's own ``AutoscalingCluster`` ends every Ray of the machine.
    """
    (gcs,) = free_ports(1)
    home = folder / "home"
    home.mkdir()
    config = home / "ray_bootstrap_config.yaml"
    config.write_text(yaml.safe_dump(cluster_config(groups, gcs, idle_minutes)))
    env = os.environ | {
        "RAY_AUTH_MODE": "disabled",
        "RAY_FAKE_CLUSTER": "1",
        "AUTOSCALER_UPDATE_INTERVAL_S": "1",
        "RAY_enable_autoscaler_v2": "1",
        "RAY_CLOUD_INSTANCE_ID": HEAD_ID,
        "RAY_OVERRIDE_NODE_ID_FOR_TESTING": HEAD_ID,
    }
    with tempfile.TemporaryDirectory(prefix="caut", ignore_cleanup_errors=True) as temporary:
        command = [*head_command(temporary, gcs), "--num-cpus=0", "--include-dashboard=false"]
        command += [f"--object-store-memory={STORE_BYTES}", f"--autoscaling-config={config}"]
        log = folder / "head.log"
        with log.open("wb") as out:
            process = subprocess.Popen(
                command, env=env, stdout=out, stderr=subprocess.STDOUT, start_new_session=True, cwd=folder
            )
        try:
            wait_for_start(process, log)
            yield AutoscalingCluster(f"127.0.0.1:{gcs}", home, log)
        finally:
            end_all(process, temporary)


def wait_for_start(process: subprocess.Popen[bytes], log: Path) -> None:
    """Wait until the head says that it has started."""
    end = time.monotonic() + START_S
    while "Ray runtime started" not in log.read_text():
        assert process.poll() is None, log.read_text()
        assert time.monotonic() < end, log.read_text()
        time.sleep(0.5)


def end_all(process: subprocess.Popen[bytes], temporary: str) -> None:
    """End the head, and the fake nodes that its autoscaler has started, which belong to no process group."""
    import psutil

    end_group(process)
    for other in psutil.process_iter(["cmdline"]):
        if any(temporary in part for part in other.info["cmdline"] or ()):
            try:
                other.kill()
            except psutil.NoSuchProcess:
                continue
