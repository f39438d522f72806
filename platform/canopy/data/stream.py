"""Ray Data: the stream of training batches, the stream of rows to score.

Every stream is an *index stream* (steps or positions) gathered against decoded chips: nothing is listed,
shuffled or split by Ray, so order, content and length follow from the plan alone. Each rank runs a stream
of its own and takes its slice of each global batch, so nothing is dropped and a restart may begin at any
step. Tasks, not actors: an actor pool is rebuilt for each execution.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import ray
from numpy.typing import NDArray

from canopy import files
from canopy.config import AugmentConfig, SensorConfig
from canopy.data.augment import apply, draw
from canopy.data.decode import PLAIN, UnreadableImage, decode
from canopy.data.execution import Batch, BatchStream, BlockStream, cluster_cpus, rows_per_block
from canopy.data.mixing import mixes, with_partners
from canopy.data.plan import BatchPlan, rank_slice
from canopy.data.whole import mapped
from canopy.errors import DataError

TASK_CPUS = 0.25
"""Logical CPUs of a data task; small, so that streams run beside workers on a small machine."""
MAX_TASKS = 8
"""Data tasks of one stream at a time, where nothing else is asked for."""


@dataclass(frozen=True)
class Chips:
    """Decoded chips, row by row as in the catalogue.

    Args:
        size: height and width in pixels.
        uris: where each row's image lies, for the streaming path.
        resident: the uint8 array (N, size, size, 3) as a file that every process can map (one machine), or as
            a reference into the object store (several); None to decode on demand.
        sensor: how files of many bands or 16 bits are shown.
        max_bad_fraction: share of the images that may have become unreadable since they were prepared.
    """

    size: int
    uris: tuple[str, ...]
    resident: str | ray.ObjectRef[Any] | None
    sensor: SensorConfig = PLAIN
    max_bad_fraction: float = 0.0

    def array(self) -> NDArray[np.uint8] | None:
        """A view of the resident chips, shared by all processes; None where chips are decoded on demand."""
        if isinstance(self.resident, str):
            return mapped(self.resident)
        return None if self.resident is None else ray.get(self.resident)

    def take(self, rows_n: NDArray[np.int64]) -> tuple[NDArray[np.uint8], NDArray[np.object_] | None]:
        """The chips of ``rows_n``, shape (n, size, size, 3), uint8, and what is wrong with each.

        What is wrong is "" for readable images; the others are black. It is None where chips are resident.
        """
        chips_NHWC = self.array()
        if chips_NHWC is not None:
            return chips_NHWC[rows_n], None
        chips_nHWC = np.empty((len(rows_n), self.size, self.size, 3), np.uint8)
        told = [self.read_into(chip, row) for chip, row in zip(chips_nHWC, rows_n.tolist(), strict=True)]
        return chips_nHWC, np.array(told, dtype=object)

    def read_into(self, chip: NDArray[np.uint8], row: int) -> str:
        """Write the chip of one image and give "", or black and the file's name with what is wrong with it.

        A store that refuses altogether is another matter, and ends the stream.
        """
        uri = self.uris[row]
        try:
            decode(files.read_bytes(uri), self.size, self.sensor, chip)
        except (UnreadableImage, OSError) as error:
            why = "there is no such file" if isinstance(error, FileNotFoundError) else str(error)
            chip[:] = 0
            return f"{files.shown(uri)}: {why}"
        return ""

    def read_next(self, rows_B: NDArray[np.int64], position: int) -> tuple[int, NDArray[np.uint8]]:
        """Row and chip of the first readable image after ``position``, going round.

        Raises:
            DataError: when there is none.
        """
        chip = np.empty((self.size, self.size, 3), np.uint8)
        for row in np.roll(rows_B, -position - 1).tolist():
            problem = self.read_into(chip, row)
            if not problem:
                return row, chip
        remedy = "Restore the images, or delete the run directory's prepare/ to validate them again."
        raise DataError("A training batch", "must hold a readable image", problem, remedy)


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
        steps = (batch["id"] + self.first_step).tolist()
        batches = self.plan.batches(steps[0], steps[-1] + 1)
        resident = self.chips.array()
        shares = (self._share(*at, resident) for at in zip(steps, batches, strict=True))
        return joined(shares, len(steps))

    def _share(self, step: int, rows_B: NDArray[np.int64], resident: NDArray[np.uint8] | None) -> Batch:
        """This rank's part of the global batch ``rows_B`` of ``step``."""
        part = rank_part(self.augment, self.plan, self.rank, self.world)
        rows_n, told = rows_B[part], {}
        if resident is not None:
            images_NHWC = resident[rows_n]
        else:
            images_NHWC, problems_n = self.chips.take(rows_n)
            assert problems_n is not None
            told = {"wanted": rows_n, "problem": problems_n}
            rows_n = rows_n.copy()
            for n in np.flatnonzero(problems_n != "").tolist():
                rows_n[n], images_NHWC[n] = self.chips.read_next(rows_B, part.start + n)
        if self.augment.place == "data":
            images_NHWC = self._augment(images_NHWC, step, part)
        return {"row": rows_n, "image": images_NHWC, **told}

    def _augment(self, images_NHWC: NDArray[np.uint8], step: int, part: slice) -> NDArray[np.uint8]:
        import torch

        params = draw(self.augment, self.plan.batch_size, self.plan.step_rng(step))[part]
        augmented: NDArray[np.uint8] = apply(torch.from_numpy(images_NHWC), params).numpy()
        return augmented


