"""Ray's errors in our own words, from real errors of Ray and from the real text of its memory monitor."""

from __future__ import annotations

import errno
import os
import pickle
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import ray
from ray import exceptions
from ray.core.generated.common_pb2 import ActorDiedErrorContext  # type: ignore[attr-defined]
from ray.train.v2._internal.exceptions import WorkerGroupStartupTimeoutError, WorkerHealthCheckTimeoutError
from ray.train.v2.api.exceptions import PreemptionError
from ray.train.v2.api.preemption import PreemptionInfo
from tests.support import REPOSITORY

from canopy.runtime.ray_errors import (
    INTERNAL_DESCRIPTIONS,
    LINE_LENGTH,
    MemoryReport,
    describe_ray_error,
    is_out_of_memory,
    last_line,
    shorten,
)

OUT_OF_MEMORY = (Path(__file__).parent / "out_of_memory_2.60.txt").read_text()
"""The message of a task that Ray 2.60 killed, with another user's process on top."""
DEAD_NODE = (
    "Task failed because the node it was running on is dead or unavailable. Node IP: 10.0.0.7, node ID: 0a1b."
    " This can happen if the node was preempted, had a hardware failure, or its raylet crashed unexpectedly."
)


def described(error: BaseException) -> str:
    line = describe_ray_error(error)
    assert line is not None
    assert "\n" not in line
    assert len(line) <= LINE_LENGTH
    return line


def test_out_of_memory_says_where_how_much_which_process_and_what_to_lower() -> None:
    error = exceptions.OutOfMemoryError(OUT_OF_MEMORY)  # type: ignore[no-untyped-call]
    assert described(error) == (
        "memory ran out on node 192.0.2.2 (4.1 of 23.5 GB used); largest process: python -m analysis.notebook"
        " --port 8888, 1.7 GB. Lower scale.workers, optim.batch_size, data.max_cache_gb or the number of "
        "concurrent variants."
    )
    assert is_out_of_memory([ValueError(), pickle.loads(pickle.dumps(error))])
    assert not is_out_of_memory([exceptions.NodeDiedError(DEAD_NODE)])  # type: ignore[no-untyped-call]


def test_figures_that_ray_does_not_give_are_left_out() -> None:
    assert MemoryReport.parse("") == MemoryReport(None, None, None, None, None)
    assert described(exceptions.OutOfMemoryError("killed")).startswith("memory ran out. Lower ")  # type: ignore[no-untyped-call]


def test_a_long_command_is_shortened() -> None:
    text = OUT_OF_MEMORY.replace("analysis.notebook", "analysis." + "x" * 400)
    line = described(exceptions.OutOfMemoryError(text))  # type: ignore[no-untyped-call]
    assert "…, 1.7 GB. Lower" in line


HOLD_MEMORY = """
import ray, time
from tests.clusters import memory_limited_ray

with memory_limited_ray(spare_gb=1.0):

    @ray.remote(max_retries=0)
    def hold_memory():
        held = []
        for _ in range(100):
            held.append(b"\\1" * (50 << 20))
            time.sleep(0.05)

    try:
        ray.get(hold_memory.remote(), timeout=120)
    except ray.exceptions.OutOfMemoryError as error:
        print(error)
"""


@pytest.mark.slow
def test_a_real_kill_of_the_memory_monitor_is_described() -> None:
    command = [sys.executable, "-c", HOLD_MEMORY]
    done = subprocess.run(command, cwd=REPOSITORY, capture_output=True, text=True, timeout=300)
    message = done.stdout
    report = MemoryReport.parse(message)
    assert report.node is not None, done.stdout + done.stderr
    assert report.used_gb is not None
    assert report.limit_gb is not None
    assert 0 < report.used_gb < report.limit_gb
    assert report.largest_process is not None
    assert report.largest_gb is not None
    line = described(exceptions.OutOfMemoryError(message))  # type: ignore[no-untyped-call]
    assert line.startswith(f"memory ran out on node {report.node} ({report.used_gb:.1f} of ")
    assert "GB. Lower scale.workers" in line


@pytest.mark.usefixtures("ray_here")
@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGSEGV])
def test_a_worker_that_a_signal_ended(number: signal.Signals) -> None:
    @ray.remote(num_cpus=0)
    class Actor:
        def end(self, number: int) -> None:
            os.kill(os.getpid(), number)
            time.sleep(30)

    with pytest.raises(exceptions.ActorDiedError) as caught:
        ray.get(Actor.remote().end.remote(number), timeout=60)  # type: ignore[attr-defined]
    assert described(caught.value).startswith("a worker process on node 1")
    assert "ended unexpectedly: killed by a signal" in described(caught.value)


