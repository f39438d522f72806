"""Failures: which are permanent, what a worker raises, the reason in one line."""

from __future__ import annotations

import pickle

import pytest
import ray
from ray import exceptions
from ray.train import ControllerError, WorkerGroupError
from ray.train.v2._internal.exceptions import WorkerGroupStartupTimeoutError, WorkerHealthCheckFailedError

from canopy.errors import (
    CanopyError,
    ClusterError,
    ConfigError,
    DataError,
    FleetError,
    RunDirError,
    StageError,
    StorageError,
)
from canopy.train.fleet.failures import (
    REASON_LENGTH,
    causes,
    error_for_controller,
    failure_reason,
    is_permanent,
)

PARTS = ("s3://b/x", "must be reachable", "HTTP 503", "Check it.")


@pytest.mark.parametrize("kind", [ConfigError, DataError, RunDirError])
def test_bad_input_is_permanent(kind: type[CanopyError]) -> None:
    assert is_permanent(kind(*PARTS))


def test_failed_stages_are_permanent() -> None:
    assert is_permanent(StageError("variant v: the loss became nan"))
    assert is_permanent(FleetError("The cluster had no room"))


@pytest.mark.parametrize(
    "error",
    [
        StorageError(*PARTS),
        ClusterError(*PARTS),
        OSError("connection reset by peer"),
        RuntimeError("CUDA error"),
        exceptions.NodeDiedError("gone"),  # type: ignore[no-untyped-call]
    ],
)
def test_faults_of_the_infrastructure_and_crashes_are_not_permanent(error: Exception) -> None:
    assert not is_permanent(error)
    assert error_for_controller(error) is error


def test_the_type_survives_the_way_to_the_controller() -> None:
    for error in (StorageError(*PARTS), DataError(*PARTS), StageError("the loss became nan")):
        wrapped = RuntimeError("task failed")
        wrapped.__cause__ = error
        sent = pickle.loads(pickle.dumps(error_for_controller(wrapped)))
        assert type(sent) is type(error)
        assert str(sent) == str(error)
        assert is_permanent(sent) == is_permanent(error)


@pytest.mark.usefixtures("ray_here")
def test_an_error_of_canopy_in_a_ray_task_is_unwrapped() -> None:
    @ray.remote(max_retries=0)
    def task() -> None:
        raise DataError("Image 7", "must be readable", "no file", "Restore it.")

    with pytest.raises(Exception, match="must be readable") as caught:
        ray.get(task.remote())
    sent = error_for_controller(caught.value)
    assert type(sent) is DataError
    assert str(sent) == "Image 7 must be readable. Got: no file. Restore it."


def test_the_reason_is_the_last_line_of_the_innermost_cause() -> None:
    outer = RuntimeError("task failed")
    outer.__cause__ = ValueError("first line\nthe value is odd")
    assert failure_reason(WorkerGroupError("pages of advice", {1: outer})) == "the value is odd"
    assert failure_reason(KeyError()) == "KeyError"
    assert len(failure_reason(ValueError("x" * 5000))) == REASON_LENGTH


def test_a_reason_of_canopy_is_taken_as_it_is() -> None:
    error = StorageError(*PARTS)
    assert failure_reason(WorkerGroupError("pages", {0: RuntimeError("reset"), 1: error})) == str(error)


def test_known_errors_of_ray_are_described() -> None:
    died = exceptions.NodeDiedError("Node IP: 10.0.0.7, node ID: 0a")  # type: ignore[no-untyped-call]
    health = WorkerHealthCheckFailedError("A worker health check failed.", failure=died)
    assert failure_reason(WorkerGroupError("pages", {0: health})).startswith("node 10.0.0.7 died")
    timeout = ControllerError(WorkerGroupStartupTimeoutError(3))
    assert failure_reason(timeout).startswith("the cluster had no room for its 3 workers")


def test_memory_that_ran_out_on_one_rank_explains_the_crash_of_another() -> None:
    killed = exceptions.OutOfMemoryError(  # type: ignore[no-untyped-call]
        "Memory on the node (IP: 10.0.0.7, ID: 0a) was 9.0GB used / 9.5GB limit"
    )
    failures: dict[int, Exception] = {
        0: WorkerHealthCheckFailedError("failed", failure=exceptions.ActorDiedError()),
        1: WorkerHealthCheckFailedError("failed", failure=killed),
    }
    reason = failure_reason(WorkerGroupError("pages", failures))
    assert reason.startswith("memory ran out on node 10.0.0.7 (9.0 of 9.5 GB used).")


def test_causes_end_where_they_repeat() -> None:
    first, second = RuntimeError("a"), RuntimeError("b")
    first.__cause__, second.__cause__ = second, first
    assert causes(first) == [first, second]
    assert failure_reason(first) == "b"
