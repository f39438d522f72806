"""The lease: one pipeline per run directory; a dead holder's lease is taken over."""

from __future__ import annotations

import multiprocessing
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from dataclasses import replace
from multiprocessing.synchronize import Barrier, Event
from pathlib import Path

import boto3  # type: ignore[import-untyped]
import pytest

from canopy.errors import RunDirError
from canopy.storage import files, lease
from canopy.storage.lease import Holder, hold_lease, read_holder

HOLD = """
import sys, time
from canopy.storage.lease import hold_lease
with hold_lease(sys.argv[1]):
    print("held", flush=True)
    time.sleep(60)
"""


@pytest.fixture
def root(tmp_path: Path) -> str:
    return str(tmp_path / "run")


@pytest.fixture
def other_process(root: str) -> Iterator[subprocess.Popen[str]]:
    """A process that holds the lease."""
    environment = os.environ | {"PYTHONPATH": "platform"}
    process = subprocess.Popen(
        [sys.executable, "-c", HOLD, root], env=environment, stdout=subprocess.PIPE, text=True
    )
    assert process.stdout is not None
    assert process.stdout.readline() == "held\n"
    yield process
    process.kill()
    process.wait()
    process.stdout.close()


def foreign(root: str, **changes: object) -> Holder:
    """A lease of another machine, in place."""
    holder = replace(Holder.of_this_process(), host="elsewhere", machine="another", pid=4242, token="t")
    holder = replace(holder, **changes)  # type: ignore[arg-type]
    files.write_bytes(files.join(root, "lease.json"), holder.to_json())
    return holder


def test_a_lease_lasts_as_long_as_its_block_and_leaves_nothing(root: str) -> None:
    for _ in range(2):
        with hold_lease(root) as held:
            held.check()
            found = read_holder(files.join(root, "lease.json"))
            assert found is not None
            assert found.pid == os.getpid()
            assert found.is_alive()
    assert not Path(root).exists(), "a directory that nothing was written to is removed"
    with hold_lease(root):
        files.write_bytes(files.join(root, "kept"), b"")
    assert [file.name for file in Path(root).iterdir()] == ["kept"]


def test_a_second_pipeline_is_refused_and_learns_the_holder(
    root: str, other_process: subprocess.Popen[str]
) -> None:
    need = rf"one pipeline at a time\. Got: process {other_process.pid} on \S+, at work since 20.*--run-dir"
    with pytest.raises(RunDirError, match=need), hold_lease(root):
        pass
    assert read_holder(files.join(root, "lease.json")) is not None, "the holder's lease stays"


def test_a_thread_of_the_same_process_is_refused_too(root: str) -> None:
    with hold_lease(root), pytest.raises(RunDirError, match=f"process {os.getpid()} on"), hold_lease(root):
        pass


@pytest.mark.parametrize("reaped", [True, False])
def test_the_lease_of_a_killed_process_is_taken_over_at_once(
    root: str, other_process: subprocess.Popen[str], reaped: bool
) -> None:
    os.kill(other_process.pid, signal.SIGKILL)
    if reaped:
        other_process.wait()
    else:  # a zombie still has a process id
        while lease.process_start(other_process.pid) is not None:
            time.sleep(0.01)
    with hold_lease(root) as held:
        held.check()


def test_a_reused_process_id_does_not_count(root: str) -> None:
    foreign(root, machine=lease.machine_id(), pid=os.getpid(), process_start=1)
    with hold_lease(root):
        pass


def test_another_machine_counts_as_dead_after_the_limit(root: str) -> None:
    foreign(root, heartbeat=time.time() - lease.LIMIT_S + 20)
    with pytest.raises(RunDirError, match="process 4242 on elsewhere"), hold_lease(root):
        pass
    foreign(root, heartbeat=time.time() - lease.LIMIT_S - 1)
    with hold_lease(root) as held:
        held.check()


@pytest.mark.parametrize("content", [b"", b"{", b"[]", b'{"host": "x"}', b"\0" * 30])
def test_a_damaged_lease_is_replaced(root: str, content: bytes) -> None:
    files.write_bytes(files.join(root, "lease.json"), content)
    with hold_lease(root) as held:
        held.check()


def test_the_heartbeat_is_renewed(root: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lease, "HEARTBEAT_S", 0.05)
    with hold_lease(root):
        first = read_holder(files.join(root, "lease.json"))
        time.sleep(0.5)
        second = read_holder(files.join(root, "lease.json"))
    assert first is not None
    assert second is not None
    assert second.heartbeat > first.heartbeat
    assert second.token == first.token


def test_a_pipeline_that_was_replaced_stops(root: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lease, "HEARTBEAT_S", 0.05)
    with hold_lease(root) as held:
        foreign(root)
        time.sleep(0.5)
        with pytest.raises(RunDirError, match="process 4242 on elsewhere"):
            held.check()
    found = read_holder(files.join(root, "lease.json"))
    assert found is not None
    assert found.token == "t", "the successor's lease stays"


def contend(root: str, barrier: Barrier, done: Event, winners: multiprocessing.Queue[int]) -> None:
    barrier.wait()
    try:
        with hold_lease(root):
            winners.put(os.getpid())
            done.wait(30)
    except RunDirError:
        winners.put(0)


@pytest.mark.slow
@pytest.mark.parametrize("dead_before", [False, True])
def test_of_processes_that_start_at_once_one_gets_the_lease(root: str, dead_before: bool) -> None:
    count = 6
    if dead_before:
        foreign(root, heartbeat=0.0)
    spawn = multiprocessing.get_context("spawn")
    barrier, done, winners = spawn.Barrier(count), spawn.Event(), spawn.Queue()
    processes = [spawn.Process(target=contend, args=(root, barrier, done, winners)) for _ in range(count)]
    for process in processes:
        process.start()
    found = [winners.get(timeout=60) for _ in range(count)]
    done.set()
    for process in processes:
        process.join()
    assert sum(pid > 0 for pid in found) == 1


@pytest.mark.parametrize("dead_before", [False, True])
def test_of_threads_that_start_at_once_one_gets_the_lease(root: str, dead_before: bool) -> None:
    for _ in range(20):
        if dead_before:
            foreign(root, heartbeat=0.0)
        assert sorted(contending_threads(root, 4, hold_s=0.02)) == ["held", "refused", "refused", "refused"]


def contending_threads(root: str, count: int, hold_s: float) -> list[str]:
    """Whether each of ``count`` threads that start at once gets the lease; it is held for ``hold_s``."""
    outcomes: list[str] = []
    start, decided = threading.Barrier(count), threading.Barrier(count)

    def pipeline() -> None:
        start.wait()
        try:
            with hold_lease(root):
                outcomes.append("held")
                decided.wait(30)
                time.sleep(hold_s)
        except RunDirError:
            outcomes.append("refused")
            decided.wait(30)

    threads = [threading.Thread(target=pipeline) for _ in range(count)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return outcomes


def test_on_an_object_store(s3_here: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lease, "SETTLE_S", 0.3)
    boto3.client("s3").create_bucket(Bucket="leases")
    root = "s3://leases/run"
    with hold_lease(root) as held:
        held.check()
        with pytest.raises(RunDirError, match=f"process {os.getpid()} on"), hold_lease(root):
            pass
    assert read_holder(files.join(root, "lease.json")) is None
    foreign(root, heartbeat=time.time() - lease.LIMIT_S - 1)
    with hold_lease(root):
        pass

    assert sorted(contending_threads(root, 2, hold_s=0.1)) == ["held", "refused"]
