"""The map as a cloud-optimised GeoTIFF: one band of probabilities per label."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import rasterio
import rasterio.shutil
from affine import Affine
from rasterio.windows import Window

from canopy.inference.scenes.blending import blend, window_weights
from canopy.inference.scenes.blocks import BlockDirectory

if TYPE_CHECKING:
    from numpy.typing import NDArray

TILE = 256
STRIP_VALUES = 16 << 20
"""Values of the probabilities of a strip of cells that are in memory at a time."""


def strips(directory: BlockDirectory) -> Iterator[tuple[int, NDArray[np.float32]]]:
    """First row and probabilities (rows, columns, K) of successive strips of cells; NaN without data."""
    grid = directory.grid
    height, width = grid.cells
    weights = window_weights(grid.size, grid.stride)
    rows = max(1, min(height, STRIP_VALUES // (width * directory.labels)))
    rows = max(TILE, rows // TILE * TILE)
    for first in range(0, height, rows):
        last = min(height, first + rows)
        above, below = max(0, first - grid.reach + 1), min(grid.windows[0], last)
        above = min(above, below - 1)
        probs_HWK = blend(directory.windows(above, below), weights, above - first, last - first, width)
        probs_HWK[~directory.valid_cells(first, last)] = np.nan
        yield first, probs_HWK


@contextlib.contextmanager
def grid_file(
    path: Path,
    shape: tuple[int, int],
    transform: Affine,
    crs: str,
    bands: Sequence[str],
    dtype: str,
    nodata: float,
) -> Iterator[Any]:
    """A new tiled GeoTIFF, open for writing.

    Args:
        path: where.
        shape: rows and columns.
        transform: from (column, row) to coordinates.
        crs: as WKT.
        bands: description of each band.
        dtype: of the samples.
        nodata: value of pixels without data.
    """
    with rasterio.open(
        path,
        "w",
        driver="GTiff",
        height=shape[0],
        width=shape[1],
        count=len(bands),
        dtype=dtype,
        crs=crs,
        transform=transform,
        nodata=nodata,
        tiled=True,
        blockxsize=TILE,
        blockysize=TILE,
        BIGTIFF="IF_SAFER",
        COMPRESS="DEFLATE",
    ) as dataset:
        for number, name in enumerate(bands, start=1):
            dataset.set_band_description(number, name)
        yield dataset


def write_rows(dataset: Any, first: int, values_HWK: NDArray[Any]) -> None:
    """Write rows of all bands, from row ``first``."""
    window = Window(0, first, values_HWK.shape[1], values_HWK.shape[0])
    dataset.write(np.ascontiguousarray(np.moveaxis(values_HWK, -1, 0)), window=window)


def as_cog(source: Path, target: Path) -> None:
    """Copy a GeoTIFF to a cloud-optimised one: tiles, overviews, header first."""
    rasterio.shutil.copy(
        source, target, driver="COG", COMPRESS="DEFLATE", OVERVIEW_RESAMPLING="AVERAGE", BIGTIFF="IF_SAFER"
    )