@pytest.mark.usefixtures("ray_here")
def test_a_worker_that_fails_while_it_is_created() -> None:
    @ray.remote(num_cpus=0)
    class Actor:
        def __init__(self) -> None:
            raise RuntimeError("no such device")

        def call(self) -> None: ...

    with pytest.raises(exceptions.ActorDiedError) as caught:
        ray.get(Actor.remote().call.remote(), timeout=60)  # type: ignore[attr-defined]
    assert described(caught.value) == "a worker failed while it was created: RuntimeError: no such device"


@pytest.mark.usefixtures("ray_here")
def test_a_function_that_cannot_be_pickled() -> None:
    class Unpicklable:
        def __reduce__(self) -> str:
            raise TypeError("cannot pickle 'generator' object")

    held = Unpicklable()

    @ray.remote
    def task() -> object:
        return held

    with pytest.raises(TypeError) as caught:
        task.remote()
    line = described(caught.value)
    assert line.startswith("function ")
    assert line.endswith("could not be pickled to send it to a worker: cannot pickle 'generator' object")


def test_nodes_that_died() -> None:
    died = "node 10.0.0.7 died or lost its connection. Look at its logs, then start again."
    assert described(exceptions.NodeDiedError(DEAD_NODE)) == died  # type: ignore[no-untyped-call]
    context = ActorDiedErrorContext(
        class_name="RayTrainWorker",
        actor_id=b"\1" * 16,
        node_ip_address="10.0.0.7",
        error_message="The actor died because its node has died. Node Id: 0a1b",
    )
    assert described(exceptions.ActorDiedError(context)) == died


def test_other_kinds() -> None:
    full = OSError(errno.ENOSPC, "No space left on device", "/runs/x/weights.safetensors")
    assert described(full).startswith("no space left on the disk for /runs/x/weights.safetensors.")
    lines = {
        exceptions.WorkerCrashedError(): "a worker process of a task ended unexpectedly",
        exceptions.RuntimeEnvSetupError("Failed to install\nNo module named pip"): "No module named pip",
        exceptions.ObjectStoreFullError("full"): "Ray's object store is full",
        exceptions.OutOfDiskError("full"): "no space left on a node's disk",
        exceptions.ActorUnschedulableError("The node was removed"): "could not place a worker",
        exceptions.ActorPlacementGroupRemoved(): "was removed before they started",
        exceptions.LocalRayletDiedError(): "the connection to Ray's head node was lost",
        exceptions.RpcError(  # type: ignore[no-untyped-call]
            "failed to connect to all addresses", 14
        ): "the connection to Ray's head node was lost",
        exceptions.ObjectLostError("0a", None, ""): "data in Ray's object store was lost",
        exceptions.ActorUnavailableError("ip: 10.0.0.7", b"\1" * 16): "a worker on node 10.0.0.7",
        pickle.PicklingError("Can't pickle <function>"): "could not be pickled",
    }
    for error, part in lines.items():
        assert part in described(error), type(error)
    assert describe_ray_error(ValueError("x")) is None
    assert describe_ray_error(OSError("x")) is None


def test_errors_of_ray_train(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RAY_TRAIN_WORKER_GROUP_START_TIMEOUT_S", "30.0")
    assert described(WorkerGroupStartupTimeoutError(3)).startswith(
        "the cluster had no room for its 3 workers within 30.0 s (fleet.capacity_timeout_s)"
    )
    assert "stopped answering: rank 1" in described(WorkerHealthCheckTimeoutError("rank 1"))  # type: ignore[no-untyped-call]
    preempted = PreemptionError(PreemptionInfo(None, {"0a1b": [0]}))
    assert "fleet.max_preemption_failures" in described(preempted)
    known = {WorkerGroupStartupTimeoutError, WorkerHealthCheckTimeoutError, PreemptionError}
    assert {kind.__name__ for kind in known} == INTERNAL_DESCRIPTIONS.keys()


def test_lines() -> None:
    assert last_line("Traceback\n  File\nValueError: bad value.\n\n") == "ValueError: bad value"
    assert last_line("  \n") == "no message"
    assert shorten("a\n b", 10) == "a b"
    assert shorten("x" * 20, 10) == "x" * 9 + "…"
