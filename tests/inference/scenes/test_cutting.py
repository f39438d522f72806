"""From a scene and polygons to a labelled chip set."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
import rasterio
from tests.inference.scenes.made import UTM, pixels, write_scene

from canopy.config import DataConfig, TableConfig
from canopy.data.sources import list_images
from jobs import chips

X, Y = 500_000, 5_200_000


def square(x: float, y: float, side: float) -> list[list[list[float]]]:
    """A square of ``side`` metres whose upper left corner is (x, y) metres from the scene's."""
    left, top = X + x, Y - y
    corners = [(left, top), (left + side, top), (left + side, top - side), (left, top - side), (left, top)]
    return [[list(corner) for corner in corners]]


def write_polygons(
    path: Path, features: list[tuple[Any, Any]], crs: str = UTM, kind: str = "Polygon"
) -> Path:
    content = {
        "type": "FeatureCollection",
        "crs": {"type": "name", "properties": {"name": crs}},
        "features": [
            {
                "type": "Feature",
                "properties": {"label": label},
                "geometry": {"type": kind, "coordinates": one},
            }
            for one, label in features
        ],
    }
    path.write_text(json.dumps(content))
    return path


@pytest.fixture
def scene(tmp_path: Path) -> Path:
    """Four bands of 16 bits, 130 by 200 pixels of 10 m."""
    content = np.concatenate([pixels(130, 200), pixels(130, 200, 1)[..., :1]], -1).astype(np.uint16) * 9
    return write_scene(tmp_path / "scene.tif", content)


def test_chips_have_the_labels_that_cover_enough_of_them(scene: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    # A chip has 320 m a side: "field" covers half of (0, 0) and of (0, 1), "pond" a 16th of (1, 1).
    polygons = [
        (square(160, 0, 320), "field"),
        (square(160, 0, 300), "field"),
        (square(330, 330, 80), "pond"),
    ]
    path = write_polygons(tmp_path / "p.geojson", polygons)
    arguments = [str(scene), "--labels", str(path), "--out", str(out), "--size", "32", "--block", "2"]
    assert chips.main([*arguments, "--min-share", "0.06"]) == 0
    rows = {row["image_name"]: row for row in pq.read_table(out / "chips.parquet").to_pylist()}
    assert len(rows) == 4 * 6
    tagged = {name: row["tags"] for name, row in rows.items() if row["tags"]}
    expected = {"scene_00000_00000": ["field"], "scene_00000_00001": ["field"], "scene_00001_00001": ["pond"]}
    assert tagged == expected
    assert rows["scene_00003_00001"]["group"] == "scene:1:0"
    with rasterio.open(out / "chips" / "scene_00001_00002.tif") as chip, rasterio.open(scene) as whole:
        assert (chip.crs, chip.count, chip.dtypes[0]) == (whole.crs, 4, "uint16")
        assert chip.transform @ (0, 0) == (X + 640, Y - 320)
        np.testing.assert_array_equal(chip.read(), whole.read()[:, 32:64, 64:96])


def test_the_chips_are_a_source_with_groups(scene: Path, tmp_path: Path) -> None:
    path = write_polygons(tmp_path / "p.geojson", [(square(0, 0, 320), "a"), (square(640, 320, 320), "b c")])
    out = tmp_path / "out"
    assert chips.main([str(scene), "--labels", str(path), "--out", str(out), "--size", "32"]) == 0
    config = DataConfig(
        source="table",
        csv="chips.parquet",
        images="chips",
        extension=".tif",
        image_size=32,
        table=TableConfig(group="group"),
    )
    listing = list_images(config, str(out))
    assert listing.labels.names == ("a", "b c")
    assert not listing.bad
    assert listing.groups is not None
    assert len(set(listing.groups)) == 2


@pytest.mark.parametrize(
    ("features", "kind", "more", "problem"),
    [
        ([(square(-900, 0, 100), "a")], "Polygon", [], "feature 1 must lie in the scene scene"),
        ([(square(0, 0, 100), "")], "Polygon", [], "feature 1 must have a label"),
        ([(square(0, 0, 100)[0], "a")], "LineString", [], "feature 1 must be a polygon"),
        ([(square(0, 0, 100), "a")], "Polygon", ["--column", "tag"], "--column must be a column of"),
        ([(square(0, 0, 100), "a")], "Polygon", ["--size", "4"], "--size must be 8 to 4096"),
        ([(square(0, 0, 100), "a")], "Polygon", ["--size", "512"], "at least as large as a chip of 512"),
        ([(square(0, 0, 100), "a")], "Polygon", ["--min-share", "0"], "--min-share must be above 0"),
    ],
)
def test_what_cannot_be_cut_is_refused(
    features: list[tuple[Any, Any]],
    kind: str,
    more: list[str],
    problem: str,
    scene: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    path = write_polygons(tmp_path / "p.geojson", features, kind=kind)
    out = tmp_path / "out"
    size = [] if "--size" in more else ["--size", "32"]
    assert chips.main([str(scene), "--labels", str(path), "--out", str(out), *size, *more]) == 2
    assert problem in capsys.readouterr().err
    assert not out.exists()
