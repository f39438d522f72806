"""Reading scenes: blocks give the pixels of their windows."""

from __future__ import annotations

from pathlib import Path

import boto3  # type: ignore[import-untyped]
import numpy as np
import pytest
import rasterio
from affine import Affine
from tests.inference.scenes.made import NORTH_UP, pixels, write_scene

from canopy.config import SensorConfig
from canopy.errors import DataError
from canopy.inference.scenes.grid import Grid
from canopy.inference.scenes.reader import SceneReader, model_size
from canopy.inference.scenes.scene import check_scene

PLAIN = SensorConfig()


def reader(path: Path, factor: float = 1, overlap: float = 0.5, side: int = 2) -> SceneReader:
    scene = check_scene(str(path), PLAIN)
    height, width = model_size(scene, factor)
    return SceneReader(scene, Grid.of(height, width, 32, overlap, side), factor, PLAIN)


def test_a_block_gives_the_pixels_of_its_windows(tmp_path: Path) -> None:
    content = pixels(90, 110)
    one = reader(write_scene(tmp_path / "a.tif", content))
    padded = np.pad(content, [(0, 32), (0, 32), (0, 0)], mode="symmetric")
    for number in range(one.grid.blocks):
        block = one.grid.block(number)
        chips_nHWC, positions_n, shares_HW = one.read(number)
        assert positions_n.tolist() == list(range(block.shape[0] * block.shape[1]))
        for chip_HWC, position in zip(chips_nHWC, positions_n.tolist(), strict=True):
            row, column = divmod(position, block.shape[1])
            y, x = (block.top + row) * 16, (block.left + column) * 16
            np.testing.assert_array_equal(chip_HWC, padded[y : y + 32, x : x + 32])
        assert shares_HW.shape == (block.shape[0] + 1, block.shape[1] + 1)


def test_windows_without_data_are_left_out(tmp_path: Path) -> None:
    content = np.maximum(pixels(64, 128), 1)
    content[:, :64] = 0
    one = reader(write_scene(tmp_path / "a.tif", content, nodata=0), overlap=0, side=9)
    _, positions_n, shares_HW = one.read(0)
    assert positions_n.tolist() == [2, 3, 6, 7]
    np.testing.assert_array_equal(shares_HW, [[0, 0, 1, 1]] * 2)


def test_a_finer_scene_is_averaged_on_one_grid(tmp_path: Path) -> None:
    fine = np.kron(pixels(80, 80), np.ones((2, 2, 1), np.uint8))
    path = write_scene(tmp_path / "a.tif", fine, transform=NORTH_UP @ Affine.scale(0.5))
    one = reader(path, factor=2, overlap=0, side=1)
    assert (one.grid.height, one.grid.width) == (80, 80)
    chips_nHWC, _, _ = one.read(one.grid.windows[1] + 1)
    np.testing.assert_array_equal(chips_nHWC[0], pixels(80, 80)[32:64, 32:64])


@pytest.mark.parametrize("nodata", [None, 7])
def test_a_mask_counts_in_a_finer_scene(nodata: float | None, tmp_path: Path) -> None:
    fine_HWC = np.kron(np.maximum(pixels(64, 64), 8), np.ones((2, 2, 1), np.uint8))
    path = write_scene(tmp_path / "a.tif", fine_HWC, transform=NORTH_UP @ Affine.scale(0.5), nodata=nodata)
    mask_HW = np.ones((128, 128), bool)
    mask_HW[:, :64] = False
    with rasterio.open(path, "r+") as file:
        file.write_mask(mask_HW)
    chips_nHWC, positions_n, shares_HW = reader(path, factor=2, overlap=0, side=9).read(0)
    assert positions_n.tolist() == [1, 3]
    np.testing.assert_array_equal(shares_HW, [[0, 1]] * 2)
    np.testing.assert_array_equal(chips_nHWC[0], fine_HWC[::2, ::2][:32, 32:])


def test_a_scene_in_an_object_store_is_read_in_parts(tmp_path: Path, s3_here: str) -> None:
    bucket = boto3.client("s3", endpoint_url=s3_here)
    bucket.create_bucket(Bucket="scenes")
    content = pixels(90, 110)
    bucket.upload_file(str(write_scene(tmp_path / "a.tif", content)), "scenes", "a.tif")
    scene = check_scene("s3://scenes/a.tif", PLAIN)
    one = SceneReader(scene, Grid.of(90, 110, 32, 0, 2), 1, PLAIN)
    chips_nHWC, _, _ = one.read(0)
    np.testing.assert_array_equal(chips_nHWC[3], content[32:64, 32:64])
    with pytest.raises(DataError, match="--scene must be a scene that exists"):
        check_scene("s3://scenes/none.tif", PLAIN)
