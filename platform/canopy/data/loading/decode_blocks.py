"""The Ray tasks below ``decode_dataset``: blocks of images are decoded once, and crashes are recovered from.

Decoded pixels are many bytes and few instructions, so the cost is in moving them. On one machine the tasks
write chips into a file that all processes map (:class:`canopy.data.loading.chip_cache.ChipCache`); on several
machines the chips travel through the object store.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from ray.exceptions import OutOfMemoryError

from canopy.bands import BandLayout, channels_of, chip_bytes, dtype_of
from canopy.config import SensorConfig
from canopy.data.loading.augment_chunks import chunk_slices
from canopy.data.loading.chip_cache import ChipCache
from canopy.data.loading.chip_source import NEEDS_MEMORY
from canopy.data.loading.ray_stream import Batch, block_bytes, rows_per_block
from canopy.data.loading.uri_list import UriList
from canopy.data.raster.decode import PLAIN
from canopy.data.raster.limits import DEFAULT_MAX_BYTES
from canopy.data.raster.try_decode import Inspection, try_band_chip, try_decode
from canopy.errors import StorageError
from canopy.runtime.malloc import keep_freed_memory
from canopy.runtime.ray_tasks import Recovery, cluster_cpus, map_blocks, max_in_flight
from canopy.storage import files

MIN_BLOCK_ROWS = 128
"""Minimum number of images in a block."""
BLOCKS_PER_CPU = 4
"""Minimum number of blocks for each CPU, so that all CPUs finish at about the same time."""
MAX_INDEX_BLOCK_ROWS = 16384
"""Maximum number of images in a block whose chips do not travel through the object store."""
CRASHES_DECODER = "crashes the process that decodes it"

ChipStatistics = Callable[[NDArray[Any]], Batch]
"""Function of chips (n, size, size, C) that returns columns of n rows."""


@dataclass(frozen=True)
class _DecodedBlock:
    """Result of one task.

    Attributes:
        columns: columns of the block, n rows each.
        kinds: the distinct inspections of the block; most images share one.
        kind_n: index into ``kinds`` for each image.
    """

    columns: Batch
    kinds: list[Inspection]
    kind_n: NDArray[np.int64]


@dataclass(frozen=True)
class _DecodeTask:
    uris: UriList
    size: int
    sensor: SensorConfig
    max_bytes: int
    cache: ChipCache | None
    statistics: ChipStatistics | None
    with_images: bool
    layout: BandLayout | None = None

    @property
    def _shape(self) -> tuple[int, int, int]:
        return self.size, self.size, channels_of(self.layout)

    def __call__(self, rows: range) -> _DecodedBlock:
        keep_freed_memory()
        parts = (
            [slice(0, len(rows))]
            if self.with_images
            else chunk_slices(len(rows), chip_bytes(self.size, self.layout))
        )
        chips_mHWC = np.empty((parts[0].stop, *self._shape), dtype_of(self.layout))
        kinds: dict[Inspection, int] = {}
        kind_n: list[int] = []
        found: list[Batch] = []
        for part in parts:
            rows_m = np.arange(rows[part].start, rows[part].stop)
            chips = chips_mHWC[: len(rows_m)]
            for uri, chip in zip(self.uris.at(rows_m), chips, strict=True):
                kind_n.append(kinds.setdefault(self._inspect(uri, chip), len(kinds)))
            if self.cache is not None:
                self.cache.write_rows(rows[part].start, chips)
            if self.statistics is not None:
                found.append(self.statistics(chips))
        return self._block(rows, chips_mHWC, found, list(kinds), np.array(kind_n))

    def _block(
        self,
        rows: range,
        chips_nHWC: NDArray[Any],
        found: list[Batch],
        kinds: list[Inspection],
        kind_n: NDArray[np.int64],
    ) -> _DecodedBlock:
        columns: Batch = {"row": np.arange(rows.start, rows.stop)}
        for column in found[0] if found else ():
            columns[column] = np.concatenate([part[column] for part in found])
        if self.with_images:
            columns["image"] = chips_nHWC
        return _DecodedBlock(columns, kinds, kind_n)

    def _inspect(self, uri: str, chip: NDArray[Any]) -> Inspection:
        """Decode one image into ``chip``; black where it is unreadable."""
        try:
            if self.layout is not None:
                return try_band_chip(uri, self.size, self.layout, chip, self.max_bytes)
            data = files.read_image(uri, self.max_bytes)
            return try_decode(data, self.size, self.sensor, chip, max_bytes=self.max_bytes)[1]
        except StorageError:
            raise  # the store fails, not the image
        except OSError as error:
            problem = str(error)
        except MemoryError:
            problem = NEEDS_MEMORY
        chip[:] = 0
        return Inspection(problem=problem)

    def recovery(self) -> Recovery[range, _DecodedBlock]:
        """How to find and report an image whose decoding kills the worker process."""
        return Recovery(split=_halves, replace=self._replace)

    def _replace(self, rows: range, error: Exception) -> _DecodedBlock:
        """The result for the image of ``rows``, which killed its worker: a black chip with a problem."""
        black = np.zeros((len(rows), *self._shape), dtype_of(self.layout))
        if self.cache is not None:
            self.cache.write_rows(rows.start, black)
        found = [] if self.statistics is None else [self.statistics(black)]
        problem = NEEDS_MEMORY if isinstance(error, OutOfMemoryError) else CRASHES_DECODER
        return self._block(rows, black, found, [Inspection(problem=problem)], np.zeros(len(rows), np.int64))


def _halves(rows: range) -> tuple[range, range] | None:
    half = len(rows) // 2
    return (rows[:half], rows[half:]) if half else None


def decode_blocks(
    uris: Sequence[str],
    size: int,
    sensor: SensorConfig = PLAIN,
    *,
    max_bytes: int = DEFAULT_MAX_BYTES,
    cache: ChipCache | None = None,
    statistics: ChipStatistics | None = None,
    with_images: bool = True,
    layout: BandLayout | None = None,
) -> Iterator[tuple[Batch, list[Inspection]]]:
    """Read and decode every image once, in parallel over the cluster.

    An image that needs more memory than a worker may take, or that crashes the decoder, is found by halving
    its block and reported as unreadable.

    Args:
        uris: paths or URIs of the N images.
        size: height and width of a chip in pixels.
        sensor: how files with many bands or 16 bits are displayed.
        max_bytes: memory that decoding one image may take, in bytes.
        cache: a growing file (:meth:`ChipCache.create`) into which chips are decoded; on one machine only.
        statistics: computes further columns from the chips, in the task that decodes them.
        with_images: whether the blocks contain the chips.
        layout: the bands of a chip; None for RGB.

    Yields:
        Blocks in order. Columns: ``row`` (n,); ``image`` (n, size, size, C), black where unreadable, if
        requested; the columns of ``statistics``. With each block come the inspections of its n images.

    Raises:
        StorageError: when the store of the images fails.
        ClusterError: when worker processes keep ending.
    """
    task = _DecodeTask(UriList(uris), size, sensor, max_bytes, cache, statistics, with_images, layout)
    even = len(uris) // (BLOCKS_PER_CPU * max(1, int(cluster_cpus())))
    most = (
        rows_per_block(chip_bytes(size, layout), room=block_bytes(max_in_flight()))
        if with_images
        else MAX_INDEX_BLOCK_ROWS
    )
    rows = range(len(uris))
    step = min(most, max(MIN_BLOCK_ROWS, even))
    blocks = [rows[start : start + step] for start in rows[::step]]
    for block in map_blocks(task, blocks, task.recovery()):
        yield block.columns, [block.kinds[kind] for kind in block.kind_n.tolist()]
