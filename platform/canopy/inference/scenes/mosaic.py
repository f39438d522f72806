"""One mosaic of the maps of several scenes: probabilities and decisions on one grid of cells.

The grid is that of the first scene, extended over all of them. A cell of another scene moves to the nearest
cell, by at most half a cell. Where scenes overlap, the mosaic holds the mean of the probabilities, on which
labels are decided.
"""

from __future__ import annotations

import tempfile
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from math import ceil, floor
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from affine import Affine
from rasterio.crs import CRS
from rasterio.enums import Resampling
from rasterio.vrt import WarpedVRT
from rasterio.windows import Window

from canopy.ensemble.model import Ensemble
from canopy.errors import DataError
from canopy.inference.scenes.outputs import NO_DECISION
from canopy.inference.scenes.rasters import as_cog, grid_file
from canopy.inference.scenes.scene import Scene, opened
from canopy.inference.scenes.styles import raster_style
from canopy.storage import files

if TYPE_CHECKING:
    from numpy.typing import NDArray

OPTION = "--mosaic"
NAME = "mosaic"
"""Folder of the mosaic, beside those of the scenes."""
SIDE = 512
"""Cells along the side of the parts that are composed one after another."""


@dataclass(frozen=True)
class MosaicGrid:
    """The grid of a mosaic.

    Args:
        crs: its coordinate system, as WKT.
        transform: from (column, row) of a cell to coordinates.
        height: rows of cells.
        width: columns.
    """

    crs: str
    transform: Affine
    height: int
    width: int


@dataclass(frozen=True)
class Placed:
    """A scene's map on the grid.

    Args:
        address: path or URI of its probabilities.
        top: first row of the grid that it reaches, and so on; ``bottom`` and ``right`` are excluded.
        left: first column.
        bottom: row after the last.
        right: column after the last.
    """

    address: str
    top: int
    left: int
    bottom: int
    right: int

    def meets(self, window: Window) -> bool:
        """Whether it reaches into a part of the grid."""
        inside_rows = self.top < window.row_off + window.height and self.bottom > window.row_off
        inside_columns = self.left < window.col_off + window.width and self.right > window.col_off
        return bool(inside_rows and inside_columns)


def check_mosaic(scenes: Sequence[Scene]) -> None:
    """Refuse scenes that cannot be one mosaic.

    Raises:
        DataError: when their coordinate systems differ, or one has the mosaic's name.
    """
    first = scenes[0]
    for scene in scenes:
        if scene.name == NAME:
            need = f"must not be given with a scene named {NAME}, whose folder it needs"
            raise DataError(OPTION, need, files.shown(scene.address), "Rename the scene.")
        if CRS.from_wkt(scene.crs) != CRS.from_wkt(first.crs):
            ours, theirs = (described_crs(one.crs) for one in (first, scene))
            got = f"{ours} of {first.name} and {theirs} of {scene.name}"
            need, remedy = "must be made of scenes of one CRS", "Warp the scenes to one CRS first (gdalwarp)."
            raise DataError(OPTION, need, got, remedy)


def described_crs(wkt: str) -> str:
    """A coordinate system by its code where it has one."""
    crs = CRS.from_wkt(wkt)
    code = crs.to_epsg()
    return f"EPSG:{code}" if code is not None else str(crs.to_string())


def place_maps(addresses: Sequence[str]) -> tuple[MosaicGrid, list[Placed]]:
    """The grid over the maps at ``addresses``, and where each lies on it."""
    found: list[tuple[float, float, float, float]] = []
    cell, crs = Affine.identity(), ""
    for address in addresses:
        with opened(address) as raster:
            if not found:
                cell, crs = raster.transform, raster.crs.to_wkt()
            to_cells = ~cell @ raster.transform
            (left, top), (right, bottom) = to_cells @ (0, 0), to_cells @ (raster.width, raster.height)
            found.append((top, left, bottom, right))
    # Half a cell is where the nearest cell changes; the grid holds every cell that is nearest to one.
    edges = np.array([[floor(t + 0.5), floor(m + 0.5), ceil(b - 0.5), ceil(r - 0.5)] for t, m, b, r in found])
    (top, left), (bottom, right) = edges[:, :2].min(0).tolist(), edges[:, 2:].max(0).tolist()
    grid = MosaicGrid(crs, cell @ Affine.translation(left, top), bottom - top, right - left)
    shift = np.array([top, left, top, left])
    placed = [Placed(one, *(row - shift).tolist()) for one, row in zip(addresses, edges, strict=True)]
    return grid, placed


