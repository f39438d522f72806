"""The batches of one rank through Ray Data: :func:`training_batches` and :func:`scoring_batches`.

Each stream maps indices (steps or positions) to chips. Ray Data neither lists, shuffles nor splits
anything, so order, content and length follow from the batch sampler alone. Each rank runs its own stream
and takes its slice of each global batch: nothing is dropped, and a restart may begin at any step. The
streams use tasks, not actors, because an actor pool is built again for each execution.

Pixels move as seldom as possible. Where chips are decoded already and augmentation only flips, turns and
crops, the tasks deliver row numbers, and the consumer gathers the chips from the memory that all processes
share. Decoding, and augmentation that computes with pixels, run in the tasks; their batches travel through
the object store.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from canopy.config import AugmentConfig
from canopy.data.loading.augment_chunks import gather_and_augment, read_and_augment
from canopy.data.loading.batch_sampler import BatchSampler, rank_slice
from canopy.data.loading.chip_source import ChipSource
from canopy.data.loading.ray_stream import (
    Batch,
    BatchStream,
    BlockStream,
    block_bytes,
    rows_per_block,
    tasks_in_flight,
)
from canopy.data.transforms.augment import AugmentParams, computes_pixels, draw_params
from canopy.data.transforms.mixup import uses_mix, widen_to_pairs
from canopy.runtime.malloc import keep_freed_memory
from canopy.runtime.ray_tasks import cluster_cpus

INDEX_BLOCK_ROWS = 2**16
"""Rows in a block that holds only row numbers: an epoch or more of most data sets."""
TASK_CPUS = 0.25
"""Logical CPUs of a data task; small, so that streams and training workers fit on a small machine."""
MAX_CORES = 8
"""Default for the maximum number of cores that the data tasks of one stream use."""


@dataclass(frozen=True)
class _TrainTask:
    """Maps steps to this rank's images of their global batches."""

    chips: ChipSource
    sampler: BatchSampler
    augment: AugmentConfig
    part: slice
    first_step: int

    def __call__(self, batch: Batch) -> Batch:
        keep_freed_memory()
        steps = (batch["id"] + self.first_step).tolist()
        count, side = self.part.stop - self.part.start, self.side
        images_NHWC = np.empty((len(steps) * count, side, side, self.chips.channels), self.chips.dtype)
        batches_SnHWC = images_NHWC.reshape(len(steps), count, *images_NHWC.shape[1:])
        resident = self.chips.array()
        found: list[Batch] = []
        rows_SB = self.sampler.batches(steps[0], steps[-1] + 1)
        for step, rows_B, out_nHWC in zip(steps, rows_SB, batches_SnHWC, strict=True):
            if resident is None:
                found.append(self._decode(step, rows_B, out_nHWC))
            else:
                found.append({"row": rows_B[self.part]})
                gather_and_augment(out_nHWC, resident, rows_B[self.part], self.params(step))
        columns = {name: np.concatenate([part[name] for part in found]) for name in found[0]}
        return {"image": images_NHWC, **columns}

    @property
    def side(self) -> int:
        """Height and width of the images that the stream delivers."""
        crop = self.augment.place == "data" and self.augment.crop
        return crop or self.chips.size

    def _decode(self, step: int, rows_B: NDArray[np.int64], out_nHWC: NDArray[np.uint8]) -> Batch:
        """Decode this rank's part of a global batch; the next readable image replaces an unreadable one."""
        wanted_n = rows_B[self.part]
        rows_n, problems_n = wanted_n.copy(), np.full(len(wanted_n), "", dtype=object)
        uris_n = self.chips.uris.at(wanted_n)

        def read(chunk: slice, out_mHWC: NDArray[np.uint8]) -> None:
            for n, chip in enumerate(out_mHWC, chunk.start):
                problems_n[n] = self.chips.decode_into(chip, uris_n[n])
                if problems_n[n]:
                    rows_n[n], chip[:] = self.chips.decode_next_readable(rows_B, self.part.start + n)

        read_and_augment(out_nHWC, self.chips.size, self.params(step), read)
        return {"row": rows_n, "wanted": wanted_n, "problem": problems_n}

    def params(self, step: int) -> AugmentParams | None:
        """The augmentation parameters of this rank's images; None if the device augments."""
        if self.augment.place == "device":
            return None
        rng, chips = self.sampler.step_rng(step), self.chips
        return draw_params(self.augment, self.sampler.batch_size, rng, chips.bands, chips.colors)[self.part]


@dataclass(frozen=True)
class _TrainRowsTask:
    """Maps steps to the row numbers of this rank's part of their global batches."""

    sampler: BatchSampler
    part: slice
    first_step: int

    def __call__(self, batch: Batch) -> Batch:
        first, last = int(batch["id"][0]) + self.first_step, int(batch["id"][-1]) + self.first_step
        rows_SB = self.sampler.batches(first, last + 1)
        return {"row": np.concatenate([rows_B[self.part] for rows_B in rows_SB])}


