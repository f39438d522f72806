"""The grid of a scene: windows of a chip's ground size, and the cells of the output.

All lengths are in *model pixels*: pixels of the ground size that the networks were trained on. Window (i, j)
begins at (i * stride, j * stride) and covers ``reach`` cells in each direction; a cell is a stride wide.
Windows of the last row and column may reach beyond the scene by less than a stride; the reader mirrors what
is missing.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple


class Block(NamedTuple):
    """A rectangle of windows: rows ``top`` to ``bottom`` and columns ``left`` to ``right``, ends excluded."""

    top: int
    bottom: int
    left: int
    right: int

    @property
    def shape(self) -> tuple[int, int]:
        """Rows and columns of windows."""
        return self.bottom - self.top, self.right - self.left


@dataclass(frozen=True)
class Grid:
    """Windows and cells of a scene.

    Args:
        height: rows of the scene, in model pixels, at least ``size``.
        width: its columns.
        size: side of a window.
        stride: distance of neighboring windows, 1 to ``size``; the side of a cell.
        block_side: windows along the side of a block, 1 or more.
    """

    height: int
    width: int
    size: int
    stride: int
    block_side: int

    @classmethod
    def of(cls, height: int, width: int, size: int, overlap: float, block_side: int) -> Grid:
        """The grid for an ``overlap`` of neighboring windows, a share of their side, 0 to below 1."""
        stride = max(1, round(size * (1 - overlap)))
        return cls(height, width, size, stride, block_side)

    @property
    def reach(self) -> int:
        """Cells that a window covers in each direction, its last one maybe in part."""
        return -(-self.size // self.stride)

    @property
    def windows(self) -> tuple[int, int]:
        """Rows and columns of windows."""
        return self._count(self.height), self._count(self.width)

    @property
    def cells(self) -> tuple[int, int]:
        """Rows and columns of cells."""
        return -(-self.height // self.stride), -(-self.width // self.stride)

    @property
    def block_grid(self) -> tuple[int, int]:
        """Rows and columns of blocks."""
        rows, columns = self.windows
        return -(-rows // self.block_side), -(-columns // self.block_side)

    @property
    def blocks(self) -> int:
        """Number of blocks."""
        rows, columns = self.block_grid
        return rows * columns

    def block(self, number: int) -> Block:
        """The windows of a block, 0 to ``blocks`` - 1, row by row."""
        rows, columns = self.windows
        row, column = divmod(number, self.block_grid[1])
        top, left = row * self.block_side, column * self.block_side
        return Block(top, min(rows, top + self.block_side), left, min(columns, left + self.block_side))

    def pixels(self, block: Block) -> tuple[int, int, int, int]:
        """Top, bottom, left and right of a block's windows, in model pixels, cut at the scene's border."""
        bottom = (block.bottom - 1) * self.stride + self.size
        right = (block.right - 1) * self.stride + self.size
        return (
            block.top * self.stride,
            min(self.height, bottom),
            block.left * self.stride,
            min(self.width, right),
        )

    def _count(self, length: int) -> int:
        return max(0, -(-(length - self.size) // self.stride)) + 1
