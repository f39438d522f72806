"""The page of a map in a real browser: from the file alone, layers follow their sliders."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from playwright.sync_api import Browser, expect
from tests.end_to_end.test_service_in_browser import CHROMIUM, browser  # noqa: F401 (fixture)
from tests.inference.conftest import experiment, finished  # noqa: F401 (fixtures)
from tests.inference.scenes.made import pixels, write_scene

from canopy.config import SensorConfig
from canopy.ensemble.model import Ensemble
from canopy.inference.scenes.blocks import BlockDirectory, packed
from canopy.inference.scenes.grid import Grid
from canopy.inference.scenes.outputs import MapFormats, write_map
from canopy.inference.scenes.scene import check_scene
from canopy.storage.run_dir import RunDir

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(CHROMIUM is None, reason="no chromium on the PATH (apt-get install chromium)"),
]
COUNT_VISIBLE = """() => {
  const canvas = document.getElementById('layers');
  const data = canvas.getContext('2d').getImageData(0, 0, canvas.width, canvas.height).data;
  let count = 0;
  for (let at = 3; at < data.length; at += 4) count += data[at] > 0;
  return count;
}"""


def map_page(run: RunDir, folder: Path) -> Path:
    """The page of a scene of 8 by 10 cells, where each label's probability grows from west to east.

    A quarter of the last row and of the last column lies in the scene.
    """
    ensemble = Ensemble.load(run.path("ensemble", "ensemble.json"))
    scene = check_scene(str(write_scene(folder / "a <b>.tif", pixels(232, 296))), SensorConfig())
    grid = Grid.of(232, 296, 32, 0.0, block_side=99)
    directory = BlockDirectory(str(folder / "out"), grid, len(ensemble.labels), {})
    ramp_W = np.linspace(0.05, 0.95, 10, dtype=np.float32)
    probs_NK = np.tile(ramp_W[None, :, None], (8, 1, len(ensemble.labels))).reshape(80, -1)
    shares_HW = np.ones((8, 10), np.float32)
    shares_HW[0] = 0
    directory.write(0, packed(probs_NK, np.arange(80), (8, 10), shares_HW))
    write_map(scene, 1.0, directory, ensemble, MapFormats(), "80 windows")
    return folder / "out" / "map.html"


@pytest.mark.parametrize("width", [1280, 360])
def test_layers_follow_their_sliders(
    width: int,
    browser: Browser,  # noqa: F811
    finished: RunDir,  # noqa: F811
    tmp_path: Path,
) -> None:
    complaints: list[str] = []
    urls: list[str] = []
    page: Any = browser.new_page(viewport={"width": width, "height": 900})
    page.on("console", lambda message: complaints.append(message.text))
    page.on("pageerror", lambda error: complaints.append(str(error)))
    page.on("request", lambda one: urls.append(one.url))
    page.goto(map_page(finished, tmp_path).as_uri())
    expect(page.locator("body[data-ready]")).to_have_count(1)
    expect(page.locator("h1")).to_have_text("a <b>")
    assert page.locator("#look").evaluate("image => image.naturalWidth") == 1000
    layer = page.locator(".layer").first
    layer.locator(".threshold").fill("0.5")
    assert page.evaluate(COUNT_VISIBLE) == 7 * 5
    expect(layer.locator(".above")).to_have_text(re.compile(r"^272 ha"))  # 6.25 by 4.25 cells of 320 m
    layer.locator(".threshold").fill("0.9")
    assert page.evaluate(COUNT_VISIBLE) == 7
    layer.locator(".opacity").fill("0")
    assert page.evaluate(COUNT_VISIBLE) == 0
    layer.locator(".opacity").fill("1")
    layer.locator(".on").uncheck()
    assert page.evaluate(COUNT_VISIBLE) == 0
    page.locator(".layer").nth(1).locator(".threshold").fill("0")
    page.locator(".layer").nth(1).locator(".on").check()
    assert page.evaluate(COUNT_VISIBLE) == 70
    assert page.evaluate("document.documentElement.scrollWidth") <= width, "it scrolls sideways"
    page.screenshot(path=str(tmp_path / "map.png"), full_page=True)
    assert complaints == []
    assert all(url.startswith(("file:", "data:")) for url in urls), urls
    page.close()
