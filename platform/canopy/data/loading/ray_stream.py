"""Iterators over blocks and batches that Ray Data computes, and the settings of Ray Data for them.

A stream maps indices in order: Ray Data splits them into blocks, and one task maps each block as a whole.
Ray Data costs some milliseconds per block and per scheduling step, in the process that trains, and hardly
anything per image. So blocks are large, the scheduler is paced, and batches are slices of blocks, without a
copy.
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

from canopy.runtime.ray_internals import data as ray_internals
from canopy.runtime.ray_tasks import cluster_cpus
from canopy.runtime.task_names import task_name

Batch = dict[str, NDArray[Any]]

BLOCK_BYTES = 128 << 20
"""Maximum size of a block of images in bytes: 680 images of 256 pixels a side. Larger blocks cost the
consumer less time per image; but the core of a finished task idles until Ray Data notices."""
BLOCK_ROWS = 2048
"""Maximum number of images in a block, so that small images with a slow augmentation still arrive in time."""
BLOCKS_AHEAD = 2
"""Blocks of a stream that may wait for the consumer, in addition to two per task. A small number lets
memory be used again, and the first touch of a new page costs more than writing to it."""
POLL_EVERY_S = 0.03
"""Interval in seconds at which Ray Data polls for finished tasks. Its default, 0.1, leaves cores idle for a
seventh of an epoch that is decoded on demand, and it has no setting."""
LIMITS_REFRESH_S = 5.0
"""Seconds after the start in which Ray Data reads the cluster's resources at every scheduling step."""


def block_bytes(at_once: int = 8) -> int:
    """The maximum size of a block: ``at_once`` of them take half of the cluster's object store."""
    store = float(ray.cluster_resources().get("object_store_memory", 0))  # type: ignore[no-untyped-call]
    return int(min(BLOCK_BYTES, store / (2 * at_once))) if store else BLOCK_BYTES