def rank_batch_slice(augment: AugmentConfig, sampler: BatchSampler, rank: int, world_size: int) -> slice:
    """A rank's slice of a global batch: its share, widened to whole mixup pairs."""
    share = rank_slice(sampler.batch_size, rank, world_size)
    return widen_to_pairs(share, sampler.batch_size) if uses_mix(augment) else share


def training_batches(
    chips: ChipSource,
    sampler: BatchSampler,
    augment: AugmentConfig,
    *,
    rank: int,
    world_size: int,
    first_step: int,
    stop_step: int,
    cores: int | None = None,
) -> BatchStream:
    """Stream this rank's batches of the steps ``first_step`` to ``stop_step`` - 1, over all epochs.

    Each batch holds ``row`` (n,) int64 and ``image`` (n, H, W, C): the rank's
    :func:`rank_batch_slice` of the global batch, augmented unless the device does that. Where images are
    decoded on demand, a batch also holds ``wanted`` (n,), the rows that the sampler chose, and ``problem``
    (n,), what is wrong with those images, or "". The next readable image of the global batch, with its own
    row, replaces an unreadable one: batches keep their size and stay the same for any number of ranks.

    Args:
        chips: source of the chips.
        sampler: global batches.
        augment: augmentation.
        rank: rank of this process, 0 to ``world`` - 1.
        world_size: number of ranks.
        first_step: first step of the stream.
        stop_step: end of the stream, exclusive.
        cores: cores that the data tasks may use; None for :func:`default_cores`.
    """
    part = rank_batch_slice(augment, sampler, rank, world_size)
    size, steps = part.stop - part.start, stop_step - first_step
    task = _TrainTask(chips, sampler, augment, part, first_step)
    if chips.resident is None or (augment.place == "data" and computes_pixels(augment)):
        per_block = rows_per_block(chips.chip_bytes, size, block_bytes()) // size
        tasks = tasks_in_flight(cores or default_cores(world_size))
        return BatchStream(BlockStream(steps, per_block, task, TASK_CPUS, tasks, ramp=1), size)
    rows_task = _TrainRowsTask(sampler, part, first_step)
    blocks = BlockStream(steps, max(1, INDEX_BLOCK_ROWS // size), rows_task, TASK_CPUS, 1)
    resident = chips.array()
    assert resident is not None

    def complete(step: int, batch: Batch) -> Batch:
        images_nHWC = np.empty((size, task.side, task.side, chips.channels), chips.dtype)
        gather_and_augment(images_nHWC, resident, batch["row"], task.params(first_step + step))
        return {**batch, "image": images_nHWC}

    return BatchStream(blocks, size, complete)


def default_cores(world_size: int) -> int:
    """The number of cores for the data tasks of each of ``world`` streams.

    The streams share half of the cluster's CPUs; the training needs the rest. A stream whose consumer does
    not wait starts no tasks.
    """
    return max(1, min(MAX_CORES, int(cluster_cpus() / (2 * world_size))))


@dataclass(frozen=True)
class _ScoringTask:
    """Maps positions in ``rows_N`` to rows, with their images where these are decoded on demand."""

    chips: ChipSource
    rows_N: NDArray[np.int64]

    def __call__(self, batch: Batch) -> Batch:
        rows_n = self.rows_N[batch["id"]]
        if self.chips.resident is not None:
            return {"row": rows_n}
        keep_freed_memory()
        images_NHWC, problems_n = self.chips.decode_rows(rows_n)
        return {"row": rows_n, "image": images_NHWC, "problem": problems_n}


def scoring_batches(
    chips: ChipSource, rows_N: NDArray[np.int64], batch_size: int, cores: int | None = None
) -> BatchStream:
    """Stream every row of ``rows_N`` once, in order, not augmented; the last batch may be short.

    Each batch holds ``row`` (n,) int64 and ``image`` (n, size, size, C). Where images are decoded on
    demand, it also holds ``problem`` (n,): what is wrong with an image, which is then black, or "".
    """
    task, resident = _ScoringTask(chips, rows_N), chips.array()
    if resident is not None:
        per_block = max(1, INDEX_BLOCK_ROWS // batch_size) * batch_size
        blocks = BlockStream(len(rows_N), per_block, task, TASK_CPUS, 1)
        return BatchStream(blocks, batch_size, lambda _, b: {**b, "image": resident[b["row"]]})
    per_block = rows_per_block(chips.chip_bytes, batch_size, block_bytes())
    tasks = tasks_in_flight(cores or default_cores(world_size=1))
    blocks = BlockStream(len(rows_N), per_block, task, TASK_CPUS, tasks, ramp=batch_size)
    return BatchStream(blocks, batch_size)
