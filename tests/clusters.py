"""Private Ray clusters for tests: a head for the Jobs API, nodes that die or come late, little memory."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from tests.support import end_job, read_json, start_job, wait_until, write_config

from canopy.config import Experiment

RAY = str(Path(sys.executable).with_name("ray"))
START_S = 120
PATIENCE_S = 400


def free_ports(count: int) -> list[int]:
    """Free ports, all different."""
    sockets = [socket.socket() for _ in range(count)]
    for s in sockets:
        s.bind(("127.0.0.1", 0))
    ports = [s.getsockname()[1] for s in sockets]
    for s in sockets:
        s.close()
    return ports


@pytest.fixture
def head(tmp_path: Path) -> Iterator[str]:
    """Address of the dashboard of a private head node."""
    with private_head(tmp_path, {"RAY_AUTH_MODE": "disabled"}) as address:
        yield address


@contextmanager
def private_head(tmp_path: Path, variables: dict[str, str]) -> Iterator[str]:
    """Start a private head node with environment ``variables``; the address of its dashboard."""
    dashboard = free_ports(1)[0]
    with tempfile.TemporaryDirectory(prefix="csub", ignore_cleanup_errors=True) as folder:
        command = [*head_command(folder), "--num-cpus=4"]
        command += [f"--dashboard-port={dashboard}", "--dashboard-host=127.0.0.1"]
        log = (tmp_path / "head.log").open("wb")
        env = {**os.environ, **variables}
        process = subprocess.Popen(
            command, env=env, stdout=log, stderr=subprocess.STDOUT, start_new_session=True, cwd=tmp_path
        )
        try:
            address = f"http://127.0.0.1:{dashboard}"
            wait_for(f"{address}/api/version", process, tmp_path / "head.log")
            yield address
        finally:
            end_group(process)
            log.close()


def head_command(folder: str, gcs: int | None = None) -> list[str]:
    """The command of a head on free ports of loopback.

    Args:
        folder: Ray's temporary directory; a short path.
        gcs: port of the control service; None takes a free one.
    """
    names = "dashboard-agent-grpc dashboard-agent-listen runtime-env-agent metrics-export ray-client-server"
    ports = names.split()
    free, *others = free_ports(1 + len(ports))
    command = [RAY, "start", "--head", "--block", f"--temp-dir={folder}", f"--port={gcs or free}"]
    command += [f"--{name}-port={port}" for name, port in zip(ports, others, strict=True)]
    return [*command, "--node-ip-address=127.0.0.1"]


def end_group(process: subprocess.Popen[bytes]) -> None:
    """End a process and its group."""
    os.killpg(process.pid, signal.SIGTERM)
    try:
        process.wait(timeout=20)
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, signal.SIGKILL)


def wait_for(url: str, process: subprocess.Popen[bytes], log: Path) -> None:
    """Wait until ``url`` answers."""
    end = time.monotonic() + START_S
    while True:
        try:
            with urllib.request.urlopen(url, timeout=5):
                return
        except urllib.error.HTTPError as error:  # it answers, to those who have the token
            if error.code in (401, 403):
                return
            raise
        except OSError:
            assert process.poll() is None, log.read_text()
            assert time.monotonic() < end, log.read_text()
            time.sleep(0.5)


SEAT = {"seat": 1}


class Nodes:
    """A private cluster: a head without a seat for a worker, and nodes that a test adds and kills."""

    def __init__(self, folder: str) -> None:
        from ray.cluster_utils import Cluster

        self._logs = Path(folder, "session_latest", "logs", "train")
        head = {"num_cpus": 2, "include_dashboard": False, "temp_dir": folder}
        self._cluster = Cluster(initialize_head=True, head_node_args={**head, **self._store()})

    @staticmethod
    def _store() -> dict[str, Any]:
        return {"object_store_memory": 150 << 20}

    @property
    def address(self) -> str:
        """Address of the control service, for ``RAY_ADDRESS``."""
        return str(self._cluster.address)

    def placement_requested(self) -> bool:
        """Whether a controller of Ray Train has tried to place its workers."""
        logs = self._logs.glob("*controller*.log")
        return any("Attempting to start training worker group" in log.read_text() for log in logs)

    def add(self) -> Any:
        """A node with a seat for one worker."""
        return self._cluster.add_node(num_cpus=1, resources=SEAT, **self._store())

    def kill(self, node: Any) -> None:
        """Kill the raylet and all its processes at once, as a power failure does."""
        raylet = raylet_of(node)
        for process in [raylet, *raylet.children(recursive=True)]:
            process.send_signal(signal.SIGKILL)

    def close(self) -> None:
        """Shut the cluster down."""
        self._cluster.shutdown()  # type: ignore[no-untyped-call]


def process_of(pid: int) -> Any:
    """The ``psutil`` process with this id."""
    import psutil  # type: ignore[import-untyped]  # Ray brings it along

    return psutil.Process(pid)


def trainers_under(process: Any) -> list[Any]:
    """The training workers among the descendants of ``process``."""
    return [
        one for one in process.children(recursive=True) if "ray::RayTrainWorker" in " ".join(one.cmdline())
    ]


def raylet_of(node: Any) -> Any:
    """The process of a node's raylet."""
    (raylet,) = node.all_processes["raylet"]
    return process_of(raylet.process.pid)


