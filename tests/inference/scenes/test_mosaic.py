"""One mosaic of several maps: places, overlaps, decisions, and scenes that cannot be one."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import rasterio
from affine import Affine
from numpy.typing import NDArray
from tests.ensemble.worlds import FAST, world
from tests.inference.scenes.made import NORTH_UP, UTM, arguments, pixels, write_scene

from canopy.ensemble.fit import fit_ensemble
from canopy.ensemble.model import Ensemble
from canopy.errors import DataError
from canopy.inference.scenes import mosaic
from canopy.inference.scenes.mosaic import check_mosaic, place_maps, write_mosaic
from canopy.inference.scenes.rasters import grid_file
from canopy.inference.scenes.scene import Scene
from canopy.storage.run_dir import RunDir
from jobs import predict

CELL = Affine(160, 0, 500_000, 0, -160, 5_200_000)


@pytest.fixture(scope="module")
def ensemble() -> Ensemble:
    """An ensemble of four labels."""
    return fit_ensemble(world(300), FAST)


def write_probabilities(folder: Path, probs_HWK: NDArray[np.float32], transform: Affine) -> str:
    """Write a map's probabilities; its directory."""
    folder.mkdir(parents=True)
    names = [f"label{k}" for k in range(probs_HWK.shape[2])]
    form = (probs_HWK.shape[:2], transform, rasterio.CRS.from_string(UTM).to_wkt(), names, "float32", np.nan)
    with grid_file(folder / "probabilities.tif", *form) as dataset:
        dataset.write(np.moveaxis(probs_HWK, -1, 0))
    return str(folder)


def test_maps_lie_at_their_places_and_overlaps_are_averaged(
    ensemble: Ensemble, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(mosaic, "SIDE", 4)
    rng, count = np.random.default_rng(0), len(ensemble.labels)
    first_HWK, second_HWK = rng.random((6, 5, count), np.float32), rng.random((4, 7, count), np.float32)
    first_HWK[0, 0], second_HWK[1, 0] = np.nan, np.nan
    # The second begins 3 cells to the left and 4 below; its grid is off by a third of a cell.
    moved = CELL @ Affine.translation(-3 + 1 / 3, 4 - 1 / 3)
    maps = [
        write_probabilities(tmp_path / "a", first_HWK, CELL),
        write_probabilities(tmp_path / "b", second_HWK, moved),
    ]
    assert write_mosaic(maps, str(tmp_path), ensemble) == (8, 8)
    total_HWK, count_HW1 = np.zeros((8, 8, count)), np.zeros((8, 8, 1))
    for probs_HWK, top, left in ((first_HWK, 0, 3), (second_HWK, 4, 0)):
        valid_HW1 = np.isfinite(probs_HWK).all(-1, keepdims=True)
        rows, columns = slice(top, top + len(probs_HWK)), slice(left, left + probs_HWK.shape[1])
        total_HWK[rows, columns] += np.where(valid_HW1, probs_HWK, 0)
        count_HW1[rows, columns] += valid_HW1
    assert count_HW1.max() == 2
    with np.errstate(invalid="ignore"):
        expected_HWK = total_HWK / count_HW1
    with rasterio.open(tmp_path / "mosaic" / "probabilities.tif") as raster:
        assert raster.crs.to_string() == UTM
        assert raster.transform == CELL @ Affine.translation(-3, 0)
        assert raster.descriptions == ensemble.labels.names
        assert raster.tags(ns="IMAGE_STRUCTURE")["LAYOUT"] == "COG"
        found_HWK = np.moveaxis(raster.read(), 0, -1)
    np.testing.assert_allclose(found_HWK, expected_HWK, atol=1e-6)
    with rasterio.open(tmp_path / "mosaic" / "labels.tif") as raster:
        decided_HWK = np.moveaxis(raster.read(), 0, -1)
    valid_HW = count_HW1[..., 0] > 0
    np.testing.assert_array_equal(decided_HWK[valid_HW], ensemble.decide(found_HWK[valid_HW]))
    assert (decided_HWK[~valid_HW] == 255).all()
    assert (tmp_path / "mosaic" / "probabilities.qml").exists()


def test_a_single_map_is_its_own_mosaic(ensemble: Ensemble, tmp_path: Path) -> None:
    probs_HWK = np.random.default_rng(1).random((5, 9, len(ensemble.labels)), np.float32)
    folder = write_probabilities(tmp_path / "a", probs_HWK, CELL)
    grid, (placed,) = place_maps([f"{folder}/probabilities.tif"])
    assert (grid.height, grid.width, grid.transform) == (5, 9, CELL)
    assert (placed.top, placed.left, placed.bottom, placed.right) == (0, 0, 5, 9)
    write_mosaic([folder], str(tmp_path), ensemble)
    with rasterio.open(tmp_path / "mosaic" / "probabilities.tif") as raster:
        np.testing.assert_array_equal(np.moveaxis(raster.read(), 0, -1), probs_HWK)


def scene(name: str, crs: str = UTM) -> Scene:
    wkt = rasterio.CRS.from_string(crs).to_wkt()
    return Scene(f"/{name}.tif", 100, 100, NORTH_UP, wkt, 10.0, (1, 2, 3))


def test_scenes_that_cannot_be_one_mosaic_are_refused() -> None:
    check_mosaic([scene("a"), scene("b")])
    with pytest.raises(DataError, match=r"one CRS\. Got: EPSG:32633 of a and EPSG:32634 of b"):
        check_mosaic([scene("a"), scene("b", "EPSG:32634")])
    with pytest.raises(DataError, match="must not be given with a scene named mosaic"):
        check_mosaic([scene("mosaic")])


def test_the_command_refuses_before_it_starts(
    finished: RunDir, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for n, crs in enumerate((UTM, "EPSG:32634")):
        write_scene(tmp_path / "scenes" / f"{n}.tif", np.maximum(pixels(40, 40, n), 1), crs)
    given = arguments(finished, tmp_path / "scenes", tmp_path / "out", "--mosaic")
    assert predict.main(given) == 2
    assert "--mosaic must be made of scenes of one CRS" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


@pytest.mark.slow
@pytest.mark.usefixtures("ray_here")
def test_the_command_writes_the_mosaic_of_a_folder(finished: RunDir, tmp_path: Path) -> None:
    whole_HWC = np.maximum(pixels(80, 128, seed=4), 1)
    for name, left in (("a", 0), ("b", 64)):
        part_HWC = np.ascontiguousarray(whole_HWC[:, left : left + 64])
        write_scene(
            tmp_path / "s" / f"{name}.tif", part_HWC, transform=NORTH_UP @ Affine.translation(left, 0)
        )
    assert predict.main(arguments(finished, tmp_path / "s", tmp_path / "out", "--mosaic")) == 0
    with rasterio.open(tmp_path / "out" / "mosaic" / "probabilities.tif") as raster:
        assert (raster.height, raster.width) == (5, 8)
        found = raster.read()
    for name, columns in (("a", slice(0, 4)), ("b", slice(4, 8))):
        with rasterio.open(tmp_path / "out" / name / "probabilities.tif") as raster:
            np.testing.assert_array_equal(found[..., columns], raster.read())
