"""A cluster of several nodes on this machine: nodes die, come late, or do not come."""

from __future__ import annotations

import os
import signal
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from ray.cluster_utils import Cluster
from tests.support import read_json, start_job, tiny_experiment, write_config

from canopy.config import Experiment, FleetConfig, derive

pytestmark = pytest.mark.slow

PATIENCE_S = 400
LATE_S = 75
"""Above the minute after which Ray Train itself gives a placement up."""
SEAT = {"seat": 1}


class Nodes:
    """Raylets of our own: a head without a seat for a worker, and whatever is added."""

    def __init__(self, folder: str) -> None:
        self._logs = Path(folder, "session_latest", "logs", "train")
        head = {"num_cpus": 2, "include_dashboard": False, "temp_dir": folder}
        self._cluster = Cluster(initialize_head=True, head_node_args={**head, **self._store()})

    @staticmethod
    def _store() -> dict[str, Any]:
        return {"object_store_memory": 150 << 20}

    @property
    def address(self) -> str:
        """Of the control service, for ``RAY_ADDRESS``."""
        return str(self._cluster.address)

    def asked(self) -> bool:
        """Whether a controller of Ray Train waits for the place of its workers."""
        logs = self._logs.glob("*controller*.log")
        return any("Attempting to start training worker group" in log.read_text() for log in logs)

    def add(self) -> Any:
        """A node with a seat for one worker."""
        return self._cluster.add_node(num_cpus=1, resources=SEAT, **self._store())

    def kill(self, node: Any) -> None:
        """As when the machine is switched off: its raylet and all its processes at once."""
        raylet = raylet_of(node)
        for process in [raylet, *raylet.children(recursive=True)]:
            process.send_signal(signal.SIGKILL)

    def close(self) -> None:
        """End everything."""
        self._cluster.shutdown()  # type: ignore[no-untyped-call]


def raylet_of(node: Any) -> Any:
    import psutil  # type: ignore[import-untyped]  # Ray brings it along

    (raylet,) = node.all_processes["raylet"]
    return psutil.Process(raylet.process.pid)


def trains_on(node: Any) -> bool:
    """Whether a training worker runs on ``node``."""
    children = raylet_of(node).children(recursive=True)
    return any("ray::RayTrainWorker" in " ".join(child.cmdline()) for child in children)


@pytest.fixture
def nodes() -> Iterator[Nodes]:
    with tempfile.TemporaryDirectory(prefix="cnod", ignore_cleanup_errors=True) as folder:
        cluster = Nodes(folder)
        yield cluster
        cluster.close()


def experiment(epochs: int, fleet: FleetConfig, **scale: Any) -> Experiment:
    config = tiny_experiment(variants=1, trials=0)
    (variant,) = config.variants
    seats = derive(variant.scale, accelerator="seat", **scale)
    variant = derive(variant, scale=seats, optim=derive(variant.optim, epochs=epochs))
    return derive(config, variants=(variant,), fleet=fleet)


class Job:
    """The pipeline, from its first stage to the end of training, as a driver on the head."""

    def __init__(self, nodes: Nodes, config: Experiment, folder: Path) -> None:
        self.run, self.log = folder / "run", folder / "log"
        self.train = self.run / "train" / "resnet" / "fold0"
        env = {**os.environ, "RAY_AUTH_MODE": "disabled", "RAY_ADDRESS": nodes.address}
        arguments = ["--config", str(write_config(config, folder / "c.yaml")), "--run-dir", str(self.run)]
        self.process = start_job("pipeline", *arguments, env=env, log=self.log)

    def wait_for(self, what: str, found: Callable[[], bool]) -> None:
        end = time.monotonic() + PATIENCE_S
        while not found():
            assert self.process.poll() is None, f"the job ended before {what}:\n{self.log.read_text()}"
            assert time.monotonic() < end, f"no {what} in {PATIENCE_S} s:\n{self.log.read_text()}"
            time.sleep(0.2)

    def said(self) -> dict[str, Any]:
        try:
            found: dict[str, Any] = read_json(self.train / "progress.json")
        except (FileNotFoundError, ValueError):
            return {}
        return found

    def kept(self) -> bool:
        """Whether Ray Train has a checkpoint that it will find again: in its list, not only written."""
        lists = list((self.run / "train" / "ray").glob("*/checkpoint_manager_snapshot.json"))
        return bool(lists) and '"checkpoint_dir_name"' in lists[0].read_text()

    def ends_well(self) -> list[dict[str, Any]]:
        """Its history, once it has ended with status 0."""
        try:
            assert self.process.wait(timeout=PATIENCE_S) == 0, self.log.read_text()
        except subprocess.TimeoutExpired:
            raise AssertionError(f"not done in {PATIENCE_S} s:\n{self.log.read_text()}") from None
        history: list[dict[str, Any]] = read_json(self.train / "history.json")
        return history

    def end(self) -> None:
        if self.process.poll() is None:
            os.killpg(self.process.pid, signal.SIGKILL)
            self.process.wait()


