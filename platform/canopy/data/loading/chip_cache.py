"""The decoded chips of a run in one file: created, written, reduced, published, opened and shared here.

The file has the format of ``np.save``: uint8 or uint16 of shape (N, size, size, C), in the order of the
catalogue. It grows under a temporary name in its final directory and is renamed when it is complete, so that
a killed job leaves no partial file.
"""

from __future__ import annotations

import os
import tempfile
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import ray
from numpy.typing import NDArray
from pyarrow import fs

from canopy.bands import BandLayout, channels_of, chip_bytes, dtype_of
from canopy.data.loading.augment_chunks import chunk_slices
from canopy.errors import RunDirError, StorageError
from canopy.runtime.cluster import started_here
from canopy.runtime.stage import Stage
from canopy.storage import files
from canopy.storage.run_dir import RunDir

FILE_NAME = "chips.npy"
HEADER_BYTES = 128
"""Length of the header that ``np.save`` writes before the chips."""


@dataclass(frozen=True)
class ChipCache:
    """The file of decoded chips. The object holds only the path, so tasks receive it at no cost.

    Args:
        path: path or URI of the finished file.
    """

    path: str

    @staticmethod
    def of_run(run_dir: RunDir) -> ChipCache:
        """The cache of a run directory."""
        return ChipCache(run_dir.path(Stage.PREPARE, FILE_NAME))

    @property
    def building_path(self) -> str:
        """Path of the file while it grows."""
        return f"{self.path}.part"

    @property
    def is_mappable(self) -> bool:
        """Whether all processes can map the file: it is local, and the cluster is this machine."""
        return started_here() and not files.is_uri(self.path)

    def exists(self) -> bool:
        """Whether the finished file exists."""
        return files.exists(self.path)

    def create(self, rows: int, size: int, layout: BandLayout | None = None) -> NDArray[Any]:
        """Create the growing file with room for ``rows`` chips of ``size`` pixels a side.

        Args:
            rows: number of chips.
            size: height and width of a chip in pixels.
            layout: the bands of a chip; None for RGB.

        Returns:
            The file, mapped for writing: uint8 or uint16 (rows, size, size, C).

        Raises:
            StorageError: when the disk has no room.
        """
        path = Path(self.building_path)
        path.parent.mkdir(parents=True, exist_ok=True)
        shape = (rows, size, size, channels_of(layout))
        try:
            chips_NHWC = np.lib.format.open_memmap(path, "w+", dtype_of(layout), shape)
            # All blocks are allocated now: with a sparse file, a full disk would kill the process that writes
            # to a mapped page.
            with path.open("r+b") as file:
                os.posix_fallocate(file.fileno(), 0, path.stat().st_size)
        except OSError as error:
            path.unlink(missing_ok=True)
            constraint = f"must have room for {rows * chip_bytes(size, layout) / 1e9:.2f} GB of decoded chips"
            remedy = "Free disk space, or use another directory."
            raise StorageError(str(path.parent), constraint, error.strerror, remedy) from None
        assert chips_NHWC.offset == HEADER_BYTES, chips_NHWC.offset
        return chips_NHWC.view(np.ndarray)

    def write_rows(self, first: int, chips_nHWC: NDArray[Any]) -> None:
        """Write chips to the growing file, from row ``first`` on."""
        # A write, not a mapping: the kernel then takes many pages at once, where the first touch of each
        # mapped page interrupts the decoder.
        with open(self.building_path, "r+b", buffering=0) as file:  # noqa: PTH123 (Path is slower)
            position = HEADER_BYTES + first * chips_nHWC[0].nbytes
            written = os.pwrite(file.fileno(), chips_nHWC.data, position)
            assert written == chips_nHWC.nbytes, written

    def keep_rows(self, rows_n: NDArray[np.int64]) -> NDArray[Any]:
        """Remove all chips but those of ``rows_n`` from the growing file, in place, and map it again.

        Args:
            rows_n: rows to keep, ascending and distinct. No other process may be writing.

        Returns:
            The kept chips, of shape (n, size, size, C).
        """
        path = Path(self.building_path)
        chips_NHWC = np.lib.format.open_memmap(path, "r+")
        nbytes, unmoved = chips_NHWC[0].nbytes, int((rows_n == np.arange(len(rows_n))).sum())
        # Rows ascend, so each chip moves towards the beginning, and the chips that stay in place come first.
        for part in chunk_slices(len(rows_n) - unmoved, nbytes):
            target = slice(unmoved + part.start, unmoved + part.stop)
            chips_NHWC[target] = chips_NHWC[rows_n[target]]
        chips_NHWC.flush()
        shape, length = (
            (len(rows_n), *chips_NHWC.shape[1:]),
            HEADER_BYTES + len(rows_n) * chips_NHWC[0].nbytes,
        )
        descr = np.lib.format.dtype_to_descr(chips_NHWC.dtype)
        del chips_NHWC
        with path.open("r+b") as file:
            header = {"descr": descr, "fortran_order": False, "shape": shape}
            np.lib.format.write_array_header_1_0(file, header)
            assert file.tell() == HEADER_BYTES, file.tell()
            file.truncate(length)
        return np.lib.format.open_memmap(path, "r+").view(np.ndarray)

    def publish(self, chips_NHWC: NDArray[Any] | None = None) -> None:
        """Put the finished file in its place.

        Args:
            chips_NHWC: chips that are in memory; they are written and copied to the path or object store.
                None renames the growing file.
        """
        if chips_NHWC is None:
            Path(self.building_path).replace(self.path)
            return
        filesystem, target = files.resolve(self.path)
        with tempfile.TemporaryDirectory() as directory:
            local = Path(directory, FILE_NAME)
            np.save(local, chips_NHWC, allow_pickle=False)
            filesystem.create_dir(target.rpartition("/")[0], recursive=True)
            here = fs.LocalFileSystem()
            fs.copy_files(str(local), target, source_filesystem=here, destination_filesystem=filesystem)

    def discard(self) -> None:
        """Delete the growing file, if there is one."""
        if not files.is_uri(self.path):
            Path(self.building_path).unlink(missing_ok=True)

    def delete(self) -> None:
        """Delete the finished file, if there is one."""
        if self.exists():
            filesystem, path = files.resolve(self.path)
            filesystem.delete_file(path)

    def open(self) -> NDArray[Any]:
        """The chips, uint8 or uint16 (N, S, S, C): a local file mapped for reading, else a copy in memory.

        A local file that was replaced is mapped again.

        Raises:
            RunDirError: when the file is damaged.
            OSError: when there is no file.
        """
        try:
            if files.is_uri(self.path):
                with tempfile.TemporaryDirectory() as directory:
                    local = Path(directory, FILE_NAME)
                    local.write_bytes(files.read_bytes(self.path))
                    chips_NHWC: NDArray[Any] = np.load(local, allow_pickle=False)
            else:
                state = Path(self.path).stat()
                chips_NHWC = _map(self.path, state.st_ino, state.st_mtime_ns)
        except (ValueError, EOFError) as error:
            raise self._damaged("an array of decoded chips", error) from None
        if chips_NHWC.dtype not in (np.uint8, np.uint16) or chips_NHWC.ndim != 4:
            got = f"{chips_NHWC.dtype} of shape {chips_NHWC.shape}"
            raise self._damaged("an array of decoded chips", got)
        return chips_NHWC

    def open_local(self) -> NDArray[Any] | None:
        """The chips (N, size, size, 3) of a local file, mapped for reading; None without a local file.

        Raises:
            RunDirError: when the file is damaged.
        """
        return self.open() if not files.is_uri(self.path) and self.exists() else None

    def share(self, rows: int, size: int, layout: BandLayout | None = None) -> str | ray.ObjectRef[Any]:
        """Make the chips available to all processes, for :class:`canopy.data.loading.chip_source.ChipSource`.

        Args:
            rows: expected number of chips.
            size: expected height and width in pixels.
            layout: expected bands; None for RGB.

        Returns:
            The absolute path, where all processes can map the file; else a reference into the object store.

        Raises:
            RunDirError: when the file is damaged or holds other chips.
        """
        chips_NHWC = self.open()
        expected = (rows, size, size, channels_of(layout))
        if chips_NHWC.shape != expected or chips_NHWC.dtype != dtype_of(layout):
            bands = "" if layout is None else f" with {expected[3]} bands of {layout.dtype}"
            got = f"shape {chips_NHWC.shape}" if layout is None else f"{chips_NHWC.dtype} {chips_NHWC.shape}"
            raise self._damaged(f"{rows} chips of {size} px{bands}", got)
        return files.absolute(self.path) if self.is_mappable else ray.put(chips_NHWC)

    def _damaged(self, content: str, got: object) -> RunDirError:
        remedy = f"Delete {files.shown(files.parent(self.path)[0])} and run again."
        return RunDirError(files.shown(self.path), f"must hold {content}", got, remedy)


@lru_cache(maxsize=2)
def _map(path: str, inode: int, modified_ns: int) -> NDArray[Any]:  # noqa: ARG001 (parts of the key)
    chips_NHWC: NDArray[Any] = np.load(path, mmap_mode="r", allow_pickle=False).view(np.ndarray)
    return chips_NHWC