def parts(grid: MosaicGrid) -> Iterator[Window]:
    """The parts of the grid, row by row."""
    for top in range(0, grid.height, SIDE):
        for left in range(0, grid.width, SIDE):
            yield Window(left, top, min(SIDE, grid.width - left), min(SIDE, grid.height - top))


def mean_of(placed: Sequence[Placed], grid: MosaicGrid, window: Window, labels: int) -> NDArray[np.float32]:
    """Mean probabilities of a part of the grid, (rows, columns, K); NaN where no scene has data."""
    total_HWK = np.zeros((window.height, window.width, labels), np.float64)
    count_HW1 = np.zeros((window.height, window.width, 1), np.int32)
    for one in placed:
        if not one.meets(window):
            continue
        with opened(one.address) as raster, _on_grid(raster, grid) as view:
            probs_HWK = np.moveaxis(view.read(window=window), 0, -1)
        valid_HW1 = np.isfinite(probs_HWK).all(-1, keepdims=True)
        total_HWK += np.where(valid_HW1, probs_HWK, 0)
        count_HW1 += valid_HW1
    with np.errstate(invalid="ignore"):
        return np.where(count_HW1, total_HWK / count_HW1, np.nan).astype(np.float32)


def _on_grid(raster: Any, grid: MosaicGrid) -> WarpedVRT:
    return WarpedVRT(
        raster,
        crs=raster.crs,
        transform=grid.transform,
        height=grid.height,
        width=grid.width,
        resampling=Resampling.nearest,
        nodata=float("nan"),
    )


def write_mosaic(maps: Sequence[str], out: str, ensemble: Ensemble) -> tuple[int, int]:
    """Write the mosaic of the maps in the directories ``maps`` into ``OUT/mosaic``.

    Returns:
        Rows and columns of cells.

    Raises:
        DataError: when a map cannot be read.
        StorageError: when a store or a disk fails.
    """
    names = ensemble.labels.names
    grid, placed = place_maps([files.join(folder, "probabilities.tif") for folder in maps])
    form = ((grid.height, grid.width), grid.transform, grid.crs, names)
    with tempfile.TemporaryDirectory(prefix="canopy-mosaic") as name:
        folder = Path(name)
        draft, decided = folder / "draft.tif", folder / "decided.tif"
        with ExitStack() as stack:
            probabilities = stack.enter_context(grid_file(draft, *form, "float32", float("nan")))
            decisions = stack.enter_context(grid_file(decided, *form, "uint8", NO_DECISION))
            for window in parts(grid):
                probs_HWK = mean_of(placed, grid, window, len(names))
                rows_N, columns_N = np.nonzero(np.isfinite(probs_HWK).all(-1))
                decided_HWK = np.full(probs_HWK.shape, NO_DECISION, np.uint8)
                decided_HWK[rows_N, columns_N] = ensemble.decide(probs_HWK[rows_N, columns_N])
                probabilities.write(np.moveaxis(probs_HWK, -1, 0), window=window)
                decisions.write(np.moveaxis(decided_HWK, -1, 0), window=window)
        as_cog(draft, folder / "probabilities.tif")
        as_cog(decided, folder / "labels.tif")
        (folder / "probabilities.qml").write_text(raster_style(), encoding="utf-8")
        for one in ("probabilities.tif", "labels.tif", "probabilities.qml"):
            files.copy_here(files.join(out, NAME, one), folder / one)
    return grid.height, grid.width
