"""Memory and throughput of a large scene and of its windows as chips; the place of an object on a map."""

from __future__ import annotations

import tempfile
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import rasterio
from affine import Affine
from jobs.benchmarks.chip_data import private_ray
from jobs.benchmarks.inference.memory import SAMPLE_S, MemoryTrace
from jobs.benchmarks.inference.untrained_run import untrained_run
from jobs.benchmarks.measurement import Report
from PIL import Image
from rasterio.windows import Window

from canopy.inference.job import PredictRequest, predict_images
from canopy.inference.scenes.job import predict_scenes
from canopy.inference.scenes.request import SceneRequest
from canopy.runtime.console import Console

METRES = 1.0
TILE = 512
PIXELS_SEED = 0


def made_scene(path: Path, side: int, bands: int) -> None:
    """Write a tiled, compressed GeoTIFF of smooth random 8-bit pixels, tile by tile."""
    rng = np.random.default_rng(PIXELS_SEED)
    profile = {"driver": "GTiff", "height": side, "width": side, "count": bands, "dtype": "uint8"}
    profile |= {"tiled": True, "blockxsize": TILE, "blockysize": TILE, "compress": "deflate", "zlevel": 1}
    transform = Affine(METRES, 0, 500_000, 0, -METRES, 5_200_000)
    with rasterio.open(path, "w", crs="EPSG:32633", transform=transform, BIGTIFF="YES", **profile) as scene:
        for top in range(0, side, TILE):
            for left in range(0, side, TILE):
                height, width = min(TILE, side - top), min(TILE, side - left)
                coarse = rng.integers(0, 256, (bands, TILE // 16, TILE // 16), dtype=np.uint8)
                if bands == 4:  # the last is not shown
                    coarse[3] = 255 - coarse[0]
                tile = np.kron(coarse, np.ones((1, 16, 16), np.uint8))[:, :height, :width]
                scene.write(tile, window=Window(left, top, width, height))


def scene_memory(
    side: int = 30_000,
    size: int = 256,
    backbone: str = "test_resnet",
    overlap: float = 0.5,
    out: Path | None = None,
) -> None:
    """The whole command on a scene of four bands: private memory of the driver and of the largest worker."""
    report = Report(f"scene of {side:,} by {side:,} by 4", out)
    with tempfile.TemporaryDirectory(prefix="cb") as folder, private_ray(1 << 29):
        place = Path(folder)
        made_scene(place / "scene.tif", side, 4)
        run = untrained_run(place / "run", (backbone,), size)
        request = SceneRequest(run.root, str(place / "scene.tif"), str(place / "out"), resolution=METRES)
        start = time.perf_counter()
        with MemoryTrace() as trace:
            predict_scenes(replace(request, gpus_per_actor=0.0, block_windows=8, overlap=overlap), Console())
        report.add_value("seconds", round(time.perf_counter() - start))
        report.add_value("driver, MB, peak", round(max(row[0] for row in trace.rows) / 1e6))
        report.add_value("largest other process, MB, peak", round(max(row[1] for row in trace.rows) / 1e6))
        report.add_value("samples, one each", SAMPLE_S)
    report.show()


def scene_position(
    side: int = 10_000,
    size: int = 128,
    backbone: str = "test_byobnet",
    keep: Path | None = None,
    out: Path | None = None,
) -> None:
    """Where a map shows an object whose place is known, in a scene that is even elsewhere; in cells.

    The network is random: the object is where the probabilities differ most from those of the even ground.
    """
    report = Report(f"place of an object in a scene of {side:,} by {side:,}", out)
    with tempfile.TemporaryDirectory(prefix="cb") as folder, private_ray(1 << 29):
        place = Path(folder)
        x, y = object_scene(place / "scene.tif", side, size // 2)
        run = untrained_run(place / "run", (backbone,), size)
        target = keep or place / "out"
        request = SceneRequest(run.root, str(place / "scene.tif"), str(target), resolution=METRES)
        start = time.perf_counter()
        predict_scenes(replace(request, gpus_per_actor=0.0), Console())
        report.add_value("seconds", round(time.perf_counter() - start))
        with rasterio.open(target / "scene" / "probabilities.tif") as raster:
            probs_KHW = raster.read()
            difference_HW = np.abs(probs_KHW - np.median(probs_KHW, axis=(1, 2), keepdims=True)).sum(0)
            row, column = np.unravel_index(int(np.argmax(difference_HW)), difference_HW.shape)
            left, top = raster.transform @ (float(column), float(row))
            cell = raster.transform.a
        report.add_value("cells", f"{difference_HW.shape[1]:,} by {difference_HW.shape[0]:,} of {cell:g} m")
        report.add_value("cells that differ", int((difference_HW > 1e-4).sum()))
        away = max(abs(left + cell / 2 - x), abs(top - cell / 2 - y)) / cell
        report.add_value("from the object to the center of the cell, cells (<= 1)", round(float(away), 2))
    report.show()


def object_scene(path: Path, side: int, extent: int) -> tuple[float, float]:
    """Write an even scene of three bands with one striped square of ``extent`` pixels; its center."""
    rng = np.random.default_rng(PIXELS_SEED)
    row, column = (int(rng.integers(side // 4, 3 * side // 4)) for _ in range(2))
    profile = {"driver": "GTiff", "height": side, "width": side, "count": 3, "dtype": "uint8"}
    profile |= {"tiled": True, "blockxsize": TILE, "blockysize": TILE, "compress": "deflate"}
    transform = Affine(METRES, 0, 500_000, 0, -METRES, 5_200_000)
    with rasterio.open(path, "w", crs="EPSG:32633", transform=transform, **profile) as scene:
        ground = np.broadcast_to(np.array([90, 110, 80], np.uint8)[:, None, None], (3, TILE, side))
        for top in range(0, side, TILE):
            height = min(TILE, side - top)
            scene.write(ground[:, :height], window=Window(0, top, side, height))
        stripes = np.where(np.arange(extent) // 8 % 2, 250, 20).astype(np.uint8)
        scene.write(np.tile(stripes, (3, extent, 1)), window=Window(column, row, extent, extent))
    x, y = transform @ (column + extent / 2, row + extent / 2)
    return float(x), float(y)


def scene_speed(
    side: int = 4096, size: int = 256, backbone: str = "resnet18", rounds: int = 3, out: Path | None = None
) -> None:
    """Windows per second of a scene without overlap, and of batch prediction of the same windows as PNG."""
    report = Report(f"windows of {size} pixels of a scene of {side:,} by {side:,}", out)
    ratios = []
    with tempfile.TemporaryDirectory(prefix="cb") as folder, private_ray(1 << 30):
        place = Path(folder)
        made_scene(place / "scene.tif", side, 3)
        run = untrained_run(place / "run", (backbone,), size)
        (place / "chips").mkdir()
        with rasterio.open(place / "scene.tif") as scene:
            for n in range((side // size) ** 2):
                row, column = divmod(n, side // size)
                chip_CHW = scene.read(window=Window(column * size, row * size, size, size))
                Image.fromarray(np.moveaxis(chip_CHW, 0, -1)).save(place / "chips" / f"{n:06}.png")
        for number in range(rounds):
            start = time.perf_counter()
            scenes = SceneRequest(run.root, str(place / "scene.tif"), str(place / f"s{number}"))
            scenes = replace(scenes, overlap=0, resolution=METRES, gpus_per_actor=0.0)
            predict_scenes(scenes, Console())
            middle = time.perf_counter()
            images = PredictRequest(run.root, str(place / "chips"), str(place / f"i{number}"))
            predict_images(replace(images, gpus_per_actor=0.0), Console())
            ratios.append((time.perf_counter() - middle) / (middle - start))
        report.add_ratio("windows per second: scene / chips", ratios, ">= 0.8")
    report.show()