def rows_per_block(chip_bytes: int, multiple_of: int = 1, room: int = BLOCK_BYTES) -> int:
    """How many chips of ``chip_bytes`` each a block of ``room`` bytes holds.

    The number is a multiple of ``multiple_of``, at least 1 (the rows of a batch), and at least that.
    """
    rows = min(BLOCK_ROWS, room // chip_bytes)
    return max(1, rows // multiple_of) * multiple_of


def tasks_in_flight(cores: int) -> int:
    """How many concurrent tasks keep ``cores`` cores busy: three tasks for two cores.

    The spare task uses a core until Ray Data notices that another task has ended and starts the next.
    """
    return cores + (cores + 1) // 2


class SchedulerPacing(ray_internals.ExecutionCallback):
    """Adapts Ray Data's scheduler, a thread of the consuming process, to a process that trains.

    - Each step takes at least ``step_s``. Without a pause, the scheduler would take half of the interpreter.
    - Until the cluster's CPUs are known, they are read at every step. Ray Data does not wait for the answer,
      accepts no answer for a cluster without free CPUs, and would read again only a second later; until
      then one task would run alone.
    - Tasks are never cancelled. When a consumer stops early, Ray Data cancels the running tasks. Cancelling a
      task that is just completing can abort the process ("Tried to complete task that was not pending"),
      and a cancelled task takes its worker process with it. The few running tasks end by themselves
      instead, and their results are dropped.
    """

    step_s = 0.03
    """Minimum duration of a scheduling step in seconds."""

    def __init__(self) -> None:
        self._last_step = self._refresh_until = 0.0

    def before_execution_starts(self, executor: Any) -> None:
        """Called by Ray Data before the first scheduling step."""
        ray_internals.refresh_limits_at_every_step(executor)
        self._refresh_until = time.monotonic() + LIMITS_REFRESH_S
        ray_internals.never_cancel_tasks(executor)

    def on_execution_step(self, executor: Any) -> None:
        """Called by Ray Data after each scheduling step."""
        if self._refresh_until and (
            ray_internals.knows_cluster_cpus(executor) or time.monotonic() > self._refresh_until
        ):
            ray_internals.refresh_limits_by_default(executor)
            self._refresh_until = 0.0
        time.sleep(max(0.0, self._last_step + self.step_s - time.monotonic()))
        self._last_step = time.monotonic()


class BlockStream(Iterator[Batch]):
    """The blocks of one execution of Ray Data, in order, as views of the object store.

    A stream may be dropped before its end: at most the submitted tasks then run to their end.

    Args:
        rows: number of indices; the stream maps the indices 0 to rows - 1, in a column ``id``.
        block_rows: indices in a block.
        task: function of a block of indices that returns an output block.
        num_cpus: logical CPUs of a task.
        concurrency: maximum number of concurrent tasks; None uses all logical CPUs of the cluster.
        ramp: number of indices in the first block; each further block doubles, up to ``block_rows``, so
            that the first block arrives soon. None starts with whole blocks.
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
        configure_ray_data(memory=(2 * tasks + BLOCKS_AHEAD) * block_bytes())
        parts = np.split(np.arange(rows), block_edges(rows, block_rows, ramp or block_rows))
        # Passed as blocks: ray.data.range would add a second task for each of them.
        indices: ray.data.Dataset = ray.data.from_blocks([pa.table({"id": part}) for part in parts])

        def run(block: Batch) -> Batch:  # a plain function: Ray Data copies all fields of a dataclass
            return task(block)

        run.__name__ = task_name(getattr(task, "__name__", type(task).__name__))  # also shown in stats()
        self._dataset = indices.map_batches(
            run,
            batch_size=None,
            zero_copy_batch=True,
            num_cpus=num_cpus,
            compute=TaskPoolStrategy(size=concurrency and min(concurrency, len(parts))),
        )
        self._dataset.set_name(task_name("stream"))
        blocks = self._dataset.iter_batches(batch_size=None, batch_format="numpy", prefetch_batches=1)
        self._blocks = iter(blocks)

    def __next__(self) -> Batch:
        return next(self._blocks)

    def stats(self) -> str:
        """Ray Data's statistics of the execution."""
        return "" if self._dataset is None else self._dataset.stats()


def configure_ray_data(memory: int, in_order: bool = True) -> None:
    """Set Ray Data's options for the streams that this process starts from now on.

    Args:
        memory: limit of the object store that a stream may fill, bytes.
        in_order: whether blocks arrive in their order; else as they are finished.
    """
    context = DataContext.get_current()
    context.enable_progress_bars = False
    context.execution_options.preserve_order = in_order
    context.execution_options.resource_limits = ExecutionResources.for_limits(object_store_memory=memory)
    context.custom_execution_callback_classes = [SchedulerPacing]
    ray_internals.set_poll_interval(POLL_EVERY_S)


def block_edges(rows: int, block_rows: int, first_rows: int) -> list[int]:
    """Where all blocks but the first begin.

    The first block has ``first_rows`` rows; the following ones double, up to ``block_rows``.
    """
    edges, start, length = [], 0, min(first_rows, block_rows)
    while start + length < rows:
        start += length
        edges.append(start)
        length = min(2 * length, block_rows)
    return edges


class BatchStream(Iterator[Batch]):
    """Batches of ``batch_size`` rows, sliced from blocks that hold whole batches; the last one may be short.

    Args:
        blocks: blocks with a column ``row``.
        batch_size: rows of a batch.
        complete: function of the batch's number and the batch that adds missing columns; None for none.
    """

    def __init__(
        self, blocks: BlockStream, batch_size: int, complete: Callable[[int, Batch], Batch] | None = None
    ) -> None:
        self._blocks = blocks
        batches = (
            {name: column[start : start + batch_size] for name, column in block.items()}
            for block in blocks
            for start in range(0, len(block["row"]), batch_size)
        )
        self._batches = batches if complete is None else (complete(n, b) for n, b in enumerate(batches))

    def __next__(self) -> Batch:
        return next(self._batches)

    def stats(self) -> str:
        """Ray Data's statistics of the execution up to now."""
        return self._blocks.stats()
