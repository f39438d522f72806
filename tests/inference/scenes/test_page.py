"""Pixels of the page's quick look and layers. The page itself is opened by test_map_in_browser."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import rasterio
from tests.inference.scenes.made import write_scene

from canopy.config import SensorConfig
from canopy.inference.scenes.page import LOOK_SIDE, layer_pixels, quick_look
from canopy.inference.scenes.scene import check_scene


def test_layers_keep_0_for_cells_without_data() -> None:
    probs_HW = np.array([[0, 0.5, 1, np.nan]], np.float32)
    assert layer_pixels(probs_HW).tolist() == [[1, 128, 255, 0]]


def test_the_quick_look_is_stretched_and_white_beyond_the_scene(tmp_path: Path) -> None:
    content = np.full((100, 200, 3), 100, np.uint16)
    content[:, 100:] = 3000
    content[:10] = 0
    path = write_scene(tmp_path / "a.tif", content, nodata=0)
    scene = check_scene(str(path), SensorConfig())
    with rasterio.open(path) as dataset:
        look_HWC = quick_look(dataset, scene, 100, 250)
    assert look_HWC.shape == (400, LOOK_SIDE, 3)
    assert (look_HWC[:38] == 255).all()
    assert (look_HWC[50:, :390] == 0).all()
    assert (look_HWC[50:, 410:] == 255).all()
