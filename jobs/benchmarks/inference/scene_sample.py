"""Two made-up georeferenced scenes of one landscape with three labels, and the polygons of the first."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import rasterio
from affine import Affine
from numpy.typing import NDArray
from PIL import Image
from rasterio.features import shapes

LABELS = ("forest", "water", "field")
COLORS = np.array([[52, 84, 48], [40, 70, 104], [158, 146, 86]], np.float32)
GRAIN = np.array([18, 3, 6], np.float32)
"""Deviation of a pixel's color, by label."""
CRS, METRES, CELL = "EPSG:32633", 1.0, 16
"""Coordinate system, metres per pixel, and pixels along the side of the landscape's smallest parts."""


def scene_sample(out: Path, side: int = 2048, seed: int = 0) -> None:
    """Write ``train.tif`` with ``parcels.geojson``, and ``new.tif`` to the east of it.

    Args:
        out: directory to write to.
        side: height and width of a scene, pixels.
        seed: seed of the landscape.
    """
    out.mkdir(parents=True, exist_ok=True)
    for number, name in enumerate(("train", "new")):
        rng = np.random.default_rng([seed, number])
        labels_HW = landscape(side // CELL, rng)
        transform = Affine(METRES, 0, 500_000 + number * side * METRES, 0, -METRES, 5_200_000)
        profile = {"driver": "GTiff", "height": side, "width": side, "count": 3, "dtype": "uint8"}
        profile |= {"tiled": True, "compress": "deflate", "photometric": "RGB"}
        with rasterio.open(out / f"{name}.tif", "w", crs=CRS, transform=transform, **profile) as scene:
            scene.write(np.moveaxis(painted(labels_HW, rng), -1, 0))
        if name == "train":
            write_parcels(out / "parcels.geojson", labels_HW, transform @ Affine.scale(CELL))


def landscape(side: int, rng: np.random.Generator) -> NDArray[np.uint8]:
    """Number of the label of each part, (side, side): the highest of three smooth fields."""
    coarse = max(2, side // 12)
    fields = [
        np.asarray(
            Image.fromarray(rng.random((coarse, coarse), np.float32)).resize(
                (side, side), Image.Resampling.BICUBIC
            )
        )
        for _ in LABELS
    ]
    labels_HW: NDArray[np.uint8] = np.argmax(fields, axis=0).astype(np.uint8)
    return labels_HW


def painted(labels_HW: NDArray[np.uint8], rng: np.random.Generator) -> NDArray[np.uint8]:
    """The scene, uint8 (side, side, 3): grainy forest, smooth water, striped fields."""
    full_HW = np.kron(labels_HW, np.ones((CELL, CELL), np.uint8))
    rows, columns = np.indices(full_HW.shape)
    stripes_HW = np.where(full_HW == LABELS.index("field"), 12 * np.sin((rows + columns) / 3), 0)
    noise_HW = GRAIN[full_HW] * rng.standard_normal(full_HW.shape, np.float32)
    painted_HWC = np.clip(COLORS[full_HW] + (noise_HW + stripes_HW)[..., None], 0, 255)
    return np.asarray(painted_HWC, np.uint8)


def write_parcels(path: Path, labels_HW: NDArray[np.uint8], transform: Affine) -> None:
    """Write the connected parts as polygons with a column ``label``."""
    features = [
        {"type": "Feature", "properties": {"label": LABELS[int(value)]}, "geometry": geometry}
        for geometry, value in shapes(labels_HW, transform=transform)
    ]
    crs = {"type": "name", "properties": {"name": CRS}}
    path.write_text(json.dumps({"type": "FeatureCollection", "crs": crs, "features": features}))
