"""Ordered parallel map over blocks of work, with plain Ray tasks.

Training streams use Ray Data (:mod:`canopy.data.loading.ray_stream`). Its scheduler pays off where a
consumer and several operators share the cluster; a single function over blocks needs none.
"""

from __future__ import annotations

import logging
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import Any, Generic, TypeVar

import ray
from ray.exceptions import NodeDiedError, ObjectLostError, OutOfMemoryError, RayTaskError, WorkerCrashedError

from canopy.errors import CanopyError, ClusterError
from canopy.runtime.cluster import started_here
from canopy.runtime.logging import configure_logging, current_context, remote_log_context
from canopy.runtime.node_groups import NodeGroups, autoscaler_groups
from canopy.runtime.task_names import task_name

logger = logging.getLogger(__name__)

Block = TypeVar("Block")
Result = TypeVar("Result")

FINISHED_AHEAD = 2
"""Blocks in flight beyond two per CPU: their results wait in the object store."""
CRASHES = (WorkerCrashedError, OutOfMemoryError)
"""Exceptions of Ray for a task whose process ended: the block may be at fault."""
NODE_LOSSES = (NodeDiedError, ObjectLostError)
"""Exceptions of Ray for a task whose node was lost, or the node with its result: no fault of the block."""
NODE_LOSS_RETRIES = 5
"""Further attempts at a block whose nodes are lost."""
RETRIES = 3
"""Further attempts at a block that cannot be split."""
RETRIES_BEFORE_SPLIT = 1
"""Further attempts at a whole block: its loss may have nothing to do with its content."""
PAUSE_S = 1.0
"""Seconds before the first further attempt; the second waits twice as long, and so on."""
MAX_REPLACED = 100
"""Items of one stream that :class:`Recovery` replaces; more of them mean that the machine is at fault."""


@dataclass(frozen=True)
class Recovery(Generic[Block, Result]):
    """What to do with a block whose worker processes die: find the item at fault and replace its result.

    Args:
        split: the two halves of a block; None for a block of a single item.
        replace: the result in place of a single item that ends its processes, and Ray's exception.
    """

    split: Callable[[Block], tuple[Block, Block] | None]
    replace: Callable[[Block, Exception], Result]


@dataclass
class _InFlight(Generic[Block]):
    block: Block
    reference: Any  # None: to be submitted when no other task runs
    whole: bool = True  # not yet split
    crashes: int = 0
    node_losses: int = 0


def cluster_cpus() -> float:
    """Logical CPUs of the whole cluster."""
    return float(ray.cluster_resources().get("CPU", 1))  # type: ignore[no-untyped-call]


def max_in_flight() -> int:
    """Largest number of blocks whose tasks are submitted and whose results are not yet taken.

    Tasks beyond the present CPUs make an autoscaler add nodes. Where its groups are known, no more tasks are
    submitted than the present nodes and those without accelerators can run: for the rest it would start
    nodes with accelerators.
    """
    cpus = cluster_cpus()
    submitted = 2 * max(1, int(cpus)) + FINISHED_AHEAD
    groups = NodeGroups() if started_here() else autoscaler_groups()
    if not groups:
        return submitted
    living = [node for node in ray.nodes() if node["Alive"]]  # type: ignore[no-untyped-call]
    to_come = sum(node.get("CPU", 0.0) for node in groups.to_come(living, only_plain=True))
    return min(submitted, max(1, int(cpus + to_come)))


