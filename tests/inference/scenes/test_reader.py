"""Reading scenes: every bad one is refused by name; blocks give the windows' pixels."""

from __future__ import annotations

from pathlib import Path

import boto3  # type: ignore[import-untyped]
import numpy as np
import pytest
from affine import Affine
from tests.inference.scenes.made import NORTH_UP, pixels, write_scene

from canopy.config import SensorConfig
from canopy.errors import DataError
from canopy.inference.scenes.grid import Grid
from canopy.inference.scenes.reader import SceneReader, check_scene, model_size

PLAIN = SensorConfig()


def test_a_scene_knows_its_ground_resolution_also_in_feet(tmp_path: Path) -> None:
    scene = check_scene(str(write_scene(tmp_path / "a.tif", pixels(40, 50))), PLAIN)
    assert (scene.height, scene.width, scene.metres, scene.bands) == (40, 50, 10.0, (1, 2, 3))
    feet = write_scene(tmp_path / "b.tif", pixels(40, 50), crs="EPSG:2263")
    assert check_scene(str(feet), PLAIN).metres == pytest.approx(3.048, rel=1e-4)


@pytest.mark.parametrize(
    ("options", "problem"),
    [
        ({"crs": None}, "must have a coordinate reference system"),
        ({"crs": "EPSG:4326", "transform": Affine(1e-4, 0, 15, 0, -1e-4, 47)}, "must have a projected CRS"),
        ({"transform": NORTH_UP @ Affine.rotation(10)}, "must lie north up"),
        ({"transform": Affine(10, 0, 0, 0, 10, 0)}, "must lie north up"),
        ({"transform": Affine(10, 0, 0, 0, -20, 0)}, "must have square pixels"),
        ({"nodata": 0}, "must hold data"),
    ],
)
def test_what_cannot_be_mapped_is_refused(options: dict[str, object], problem: str, tmp_path: Path) -> None:
    content = np.zeros((40, 50, 3), np.uint8) if "nodata" in options else pixels(40, 50)
    path = write_scene(tmp_path / "a.tif", content, **options)  # type: ignore[arg-type]
    with pytest.raises(DataError, match=problem):
        check_scene(str(path), PLAIN)


def test_missing_bands_are_refused(tmp_path: Path) -> None:
    path = write_scene(tmp_path / "a.tif", pixels(40, 50)[..., :2])
    with pytest.raises(DataError, match="must have the bands"):
        check_scene(str(path), SensorConfig(bands=(1, 2, 3)))
    with pytest.raises(DataError, match="must say which of its bands"):
        check_scene(str(path), PLAIN)


def test_a_truncated_file_and_one_of_another_kind_are_refused(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    path = write_scene(tmp_path / "a.tif", rng.integers(0, 256, (300, 300, 3), dtype=np.uint8))
    path.write_bytes(path.read_bytes()[:150_000])
    (tmp_path / "b.tif").write_bytes(b"no raster")
    for name in ("a.tif", "b.tif", "none.tif"):
        with pytest.raises(DataError, match="--scene must be a"):
            check_scene(str(tmp_path / name), PLAIN)


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
