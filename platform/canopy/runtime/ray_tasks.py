"""Work over a list of blocks as plain Ray tasks, in order: for what is done once, and by nothing consumed.

Training streams are Ray Data's (:mod:`canopy.data.loading.ray_dataset`). Where blocks only have to be gone through, its
scheduler, in the process that waits for them, costs a twentieth of what decoding does and gives nothing.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator, Sequence
from itertools import islice
from typing import Any, TypeVar

import ray
from ray.exceptions import RayTaskError

from canopy.errors import CanopyError

Block = TypeVar("Block")
Made = TypeVar("Made")

AHEAD = 2
"""Blocks whose results may wait to be taken, beside two for each CPU."""


def cluster_cpus() -> float:
    """Logical CPUs of the whole cluster."""
    return float(ray.cluster_resources().get("CPU", 1))  # type: ignore[no-untyped-call]


def at_once() -> int:
    """Blocks that are worked on, or whose results wait, at most."""
    return 2 * max(1, int(cluster_cpus())) + AHEAD


def map_blocks(work: Callable[[Block], Made], blocks: Sequence[Block]) -> Iterator[Made]:
    """``work`` on each of ``blocks``, each a task of one CPU; what it returns, in order.

    As many tasks are given to Ray at a time as keep all CPUs at work, those included that the cluster grows
    by meanwhile. Tasks that have not ended when the iterator is closed are called off.

    Raises:
        Exception: what ``work`` raises; what is none of ours as Ray's ``RayTaskError`` of the same kind.
    """
    name = getattr(work, "__name__", type(work).__name__)  # as the dashboard shows it
    run: Any = ray.remote(_run).options(num_cpus=1, name=name)
    shared, left, waiting = ray.put(work), iter(blocks), deque[ray.ObjectRef[Made]]()
    try:
        while True:
            room = max(0, at_once() - len(waiting))
            waiting.extend(run.remote(shared, block) for block in islice(left, room))
            if not waiting:
                return
            made = _result(waiting[0])
            waiting.popleft()
            yield made
    finally:
        for task in waiting:
            ray.cancel(task)


def _result(task: ray.ObjectRef[Made]) -> Made:
    try:
        return ray.get(task)
    except RayTaskError as error:
        if not isinstance(error.cause, CanopyError):
            raise  # with the task's traceback as its text, which people are spared where the error is meant
        raise error.cause from None


def _run(work: Callable[[Block], Made], block: Block) -> Made:
    return work(block)