def joined(parts: Iterable[Batch], count: int) -> Batch:
    """``count`` batches of equal shapes one after the other, each copied while it is in the cache."""
    out: Batch = {}
    for n, part in enumerate(parts):
        for name, column in part.items():
            if n == 0:
                out[name] = np.empty((count * len(column), *column.shape[1:]), column.dtype)
            out[name][n * len(column) : (n + 1) * len(column)] = column
    return out


def rank_part(augment: AugmentConfig, plan: BatchPlan, rank: int, world: int) -> slice:
    """Which of a global batch's images a rank's stream brings: its share, and partners to mix it with."""
    share = rank_slice(plan.batch_size, rank, world)
    return with_partners(share, plan.batch_size) if mixes(augment) else share


def training_batches(
    chips: Chips,
    plan: BatchPlan,
    augment: AugmentConfig,
    *,
    rank: int,
    world: int,
    first_step: int,
    last_step: int,
    concurrency: int | None = None,
) -> BatchStream:
    """This rank's batches of the steps ``first_step`` up to, not including, ``last_step``.

    One execution covers all epochs, so nothing starts anew between them. Each batch holds ``row``
    (n,) int64 and ``image`` (n, H, W, 3) uint8 of the rank's :func:`rank_part` of the global batch,
    augmented unless that is left to the device. Where images are decoded as they stream, it also holds
    ``wanted`` (n,), the rows of the plan, and ``problem`` (n,), what is wrong with those images, or "". For
    one that cannot be read, the next readable image of the global batch stands in, with a row of its own:
    batches keep their size, and stay the same for any number of ranks.
    """
    part = rank_part(augment, plan, rank, world)
    size = part.stop - part.start
    task = _TrainTask(chips, plan, augment, rank, world, first_step)
    per_block = rows_per_block(chips.size, multiple_of=size) // size
    tasks = concurrency or tasks_of(world)
    return BatchStream(BlockStream(last_step - first_step, per_block, task, TASK_CPUS, tasks, ramp=1), size)


def tasks_of(world: int) -> int:
    """Data tasks at a time for each of ``world`` streams, where nothing else is asked for.

    Half of the cluster's CPUs, shared among the ranks: the training needs the rest. A stream that is not
    waited for starts none.
    """
    return max(1, min(MAX_TASKS, int(cluster_cpus() / (2 * world))))


@dataclass(frozen=True)
class _GatherTask:
    chips: Chips
    rows_N: NDArray[np.int64]

    def __call__(self, batch: Batch) -> Batch:
        rows_n = self.rows_N[batch["id"]]
        images_NHWC, problems_n = self.chips.take(rows_n)
        told = {} if problems_n is None else {"problem": problems_n}
        return {"row": rows_n, "image": images_NHWC, **told}


def rows_in_order(
    chips: Chips, rows_N: NDArray[np.int64], batch_size: int, concurrency: int | None = None
) -> BatchStream:
    """Every row of ``rows_N`` once, in order, as batches of ``row`` and ``image``; the last may be short.

    Where images are decoded as they stream, a batch also holds ``problem`` (n,): what is wrong with the
    image, which is then black, or "".
    """
    per_block = rows_per_block(chips.size, multiple_of=batch_size)
    task, tasks = _GatherTask(chips, rows_N), concurrency or tasks_of(world=1)
    blocks = BlockStream(len(rows_N), per_block, task, TASK_CPUS, tasks, ramp=batch_size)
    return BatchStream(blocks, batch_size)


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
    for batch in BlockStream(len(ranges), 1, _MapTask(work, tuple(ranges)), num_cpus=1):
        yield int(batch["rows"].sum())
