"""Ray's errors as one-line messages: what happened, where, and what to change.

Ray's messages are pages of advice. The classes of the errors decide which line is shown; only figures such as
addresses and amounts of memory are read from Ray's text, and the line leaves them out where they are absent.
"""

from __future__ import annotations

import errno
import os
import pickle
import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass

from ray import exceptions as ray_exceptions

LINE_LENGTH = 300
"""Maximum length of a described error."""
PROCESS_LENGTH = 60
"""Maximum length of a process's command."""
COLOR_CODE = re.compile(r"\x1b\[[0-9;]*m")
"""Terminal color codes, which some of Ray's messages hold."""
ENDED_UNEXPECTEDLY = (
    "ended unexpectedly: killed by a signal (by the kernel when memory runs out) or crashed in native code. "
    "Its log is in Ray's session, logs/worker-*.err."
)


@dataclass(frozen=True)
class MemoryReport:
    """What Ray's memory monitor says about a node that ran out of memory."""

    node: str | None
    """IP address of the node."""
    used_gb: float | None
    """Used memory in GB when it killed workers."""
    limit_gb: float | None
    """Memory of the node, or of its container, in GB."""
    largest_gb: float | None
    """Memory of the largest process in GB."""
    largest_process: str | None
    """Command of the largest process."""

    @classmethod
    def parse(cls, message: str) -> MemoryReport:
        """Read the message of Ray's ``OutOfMemoryError`` (Ray 2.60)."""
        node = re.search(r"\(IP: ([^,)\s]+)", message)
        amounts = re.search(r"([\d.]+)GB used / ([\d.]+)GB", message)
        processes = re.findall(r"^\s*\d+\t([\d.]+)\t(.+)$", message, re.MULTILINE)
        largest = max(processes, key=lambda row: float(row[0]), default=None)
        return cls(
            node=node[1] if node else None,
            used_gb=float(amounts[1]) if amounts else None,
            limit_gb=float(amounts[2]) if amounts else None,
            largest_gb=float(largest[0]) if largest else None,
            largest_process=shorten(largest[1].strip(), PROCESS_LENGTH) if largest else None,
        )

    def __str__(self) -> str:
        where = f" on node {self.node}" if self.node else ""
        amounts = (
            f" ({self.used_gb:.1f} of {self.limit_gb:.1f} GB used)" if self.used_gb and self.limit_gb else ""
        )
        largest = (
            f"; largest process: {self.largest_process}, {self.largest_gb:.1f} GB" if self.largest_gb else ""
        )
        return f"memory ran out{where}{amounts}{largest}"


def describe_ray_error(error: BaseException) -> str | None:
    """One line for an error of a known kind, at most ``LINE_LENGTH`` characters; None for other errors."""
    for kinds, describe in DESCRIPTIONS:
        if isinstance(error, kinds):
            return shorten(describe(error), LINE_LENGTH)
    describe_internal = INTERNAL_DESCRIPTIONS.get(type(error).__name__)
    if describe_internal is not None:
        return shorten(describe_internal(error), LINE_LENGTH)
    if isinstance(error, TypeError) and str(error).startswith("Could not serialize"):  # Ray's own text
        return shorten(_not_serializable(error), LINE_LENGTH)
    if isinstance(error, OSError) and error.errno == errno.ENOSPC:
        where = f" for {error.filename}" if error.filename else ""
        return f"no space left on the disk{where}. Free space there, then start again."
    return None


def is_out_of_memory(errors: Iterable[BaseException]) -> bool:
    """Whether Ray's memory monitor killed a process, according to an error and its causes."""
    return any(isinstance(error, ray_exceptions.OutOfMemoryError) for error in errors)


def shorten(text: str, length: int) -> str:
    """``text`` in one line of at most ``length`` characters."""
    line = " ".join(text.split())
    return line if len(line) <= length else line[: length - 1] + "…"


def _out_of_memory(error: BaseException) -> str:
    remedy = "Lower scale.workers, optim.batch_size, data.max_cache_gb or the number of concurrent variants."
    return f"{MemoryReport.parse(str(error))}. {remedy}"


def _node_died(error: BaseException) -> str:
    return f"node {_node(error)} died or lost its connection. Look at its logs, then start again."


def _actor_died(error: BaseException) -> str:
    text = str(error)
    if "node has died" in text or "node is dead" in text:
        return _node_died(error)
    if "owner has died" in text or "job finished" in text:
        return "the process that started a worker ended, and the worker with it. Start again."
    init_failed = isinstance(error, ray_exceptions.RayActorError) and error.actor_init_failed
    if init_failed:
        return f"a worker failed while it was created: {last_line(text)}"
    return f"a worker process on node {_node(error)} {ENDED_UNEXPECTEDLY}"


def _worker_crashed(error: BaseException) -> str:  # noqa: ARG001 (Ray gives no details)
    return f"a worker process of a task {ENDED_UNEXPECTEDLY}"


def _unavailable(error: BaseException) -> str:
    return f"a worker on node {_node(error)} could not be reached. Check the network between the nodes."


