"""Polygons of cells and areas."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pyogrio
import pytest
import rasterio
import shapely
from rasterio.crs import CRS
from tests.inference.scenes.made import NORTH_UP, UTM

from canopy.inference.scenes.rasters import grid_file, write_rows
from canopy.inference.scenes.vectors import Layer, areas, cell_columns, cell_polygons, reprojected

WKT = CRS.from_string(UTM).to_wkt()


def test_cells_are_squares_at_their_place() -> None:
    (square,) = cell_polygons(np.array([2]), np.array([3]), NORTH_UP)
    assert square.bounds == (500_030, 5_199_970, 500_040, 5_199_980)


def test_labels_named_as_other_columns_do_not_collide() -> None:
    probs_NK = np.array([[0.1, 0.9]], np.float32)
    table = cell_columns(
        np.array([0]), np.array([1]), probs_NK, (probs_NK > 0.5).astype(np.uint8), ["id", "b"]
    )
    assert table.column_names == ["row", "column", "prob:id", "prob:b", "decision:id", "decision:b"]
    assert table["decision:b"].to_pylist() == [True]


def test_neighboring_cells_are_dissolved_with_their_holes(tmp_path: Path) -> None:
    decided_HW1 = np.zeros((6, 6, 1), np.uint8)
    decided_HW1[:3, :3] = 1
    decided_HW1[1, 1] = 0
    decided_HW1[3, 3] = 1  # touches the first at a corner alone
    decided_HW1[5] = 255
    with grid_file(tmp_path / "a.tif", (6, 6), NORTH_UP, WKT, ["road"], "uint8", 255) as dataset:
        write_rows(dataset, 0, decided_HW1)
    with rasterio.open(tmp_path / "a.tif") as raster:
        ((polygons_N, table),) = areas(raster, ["road"], 1.0, (500_000, 5_199_940, 500_060, 5_200_000))
    assert sorted(table["cells"].to_pylist()) == [1, 8]
    assert sorted(table["hectares"].to_pylist()) == pytest.approx([0.01, 0.08])
    assert sorted(len(one.interiors) for one in polygons_N) == [0, 1]


def test_areas_end_at_the_border_of_the_scene(tmp_path: Path) -> None:
    decided_HW1 = np.ones((3, 4, 1), np.uint8)
    decided_HW1[1, 3] = 0
    with grid_file(tmp_path / "a.tif", (3, 4), NORTH_UP, WKT, ["road"], "uint8", 255) as dataset:
        write_rows(dataset, 0, decided_HW1)
    bounds = (500_000, 5_199_978, 500_033, 5_200_000)  # 33 m by 22 m: the last cells are 3 m and 2 m wide
    with rasterio.open(tmp_path / "a.tif") as raster:
        ((polygons_N, table),) = areas(raster, ["road"], 1.0, bounds)
    assert table["cells"].to_pylist() == [11]
    assert table["hectares"].to_pylist() == pytest.approx([(33 * 22 - 10 * 3) / 1e4])
    assert [one.geom_type for one in polygons_N] == ["Polygon"]
    assert polygons_N[0].bounds == bounds


def test_layers_are_appended_to_and_reprojected(tmp_path: Path) -> None:
    layer = Layer(tmp_path, "cells", ("geoparquet", "gpkg", "geojson"), WKT, "EPSG:4326")
    for row in range(2):
        squares = cell_polygons(np.array([row, row]), np.array([0, 1]), NORTH_UP)
        layer.write(squares, pa.table({"row": [row, row]}))
    assert [path.name for path in layer.close()] == ["cells.parquet", "cells.gpkg", "cells.geojson"]
    geometry = shapely.from_wkb(pq.read_table(tmp_path / "cells.parquet")["geometry"].to_pylist())
    geo = json.loads(pq.read_metadata(tmp_path / "cells.parquet").metadata[b"geo"])["columns"]["geometry"]
    assert geo["crs"]["id"] == {"authority": "EPSG", "code": 4326}
    assert geo["bbox"] == pytest.approx(shapely.total_bounds(geometry))
    back = reprojected(geometry, CRS.from_epsg(4326), CRS.from_string(UTM))
    assert back[3].bounds == pytest.approx((500_010, 5_199_980, 500_020, 5_199_990), abs=1e-3)
    for name in ("cells.gpkg", "cells.geojson"):
        assert pyogrio.read_info(tmp_path / name)["features"] == 4
