"""The probabilities of a scene's windows, one file per block, each written once and atomically.

::

    OUT/
      _scene.json             what is predicted, and by which model; a later start must want the same
      _blocks/000000.npz      probabilities of a block's windows, shares of valid pixels of its cells
      _done.json              written last, when the map is complete and the blocks are deleted
"""

from __future__ import annotations

import io
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from canopy.errors import ConfigError, InputError
from canopy.inference.scenes.grid import Grid
from canopy.inference.scenes.reader import MIN_VALID
from canopy.storage import files

JOB, DONE, BLOCKS = "_scene.json", "_done.json", "_blocks"
FORMAT = "canopy-scene/1"
BLOCK = re.compile(r"(\d{6})\.npz")


@dataclass(frozen=True)
class BlockDirectory:
    """The blocks of one scene.

    Args:
        root: directory or URI of the scene's output.
        grid: its windows.
        labels: number of labels, K.
        job: everything that the blocks depend on, as values of JSON.
    """

    root: str
    grid: Grid
    labels: int
    job: Mapping[str, Any]

    def open(self) -> None:
        """Write ``_scene.json``, or check that the one that is there is of the same job.

        Raises:
            ConfigError: when the directory holds something else.
            StorageError: when it cannot be written.
        """
        path, wanted = files.join(self.root, JOB), {"format": FORMAT, **self.job}
        if not files.exists(path):
            found = list(files.list_files(self.root)) if files.exists(self.root) else []
            if found:
                got = f"{files.shown(self.root)}, which holds {found[0]}"
                raise ConfigError("--out", "must be empty or new", got, "Choose another directory.")
            files.write_json(path, wanted)
            return
        try:
            known = files.read_json(path)
        except InputError as error:
            remedy = "Delete the directory, or choose another."
            raise ConfigError("--out", f"must hold a readable {JOB}", error.got, remedy) from None
        if known != wanted:
            stored = known if isinstance(known, dict) else {}
            differs = next((name for name, value in wanted.items() if stored.get(name) != value), "a field")
            need = "must be of the same model, scene and options as the map that it holds"
            got = f"another {differs.replace('_', ' ')} than in {files.shown(path)}"
            raise ConfigError("--out", need, got, "Choose another place, or delete that one.")

    @property
    def finished(self) -> bool:
        """Whether the map is complete."""
        return files.exists(files.join(self.root, DONE))

    def missing(self) -> list[int]:
        """Numbers of the blocks that are not written yet."""
        place = files.join(self.root, BLOCKS)
        names = files.list_files(place) if files.exists(place) else {}
        present = {int(found[1]) for found in map(BLOCK.fullmatch, names) if found}
        return [number for number in range(self.grid.blocks) if number not in present]

    def write(self, number: int, content: bytes) -> None:
        """Write what :func:`packed` gave for a block.

        Raises:
            StorageError: when the object store refuses, or the disk is full or fails.
        """
        files.write_bytes(self._path(number), content)

    def finish(self, facts: Mapping[str, Any]) -> None:
        """Write ``_done.json`` and delete the blocks."""
        files.write_json(files.join(self.root, DONE), dict(facts))
        place = files.join(self.root, BLOCKS)
        for name in files.list_files(place) if files.exists(place) else ():
            files.delete(files.join(place, name))
        files.delete_empty_directory(place)

    def windows(self, first: int, last: int) -> NDArray[np.float32]:
        """Probabilities of the rows ``first`` to ``last`` (excluded) of windows, (rows, columns, K)."""
        columns = self.grid.windows[1]
        out_HWK = np.full((last - first, columns, self.labels), np.nan, np.float32)
        for number in self._numbers(first, last):
            block, (probs_HWK, _) = self.grid.block(number), self._read(number)
            top, bottom = max(first, block.top), min(last, block.bottom)
            part = probs_HWK[top - block.top : bottom - block.top]
            out_HWK[top - first : bottom - first, block.left : block.right] = part
        return out_HWK

    def valid_cells(self, first: int, last: int) -> NDArray[np.bool_]:
        """Which cells of the rows ``first`` to ``last`` (excluded) have data, (rows, columns of cells)."""
        grid = self.grid
        width = grid.cells[1]
        shares_HW = np.zeros((last - first, width), np.float32)
        for number in self._numbers(first - grid.reach + 1, last):
            block, (_, found_HW) = grid.block(number), self._read(number)
            top, bottom = max(first, block.top), min(last, block.top + found_HW.shape[0])
            right = min(width, block.left + found_HW.shape[1])
            if bottom > top:
                part = found_HW[top - block.top : bottom - block.top, : right - block.left]
                target = shares_HW[top - first : bottom - first, block.left : right]
                np.maximum(target, part, out=target)
        return shares_HW >= MIN_VALID

    def _numbers(self, first: int, last: int) -> range:
        """Blocks with windows in the rows ``first`` to ``last`` (excluded)."""
        rows, columns = self.grid.windows[0], self.grid.block_grid[1]
        top, bottom = max(0, min(first, rows - 1)), max(1, min(last, rows))
        side = self.grid.block_side
        return range(top // side * columns, ((bottom - 1) // side + 1) * columns)

    def _path(self, number: int) -> str:
        return files.join(self.root, BLOCKS, f"{number:06}.npz")

    def _read(self, number: int) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        with np.load(io.BytesIO(files.read_bytes(self._path(number))), allow_pickle=False) as content:
            return content["probs"], content["shares"]


def packed(
    probs_nK: NDArray[np.float32],
    positions_n: NDArray[np.int64],
    shape: tuple[int, int],
    shares_HW: NDArray[np.float32],
) -> bytes:
    """A block as a file: probabilities of all its windows (rows, columns, K), NaN without data.

    Args:
        probs_nK: probabilities of the windows with data.
        positions_n: their positions among the windows of the block, row by row.
        shape: rows and columns of windows.
        shares_HW: share of valid pixels of the cells.
    """
    probs_NK = np.full((shape[0] * shape[1], probs_nK.shape[1]), np.nan, np.float32)
    probs_NK[positions_n] = probs_nK
    sink = io.BytesIO()
    np.savez_compressed(sink, probs=probs_NK.reshape(*shape, -1), shares=shares_HW)
    return sink.getvalue()
