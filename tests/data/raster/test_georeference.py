"""The ground resolution of chips comes from their files."""

from __future__ import annotations

from pathlib import Path

import pytest
from affine import Affine
from PIL import Image
from rasterio.crs import CRS
from tests.inference.scenes.made import NORTH_UP, pixels, write_scene

from canopy.bands import SEVERAL_FILES
from canopy.data.raster.georeference import metres_per_pixel, place_of


def test_the_resize_counts(tmp_path: Path) -> None:
    chips = [str(write_scene(tmp_path / f"{n}.tif", pixels(64, 64, n))) for n in range(20)]
    assert metres_per_pixel(chips, 64) == 10
    assert metres_per_pixel(chips, 32) == 20
    finer = str(write_scene(tmp_path / "finer.tif", pixels(64, 64), transform=NORTH_UP @ Affine.scale(0.5)))
    assert metres_per_pixel([finer, *chips], 64) is None


@pytest.mark.filterwarnings("ignore::rasterio.errors.NotGeoreferencedWarning")
def test_chips_without_a_georeference_have_none(tmp_path: Path) -> None:
    Image.new("RGB", (64, 64)).save(tmp_path / "a.jpg")
    Image.new("RGB", (64, 64)).save(tmp_path / "b.tif")
    (tmp_path / "c.tif").write_bytes(b"damaged")
    degrees = write_scene(
        tmp_path / "d.tif", pixels(64, 64), crs="EPSG:4326", transform=Affine(1e-4, 0, 15, 0, -1e-4, 47)
    )
    for path in (tmp_path / "a.jpg", tmp_path / "b.tif", tmp_path / "c.tif", degrees):
        assert metres_per_pixel([str(path)], 64) is None
    assert metres_per_pixel([], 64) is None


@pytest.mark.filterwarnings("ignore::rasterio.errors.NotGeoreferencedWarning")
def test_the_place_of_a_chip(tmp_path: Path) -> None:
    placed = write_scene(tmp_path / "a.tif", pixels(32, 64))
    found = place_of(str(placed))
    assert found is not None
    assert CRS.from_wkt(found.crs) == CRS.from_epsg(32633)
    assert found.bounds == (500_000, 5_200_000 - 320, 500_640, 5_200_000)
    assert place_of(f"{placed}{SEVERAL_FILES}{tmp_path}/none.tif") == found
    turned = write_scene(tmp_path / "b.tif", pixels(64, 64), transform=NORTH_UP @ Affine.rotation(45))
    envelope = place_of(str(turned))
    assert envelope is not None
    assert envelope.bounds[0] < 500_000 < envelope.bounds[2]
    Image.new("RGB", (64, 64)).save(tmp_path / "c.jpg")
    Image.new("RGB", (64, 64)).save(tmp_path / "d.tif")
    (tmp_path / "e.tif").write_bytes(b"II*\0damaged")
    without = write_scene(tmp_path / "f.tif", pixels(64, 64), crs=None)
    for path in (tmp_path / "c.jpg", tmp_path / "d.tif", tmp_path / "e.tif", tmp_path / "none.tif", without):
        assert place_of(str(path)) is None
