"""Ray Data: the decoding of a whole data set, the stream of training batches, the stream of rows to score.

Every stream is an *index stream* (steps or positions) gathered against decoded chips: nothing is listed,
shuffled or split by Ray, so order, content and length follow from the plan alone. Each rank runs a stream
of its own and takes its slice of each global batch, so nothing is dropped and a restart may begin at any
step. Tasks, not actors: an actor pool is rebuilt for each execution.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import ray
import ray.data
from numpy.typing import NDArray
from ray.data import DataContext, TaskPoolStrategy
from ray.data._internal.execution.execution_callback import ExecutionCallback

from canopy import files
from canopy.config import AugmentConfig
from canopy.data.augment import apply, draw
from canopy.data.decode import UnreadableImage, decode_image
from canopy.data.plan import BatchPlan, rank_slice
from canopy.data.validate import Inspection, inspect_image
from canopy.errors import DataError

BLOCK_ROWS = 512
"""Rows per task: enough to hide a task's overhead, few enough to start soon (DataContext's own blocks
of up to 128 MiB would be one task for a small data set)."""
TASK_CPUS = 0.25
"""Logical CPUs of a data task; small, so that streams run beside workers on a small machine."""

PACE_S = 0.05
"""Pause of the stream's scheduler between its steps."""

Batch = dict[str, NDArray[Any]]


class Pace(ExecutionCallback):
    """Let a stream whose batches wait to be consumed wait, too.

    Ray Data's scheduler thread runs in the consumer's process. With nothing to start and nothing to await it
    goes round without a pause, and takes half of the interpreter away from the training that it feeds.
    """

    def on_execution_step(self, executor: Any) -> None:  # noqa: ARG002 (Ray's signature)
        """Called by Ray Data after each scheduling step."""
        time.sleep(PACE_S)


@dataclass(frozen=True)
class Chips:
    """Decoded chips, row by row as in the catalogue.

    Args:
        size: height and width in pixels.
        uris: where each row's image lies, for the streaming path.
        resident: object-store reference to the uint8 array (N, size, size, 3), or None to decode on demand.
    """

    size: int
    uris: tuple[str, ...]
    resident: ray.ObjectRef[Any] | None

    def gather(self, rows_n: NDArray[np.int64]) -> NDArray[np.uint8]:
        """The chips of ``rows_n``, shape (n, size, size, 3), uint8.

        Raises:
            DataError: when an image that could be read by prepare can no longer be.
        """
        if self.resident is not None:
            chips_NHWC: NDArray[np.uint8] = ray.get(self.resident)  # zero-copy view of the node's store
            return chips_NHWC[rows_n]
        return np.stack([self._read(int(row)) for row in rows_n])

    def _read(self, row: int) -> NDArray[np.uint8]:
        try:
            return decode_image(files.read_bytes(self.uris[row]), self.size)
        except (UnreadableImage, OSError) as error:
            remedy = "Restore it, or delete the run directory's prepare/ to validate the images again."
            problem = "must still be readable, as it was when the data set was prepared"
            raise DataError(f"Image {self.uris[row]}", problem, str(error), remedy) from None


def _execute(
    rows: int, blocks: int, task: Callable[[Batch], Batch], num_cpus: float, concurrency: int | None = None
) -> ray.data.Dataset:
    """An index stream ``id`` = 0…rows-1 in ``blocks`` blocks, each mapped whole by ``task``, in order.

    The indices are handed over as blocks; ``ray.data.range`` would be a second task for each of them.
    """
    context = DataContext.get_current()
    context.enable_progress_bars = False
    context.execution_options.preserve_order = True
    context.custom_execution_callback_classes = [Pace]
    parts = np.array_split(np.arange(rows), max(1, min(rows, blocks)))
    stream: ray.data.Dataset = ray.data.from_blocks([pa.table({"id": part}) for part in parts])
    return stream.map_batches(
        task,
        batch_size=None,
        zero_copy_batch=True,
        num_cpus=num_cpus,
        compute=TaskPoolStrategy(size=concurrency),
    )


@dataclass(frozen=True)
class _TrainTask:
    """Steps in, this rank's shares of their global batches out."""

    chips: Chips
    plan: BatchPlan
    augment: AugmentConfig
    rank: int
    world: int
    first_step: int

    def __call__(self, batch: Batch) -> Batch:
        steps = batch["id"] + self.first_step
        share = rank_slice(self.plan.batch_size, self.rank, self.world)
        batches = self.plan.batches(int(steps[0]), int(steps[-1]) + 1)
        rows_n = np.concatenate([rows[share] for rows in batches])
        images_NHWC = self.chips.gather(rows_n)
        if self.augment.place == "data":
            images_NHWC = self._augment(images_NHWC, steps)
        return {"row": rows_n, "image": images_NHWC}

    def _augment(self, images_NHWC: NDArray[np.uint8], steps: NDArray[np.int64]) -> NDArray[np.uint8]:
        import torch

        share = rank_slice(self.plan.batch_size, self.rank, self.world)
        size = share.stop - share.start
        parts = []
        for n, step in enumerate(steps):
            params = draw(self.augment, self.plan.batch_size, self.plan.step_rng(int(step)))[share]
            chunk = torch.from_numpy(images_NHWC[n * size : (n + 1) * size])
            parts.append(apply(chunk, params).numpy())
        return np.concatenate(parts)


