"""Blocks as Ray tasks: results in order, all CPUs at work, errors unchanged, an early end at no cost."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
from ray.exceptions import NodeDiedError, ObjectLostError

from canopy.cli import canopy_error
from canopy.errors import ClusterError, DataError, FourPartError, StorageError
from canopy.runtime.node_groups import NodeGroup, NodeGroups
from canopy.runtime.ray_tasks import RETRIES, Recovery, cluster_cpus, map_blocks, max_in_flight

pytestmark = pytest.mark.usefixtures("ray_here")

END_EARLY = """
import logging, random, time
import ray
from canopy.runtime.ray_tasks import map_blocks

ray.init("local", num_cpus=2, include_dashboard=False, log_to_driver=False, logging_level=logging.ERROR)
rng = random.Random(0)

def work(seconds):
    time.sleep(seconds)
    return bytes(300_000)

for turn in range(200):
    stream = map_blocks(work, [rng.choice((0.0, 0.001, 0.01)) for _ in range(40)])
    for _ in range(rng.randrange(8)):
        next(stream)
    start = time.monotonic()
    stream.close() if turn % 2 else None
    del stream
    assert time.monotonic() - start < 1
assert len(list(map_blocks(work, [0.0] * 20))) == 20
print("200 streams ended early")
"""


LOSE_A_NODE = """
import os, signal, time
import ray  # brings psutil along
import psutil
from ray.cluster_utils import Cluster
from canopy.runtime.ray_tasks import Recovery, map_blocks

store = {"object_store_memory": 100 << 20}
cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 0, "include_dashboard": False, **store})
ray.init(address=cluster.address, log_to_driver=False)

def kill(node):
    raylet = psutil.Process(node.all_processes["raylet"][0].process.pid)
    for process in [raylet, *raylet.children(recursive=True)]:
        process.send_signal(signal.SIGKILL)

def work(block):
    time.sleep(1)
    return [item + bytes(200_000) for item in block]  # in the object store of its node

def replaced(block, error):
    raise AssertionError(f"{block} was taken for unreadable: {error}")

blocks = [[bytes([n])] for n in range(24)]
node, lost, found = cluster.add_node(num_cpus=2, **store), 0, []
for result in map_blocks(work, blocks, Recovery(lambda block: None, replaced)):
    found += [item[:1] for item in result]
    if len(found) in (3, 11):
        fresh = cluster.add_node(num_cpus=2, **store)
        kill(node)
        node, lost = fresh, lost + 1
