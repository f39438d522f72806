"""Writes the map of a scored scene: rasters, vectors, styles, the page."""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from affine import Affine
from rasterio.crs import CRS

from canopy.ensemble.model import Ensemble
from canopy.inference.scenes.blocks import BlockDirectory
from canopy.inference.scenes.formats import Format
from canopy.inference.scenes.page import write_page
from canopy.inference.scenes.rasters import as_cog, grid_file, strips, write_rows
from canopy.inference.scenes.reader import Scene
from canopy.inference.scenes.styles import areas_style, raster_style
from canopy.inference.scenes.vectors import Layer, areas, cell_columns, cell_polygons, open_decisions
from canopy.storage import files

NO_DECISION = 255
"""Value of cells without data in the raster of decisions."""


@dataclass(frozen=True)
class MapFormats:
    """Forms of the output.

    Args:
        vectors: formats of cells and areas.
        crs: CRS of GeoParquet and GeoPackage, such as ``EPSG:4326``; None: the scene's.
    """

    vectors: Sequence[Format] = ("geoparquet",)
    crs: str | None = None


def write_map(
    scene: Scene,
    factor: float,
    directory: BlockDirectory,
    ensemble: Ensemble,
    formats: MapFormats,
    bands: str,
) -> dict[str, int]:
    """Write all files of a scene whose blocks are complete.

    Args:
        scene: the scene.
        factor: pixels of the scene along the side of a model pixel.
        directory: its blocks, in the directory of the output.
        ensemble: decides on the labels of each cell.
        formats: forms of the output.
        bands: sentence of the page on what was read.

    Returns:
        Numbers of cells with data, and of areas.

    Raises:
        StorageError: when a store or a disk fails.
    """
    names = ensemble.labels.names
    grid = directory.grid
    transform = scene.transform @ Affine.scale(grid.stride * factor)
    with tempfile.TemporaryDirectory(prefix="canopy-scene") as name:
        folder = Path(name)
        draft, decided = folder / "draft.tif", folder / "decided.tif"
        cells = Layer(folder, "cells", formats.vectors, scene.crs, formats.crs)
        count = 0
        with (
            grid_file(
                draft, grid.cells, transform, scene.crs, names, "float32", float("nan")
            ) as probabilities,
            grid_file(decided, grid.cells, transform, scene.crs, names, "uint8", NO_DECISION) as decisions,
        ):
            for first, probs_HWK in strips(directory):
                rows_N, columns_N = np.nonzero(np.isfinite(probs_HWK).all(-1))
                probs_NK = probs_HWK[rows_N, columns_N]
                decisions_NK = ensemble.decide(probs_NK)
                decided_HWK = np.full(probs_HWK.shape, NO_DECISION, np.uint8)
                decided_HWK[rows_N, columns_N] = decisions_NK
                write_rows(probabilities, first, probs_HWK)
                write_rows(decisions, first, decided_HWK)
                polygons_N = cell_polygons(rows_N + first, columns_N, transform)
                columns = cell_columns(rows_N + first, columns_N, probs_NK, decisions_NK, names)
                cells.write(polygons_N, columns)
                count += len(rows_N)
        made = cells.close()
        as_cog(draft, folder / "probabilities.tif")
        as_cog(decided, folder / "labels.tif")
        unit = float(CRS.from_wkt(scene.crs).linear_units_factor[1])
        layer, pieces, hectares = Layer(folder, "areas", formats.vectors, scene.crs, formats.crs), 0, {}
        with open_decisions(decided) as raster:
            for polygons_N, table in areas(raster, names, unit):
                layer.write(polygons_N, table)
                pieces += table.num_rows
                hectares[table["label"][0].as_py()] = float(np.sum(table["hectares"].to_numpy()))
        made += layer.close() if pieces else []
        (folder / "probabilities.qml").write_text(raster_style(), encoding="utf-8")
        (folder / "areas.qml").write_text(areas_style(names), encoding="utf-8")
        write_page(folder / "map.html", scene, folder / "probabilities.tif", ensemble, hectares, bands)
        made += [
            folder / one
            for one in ("probabilities.tif", "labels.tif", "probabilities.qml", "areas.qml", "map.html")
        ]
        for path in made:
            files.write_bytes(files.join(directory.root, path.name), path.read_bytes())
    return {"cells": count, "areas": pieces}