@pytest.fixture
def start(nodes: Nodes, tmp_path: Path) -> Iterator[Callable[[Experiment], Job]]:
    jobs: list[Job] = []

    def begin(config: Experiment) -> Job:
        jobs.append(Job(nodes, config, tmp_path))
        return jobs[-1]

    yield begin
    for job in jobs:
        job.end()


def test_a_training_goes_on_on_another_node_when_its_own_is_lost(
    nodes: Nodes, start: Callable[[Experiment], Job]
) -> None:
    """Chips too: they lie in the object store of the driver's node, and tasks of the lost one run again."""
    seats = [nodes.add(), nodes.add()]
    job = start(experiment(30, FleetConfig(max_failures=1)))
    job.wait_for("a checkpoint", job.kept)
    (lost,) = [node for node in seats if trains_on(node)]
    nodes.kill(lost)
    assert job.said()["epoch"] < 30
    history = job.ends_well()
    assert [record["epoch"] for record in history] == list(range(1, 31))
    facts = read_json(job.train / "facts.json")
    assert facts["resumed"], "it began anew"


def test_an_elastic_training_goes_on_with_fewer_workers_when_a_node_is_lost(
    nodes: Nodes, start: Callable[[Experiment], Job]
) -> None:
    seats = [nodes.add(), nodes.add()]
    job = start(experiment(30, FleetConfig(max_failures=1), workers=2, min_workers=1))
    job.wait_for("a checkpoint", job.kept)
    assert job.said()["ranks"] == 2
    assert all(trains_on(node) for node in seats)
    nodes.kill(seats[1])
    history = job.ends_well()
    assert job.said()["ranks"] == 1
    assert [record["epoch"] for record in history] == list(range(1, 31))
    assert read_json(job.train / "facts.json")["resumed"], "it began anew"
    # The global batch and the learning rate are those of the plan, so the schedule ends where it should.
    assert history[-1]["lr"] < 0.02 * max(record["lr"] for record in history)


def test_a_node_that_boots_for_long_is_waited_for_and_is_no_failure(
    nodes: Nodes, start: Callable[[Experiment], Job]
) -> None:
    limits = FleetConfig(max_failures=0, controller_failure_limit=0, max_preemption_failures=0)
    job = start(experiment(2, limits))
    job.wait_for("the placement of workers", nodes.asked)
    time.sleep(LATE_S)
    assert job.process.poll() is None, job.log.read_text()
    assert not job.said(), "it trains without a seat"
    nodes.add()
    assert [record["epoch"] for record in job.ends_well()] == [1, 2]


def test_nodes_that_never_come_end_an_elastic_training_in_time(
    nodes: Nodes, start: Callable[[Experiment], Job]
) -> None:
    limits = FleetConfig(capacity_timeout_s=5)
    job = start(experiment(2, limits, workers=2, min_workers=1))
    assert job.process.wait(timeout=PATIENCE_S) == 1
    told = "The cluster had no room for scale.min_workers within 5 s (fleet.capacity_timeout_s)"
    assert told in job.log.read_text()