assert found == [block[0] for block in blocks], found
print(f"{lost} nodes lost, {len(found)} results right")
ray.shutdown()  # before its head goes, which would end this process with status 1
cluster.shutdown()
"""


@pytest.fixture
def no_pause(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("canopy.runtime.ray_tasks.PAUSE_S", 0.05)


@pytest.mark.slow
def test_two_hundred_streams_end_early() -> None:
    environment = os.environ | {"PYTHONPATH": "platform"}
    command = [sys.executable, "-c", END_EARLY]
    ended = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=600)
    assert (ended.returncode, ended.stdout) == (0, "200 streams ended early\n"), ended.stderr


def test_results_come_in_order_though_later_blocks_end_sooner() -> None:
    def work(block: int) -> int:
        time.sleep(0.5 if block == 0 else 0)
        return block * block

    assert list(map_blocks(work, range(20))) == [n * n for n in range(20)]
    assert list(map_blocks(work, [])) == []
    assert sum(map_blocks(len, [range(0, 7), range(7, 9)])) == 9


def test_no_more_tasks_are_submitted_than_nodes_without_accelerators_can_run(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """On a cluster that was joined: others would make its autoscaler start nodes with GPUs."""
    assert max_in_flight() == 2 * 4 + 2
    monkeypatch.setattr("canopy.runtime.ray_tasks.started_here", lambda: False)
    assert max_in_flight() == 2 * 4 + 2  # nothing is known of an autoscaler
    cpu, gpu = NodeGroup("cpu", {"CPU": 2.0}, 2), NodeGroup("gpu", {"CPU": 8.0, "GPU": 1.0}, 4)
    monkeypatch.setattr("canopy.runtime.ray_tasks.autoscaler_groups", lambda: NodeGroups((cpu, gpu), 6))
    assert max_in_flight() == 4 + 2 * 2
    monkeypatch.setattr("canopy.runtime.ray_tasks.autoscaler_groups", lambda: NodeGroups((gpu,), 4))
    assert max_in_flight() == 4


def test_all_cpus_are_at_work() -> None:
    def work(_: int) -> tuple[float, float]:
        start = time.time()
        time.sleep(1.0)
        return start, time.time()

    cpus = int(cluster_cpus())
    list(map_blocks(work, range(cpus)))  # starts the processes
    spans = list(map_blocks(work, range(3 * cpus)))
    at_once = [sum(start <= begin < end for start, end in spans) for begin, _ in spans]
    assert max(at_once) == cpus
    assert max(end for _, end in spans) - min(start for start, _ in spans) < 8  # one after the other: 12


@pytest.mark.parametrize("kind", [DataError, StorageError, ClusterError])
def test_an_error_of_a_block_arrives_unchanged(kind: type[FourPartError]) -> None:
    def work(block: int) -> int:
        if block == 2:
            raise kind("A block", "must be another", "2", "Take another.")
        return block

    results = map_blocks(work, range(4))
    assert [next(results), next(results)] == [0, 1]
    with pytest.raises(kind) as caught:
        next(results)
    assert type(caught.value) is kind
    assert str(caught.value) == "A block must be another. Got: 2. Take another."


def test_an_error_of_another_kind_keeps_the_tasks_traceback() -> None:
    def work(block: int) -> float:
        return 1 / block

    with pytest.raises(ZeroDivisionError, match=r"return 1 / block") as caught:
        list(map_blocks(work, [0]))
    assert canopy_error(caught.value) is None


def test_only_a_few_blocks_are_begun_before_their_results_are_wanted(tmp_path: Path) -> None:
    """Results wait in the object store; after an early end no further block is started."""

    def work(block: int) -> int:
        (tmp_path / str(block)).touch()
        return block

    results = map_blocks(work, range(1000))
    assert next(results) == 0
    time.sleep(1)
    begun = len(list(tmp_path.iterdir()))
    assert begun <= max_in_flight()
    start = time.monotonic()
    results.close()  # type: ignore[attr-defined]  # it is a generator
    assert time.monotonic() - start < 0.1, "an early end does not wait"
    time.sleep(1)
    assert len(list(tmp_path.iterdir())) == begun


def test_a_block_that_ends_its_worker_is_halved_until_the_item_is_found(no_pause: None) -> None:
    def work(block: range) -> list[int]:
        if 13 in block or 14 in block:
            os.kill(os.getpid(), signal.SIGKILL)
        return list(block)

    def split(block: range) -> tuple[range, range] | None:
        middle = len(block) // 2
        return (block[:middle], block[middle:]) if middle else None

    recovery = Recovery(split, lambda block, error: [-item for item in block])
    results = list(map_blocks(work, [range(0, 8), range(8, 16), range(16, 24)], recovery))
    expected = list(range(24))
    expected[13], expected[14] = -13, -14
    assert [item for result in results for item in result] == expected


def test_a_block_that_ends_every_worker_is_one_clear_error(no_pause: None) -> None:
    def work(block: int) -> int:
        os.kill(os.getpid(), signal.SIGKILL)
        return block

    with pytest.raises(ClusterError, match=r"worker processes must survive .* were lost or killed"):
        list(map_blocks(work, [1]))


def test_replacing_ends_when_too_many_items_end_their_workers(
    no_pause: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    def work(block: int) -> int:
        os.kill(os.getpid(), signal.SIGKILL)
        return block

    monkeypatch.setattr("canopy.runtime.ray_tasks.MAX_REPLACED", 1)
    monkeypatch.setattr("canopy.runtime.ray_tasks.RETRIES", 1)
    results = map_blocks(work, [1, 2, 3], Recovery(lambda block: None, lambda block, error: -block))
    assert next(results) == -1
    with pytest.raises(ClusterError):
        next(results)


def test_a_block_whose_nodes_are_lost_is_repeated_and_never_replaced(no_pause: None, tmp_path: Path) -> None:
    """Its node or its result is lost more often than a single item may crash."""

    def work(block: range) -> list[int]:
        attempts = len(list(tmp_path.iterdir()))
        if 9 in block and attempts <= RETRIES:
            (tmp_path / str(attempts)).touch()
            lost: Any = NodeDiedError
            raise [lost("its node died"), ObjectLostError("0" * 56, None, "")][attempts % 2]
        return list(block)

    recovery = Recovery[range, list[int]](lambda block: None, lambda block, error: [-item for item in block])
    results = list(map_blocks(work, [range(0, 8), range(8, 16)], recovery))
    assert [item for result in results for item in result] == list(range(16))
    assert len(list(tmp_path.iterdir())) == RETRIES + 1


def test_nodes_that_are_lost_time_after_time_are_one_clear_error(no_pause: None) -> None:
    def work(block: int) -> int:
        lost: Any = NodeDiedError
        raise lost("Task failed: its node died.")

    recovery = Recovery[int, int](lambda block: None, lambda block, error: -block)
    with pytest.raises(ClusterError, match=r"nodes must survive the task work\. Got: 6 in a row"):
        list(map_blocks(work, [1], recovery))


@pytest.mark.slow
def test_a_real_lost_node_takes_no_block_for_unreadable() -> None:
    environment = os.environ | {"PYTHONPATH": "platform", "RAY_AUTH_MODE": "disabled"}
    command = [sys.executable, "-c", LOSE_A_NODE]
    ended = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=600)
    assert ended.returncode == 0, ended.stderr
    assert "2 nodes lost, 24 results right\n" in ended.stdout  # between Ray's own words about dead nodes
