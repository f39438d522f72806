"""Made-up raster files of several bands, written by rasterio."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import rasterio
from numpy.typing import NDArray
from rasterio.transform import Affine

from canopy.bands import BandLayout
from canopy.config import BandConfig


def layout(*bands: BandConfig, dtype: Any = "uint16", max_nodata: float = 0.5) -> BandLayout:
    """A layout of ``bands``."""
    return BandLayout(bands, dtype, max_nodata)


def noise(count: int, size: int, dtype: str = "uint16", high: int = 4000, seed: int = 0) -> NDArray[Any]:
    """Random samples, (count, size, size)."""
    rng = np.random.default_rng(seed)
    if dtype.startswith("float"):
        return rng.random((count, size, size)).astype(dtype)
    return rng.integers(0, high, (count, size, size)).astype(dtype)


def write_raster(
    path: Path, bands_CHW: NDArray[Any], *, pixel: float = 10.0, left: float = 600_000.0, **options: Any
) -> Path:
    """Write a GeoTIFF, or another driver's file, in UTM zone 29N."""
    count, height, width = bands_CHW.shape
    profile = {
        "driver": "GTiff",
        "dtype": bands_CHW.dtype.name,
        "count": count,
        "height": height,
        "width": width,
        "crs": "EPSG:32629",
        "transform": Affine(pixel, 0, left, 0, -pixel, 5_800_000.0),
        **options,
    }
    path.parent.mkdir(parents=True, exist_ok=True)
    with rasterio.open(path, "w", **profile) as file:
        file.write(bands_CHW)
    return path
