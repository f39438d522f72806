"""Tasks that run once on each node of the cluster."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

import ray
from ray.exceptions import RayError, RayTaskError, TaskUnschedulableError
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from canopy.errors import CanopyError, ClusterError
from canopy.runtime.logging import configure_logging, current_context, remote_log_context
from canopy.runtime.ray_errors import describe_ray_error
from canopy.runtime.ray_tasks import NODE_LOSSES
from canopy.runtime.task_names import task_name

Result = TypeVar("Result")

ANSWER_S = 120.0
"""Seconds in which every node must answer: the start of a worker process and the download of the code."""


@dataclass(frozen=True)
class Node:
    """A living node.

    Args:
        id: Ray's id, in hexadecimal digits.
        address: IP address.
    """

    id: str
    address: str


def alive_nodes() -> list[Node]:
    """The nodes that are alive now, in the order in which they joined."""
    nodes: list[dict[str, Any]] = ray.nodes()  # type: ignore[no-untyped-call]
    return [Node(one["NodeID"], one["NodeManagerAddress"]) for one in nodes if one["Alive"]]


def call_on_nodes(
    work: Callable[[Node], Result], nodes: Sequence[Node], timeout_s: float = ANSWER_S
) -> dict[Node, Result]:
    """Call ``work`` on each of ``nodes`` with the node itself, all at once, without taking a CPU.

    Args:
        work: a function that can be pickled.
        nodes: where it runs.
        timeout_s: seconds until all nodes must have answered.

    Returns:
        The result of each node, but for nodes that were lost meanwhile: an autoscaler may end one.

    Raises:
        ClusterError: when a node does not answer in time, or its worker process dies.
        CanopyError: raised by ``work``.
    """
    task: Any = ray.remote(_run)
    name, fields = task_name(getattr(work, "__name__", type(work).__name__)), current_context()
    references = {}
    for node in nodes:
        here = NodeAffinitySchedulingStrategy(node.id, soft=False)
        pinned = task.options(num_cpus=0, max_retries=0, name=name, scheduling_strategy=here)
        references[node] = pinned.remote(work, node, fields)
    waiting = list(references.values())
    done, _ = ray.wait(waiting, num_returns=len(waiting), timeout=timeout_s, fetch_local=False)
    answered = set(done)
    results = {}
    for node, reference in references.items():
        if reference not in answered:
            raise silent_error(node, timeout_s)
        try:
            results[node] = ray.get(reference)
        except (*NODE_LOSSES, TaskUnschedulableError):
            continue
        except RayTaskError as error:
            if not isinstance(error.cause, CanopyError):
                raise  # a programming mistake: its traceback matters
            raise error.cause from None
        except RayError as error:
            need, remedy = "must run a task", "Look at the logs of Ray's session there; then start again."
            got = describe_ray_error(error) or error
            raise ClusterError(f"Node {node.address}", need, got, remedy) from error
    return results


def silent_error(node: Node, timeout_s: float) -> ClusterError:
    """The error for a node that does not answer."""
    return ClusterError(
        f"Node {node.address}",
        f"must answer within {timeout_s:g} s",
        "no answer",
        "Look at its logs and at its mounted file systems, of which one may hang; then start again.",
    )


def _run(work: Callable[[Node], Result], node: Node, fields: Mapping[str, str]) -> Result:
    configure_logging("worker")
    with remote_log_context(fields):
        return work(node)
