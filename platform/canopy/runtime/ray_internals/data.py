"""Private interfaces of Ray Data 2.60: polling, limits, no cancellation, where its detached actors start."""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from typing import Any

from ray.data._internal.execution import streaming_executor_state
from ray.data._internal.execution.execution_callback import ExecutionCallback
from ray.data._internal.stats import get_or_create_stats_actor
from ray.data._internal.usage.actor import get_or_create_usage_collection_actor
from ray.util.annotations import RayDeprecationWarning

__all__ = [
    "ExecutionCallback",
    "knows_cluster_cpus",
    "map_batches_with",
    "never_cancel_tasks",
    "refresh_limits_at_every_step",
    "refresh_limits_by_default",
    "set_poll_interval",
    "start_service_actors_here",
]
# ``ExecutionCallback`` is the base class of what ``DataContext.custom_execution_callback_classes`` takes. The
# attribute of the context is public, the class is not.


def start_service_actors_here() -> None:
    """Start Ray Data's two detached actors (statistics, usage) on the node of this process.

    Private use: ``get_or_create_stats_actor``, ``get_or_create_usage_collection_actor``. The actors outlive
    every job and stay on the node of the process that streams first. On a node with accelerators they would
    keep the autoscaler from ending it.
    """
    get_or_create_stats_actor()
    get_or_create_usage_collection_actor()


def set_poll_interval(seconds: float) -> None:
    """Set the interval in seconds at which Ray Data's scheduler polls for finished tasks, in this process.

    Private use: ``streaming_executor_state.WAIT_FOR_TASK_COMPLETION_TIMEOUT_S``. There is no setting for it,
    and its value, 0.1, leaves cores idle where blocks take about as long.
    """
    streaming_executor_state.WAIT_FOR_TASK_COMPLETION_TIMEOUT_S = seconds


def refresh_limits_at_every_step(executor: Any) -> None:
    """Make an execution read the cluster's resources at each of its scheduling steps.

    Private use: ``ResourceManager.GLOBAL_LIMITS_UPDATE_INTERVAL_S``. Otherwise an execution that starts
    before the CPUs are known runs one task at a time for its first second.
    """
    executor._resource_manager.GLOBAL_LIMITS_UPDATE_INTERVAL_S = 0.0


def refresh_limits_by_default(executor: Any) -> None:
    """Undo :func:`refresh_limits_at_every_step`: the value of the class applies again."""
    del executor._resource_manager.GLOBAL_LIMITS_UPDATE_INTERVAL_S


def knows_cluster_cpus(executor: Any) -> bool:
    """Whether an execution knows of CPUs.

    Private use: ``ResourceManager.get_global_limits``. No public function shows an execution's limits.
    """
    return bool(executor._resource_manager.get_global_limits().cpu)


def never_cancel_tasks(executor: Any) -> None:
    """Let the running tasks of an execution end by themselves when its consumer stops early.

    Private use: ``PhysicalOperator._cancel_active_tasks`` of each operator in
    ``StreamingExecutor._topology``. Ray Data cancels the running tasks of a stream that is dropped. In Ray
    2.60 the cancellation of a task that is just completing aborts the process ("Tried to complete task that
    was not pending").
    """
    for operator in executor._topology:
        operator._cancel_active_tasks = _cancel_nothing


def _cancel_nothing(force: bool) -> None:
    """Take the place of Ray Data's cancellation of running tasks."""


def map_batches_with(dataset: Any, function: Any, remote_args: Mapping[str, Any], **options: Any) -> Any:
    """``dataset.map_batches`` with arguments of Ray's tasks or actors that it has no name for.

    Without them Ray Data restarts a task for ever whose process keeps dying. Ray 2.60 has deprecated such
    arguments for removal in 2.64, but names no other way to bound retries and to choose a node.

    Args:
        dataset: a Ray dataset.
        function: function or class for ``map_batches``.
        remote_args: such as ``max_retries``, ``max_restarts``, ``scheduling_strategy``.
        options: named arguments of ``map_batches``.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RayDeprecationWarning)
        return dataset.map_batches(function, **options, **remote_args)
