"""The grid covers a scene: every pixel lies in a window, every window in one block."""

from __future__ import annotations

import numpy as np
import pytest

from canopy.inference.scenes.grid import Grid


@pytest.mark.parametrize("overlap", [0, 0.25, 0.5, 0.9])
@pytest.mark.parametrize(("height", "width"), [(32, 32), (33, 100), (64, 95), (200, 63)])
def test_windows_cover_every_pixel_and_blocks_every_window(height: int, width: int, overlap: float) -> None:
    grid = Grid.of(height, width, 32, overlap, block_side=3)
    rows, columns = grid.windows
    seen_HW = np.zeros((height + 32, width + 32), int)
    done_RC = np.zeros((rows, columns), int)
    for number in range(grid.blocks):
        block = grid.block(number)
        done_RC[block.top : block.bottom, block.left : block.right] += 1
        top, bottom, left, right = grid.pixels(block)
        assert 0 <= top < bottom <= height
        assert 0 <= left < right <= width
    assert (done_RC == 1).all()
    for i in range(rows):
        for j in range(columns):
            seen_HW[i * grid.stride :, j * grid.stride :][:32, :32] += 1
    assert (seen_HW[:height, :width] > 0).all()
    assert (rows - 1) * grid.stride + 32 < height + grid.stride
    assert (columns - 1 + grid.reach) >= grid.cells[1]
