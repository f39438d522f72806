"""Strips of cells and the files that they are written to."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import rasterio
from tests.inference.scenes.made import NORTH_UP, UTM
from tests.inference.scenes.test_blocks import directory, write_all

from canopy.inference.scenes import rasters
from canopy.inference.scenes.blending import blend, window_weights


def test_strips_equal_the_whole(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    found = directory(tmp_path)
    probs_HWK, shares_HW = write_all(found)
    height, width = found.grid.cells
    expected = blend(probs_HWK, window_weights(32, 16), 0, height, width)
    expected[shares_HW[:height, :width] < 0.5] = np.nan
    monkeypatch.setattr(rasters, "TILE", 2)
    monkeypatch.setattr(rasters, "STRIP_VALUES", 1)
    parts = list(rasters.strips(found))
    assert [first for first, _ in parts] == list(range(0, height, 2))
    np.testing.assert_array_equal(np.concatenate([part for _, part in parts]), expected)


def test_a_cog_keeps_place_names_and_nodata(tmp_path: Path) -> None:
    values_HWK = np.random.default_rng(0).random((600, 300, 2)).astype(np.float32)
    values_HWK[:10] = np.nan
    crs = rasterio.crs.CRS.from_string(UTM).to_wkt()
    with rasters.grid_file(
        tmp_path / "a.tif", (600, 300), NORTH_UP, crs, ["x", "y z"], "float32", float("nan")
    ) as dataset:
        rasters.write_rows(dataset, 0, values_HWK[:256])
        rasters.write_rows(dataset, 256, values_HWK[256:])
    rasters.as_cog(tmp_path / "a.tif", tmp_path / "b.tif")
    with rasterio.open(tmp_path / "b.tif") as cog:
        assert cog.descriptions == ("x", "y z")
        assert (cog.crs.to_string(), cog.transform) == (UTM, NORTH_UP)
        assert cog.overviews(1) == [2]
        assert cog.tags(ns="IMAGE_STRUCTURE")["LAYOUT"] == "COG"
        np.testing.assert_array_equal(np.moveaxis(cog.read(), 0, -1), values_HWK)