def trains_on(node: Any) -> bool:
    """Whether a training worker runs on ``node``."""
    return bool(trainers_under(raylet_of(node)))


@pytest.fixture
def nodes() -> Iterator[Nodes]:
    """A private cluster without seats yet."""
    with tempfile.TemporaryDirectory(prefix="cnod", ignore_cleanup_errors=True) as folder:
        cluster = Nodes(folder)
        yield cluster
        cluster.close()


class Job:
    """The pipeline as a process that connects to the head of a private cluster."""

    def __init__(self, nodes: Nodes, config: Experiment, folder: Path) -> None:
        self.run, self.log = folder / "run", folder / "log"
        self.train = self.run / "train" / "resnet" / "fold0"
        env = {**os.environ, "RAY_AUTH_MODE": "disabled", "RAY_ADDRESS": nodes.address}
        arguments = ["--config", str(write_config(config, folder / "c.yaml")), "--run-dir", str(self.run)]
        self.process = start_job("pipeline", *arguments, env=env, log=self.log)

    def wait_for(self, what: str, found: Callable[[], bool]) -> None:
        """Wait until ``found()`` is true; ``what`` names it in the error."""
        wait_until(what, found, self.process, self.log, PATIENCE_S)

    def progress(self) -> dict[str, Any]:
        """The progress file of rank 0; empty when there is none."""
        try:
            found: dict[str, Any] = read_json(self.train / "progress.json")
        except (FileNotFoundError, ValueError):
            return {}
        return found

    def ends_well(self) -> list[dict[str, Any]]:
        """Wait until the job ends with status 0; returns the history of its training."""
        try:
            assert self.process.wait(timeout=PATIENCE_S) == 0, self.log.read_text()
        except subprocess.TimeoutExpired:
            raise AssertionError(f"not done in {PATIENCE_S} s:\n{self.log.read_text()}") from None
        history: list[dict[str, Any]] = read_json(self.train / "history.json")
        return history


@pytest.fixture
def start(nodes: Nodes, tmp_path: Path) -> Iterator[Callable[[Experiment], Job]]:
    """A function that starts a job on the private cluster; the jobs are ended after the test."""
    jobs: list[Job] = []

    def begin(config: Experiment) -> Job:
        jobs.append(Job(nodes, config, tmp_path))
        return jobs[-1]

    yield begin
    for job in jobs:
        end_job(job.process)


def memory_threshold(spare_gb: float) -> str:
    """The share of this machine's memory that is in use when ``spare_gb`` more are taken."""
    lines = Path("/proc/meminfo").read_text().splitlines()
    sizes = {line.split(":")[0]: int(line.split()[1]) << 10 for line in lines}
    used = sizes["MemTotal"] - sizes["MemAvailable"]
    return f"{(used + spare_gb * 2**30) / sizes['MemTotal']:.4f}"


@contextmanager
def memory_limited_ray(spare_gb: float, cpus: int = 2) -> Iterator[None]:
    """A Ray in this process whose memory monitor kills workers when ``spare_gb`` more memory are used.

    For processes of their own: it sets environment variables, and no other Ray may be connected.
    """
    import ray

    limit = {"RAY_memory_usage_threshold": memory_threshold(spare_gb), "RAY_memory_monitor_refresh_ms": "100"}
    os.environ |= limit | {"RAY_AUTH_MODE": "disabled"}
    with tempfile.TemporaryDirectory(prefix="coom", ignore_cleanup_errors=True) as folder:
        ray.init(
            address="local",
            num_cpus=cpus,
            include_dashboard=False,
            log_to_driver=False,
            object_store_memory=150 << 20,
            _temp_dir=folder,
        )
        try:
            yield
        finally:
            ray.shutdown()
