"""Ray Data: the stream of training batches, the stream of rows to score.

Every stream is an *index stream* (steps or positions) gathered against decoded chips: nothing is listed,
shuffled or split by Ray, so order, content and length follow from the plan alone. Each rank runs a stream
of its own and takes its slice of each global batch, so nothing is dropped and a restart may begin at any
step. Tasks, not actors: an actor pool is rebuilt for each execution.

Pixels are moved as seldom as can be. Where chips are decoded already and nothing is computed with them but
flips, turns and crops, the tasks bring row numbers, and whoever consumes the stream gathers the chips from
the memory that all processes share. Decoding, and augmentation that computes, is the tasks' work; what they
make travels through the object store.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import ray
from numpy.typing import NDArray

from canopy.config import AugmentConfig, SensorConfig
from canopy.data.loading.batch_sampler import BatchSampler, rank_slice
from canopy.data.loading.chip_cache import mapped
from canopy.data.loading.chunks import augment_into, gather_into
from canopy.data.loading.ray_dataset import (
    Batch,
    BatchStream,
    BlockStream,
    block_bytes,
    in_flight,
    rows_per_block,
)
from canopy.data.loading.uri_list import UriList
from canopy.data.raster.decode import PLAIN, UnreadableImage, decode
from canopy.data.transforms.augment import AugmentParams, computes_pixels, draw_params
from canopy.data.transforms.mixup import uses_mix, widen_to_pairs
from canopy.errors import DataError
from canopy.runtime.malloc import keep_freed_memory
from canopy.runtime.ray_tasks import cluster_cpus
from canopy.storage import files

ROWS_ALONE = 2**16
"""Row numbers in a block that holds nothing else: an epoch or more of most data sets."""
TASK_CPUS = 0.25
"""Logical CPUs of a data task; small, so that streams run beside workers on a small machine."""
MAX_CORES = 8
"""Cores that the data tasks of one stream take, at most, where nothing else is asked for."""


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
    uris: UriList
    resident: str | ray.ObjectRef[Any] | None
    sensor: SensorConfig = PLAIN
    max_bad_fraction: float = 0.0

    def array(self) -> NDArray[np.uint8] | None:
        """A view of the resident chips, shared by all processes; None where chips are decoded on demand."""
        if isinstance(self.resident, str):
            return mapped(self.resident)
        return None if self.resident is None else ray.get(self.resident)

    def take(self, rows_n: NDArray[np.int64]) -> tuple[NDArray[np.uint8], NDArray[np.object_]]:
        """Read and decode the images of ``rows_n``.

        Returns:
            Chips (n, size, size, 3), uint8, black where unreadable; what is wrong with each, or "".
        """
        chips_nHWC = np.empty((len(rows_n), self.size, self.size, 3), np.uint8)
        told = [self.read_into(chip, uri) for chip, uri in zip(chips_nHWC, self.uris.at(rows_n), strict=True)]
        return chips_nHWC, np.array(told, dtype=object)

    def read_into(self, chip: NDArray[np.uint8], uri: str) -> str:
        """Write the chip of one image and give "", or black and the file's name with what is wrong with it.

        A store that refuses altogether is another matter, and ends the stream.
        """
        try:
            decode(files.read_image(uri), self.size, self.sensor, chip)
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
        others_B = np.roll(rows_B, -position - 1)
        for row, uri in zip(others_B.tolist(), self.uris.at(others_B), strict=True):
            problem = self.read_into(chip, uri)
            if not problem:
                return row, chip
        remedy = "Restore the images, or delete the run directory's prepare/ to validate them again."
        raise DataError("A training batch", "must hold a readable image", problem, remedy)


@dataclass(frozen=True)
class _TrainTask:
    """Steps in, this rank's shares of their global batches out."""

    chips: Chips
    plan: BatchSampler
    augment: AugmentConfig
    part: slice
    first_step: int

    def __call__(self, batch: Batch) -> Batch:
        keep_freed_memory()
        steps = (batch["id"] + self.first_step).tolist()
        count, side = self.part.stop - self.part.start, self.side
        images_NHWC = np.empty((len(steps) * count, side, side, 3), np.uint8)
        shares_SnHWC = images_NHWC.reshape(len(steps), count, side, side, 3)
        resident = self.chips.array()
        told: list[Batch] = []
        batches = self.plan.batches(steps[0], steps[-1] + 1)
        for step, rows_B, out_nHWC in zip(steps, batches, shares_SnHWC, strict=True):
            if resident is None:
                told.append(self._decode(step, rows_B, out_nHWC))
            else:
                told.append({"row": rows_B[self.part]})
                gather_into(out_nHWC, resident, rows_B[self.part], self.params(step))
        columns = {name: np.concatenate([columns[name] for columns in told]) for name in told[0]}
        return {"image": images_NHWC, **columns}

    @property
    def side(self) -> int:
        """Height and width of the images that come out."""
        cut = self.augment.place == "data" and self.augment.crop
        return cut or self.chips.size

    def _decode(self, step: int, rows_B: NDArray[np.int64], out_nHWC: NDArray[np.uint8]) -> Batch:
        """This rank's part of a global batch, decoded; for an unreadable image the next one stands in."""
        wanted_n = rows_B[self.part]
        rows_n, problems_n = wanted_n.copy(), np.full(len(wanted_n), "", dtype=object)
        uris_n = self.chips.uris.at(wanted_n)

        def read(piece: slice, place_mHWC: NDArray[np.uint8]) -> None:
            for n, chip in enumerate(place_mHWC, piece.start):
                problems_n[n] = self.chips.read_into(chip, uris_n[n])
                if problems_n[n]:
                    rows_n[n], chip[:] = self.chips.read_next(rows_B, self.part.start + n)

        augment_into(out_nHWC, self.chips.size, self.params(step), read)
        return {"row": rows_n, "wanted": wanted_n, "problem": problems_n}

    def params(self, step: int) -> AugmentParams | None:
        """Of this rank's images of ``step``; None where augmentation is left to the device."""
        if self.augment.place == "device":
            return None
        return draw_params(self.augment, self.plan.batch_size, self.plan.step_rng(step))[self.part]


