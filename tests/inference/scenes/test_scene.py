"""Opening scenes: their ground resolution and bands; every one that cannot be mapped is refused by name."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from affine import Affine
from tests.inference.scenes.made import NORTH_UP, pixels, write_scene

from canopy.config import SensorConfig
from canopy.errors import DataError
from canopy.inference.scenes.scene import check_scene

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
