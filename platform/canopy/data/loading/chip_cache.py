"""Every image of a data set read and decoded once, in parallel.

Decoded pixels are many bytes and few instructions, so what counts is how often they are moved. On one
machine the tasks write them into a file that all processes map (:func:`room_for`), and nobody moves them
again; on several, they travel through the object store.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from canopy.config import SensorConfig
from canopy.data.loading.chunks import chunk_slices
from canopy.data.loading.ray_dataset import Batch, block_bytes, rows_per_block
from canopy.data.loading.uri_list import UriList
from canopy.data.raster.decode import PLAIN
from canopy.data.validate import Inspection, inspect_image
from canopy.errors import RunDirError
from canopy.runtime.malloc import keep_freed_memory
from canopy.runtime.ray_tasks import at_once, cluster_cpus, map_blocks
from canopy.storage import files

MIN_DECODED, DECODE_ROUNDS, LEAN_ROWS = 128, 4, 16384
"""Images in a block, at least; blocks for each CPU, at least; images in a block, at most, where its chips do
not travel through the object store."""
HEADER_BYTES = 128
"""What ``np.save`` puts before the chips."""

Look = Callable[[NDArray[np.uint8]], Batch]
"""Chips (n, size, size, 3) to columns of n rows."""


def room_for(path: Path, rows: int, size: int) -> NDArray[np.uint8]:
    """A new file of the form of ``np.save`` for ``rows`` chips of ``size`` pixels a side, mapped to write.

    Its blocks are taken at once: in a hole of a file, a disk that is full kills whoever writes to the page.

    Raises:
        RunDirError: when there is no room.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    try:
        chips_NHWC = np.lib.format.open_memmap(path, "w+", np.uint8, (rows, size, size, 3))
        with path.open("r+b") as file:
            os.posix_fallocate(file.fileno(), 0, path.stat().st_size)
    except OSError as error:
        path.unlink(missing_ok=True)
        problem = f"must have room for {rows * size * size * 3 / 1e9:.2f} GB of decoded chips"
        raise RunDirError(str(path.parent), problem, error.strerror, "Free some, or use another.") from None
    assert chips_NHWC.offset == HEADER_BYTES, chips_NHWC.offset
    return chips_NHWC.view(np.ndarray)


def keep_rows(path: Path, rows_n: NDArray[np.int64]) -> NDArray[np.uint8]:
    """Leave only some chips in a file, and map it anew.

    Args:
        path: of a file from :func:`room_for` that nobody writes to any more.
        rows_n: which, ascending: each moves towards the beginning, so that no second file is needed.
    """
    chips_NHWC = np.lib.format.open_memmap(path, "r+")
    size, moved = chips_NHWC.shape[1], int((rows_n == np.arange(len(rows_n))).sum())
    for part in chunk_slices(len(rows_n) - moved, size):  # ascending and distinct: those that stay come first
        goal = slice(moved + part.start, moved + part.stop)
        chips_NHWC[goal] = chips_NHWC[rows_n[goal]]
    chips_NHWC.flush()
    shape, length = (len(rows_n), *chips_NHWC.shape[1:]), HEADER_BYTES + len(rows_n) * chips_NHWC[0].nbytes
    del chips_NHWC
    with path.open("r+b") as file:
        header = {"descr": "|u1", "fortran_order": False, "shape": shape}
        np.lib.format.write_array_header_1_0(file, header)
        assert file.tell() == HEADER_BYTES, file.tell()
        file.truncate(length)
    return np.lib.format.open_memmap(path, "r+").view(np.ndarray)


def write_rows(path: str, first: int, chips_nHWC: NDArray[np.uint8]) -> None:
    """Put chips in their place in a file from :func:`room_for`.

    Written, not mapped: the kernel takes a block of pages at once, where each first touch of a mapped one
    stops the decoder.
    """
    with open(path, "r+b", buffering=0) as file:  # noqa: PTH123 (a quarter of what Path costs)
        place = HEADER_BYTES + first * chips_nHWC[0].nbytes
        written = os.pwrite(file.fileno(), chips_nHWC.data, place)
        assert written == chips_nHWC.nbytes, written


