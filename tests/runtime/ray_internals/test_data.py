"""Each private interface of Ray Data still does what Canopy uses it for, in a real execution."""

from __future__ import annotations

import inspect
import os
import signal
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import ray.data
from ray.data import DataContext
from ray.data._internal.execution import resource_manager, streaming_executor, streaming_executor_state
from ray.data._internal.execution.interfaces.physical_operator import PhysicalOperator
from ray.exceptions import WorkerCrashedError

from canopy.runtime.ray_internals import data

SEEN: dict[str, Any] = {}


class Recorder(data.ExecutionCallback):
    """Uses every function on a real execution and records what it finds."""

    def before_execution_starts(self, executor: Any) -> None:
        """Called by Ray Data."""
        data.refresh_limits_at_every_step(executor)
        data.never_cancel_tasks(executor)
        SEEN["interval"] = executor._resource_manager.GLOBAL_LIMITS_UPDATE_INTERVAL_S
        SEEN["cancellers"] = {operator._cancel_active_tasks for operator in executor._topology}

    def on_execution_step(self, executor: Any) -> None:
        """Called by Ray Data."""
        SEEN["steps"] = SEEN.get("steps", 0) + 1
        if data.knows_cluster_cpus(executor) and "known" not in SEEN:
            SEEN["known"] = True
            data.refresh_limits_by_default(executor)
            SEEN["default"] = executor._resource_manager.GLOBAL_LIMITS_UPDATE_INTERVAL_S


@pytest.fixture
def recorded(ray_here: None) -> Iterator[dict[str, Any]]:
    context = DataContext.get_current()
    before = list(context.custom_execution_callback_classes)
    context.custom_execution_callback_classes = [Recorder]
    context.enable_progress_bars = False
    SEEN.clear()
    yield SEEN
    context.custom_execution_callback_classes = before


def test_a_real_execution_obeys(recorded: dict[str, Any]) -> None:
    def slow(block: dict[str, Any]) -> dict[str, Any]:
        time.sleep(0.2)
        return block

    rows = ray.data.range(4, override_num_blocks=4).map_batches(slow, batch_size=None)
    assert len(rows.take_all()) == 4
    assert recorded["steps"] > 1
    assert recorded["interval"] == 0.0
    assert recorded["cancellers"] == {data._cancel_nothing}
    assert recorded["known"]
    assert recorded["default"] == resource_manager.ResourceManager.GLOBAL_LIMITS_UPDATE_INTERVAL_S > 0


def test_ray_data_reads_the_poll_interval_from_where_it_is_set(monkeypatch: pytest.MonkeyPatch) -> None:
    name = "WAIT_FOR_TASK_COMPLETION_TIMEOUT_S"
    monkeypatch.setattr(streaming_executor_state, name, getattr(streaming_executor_state, name))
    data.set_poll_interval(0.03)
    assert getattr(streaming_executor_state, name) == 0.03
    assert name in inspect.getsource(streaming_executor_state.process_completed_tasks)


def test_ray_data_cancels_through_the_method_that_is_replaced() -> None:
    assert list(inspect.signature(PhysicalOperator._cancel_active_tasks).parameters) == ["self", "force"]
    assert "self._cancel_active_tasks(" in inspect.getsource(PhysicalOperator)
    assert "_topology" in inspect.getsource(streaming_executor.StreamingExecutor)


@pytest.mark.usefixtures("ray_here")
def test_retries_of_a_task_whose_process_dies_can_be_bounded(tmp_path: Path) -> None:
    def die(block: dict[str, Any]) -> dict[str, Any]:
        (tmp_path / str(time.monotonic_ns())).touch()
        os.kill(os.getpid(), signal.SIGKILL)
        return block

    DataContext.get_current().custom_execution_callback_classes = []
    dataset = data.map_batches_with(ray.data.range(1), die, {"max_retries": 1}, batch_size=None)
    with pytest.raises(WorkerCrashedError):
        list(dataset.iter_batches())
    assert len(list(tmp_path.iterdir())) == 2


def test_the_detached_actors_of_ray_data_start_on_the_node_of_the_caller() -> None:
    data.start_service_actors_here()
    named = {one["name"] for one in ray.util.list_named_actors(all_namespaces=True)}
    assert {"datasets_stats_actor", "DataUsageCollectionActor"} <= named
