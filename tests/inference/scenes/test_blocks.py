"""Blocks of a scene on disk: what is missing, what another job wrote, parts put together."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from canopy.errors import ConfigError
from canopy.inference.scenes.blocks import BlockDirectory, packed
from canopy.inference.scenes.grid import Grid

GRID = Grid.of(130, 150, 32, 0.5, block_side=3)


def directory(root: Path, **job: object) -> BlockDirectory:
    return BlockDirectory(str(root), GRID, 2, {"model": "m", **job})


def write_all(found: BlockDirectory) -> tuple[np.ndarray, np.ndarray]:
    """Write random blocks; probabilities of all windows and shares of all cells."""
    rng = np.random.default_rng(0)
    rows, columns = GRID.windows
    probs_HWK = rng.random((rows, columns, 2)).astype(np.float32)
    shares_HW = rng.random((rows + 1, columns + 1)).astype(np.float32)
    for number in range(GRID.blocks):
        block = GRID.block(number)
        part = probs_HWK[block.top : block.bottom, block.left : block.right].reshape(-1, 2)
        share = shares_HW[block.top : block.bottom + 1, block.left : block.right + 1]
        found.write(number, packed(part, np.arange(len(part)), block.shape, share))
    return probs_HWK, shares_HW


def test_blocks_are_put_together_in_any_rows(tmp_path: Path) -> None:
    found = directory(tmp_path)
    found.open()
    assert found.missing() == list(range(GRID.blocks))
    probs_HWK, shares_HW = write_all(found)
    assert found.missing() == []
    for first, last in ((0, GRID.windows[0]), (2, 5), (3, 4)):
        np.testing.assert_array_equal(found.windows(first, last), probs_HWK[first:last])
    height, width = GRID.cells
    for first, last in ((0, height), (2, 7), (height - 1, height)):
        expected = shares_HW[first:last, :width] >= 0.5
        np.testing.assert_array_equal(found.valid_cells(first, last), expected)
    found.finish({"cells": 1})
    assert found.finished
    assert not (tmp_path / "_blocks").exists()


def test_windows_without_data_have_no_probability() -> None:
    content = packed(np.ones((1, 2), np.float32), np.array([3]), (2, 2), np.ones((3, 3), np.float32))
    assert b"probs" in content
    assert content[:2] == b"PK"


def test_a_directory_of_something_else_is_refused(tmp_path: Path) -> None:
    directory(tmp_path / "a").open()
    directory(tmp_path / "a").open()
    with pytest.raises(ConfigError, match="another model"):
        directory(tmp_path / "a", model="n").open()
    (tmp_path / "b").mkdir()
    (tmp_path / "b" / "notes.txt").write_text("mine")
    with pytest.raises(ConfigError, match="must be empty or new"):
        directory(tmp_path / "b").open()
    (tmp_path / "a" / "_scene.json").write_text("{")
    with pytest.raises(ConfigError, match="must hold a readable _scene"):
        directory(tmp_path / "a").open()