def map_blocks(
    work: Callable[[Block], Result],
    blocks: Sequence[Block],
    recovery: Recovery[Block, Result] | None = None,
) -> Iterator[Result]:
    """Call ``work`` on each of ``blocks``, one Ray task of one CPU each; yield the results in order.

    At most :func:`max_in_flight` tasks are submitted at a time; the limit follows a cluster that grows.
    Closing the iterator early submits nothing more and does not wait: the few submitted tasks run to their
    end and their results are dropped.

    Args:
        work: function of a block.
        blocks: its arguments.
        recovery: splits and replaces blocks whose processes die; a split block yields several results. A
            block whose node was lost is repeated as it is.

    Raises:
        ClusterError: when the processes or the nodes of a block die time after time.
        Exception: an exception of ``work``; one that is not a ``CanopyError`` arrives as Ray's
            ``RayTaskError`` of the same class, with the traceback of the task.
    """
    name = getattr(work, "__name__", type(work).__name__)
    submit = _submitter(work, name)
    remaining, in_flight, replaced = iter(blocks), deque[_InFlight[Block]](), 0
    while True:
        if not in_flight or in_flight[0].reference is not None:
            free = max(0, max_in_flight() - len(in_flight))
            in_flight.extend(_InFlight(block, submit(block)) for block in islice(remaining, free))
        if not in_flight:
            return
        first = in_flight.popleft()
        if first.reference is None:
            _wait_for_all(in_flight)
            first.reference = submit(first.block)
        try:
            result = _result(first.reference)
        except NODE_LOSSES as error:
            in_flight.appendleft(_after_node_loss(first, name, error))
            continue
        except CRASHES as error:
            attempts = _after_crash(first, name, error, recovery)
            if attempts:
                in_flight.extendleft(reversed(attempts))
                continue
            replaced += 1
            if recovery is None or replaced > MAX_REPLACED:
                raise _lost("worker processes", name, first.crashes, error) from error
            result = recovery.replace(first.block, error)
        yield result


def _submitter(work: Callable[[Block], Result], name: str) -> Callable[[Block], Any]:
    """A function that submits the task of a block and returns the reference of its result."""
    # Tasks are never cancelled: in Ray 2.60 the cancellation of a task that is just completing aborts the
    # driver ("Tried to complete task that was not pending").
    # Ray itself would repeat a task that ran out of memory for ever, so the attempts are counted here.
    task: Any = ray.remote(_run).options(num_cpus=1, name=task_name(name), max_retries=0)
    shared, fields = ray.put(work), current_context()
    return lambda block: task.remote(shared, block, fields)


def _after_node_loss(lost: _InFlight[Block], name: str, error: Exception) -> _InFlight[Block]:
    """The further attempt at a block whose node was lost.

    Raises:
        ClusterError: when its nodes are lost time after time.
    """
    lost.node_losses += 1
    logger.warning("a node of %s was lost: %s", name, _first_line(error))
    if lost.node_losses > NODE_LOSS_RETRIES:
        raise _lost("nodes", name, lost.node_losses, error) from error
    time.sleep(PAUSE_S * lost.node_losses)
    lost.reference = None
    return lost


def _after_crash(
    lost: _InFlight[Block], name: str, error: Exception, recovery: Recovery[Block, Any] | None
) -> list[_InFlight[Block]]:
    """The further attempts at a block whose process ended: itself, its halves, or none."""
    lost.crashes += 1
    logger.warning("a worker process of %s was lost: %s", name, _first_line(error))
    halves = recovery.split(lost.block) if recovery else None
    if lost.crashes <= _retries(lost, halves is not None):
        time.sleep(PAUSE_S * lost.crashes)
        lost.reference = None
        return [lost]
    return [_InFlight(half, None, whole=False) for half in halves or ()]


def _wait_for_all(in_flight: Iterable[_InFlight[Any]]) -> None:
    """Wait until no submitted task runs.

    A block whose process died runs again alone: while one task takes all memory, Ray may kill another.
    """
    running = [one.reference for one in in_flight if one.reference is not None]
    if running:
        ray.wait(running, num_returns=len(running), fetch_local=False)


def _retries(lost: _InFlight[Any], can_split: bool) -> int:
    if not can_split:
        return RETRIES
    return RETRIES_BEFORE_SPLIT if lost.whole else 0


def _lost(what: str, name: str, times: int, error: Exception) -> ClusterError:
    return ClusterError(
        f"The {what}",
        f"must survive the task {name}",
        f"{times} in a row were lost or killed ({_first_line(error)})",
        "Look at the memory of the machine and at the log files of Ray's session; then start again.",
    )


def _first_line(error: Exception) -> str:
    return next((line.strip() for line in str(error).splitlines() if line.strip()), type(error).__name__)


def _result(reference: ray.ObjectRef[Result]) -> Result:
    try:
        return ray.get(reference)
    except RayTaskError as error:
        if not isinstance(error.cause, CanopyError):
            raise  # a programming mistake: its traceback matters
        raise error.cause from None


def _run(work: Callable[[Block], Result], block: Block, fields: Mapping[str, str]) -> Result:
    configure_logging("worker")
    with remote_log_context(fields):
        return work(block)