@dataclass(frozen=True)
class _PlanTask:
    """Steps in, the row numbers of this rank's shares of their global batches out."""

    plan: BatchSampler
    part: slice
    first_step: int

    def __call__(self, batch: Batch) -> Batch:
        first, last = int(batch["id"][0]) + self.first_step, int(batch["id"][-1]) + self.first_step
        return {"row": np.concatenate([rows_B[self.part] for rows_B in self.plan.batches(first, last + 1)])}


def rank_part(augment: AugmentConfig, plan: BatchSampler, rank: int, world: int) -> slice:
    """Which of a global batch's images a rank's stream brings: its share, and partners to mix it with."""
    share = rank_slice(plan.batch_size, rank, world)
    return widen_to_pairs(share, plan.batch_size) if uses_mix(augment) else share


def training_batches(
    chips: Chips,
    plan: BatchSampler,
    augment: AugmentConfig,
    *,
    rank: int,
    world: int,
    first_step: int,
    last_step: int,
    cores: int | None = None,
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
    size, steps = part.stop - part.start, last_step - first_step
    task = _TrainTask(chips, plan, augment, part, first_step)
    if chips.resident is None or (augment.place == "data" and computes_pixels(augment)):
        per_block = rows_per_block(chips.size, size, block_bytes()) // size
        tasks = in_flight(cores or cores_of(world))
        return BatchStream(BlockStream(steps, per_block, task, TASK_CPUS, tasks, ramp=1), size)
    blocks = BlockStream(steps, max(1, ROWS_ALONE // size), _PlanTask(plan, part, first_step), TASK_CPUS, 1)
    resident = chips.array()
    assert resident is not None

    def complete(step: int, batch: Batch) -> Batch:
        images_nHWC = np.empty((size, task.side, task.side, 3), np.uint8)
        gather_into(images_nHWC, resident, batch["row"], task.params(first_step + step))
        return {**batch, "image": images_nHWC}

    return BatchStream(blocks, size, complete)


def cores_of(world: int) -> int:
    """Cores for the data tasks of each of ``world`` streams, where nothing else is asked for.

    Half of the cluster's CPUs, shared among the ranks: the training needs the rest. A stream that is not
    waited for starts none.
    """
    return max(1, min(MAX_CORES, int(cluster_cpus() / (2 * world))))


@dataclass(frozen=True)
class _ScoreTask:
    chips: Chips
    rows_N: NDArray[np.int64]

    def __call__(self, batch: Batch) -> Batch:
        rows_n = self.rows_N[batch["id"]]
        if self.chips.resident is not None:
            return {"row": rows_n}
        keep_freed_memory()
        images_NHWC, problems_n = self.chips.take(rows_n)
        return {"row": rows_n, "image": images_NHWC, "problem": problems_n}


def rows_in_order(
    chips: Chips, rows_N: NDArray[np.int64], batch_size: int, cores: int | None = None
) -> BatchStream:
    """Every row of ``rows_N`` once, in order, as batches of ``row`` and ``image``; the last may be short.

    Where images are decoded as they stream, a batch also holds ``problem`` (n,): what is wrong with the
    image, which is then black, or "".
    """
    task, resident = _ScoreTask(chips, rows_N), chips.array()
    if resident is not None:
        blocks = BlockStream(len(rows_N), max(1, ROWS_ALONE // batch_size) * batch_size, task, TASK_CPUS, 1)
        return BatchStream(blocks, batch_size, lambda _, b: {**b, "image": resident[b["row"]]})
    per_block = rows_per_block(chips.size, batch_size, block_bytes())
    tasks = in_flight(cores or cores_of(world=1))
    return BatchStream(
        BlockStream(len(rows_N), per_block, task, TASK_CPUS, tasks, ramp=batch_size), batch_size
    )