def training_batches(
    chips: Chips,
    plan: BatchPlan,
    augment: AugmentConfig,
    *,
    rank: int,
    world: int,
    first_step: int,
    last_step: int,
    concurrency: int = 1,
) -> Iterator[Batch]:
    """This rank's batches of the steps ``first_step`` up to, not including, ``last_step``.

    One execution covers all epochs, so nothing starts anew between them. Each batch holds ``row``
    (n,) int64 and ``image`` (n, H, W, 3) uint8, with n the rank's share of the global batch, augmented
    unless that is left to the device.
    """
    if first_step >= last_step:
        return
    share = rank_slice(plan.batch_size, rank, world)
    size = share.stop - share.start
    steps = last_step - first_step
    task = _TrainTask(chips, plan, augment, rank, world, first_step)
    stream = _execute(steps, steps * size // BLOCK_ROWS, task, TASK_CPUS, concurrency)
    yield from stream.iter_batches(batch_size=size, batch_format="numpy", prefetch_batches=2)


@dataclass(frozen=True)
class _GatherTask:
    chips: Chips
    rows_N: NDArray[np.int64]

    def __call__(self, batch: Batch) -> Batch:
        rows_n = self.rows_N[batch["id"]]
        return {"row": rows_n, "image": self.chips.gather(rows_n)}


def rows_in_order(
    chips: Chips, rows_N: NDArray[np.int64], batch_size: int, concurrency: int = 1
) -> Iterator[Batch]:
    """Every row of ``rows_N`` once, in order, as batches of ``row`` and ``image``; the last may be short."""
    if len(rows_N) == 0:
        return
    task = _GatherTask(chips, rows_N)
    stream = _execute(len(rows_N), len(rows_N) // BLOCK_ROWS, task, TASK_CPUS, concurrency)
    yield from stream.iter_batches(batch_size=batch_size, batch_format="numpy", prefetch_batches=2)


@dataclass(frozen=True)
class _DecodeTask:
    uris: tuple[str, ...]
    size: int

    def __call__(self, batch: Batch) -> Batch:
        chips, found = [], []
        for row in batch["id"]:
            chip, inspection = self._inspect(self.uris[int(row)])
            chips.append(chip)
            found.append(inspection)
        return {
            "row": batch["id"],
            "image": np.stack(chips),
            "mode": np.array([i.mode for i in found], dtype=object),
            "width": np.array([i.width for i in found]),
            "height": np.array([i.height for i in found]),
            "problem": np.array([i.problem for i in found], dtype=object),
        }

    def _inspect(self, uri: str) -> tuple[NDArray[np.uint8], Inspection]:
        try:
            data = files.read_bytes(uri)
        except OSError as error:
            return np.zeros((self.size, self.size, 3), np.uint8), Inspection("", 0, 0, str(error))
        return inspect_image(data, self.size)


def decode_all(uris: tuple[str, ...], size: int) -> Iterator[tuple[Batch, list[Inspection]]]:
    """Read and decode every image once, in parallel over the cluster.

    Yields:
        Blocks: ``row`` (n,), ``image`` (n, size, size, 3) uint8 (black where unreadable), and
        what was found of each image.
    """
    stream = _execute(len(uris), len(uris) // BLOCK_ROWS, _DecodeTask(uris, size), num_cpus=1)
    for batch in stream.iter_batches(batch_size=None, batch_format="numpy", prefetch_batches=1):
        columns = (batch["mode"], batch["width"], batch["height"], batch["problem"])
        found = [Inspection(str(m), int(w), int(h), str(p)) for m, w, h, p in zip(*columns, strict=True)]
        yield batch, found


@dataclass(frozen=True)
class _MapTask:
    work: Callable[[range], Any]
    ranges: tuple[range, ...]

    def __call__(self, batch: Batch) -> Batch:
        for n in batch["id"]:
            self.work(self.ranges[int(n)])
        return {"rows": np.array([len(self.ranges[int(n)]) for n in batch["id"]])}


def run_blocks(work: Callable[[range], Any], ranges: list[range]) -> Iterator[int]:
    """Run ``work`` on each range as a task; yields the number of rows done as blocks end."""
    stream = _execute(len(ranges), len(ranges), _MapTask(work, tuple(ranges)), num_cpus=1)
    for batch in stream.iter_batches(batch_size=None, batch_format="numpy"):
        yield int(batch["rows"].sum())
