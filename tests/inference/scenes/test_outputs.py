"""The files of a map from blocks alone, without Ray and without networks."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
import rasterio
from affine import Affine
from tests.inference.scenes.made import NORTH_UP, pixels, write_scene

from canopy.config import SensorConfig
from canopy.ensemble.model import Ensemble
from canopy.inference.scenes.blocks import BlockDirectory, packed
from canopy.inference.scenes.grid import Grid
from canopy.inference.scenes.outputs import MapFormats, write_map
from canopy.inference.scenes.scene import check_scene
from canopy.storage.run_dir import RunDir


def test_a_known_object_is_found_in_its_cell(finished: RunDir, tmp_path: Path) -> None:
    ensemble = Ensemble.load(finished.path("ensemble", "ensemble.json"))
    count = len(ensemble.labels)
    scene = check_scene(str(write_scene(tmp_path / "a.tif", pixels(256, 320))), SensorConfig())
    grid = Grid.of(256, 320, 32, 0.5, block_side=99)
    directory = BlockDirectory(str(tmp_path / "out"), grid, count, {})
    rows, columns = grid.windows
    y, x = 101, 205  # a pixel: each window that sees it is sure, the more so the nearer to its middle
    probs_HWK = np.zeros((rows, columns, count), np.float32)
    for i in range(rows):
        for j in range(columns):
            off = max(abs(i * 16 + 16 - y - 0.5), abs(j * 16 + 16 - x - 0.5))
            probs_HWK[i, j, 1] = max(0, 1 - off / 32)
    shares_HW = np.ones((rows + 1, columns + 1), np.float32)
    content = packed(probs_HWK.reshape(-1, count), np.arange(rows * columns), (rows, columns), shares_HW)
    directory.write(0, content)
    facts = write_map(scene, 1.0, directory, ensemble, MapFormats(), "about")
    assert facts["cells"] == 16 * 20
    with rasterio.open(tmp_path / "out" / "probabilities.tif") as raster:
        assert raster.transform == NORTH_UP @ Affine.scale(16)
        row, column = np.unravel_index(raster.read(2).argmax(), raster.shape)
        east, north = NORTH_UP @ (x + 0.5, y + 0.5)
        assert max(abs(row - y / 16 + 0.5), abs(column - x / 16 + 0.5)) <= 1
        assert max(abs(np.subtract(raster.xy(row, column), (east, north)))) <= 160
    assert pq.read_metadata(tmp_path / "out" / "cells.parquet").num_rows == facts["cells"]
    names = {path.name for path in (tmp_path / "out").iterdir() if not path.name.startswith("_")}
    expected = {"probabilities.tif", "labels.tif", "probabilities.qml", "areas.qml", "map.html"}
    assert expected | {"cells.parquet"} <= names


def test_hectares_are_those_within_the_scene(finished: RunDir, tmp_path: Path) -> None:
    ensemble = Ensemble.load(finished.path("ensemble", "ensemble.json"))
    count = len(ensemble.labels)
    scene = check_scene(str(write_scene(tmp_path / "a.tif", pixels(70, 65))), SensorConfig())
    assert scene.bounds == (500_000, 5_199_300, 500_650, 5_200_000)
    directory = BlockDirectory(str(tmp_path / "out"), Grid.of(70, 65, 32, 0, block_side=9), count, {})
    sure_NK = np.ones((9, count), np.float32)
    directory.write(0, packed(sure_NK, np.arange(9), (3, 3), np.ones((3, 3), np.float32)))
    assert write_map(scene, 1.0, directory, ensemble, MapFormats(), "about")["cells"] == 9
    areas = pq.read_table(tmp_path / "out" / "areas.parquet")
    assert areas["hectares"].to_pylist() == pytest.approx([700 * 650 / 1e4] * areas.num_rows)
    assert set(areas["cells"].to_pylist()) == {9}
    assert "45.5 ha decided" in (tmp_path / "out" / "map.html").read_text()


def test_a_map_without_a_single_cell_is_written_all_the_same(finished: RunDir, tmp_path: Path) -> None:
    ensemble = Ensemble.load(finished.path("ensemble", "ensemble.json"))
    scene = check_scene(str(write_scene(tmp_path / "a.tif", pixels(64, 64))), SensorConfig())
    grid = Grid.of(64, 64, 32, 0, block_side=9)
    directory = BlockDirectory(str(tmp_path / "out"), grid, len(ensemble.labels), {})
    nothing = np.zeros((0, len(ensemble.labels)), np.float32)
    directory.write(0, packed(nothing, np.zeros(0, np.int64), (2, 2), np.zeros((2, 2), np.float32)))
    formats = MapFormats(("geoparquet", "gpkg", "geojson"))
    assert write_map(scene, 1.0, directory, ensemble, formats, "about") == {"cells": 0, "areas": 0}
    assert pq.read_metadata(tmp_path / "out" / "cells.parquet").num_rows == 0