def _runtime_env(error: BaseException) -> str:
    return (
        f"Ray could not set up the runtime environment on a node: {last_line(str(error), 140)}. "
        "Correct platform/deploy/runtime_env.yaml, or what it names."
    )


def _object_store_full(error: BaseException) -> str:  # noqa: ARG001 (Ray gives no figures)
    return (
        "Ray's object store is full. Lower data.max_cache_gb or the number of concurrent variants, or start "
        "Ray with a larger object store (--object-store-memory)."
    )


def _disk_full(error: BaseException) -> str:  # noqa: ARG001 (Ray gives no figures)
    return "no space left on a node's disk for Ray's objects. Free space on the disk of Ray's session folder."


def _unschedulable(error: BaseException) -> str:
    return (
        f"Ray could not place a worker on any node: {last_line(str(error), 140)}. Check scale and the nodes."
    )


def _group_removed(error: BaseException) -> str:  # noqa: ARG001 (Ray gives no details)
    return "the place reserved for the workers was removed before they started. Start again."


def _cluster_lost(error: BaseException) -> str:
    reason = last_line(str(error), 100)
    return f"the connection to Ray's head node was lost ({reason}). Check the head, then start again."


def _object_lost(error: BaseException) -> str:  # noqa: ARG001 (Ray's text names internal ids)
    return "data in Ray's object store was lost with the node or the process that held it. Start again."


def _not_picklable(error: BaseException) -> str:
    return f"a value could not be pickled to send it between processes: {last_line(str(error), 200)}"


def _not_serializable(error: BaseException) -> str:
    text = COLOR_CODE.sub("", str(error))
    problems = re.findall(r"FAIL serialization: (.+)", text)
    subject = text.splitlines()[0].removeprefix("Could not serialize the ").rstrip(":")
    reason = problems[-1] if problems else "no reason given"
    return f"{subject} could not be pickled to send it to a worker: {reason}"


def _startup_timeout(error: BaseException) -> str:
    workers = getattr(error, "num_workers", "all")
    waited = os.environ.get("RAY_TRAIN_WORKER_GROUP_START_TIMEOUT_S", "")
    within = f" within {waited} s (fleet.capacity_timeout_s)" if waited else ""
    return (
        f"the cluster had no room for its {workers} workers{within}, several times over. Add nodes, or lower "
        "scale.workers or the resources per worker."
    )


def _health_check_timeout(error: BaseException) -> str:
    return f"a worker stopped answering: {shorten(str(error).splitlines()[0], 200)}"


def _preempted(error: BaseException) -> str:  # noqa: ARG001 (its text names ranks)
    return "its nodes were preempted more often than fleet.max_preemption_failures allows. Start again."


def _node(error: BaseException) -> str:
    """The IP address in Ray's text, as part of a sentence."""
    found = re.search(r"\b(?:Node IP|ip|IP)[:=] ?([0-9a-fA-F.:]*[0-9a-fA-F])", str(error))
    return found[1] if found else "(address unknown)"


def last_line(text: str, length: int = LINE_LENGTH) -> str:
    """The last line of a message that is not blank, without a full stop; in Python's tracebacks the error."""
    lines = [line.strip() for line in COLOR_CODE.sub("", text).splitlines() if line.strip()]
    return shorten(lines[-1], length).rstrip(".") if lines else "no message"


Description = Callable[[BaseException], str]
DESCRIPTIONS: tuple[tuple[type[BaseException] | tuple[type[BaseException], ...], Description], ...] = (
    (ray_exceptions.OutOfMemoryError, _out_of_memory),
    (ray_exceptions.NodeDiedError, _node_died),
    (ray_exceptions.ActorUnavailableError, _unavailable),
    (ray_exceptions.RayActorError, _actor_died),
    (ray_exceptions.WorkerCrashedError, _worker_crashed),
    (ray_exceptions.RuntimeEnvSetupError, _runtime_env),
    (ray_exceptions.ObjectStoreFullError, _object_store_full),
    (ray_exceptions.OutOfDiskError, _disk_full),
    ((ray_exceptions.TaskUnschedulableError, ray_exceptions.ActorUnschedulableError), _unschedulable),
    ((ray_exceptions.TaskPlacementGroupRemoved, ray_exceptions.ActorPlacementGroupRemoved), _group_removed),
    ((ray_exceptions.LocalRayletDiedError, ray_exceptions.RpcError), _cluster_lost),
    (ray_exceptions.ObjectLostError, _object_lost),
    ((pickle.PicklingError, ray_exceptions.UnserializableException), _not_picklable),
)
"""The first entry whose class matches describes an error."""
INTERNAL_DESCRIPTIONS: dict[str, Description] = {
    "WorkerGroupStartupTimeoutError": _startup_timeout,
    "WorkerHealthCheckTimeoutError": _health_check_timeout,
    "PreemptionError": _preempted,
}
"""Ray Train's errors by the names of their classes, which lie in its private modules."""
