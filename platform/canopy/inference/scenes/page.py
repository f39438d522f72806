"""The page of a map: the scene's quick look and a layer per label, in one file that needs no network."""

from __future__ import annotations

import base64
import io
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

import jinja2
import numpy as np
import rasterio
from PIL import Image
from rasterio.enums import Resampling
from rasterio.windows import Window

from canopy.inference.scenes.scene import Scene, opened
from canopy.inference.scenes.styles import color_of

if TYPE_CHECKING:
    from numpy.typing import NDArray
    from rasterio.io import DatasetReader

    from canopy.ensemble.model import Ensemble

LOOK_SIDE = 1000
"""Longest side of the quick look, and of a layer, pixels."""
STRETCH = (2, 98)
"""Percentiles of the quick look's values that become black and white."""


def write_page(
    path: Path,
    scene: Scene,
    probabilities: Path,
    ensemble: Ensemble,
    hectares: Mapping[str, float],
    about: str,
) -> None:
    """Write the page.

    Args:
        path: file to write.
        scene: the scene.
        probabilities: raster with a band per label.
        ensemble: names and thresholds of the labels.
        hectares: area of each label that was decided anywhere.
        about: what was predicted, as a clause.
    """
    with rasterio.open(probabilities) as raster:
        scale = min(1.0, LOOK_SIDE / max(raster.height, raster.width))
        shape = (max(1, round(raster.height * scale)), max(1, round(raster.width * scale)))
        covered = raster.bounds
        layers = [
            {
                "label": label,
                "color": color_of(band - 1),
                "threshold": float(threshold),
                "hectares": hectares.get(label, 0.0),
                "source": png(
                    layer_pixels(raster.read(band, out_shape=shape, resampling=Resampling.nearest))
                ),
            }
            for band, (label, threshold) in enumerate(
                zip(ensemble.labels.names, ensemble.thresholds, strict=True), start=1
            )
        ]
    square_metres = (covered.right - covered.left) * (covered.top - covered.bottom)
    metres_per_unit = scene.metres / scene.transform.a
    with opened(scene.address) as dataset:
        columns = (covered.right - covered.left) / scene.transform.a
        rows = (covered.top - covered.bottom) / scene.transform.a
        look = jpeg(quick_look(dataset, scene, rows, columns))
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(Path(__file__).parent),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
    )
    text = environment.get_template("page.html.j2").render(
        name=scene.name,
        about=about,
        look=look,
        width=shape[1],
        height=shape[0],
        layers=layers,
        inside=(shape[1] * min(1.0, scene.width / columns), shape[0] * min(1.0, scene.height / rows)),
        hectares_per_pixel=square_metres * metres_per_unit**2 / 1e4 / (shape[0] * shape[1]),
    )
    path.write_text(text, encoding="utf-8")


def layer_pixels(probs_HW: NDArray[np.float32]) -> NDArray[np.uint8]:
    """Probabilities as 1 to 255, 0 where there is none."""
    known_HW = np.isfinite(probs_HW)
    shown_HW = np.rint(np.where(known_HW, probs_HW, 0) * 254).astype(np.uint8) + 1
    return np.where(known_HW, shown_HW, 0).astype(np.uint8)


def quick_look(dataset: DatasetReader, scene: Scene, rows: float, columns: float) -> NDArray[np.uint8]:
    """The scene reduced to at most ``LOOK_SIDE``, uint8 (H, W, 3), white beyond its border.

    Args:
        dataset: the open scene.
        scene: its facts.
        rows: rows of the map, in pixels of the scene; its last cells may reach beyond the scene.
        columns: its columns.
    """
    scale = LOOK_SIDE / max(rows, columns)
    inside = (max(1, round(scene.height * scale)), max(1, round(scene.width * scale)))
    whole = (max(1, round(rows * scale)), max(1, round(columns * scale)))
    bands = scene.shown or ((scene.bands * 3)[:3] if len(scene.bands) < 3 else scene.bands[:3])
    window = Window(0, 0, scene.width, scene.height)
    options = {"window": window, "out_shape": (3, *inside), "resampling": Resampling.average}
    values_CHW = dataset.read(list(bands), **options).astype(np.float32)
    valid_HW = (dataset.read_masks(list(bands), window=window, out_shape=(3, *inside)) > 0).all(0)
    valid_HW &= np.isfinite(values_CHW).all(0)
    out_HWC = np.full((*whole, 3), 255, np.uint8)
    if valid_HW.any():
        low, high = np.percentile(values_CHW[:, valid_HW], STRETCH)
        shown_CHW = np.clip((values_CHW - low) / max(float(high - low), 1e-9), 0, 1) * 255
        shown_CHW = np.where(valid_HW, shown_CHW, 255).astype(np.uint8)
        height, width = min(inside[0], whole[0]), min(inside[1], whole[1])
        out_HWC[:height, :width] = np.moveaxis(shown_CHW, 0, -1)[:height, :width]
    return out_HWC


def png(pixels_HW: NDArray[np.uint8]) -> str:
    """A gray image as a data URI."""
    return _data_uri(Image.fromarray(pixels_HW), "PNG")


def jpeg(pixels_HWC: NDArray[np.uint8]) -> str:
    """A color image as a data URI."""
    return _data_uri(Image.fromarray(pixels_HWC), "JPEG")


def _data_uri(image: Image.Image, kind: str) -> str:
    sink = io.BytesIO()
    image.save(sink, kind)
    return f"data:image/{kind.lower()};base64,{base64.b64encode(sink.getvalue()).decode()}"
