"""How an index stream runs on Ray Data: blocks of indices, each mapped whole by a task, in order.

What Ray Data costs, it costs by the block and by the step of its scheduler (milliseconds each, in the
process that trains), hardly by the image. So blocks are large, the scheduler is paced, and blocks are cut
into batches by slicing, which copies nothing.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pyarrow as pa
import ray
import ray.data
from numpy.typing import NDArray
from ray.data import DataContext, ExecutionResources, TaskPoolStrategy
from ray.data._internal.execution import streaming_executor_state
from ray.data._internal.execution.execution_callback import ExecutionCallback

from canopy.runtime.ray_tasks import cluster_cpus

Batch = dict[str, NDArray[Any]]

BLOCK_BYTES = 128 << 20
"""Size of a block of images, at most: 680 of 256 pixels a side. Each costs the consumer's process some
milliseconds, and a task that has ended leaves its core without work until Ray Data looks."""
BLOCK_ROWS = 2048
"""Images in a block at most: small ones that are augmented at length should not keep a consumer waiting."""
BLOCKS_AHEAD = 2
"""Blocks of a stream that may wait for the consumer, beside two for each task. More would help nothing, and
memory that is used again is in place already: first touched, a page costs more than what is written to it."""

LOOK_EVERY_S = 0.03
"""How often Ray Data looks for finished tasks while it waits for them. Its own tenth of a second leaves cores
idle for a seventh of an epoch that is decoded as it streams; it has no setting for it."""
ASK_S = 5.0
"""How long Ray Data asks at every step what the cluster has: one without free CPUs may stay so for long."""


def block_bytes(at_once: int = 8) -> int:
    """Size of a block of images, at most, on this cluster: ``at_once`` take half of the object store."""
    store = float(ray.cluster_resources().get("object_store_memory", 0))  # type: ignore[no-untyped-call]
    return int(min(BLOCK_BYTES, store / (2 * at_once))) if store else BLOCK_BYTES


def rows_per_block(size: int, multiple_of: int = 1, room: int = BLOCK_BYTES) -> int:
    """Chips of ``size`` pixels a side in a block of ``room`` bytes: whole batches, at least one."""
    rows = min(BLOCK_ROWS, room // (size * size * 3))
    return max(1, rows // multiple_of) * multiple_of


def in_flight(cores: int) -> int:
    """Tasks at a time that keep ``cores`` at work: three for two.

    Until Ray Data sees that a task has ended, and starts the next, the spare one has the core.
    """
    return cores + (cores + 1) // 2


class Pace(ExecutionCallback):
    """Keep the scheduler from going round without a pause.

    Ray Data's scheduler runs as a thread of the consumer's process. With nothing to start and nothing to
    await it would take half of the interpreter away from the training that it feeds.
    """

    step_s = 0.03
    """What a step of the scheduler takes at least."""

    def __init__(self) -> None:
        self._last = self._asks_until = 0.0

    def before_execution_starts(self, executor: Any) -> None:
        """Called by Ray Data: let it ask at every step what the cluster has, until it knows.

        It does not wait for the answer, takes none for a cluster without CPUs, and would ask again only a
        second later; until then one task would run alone.
        """
        executor._resource_manager.GLOBAL_LIMITS_UPDATE_INTERVAL_S = 0.0
        self._asks_until = time.monotonic() + ASK_S

    def on_execution_step(self, executor: Any) -> None:
        """Called by Ray Data after each scheduling step."""
        manager = executor._resource_manager
        if self._asks_until and (manager.get_global_limits().cpu or time.monotonic() > self._asks_until):
            del manager.GLOBAL_LIMITS_UPDATE_INTERVAL_S  # the class's own comes into force again
            self._asks_until = 0.0
        time.sleep(max(0.0, self._last + self.step_s - time.monotonic()))
        self._last = time.monotonic()


class BlockStream(Iterator[Batch]):
    """The blocks of one execution of Ray Data, in order, as views of the object store.

    Args:
        rows: the stream is of the indices 0 to rows - 1, in a column ``id``.
        block_rows: indices in a block.
        task: makes an output block of a block of indices.
        num_cpus: logical CPUs of a task.
        concurrency: tasks at a time; None: as many as the cluster has logical CPUs for.
        ramp: begin with blocks of so many indices, each twice the last, so that the first comes soon.
    """

    def __init__(
        self,
        rows: int,
        block_rows: int,
        task: Callable[[Batch], Batch],
        num_cpus: float,
        concurrency: int | None = None,
        ramp: int | None = None,
    ) -> None:
        self._dataset: ray.data.Dataset | None = None
        self._blocks: Iterator[Batch] = iter(())
        if rows <= 0:
            return
        tasks = concurrency or max(1, int(cluster_cpus() / num_cpus))
        context = DataContext.get_current()
        context.enable_progress_bars = False
        context.execution_options.preserve_order = True
        limit = (2 * tasks + BLOCKS_AHEAD) * block_bytes()
        context.execution_options.resource_limits = ExecutionResources.for_limits(object_store_memory=limit)
        context.custom_execution_callback_classes = [Pace]
        streaming_executor_state.WAIT_FOR_TASK_COMPLETION_TIMEOUT_S = LOOK_EVERY_S
        parts = np.split(np.arange(rows), block_edges(rows, block_rows, ramp or block_rows))
        # handed over as blocks: ray.data.range would be a second task for each of them
        indices: ray.data.Dataset = ray.data.from_blocks([pa.table({"id": part}) for part in parts])

        def run(block: Batch) -> Batch:  # to describe a dataclass, Ray Data copies all that it holds
            return task(block)

        run.__name__ = getattr(task, "__name__", type(task).__name__)  # as the dashboard and stats() show it
        self._dataset = indices.map_batches(
            run,
            batch_size=None,
            zero_copy_batch=True,
            num_cpus=num_cpus,
            compute=TaskPoolStrategy(size=concurrency and min(concurrency, len(parts))),
        )
        blocks = self._dataset.iter_batches(batch_size=None, batch_format="numpy", prefetch_batches=1)
        self._blocks = iter(blocks)

    def __next__(self) -> Batch:
        return next(self._blocks)

    def stats(self) -> str:
        """Ray Data's own account of the execution."""
        return "" if self._dataset is None else self._dataset.stats()


def block_edges(rows: int, block_rows: int, first_rows: int) -> list[int]:
    """Where blocks begin, but for the first: of ``first_rows``, then doubling up to ``block_rows``."""
    edges, at, length = [], 0, min(first_rows, block_rows)
    while at + length < rows:
        at += length
        edges.append(at)
        length = min(2 * length, block_rows)
    return edges


class BatchStream(Iterator[Batch]):
    """Batches of ``batch_size`` rows, cut out of blocks that hold whole ones (the last may be short).

    Args:
        blocks: hold ``row`` among their columns.
        batch_size: rows of a batch.
        complete: makes a batch whole, given how many came before it; None where it is whole already.
    """

    def __init__(
        self, blocks: BlockStream, batch_size: int, complete: Callable[[int, Batch], Batch] | None = None
    ) -> None:
        self._blocks = blocks
        batches = (
            {name: column[at : at + batch_size] for name, column in block.items()}
            for block in blocks
            for at in range(0, len(block["row"]), batch_size)
        )
        self._batches = batches if complete is None else (complete(n, b) for n, b in enumerate(batches))

    def __next__(self) -> Batch:
        return next(self._batches)

    def stats(self) -> str:
        """Ray Data's own account of the execution, so far."""
        return self._blocks.stats()