def mapped(path: str) -> NDArray[np.uint8]:
    """The chips in a file of this machine, mapped to read; a file that was replaced is mapped anew."""
    state = Path(path).stat()
    return _mapped(path, state.st_ino, state.st_mtime_ns)


@lru_cache(maxsize=2)
def _mapped(path: str, inode: int, changed: int) -> NDArray[np.uint8]:  # noqa: ARG001 (parts of the key)
    chips_NHWC: NDArray[np.uint8] = np.load(path, mmap_mode="r", allow_pickle=False).view(np.ndarray)
    return chips_NHWC


@dataclass(frozen=True)
class _Found:
    """What a task found: for each image its place among the different findings, which are few."""

    columns: Batch
    kinds: list[Inspection]
    kind_n: NDArray[np.int64]


@dataclass(frozen=True)
class _DecodeTask:
    uris: UriList
    size: int
    sensor: SensorConfig
    place: str | None
    look: Look | None
    images: bool

    def __call__(self, rows: range) -> _Found:
        keep_freed_memory()
        parts = [slice(0, len(rows))] if self.images else chunk_slices(len(rows), self.size)
        chips_mHWC = np.empty((parts[0].stop, self.size, self.size, 3), np.uint8)
        kinds: dict[Inspection, int] = {}
        kind_n: list[int] = []
        looks: list[Batch] = []
        for part in parts:
            rows_m = np.arange(rows[part].start, rows[part].stop)
            chips = chips_mHWC[: len(rows_m)]
            for uri, chip in zip(self.uris.at(rows_m), chips, strict=True):
                kind_n.append(kinds.setdefault(self._inspect(uri, chip), len(kinds)))
            if self.place is not None:
                write_rows(self.place, rows[part].start, chips)
            if self.look is not None:
                looks.append(self.look(chips))
        columns: Batch = {"row": np.arange(rows.start, rows.stop)}
        for column in looks[0] if looks else ():
            columns[column] = np.concatenate([look[column] for look in looks])
        if self.images:
            columns["image"] = chips_mHWC
        return _Found(columns, list(kinds), np.array(kind_n))

    def _inspect(self, uri: str, chip: NDArray[np.uint8]) -> Inspection:
        try:
            data = files.read_image(uri)
        except OSError as error:
            chip[:] = 0
            return Inspection("", 0, 0, str(error))
        return inspect_image(data, self.size, self.sensor, chip)[1]


def decode_all(
    uris: Sequence[str],
    size: int,
    sensor: SensorConfig = PLAIN,
    *,
    place: Path | None = None,
    look: Look | None = None,
    images: bool = True,
) -> Iterator[tuple[Batch, list[Inspection]]]:
    """Read and decode every image once, in parallel over the cluster.

    Args:
        uris: of the N images.
        size: height and width of a chip.
        sensor: how files of many bands or 16 bits are shown.
        place: a file from :func:`room_for`, into which chips are decoded; on a cluster of one machine only.
        look: what else to find out of each block of chips, where they are decoded.
        images: whether the blocks hold the chips.

    Yields:
        Blocks in order: ``row`` (n,), ``image`` (n, size, size, 3) uint8 (black where unreadable) where it is
        asked for, the columns of ``look``; and what was found of each image.
    """
    task = _DecodeTask(UriList(uris), size, sensor, None if place is None else str(place), look, images)
    even = len(uris) // (DECODE_ROUNDS * max(1, int(cluster_cpus())))  # all cores end at about the same time
    most = rows_per_block(size, room=block_bytes(at_once())) if images else LEAN_ROWS
    rows = range(len(uris))
    step = min(most, max(MIN_DECODED, even))
    for found in map_blocks(task, [rows[start : start + step] for start in rows[::step]]):
        yield found.columns, [found.kinds[kind] for kind in found.kind_n.tolist()]
