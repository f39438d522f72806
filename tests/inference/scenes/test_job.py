"""The command over scenes, through its entry point: maps, blocks that are missing, bad input."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pyogrio
import pytest
import rasterio
import shapely
from affine import Affine
from numpy.typing import NDArray
from tests.inference.scenes.made import NORTH_UP, UTM, arguments, pixels, write_scene

import canopy
from canopy.config import Experiment
from canopy.inference.scenes.blending import blend, window_weights
from canopy.storage import files
from canopy.storage.run_dir import RunDir
from jobs import predict

SIZE, STRIDE = 32, 16


@pytest.fixture(scope="module")
def content() -> NDArray[np.uint8]:
    """A scene of 120 by 150 pixels; its upper left corner has no data."""
    content_HWC = np.maximum(pixels(120, 150, seed=3), 1)
    content_HWC[:40, :48] = 0
    return content_HWC


@pytest.fixture(scope="module")
def mapped(
    finished: RunDir, content: NDArray[np.uint8], ray_here: None, tmp_path_factory: pytest.TempPathFactory
) -> Path:
    """Directory of the map of that scene, in blocks of 3 by 3 windows."""
    folder = tmp_path_factory.mktemp("mapped")
    scene = write_scene(folder / "a.tif", content, nodata=0)
    options = ["--block-windows", "3", "--formats", "geoparquet", "geojson", "gpkg"]
    assert predict.main(arguments(finished, scene, folder / "out", *options)) == 0
    return folder / "out" / "a"


def expected_cells(model: RunDir, content_HWC: NDArray[np.uint8]) -> NDArray[np.float32]:
    """Probabilities of cells from a plain loop over windows, without blocks; the corner is not excluded."""
    loaded = canopy.load(model.root, device="cpu")
    rows, columns = 7, 9
    padded = np.pad(content_HWC, [(0, 32), (0, 32), (0, 0)], mode="symmetric")
    chips = [padded[i * STRIDE :, j * STRIDE :][:SIZE, :SIZE] for i in range(rows) for j in range(columns)]
    probs_NK = loaded.predict_decoded(np.stack(chips)).probs_NK
    probs_HWK = probs_NK.reshape(rows, columns, -1)
    return blend(probs_HWK, window_weights(SIZE, STRIDE), 0, 8, 10)


def test_the_raster_holds_the_blended_windows_at_their_place(
    finished: RunDir, mapped: Path, content: NDArray[np.uint8]
) -> None:
    labels = canopy.load(finished.root, device="cpu").labels.names
    with rasterio.open(mapped / "probabilities.tif") as raster:
        assert raster.crs.to_string() == UTM
        assert raster.transform == NORTH_UP @ Affine.scale(STRIDE)
        assert raster.descriptions == labels
        assert raster.tags(ns="IMAGE_STRUCTURE")["LAYOUT"] == "COG"
        assert np.isnan(raster.nodata)
        found_HWK = np.moveaxis(raster.read(), 0, -1)
    assert found_HWK.shape == (8, 10, len(labels))
    empty_HW = ~np.isfinite(found_HWK).all(-1)
    nodata_HW = np.zeros((8, 10), bool)
    nodata_HW[:2, :3] = True  # cells with data in less than half
    np.testing.assert_array_equal(empty_HW[:2, :3], nodata_HW[:2, :3])
    assert not empty_HW[3:].any()
    far_HWK = expected_cells(finished, content)[4:, 4:]  # cells that no window with nodata reaches
    np.testing.assert_allclose(found_HWK[4:, 4:], far_HWK, atol=2e-5)


def test_cells_and_areas_agree_with_the_raster(finished: RunDir, mapped: Path) -> None:
    labels = canopy.load(finished.root, device="cpu").labels.names
    table = pq.read_table(mapped / "cells.parquet")
    geo = json.loads(pq.read_metadata(mapped / "cells.parquet").metadata[b"geo"])
    assert geo["primary_column"] == "geometry"
    assert geo["columns"]["geometry"]["crs"]["id"]["code"] == 32633
    squares_N = shapely.from_wkb(table["geometry"].to_pylist())
    assert shapely.area(squares_N) == pytest.approx(160**2)
    with (
        rasterio.open(mapped / "probabilities.tif") as raster,
        rasterio.open(mapped / "labels.tif") as decided,
    ):
        centers = [(point.x, point.y) for point in shapely.centroid(squares_N)]
        probs_NK = np.array(list(raster.sample(centers)))
        decisions_NK = np.array(list(decided.sample(centers)))
    found_NK = np.column_stack([table[f"prob:{label}"].to_numpy() for label in labels])
    np.testing.assert_array_equal(found_NK, probs_NK)
    areas = pq.read_table(mapped / "areas.parquet").to_pandas()
    with rasterio.open(mapped.parent.parent / "a.tif") as source:
        scene = shapely.box(*source.bounds)
    for k, label in enumerate(labels):
        decided_N = table[label].to_numpy()
        np.testing.assert_array_equal(decided_N, decisions_NK[:, k] == 1)
        mine = areas[areas["label"] == label]
        assert mine["cells"].sum() == decided_N.sum()
        inside_N = shapely.area(shapely.intersection(squares_N[decided_N == 1], scene))
        assert mine["hectares"].sum() == pytest.approx(inside_N.sum() / 1e4), (
            "areas end at the scene's border"
        )


def test_other_formats_hold_the_same_cells(mapped: Path) -> None:
    count = pq.read_table(mapped / "cells.parquet").num_rows
    info = pyogrio.read_info(mapped / "cells.gpkg")
    assert (info["features"], info["crs"], info["geometry_type"]) == (count, UTM, "Polygon")
    content = json.loads((mapped / "cells.geojson").read_text())
    assert len(content["features"]) == count
    (x, y), *_ = content["features"][0]["geometry"]["coordinates"][0]
    assert 14.9 < x < 15.1
    assert 46 < y < 48


def test_missing_blocks_are_scored_and_the_map_is_the_same(
    finished: RunDir, mapped: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    again = arguments(finished, mapped.parent.parent / "a.tif", mapped.parent, "--block-windows", "3")
    again += ["--formats", "geoparquet", "geojson", "gpkg"]
    assert predict.main(again) == 0
    assert "done already" in capsys.readouterr().out
    assert predict.main([*again, "--overlap", "0.25"]) == 2
    assert "another grid" in capsys.readouterr().err


@pytest.mark.slow
def test_a_map_in_one_block_equals_one_in_many(finished: RunDir, mapped: Path, tmp_path: Path) -> None:
    scene = mapped.parent.parent / "a.tif"
    assert predict.main(arguments(finished, scene, tmp_path / "out", "--crs", "EPSG:4326")) == 0
    with (
        rasterio.open(tmp_path / "out" / "a" / "probabilities.tif") as one,
        rasterio.open(mapped / "probabilities.tif") as many,
    ):
        np.testing.assert_allclose(one.read(), many.read(), atol=2e-5)
    metadata = pq.read_metadata(tmp_path / "out" / "a" / "cells.parquet").metadata
    box = json.loads(metadata[b"geo"])["columns"]["geometry"]["bbox"]
    assert 14.9 < box[0] < box[2] < 15.1
    assert not files.exists(str(tmp_path / "out" / "a" / "_blocks"))


@pytest.mark.parametrize(
    ("more", "problem"),
    [
        (["--resolution", "25"], "must have 25 m per pixel within a factor of 2"),
        (["--resolution", "4"], "must have 4 m per pixel within a factor of 2"),
        (["--images", "x"], "--images and --scene must be given one without the other"),
        (["--embeddings"], "--embeddings must not be given with --scene"),
    ],
)
def test_wrong_options_end_the_command_before_ray(
    more: list[str], problem: str, finished: RunDir, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    scene = write_scene(tmp_path / "a.tif", pixels(64, 64))
    assert predict.main(arguments(finished, scene, tmp_path / "out", *more)) == 2
    assert problem in capsys.readouterr().err


def test_scenes_that_cannot_be_mapped_end_the_command(
    finished: RunDir, experiment: Experiment, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for name, shape, problem in (("small", (20, 64), "as large as a chip"), ("crs", (64, 64), "coordinate")):
        crs = None if name == "crs" else UTM
        scene = write_scene(tmp_path / f"{name}.tif", pixels(*shape), crs=crs)
        assert predict.main(arguments(finished, scene, tmp_path / "out")) == 2
        assert problem in capsys.readouterr().err
    command = arguments(finished, write_scene(tmp_path / "a.tif", pixels(64, 64)), tmp_path / "out")
    del command[command.index("--resolution") :]
    assert predict.main(command) == 2
    assert "must state the metres per pixel of the training chips" in capsys.readouterr().err
