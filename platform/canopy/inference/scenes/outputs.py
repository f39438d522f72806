"""Writes the map of a scored scene: rasters, vectors, styles, the page."""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import rasterio
from affine import Affine

from canopy.ensemble.model import Ensemble
from canopy.inference.scenes.blocks import BlockDirectory
from canopy.inference.scenes.formats import Format
from canopy.inference.scenes.page import write_page
from canopy.inference.scenes.rasters import as_cog, grid_file, strips, write_rows
from canopy.inference.scenes.scene import Scene
from canopy.inference.scenes.styles import areas_style, raster_style
from canopy.inference.scenes.vectors import Layer, areas, cell_columns, cell_polygons
from canopy.storage import files

FILES = ("probabilities.tif", "labels.tif", "probabilities.qml", "areas.qml", "map.html")
"""Files of every map, beside those of cells and areas."""
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
    summary: str,
) -> dict[str, int]:
    """Write all files of a scene whose blocks are complete.

    Args:
        scene: the scene.
        factor: pixels of the scene along the side of a model pixel.
        directory: its blocks, in the directory of the output.
        ensemble: decides on the labels of each cell.
        formats: forms of the output.
        summary: sentence of the page on what was read.

    Returns:
        Numbers of cells with data, and of areas.

    Raises:
        StorageError: when a store or a disk fails.
    """
    names = ensemble.labels.names
    with tempfile.TemporaryDirectory(prefix="canopy-scene") as name:
        folder = Path(name)
        draft, decided = folder / "draft.tif", folder / "decided.tif"
        cells = Layer(folder, "cells", formats.vectors, scene.crs, formats.crs)
        count = write_cells(draft, decided, cells, scene, factor, directory, ensemble)
        as_cog(draft, folder / "probabilities.tif")
        as_cog(decided, folder / "labels.tif")
        layer = Layer(folder, "areas", formats.vectors, scene.crs, formats.crs)
        pieces, hectares = write_areas(layer, decided, names, scene)
        (folder / "probabilities.qml").write_text(raster_style(), encoding="utf-8")
        (folder / "areas.qml").write_text(areas_style(names), encoding="utf-8")
        write_page(folder / "map.html", scene, folder / "probabilities.tif", ensemble, hectares, summary)
        made = [*cells.close(), *(layer.close() if pieces else []), *(folder / one for one in FILES)]
        for path in made:
            files.copy_here(files.join(directory.root, path.name), path)
    return {"cells": count, "areas": pieces}


def write_cells(
    draft: Path,
    decided: Path,
    layer: Layer,
    scene: Scene,
    factor: float,
    directory: BlockDirectory,
    ensemble: Ensemble,
) -> int:
    """Write the rasters of probabilities and of decisions, and the layer of cells, strip by strip.

    Returns:
        The number of cells with data.
    """
    grid, names = directory.grid, ensemble.labels.names
    transform, count = scene.transform @ Affine.scale(grid.stride * factor), 0
    form = (grid.cells, transform, scene.crs, names)
    with (
        grid_file(draft, *form, "float32", float("nan")) as probabilities,
        grid_file(decided, *form, "uint8", NO_DECISION) as decisions,
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
            layer.write(polygons_N, cell_columns(rows_N + first, columns_N, probs_NK, decisions_NK, names))
            count += len(rows_N)
    return count


def write_areas(
    layer: Layer, decided: Path, labels: Sequence[str], scene: Scene
) -> tuple[int, dict[str, float]]:
    """Write the layer of areas from the raster of decisions of a scene.

    Returns:
        The number of areas, and the hectares of each label that has any.
    """
    pieces, hectares = 0, {}
    with rasterio.open(decided) as raster:
        unit = float(raster.crs.linear_units_factor[1])
        for polygons_N, table in areas(raster, labels, unit, scene.bounds):
            layer.write(polygons_N, table)
            pieces += table.num_rows
            hectares[table["label"][0].as_py()] = float(np.sum(table["hectares"].to_numpy()))
    return pieces, hectares
