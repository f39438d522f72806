"""Cells and areas of a map as polygons: GeoParquet, GeoPackage and GeoJSON."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pyogrio
import shapely
from affine import Affine
from numpy.typing import NDArray
from rasterio.crs import CRS
from rasterio.features import shapes
from rasterio.warp import transform as warp_points

from canopy.inference.predictions_table import column_names
from canopy.inference.scenes.formats import Format

SUFFIX: Mapping[str, str] = {"geoparquet": ".parquet", "geojson": ".geojson", "gpkg": ".gpkg"}
DRIVER: Mapping[str, str] = {"geojson": "GeoJSON", "gpkg": "GPKG"}
DEGREES = "EPSG:4326"
HECTARE = 10_000.0
"""Square metres."""


class Layer:
    """A layer of polygons that is written part by part, in one or several formats.

    Args:
        folder: where the files go.
        name: file name without suffix.
        formats: formats to write.
        source_crs: CRS of the polygons given, as WKT.
        crs: CRS to write, such as ``EPSG:4326``; None: that of the polygons. GeoJSON is always EPSG:4326, as
            its standard (RFC 7946) asks.
    """

    def __init__(
        self, folder: Path, name: str, formats: Sequence[Format], source_crs: str, crs: str | None
    ) -> None:
        self.folder, self.name, self.formats = folder, name, formats
        self._source, self._crs = CRS.from_wkt(source_crs), CRS.from_user_input(crs or source_crs)
        self._parquet: pq.ParquetWriter | None = None
        self._bounds = np.array([np.inf, np.inf, -np.inf, -np.inf])
        self._started: set[str] = set()

    def write(self, geometries_N: NDArray[Any], columns: pa.Table) -> None:
        """Append N polygons with their columns."""
        for kind in self.formats:
            wanted = CRS.from_string(DEGREES) if kind == "geojson" else self._crs
            moved_N = reprojected(geometries_N, self._source, wanted)
            table = columns.append_column("geometry", pa.array(shapely.to_wkb(moved_N).tolist(), pa.binary()))
            if kind == "geoparquet":
                self._append_parquet(table, moved_N)
                continue
            path = self.folder / f"{self.name}{SUFFIX[kind]}"
            pyogrio.write_arrow(
                table,
                path,
                layer=self.name,
                driver=DRIVER[kind],
                geometry_name="geometry",
                geometry_type="Polygon",
                crs=wanted.to_wkt(),
                append=kind in self._started,
            )
            self._started.add(kind)

    def _append_parquet(self, table: pa.Table, geometries_N: NDArray[Any]) -> None:
        if self._parquet is None:
            path = self.folder / f"{self.name}{SUFFIX['geoparquet']}"
            self._parquet = pq.ParquetWriter(path, table.schema, compression="zstd")
        self._parquet.write_table(table)
        if len(geometries_N):
            lowest, highest = self._bounds[:2], self._bounds[2:]
            bounds_N4 = shapely.bounds(geometries_N)
            np.minimum(lowest, bounds_N4[:, :2].min(0), out=lowest)
            np.maximum(highest, bounds_N4[:, 2:].max(0), out=highest)

    def close(self) -> list[Path]:
        """Complete the files; their paths."""
        if self._parquet is not None:
            column: dict[str, Any] = {
                "encoding": "WKB",
                "geometry_types": ["Polygon"],
                "crs": self._crs.to_dict(projjson=True),
            }
            if np.isfinite(self._bounds).all():
                column["bbox"] = self._bounds.tolist()
            geo = {"version": "1.1.0", "primary_column": "geometry", "columns": {"geometry": column}}
            self._parquet.add_key_value_metadata({"geo": json.dumps(geo)})
            self._parquet.close()
        return [self.folder / f"{self.name}{SUFFIX[kind]}" for kind in self.formats]


def reprojected(geometries_N: NDArray[Any], source: CRS, target: CRS) -> NDArray[Any]:
    """The geometries in another CRS, vertex by vertex; x is the longitude in EPSG:4326."""
    if source == target:
        return geometries_N

    def moved(points_N2: NDArray[np.float64]) -> NDArray[np.float64]:
        return np.column_stack(warp_points(source, target, points_N2[:, 0], points_N2[:, 1])[:2])

    return np.asarray(shapely.transform(geometries_N, moved))


def cell_polygons(rows_N: NDArray[np.int64], columns_N: NDArray[np.int64], transform: Affine) -> NDArray[Any]:
    """The squares of cells; ``transform`` leads from (column, row) to coordinates and does not turn."""
    left, top = transform.c + transform.a * columns_N, transform.f + transform.e * rows_N
    return np.asarray(shapely.box(left, top + transform.e, left + transform.a, top))


def cell_columns(
    rows_N: NDArray[np.int64],
    columns_N: NDArray[np.int64],
    probs_NK: NDArray[np.float32],
    decisions_NK: NDArray[np.uint8],
    labels: Sequence[str],
) -> pa.Table:
    """Columns of cells: ``row``, ``column``, ``prob:LABEL`` and the decision on each label."""
    probability_names, decision_names = column_names([*labels], ["row", "column", "geometry"])
    columns = {"row": pa.array(rows_N, pa.int32()), "column": pa.array(columns_N, pa.int32())}
    for k, name in enumerate(probability_names):
        columns[name] = pa.array(np.ascontiguousarray(probs_NK[:, k]), pa.float32())
    for k, name in enumerate(decision_names):
        columns[name] = pa.array(decisions_NK[:, k].astype(bool))
    return pa.table(columns)


def areas(
    decisions: Any,
    labels: Sequence[str],
    metres_per_unit: float,
    bounds: tuple[float, float, float, float],
) -> Iterator[tuple[NDArray[Any], pa.Table]]:
    """Neighboring cells of each label dissolved into areas, label by label.

    Cells that touch at a corner alone are two areas. Cells of the last row and column may reach beyond the
    scene; areas end at its border.

    Args:
        decisions: an open raster with a band of 0 and 1 per label.
        labels: names of the bands.
        metres_per_unit: metres of a unit of the raster's coordinates.
        bounds: left, bottom, right and top of the scene, in the raster's coordinates.

    Yields:
        Polygons, and their columns: ``label``, ``hectares``, ``cells``.
    """
    cell, inside = abs(decisions.transform.a * decisions.transform.e), shapely.box(*bounds)
    for band, label in enumerate(labels, start=1):
        values_HW = decisions.read(band)
        found = shapes(values_HW, mask=values_HW == 1, connectivity=4, transform=decisions.transform)
        polygons = [shapely.geometry.shape(shape) for shape, _ in found]
        if not polygons:
            continue
        whole_N = np.array(polygons, object)
        beyond_N = ~shapely.covers(inside, whole_N)
        geometries_N = whole_N.copy()
        geometries_N[beyond_N] = shapely.intersection(whole_N[beyond_N], inside)
        square_metres_N = shapely.area(geometries_N) * metres_per_unit**2
        yield (
            geometries_N,
            pa.table(
                {
                    "label": pa.array([label] * len(polygons), pa.string()),
                    "hectares": pa.array(square_metres_N / HECTARE, pa.float64()),
                    "cells": pa.array(np.rint(shapely.area(whole_N) / cell).astype(np.int64)),
                }
            ),
        )
