"""The ground resolution of chips comes from their files."""

from __future__ import annotations

from pathlib import Path

import pytest
from affine import Affine
from PIL import Image
from tests.inference.scenes.made import NORTH_UP, pixels, write_scene

from canopy.data.raster.georeference import metres_per_pixel


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
