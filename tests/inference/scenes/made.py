"""Georeferenced scenes of the tests, and the command that maps one."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import rasterio
from affine import Affine
from numpy.typing import NDArray

from canopy.storage.run_dir import RunDir

UTM = "EPSG:32633"
NORTH_UP = Affine(10, 0, 500_000, 0, -10, 5_200_000)


def pixels(height: int, width: int, seed: int = 0) -> NDArray[np.uint8]:
    """Smooth random pixels (H, W, 3): neighbors resemble each other, windows differ."""
    rng = np.random.default_rng(seed)
    coarse = rng.integers(0, 256, (height // 8 + 1, width // 8 + 1, 3), dtype=np.uint8)
    return np.ascontiguousarray(np.kron(coarse, np.ones((8, 8, 1), np.uint8))[:height, :width])


def write_scene(
    path: Path, pixels_HWC: NDArray[Any], crs: str | None = UTM, transform: Affine = NORTH_UP, **options: Any
) -> Path:
    """Write a tiled GeoTIFF; its path."""
    height, width, count = pixels_HWC.shape
    profile: dict[str, Any] = {"driver": "GTiff", "tiled": True, "blockxsize": 64, "blockysize": 64}
    profile |= {"height": height, "width": width, "count": count, "dtype": pixels_HWC.dtype, "crs": crs}
    path.parent.mkdir(parents=True, exist_ok=True)
    with rasterio.open(path, "w", transform=transform, **profile, **options) as dataset:
        dataset.write(np.moveaxis(pixels_HWC, -1, 0))
    return path


def arguments(model: RunDir, scene: Path, out: Path, *more: str) -> list[str]:
    """Arguments of ``jobs/predict.py`` that map ``scene`` for chips of 10 m per pixel."""
    return ["--model", model.root, "--scene", str(scene), "--out", str(out), "--resolution", "10", *more]
