"""Memory and throughput of a large scene, and of the same windows as chips."""

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
    side: int = 30_000, size: int = 256, backbone: str = "test_resnet", out: Path | None = None
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
            predict_scenes(replace(request, gpus_per_actor=0.0, block_windows=8), Console())
        report.add_value("seconds", round(time.perf_counter() - start))
        report.add_value("driver, MB, peak", round(max(row[0] for row in trace.rows) / 1e6))
        report.add_value("largest other process, MB, peak", round(max(row[1] for row in trace.rows) / 1e6))
        report.add_value("samples, one each", SAMPLE_S)
    report.show()


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
