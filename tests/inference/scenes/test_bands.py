"""Scenes for models of several bands: windows are the chips that a file of the same pixels gives."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal

import numpy as np
import pytest
import rasterio
from affine import Affine
from numpy.typing import NDArray
from tests.bands import write_raster
from tests.inference.conftest import FOLDS, finished_run
from tests.inference.scenes.made import NORTH_UP, UTM, write_scene
from tests.support import tiny_experiment

import canopy
from canopy.bands import BandLayout, BandStatistics
from canopy.config import BandConfig, SensorConfig, derive
from canopy.data.raster.band_chips import read_band_chip
from canopy.errors import ConfigError, DataError
from canopy.inference.scenes.bands import parse_bands
from canopy.inference.scenes.blending import blend, window_weights
from canopy.inference.scenes.grid import Grid
from canopy.inference.scenes.job import check_nodata
from canopy.inference.scenes.reader import SceneReader, model_size
from canopy.inference.scenes.scene import SceneBands, check_scene
from canopy.storage.run_dir import RunDir
from jobs import predict

SIZE = 32
BANDS = (
    BandConfig(name="red", band=3),
    BandConfig(name="nir", band=4),
    BandConfig(name="ndvi", expression="ndvi"),
)
LAYOUT = BandLayout(BANDS)
FLOATS = BandLayout(
    (
        BandConfig(name="red", band=1, range=(0, 1), nodata=-1),
        BandConfig(name="nir", band=2, range=(0, 1), nodata=-1),
    )
)
FILES = BandLayout(
    (
        BandConfig(name="red", file="{id}_B04.tif"),
        BandConfig(name="nir", file="{id}_B08.tif"),
    )
)


def content(height: int = 90, width: int = 110, bands: int = 4) -> NDArray[np.uint16]:
    """Samples of a scene, above 0, coarse and fine."""
    rng = np.random.default_rng(1)
    coarse = rng.integers(200, 3000, (height // 8 + 1, width // 8 + 1, bands))
    fine = rng.integers(0, 200, (height, width, bands))
    return (np.kron(coarse, np.ones((8, 8, 1)))[:height, :width] + fine).astype(np.uint16)


def reader_of(path: Path, layout: BandLayout, factor: float = 1, **stated: int) -> SceneReader:
    scene = check_scene(str(path), SensorConfig(), SceneBands(layout, stated))
    height, width = model_size(scene, factor)
    return SceneReader(scene, Grid.of(height, width, SIZE, 0.5, 3), factor, SensorConfig(), layout)


def chip_of(folder: Path, window_HWC: NDArray[Any], layout: BandLayout, **options: Any) -> NDArray[Any]:
    """The chip of a file with the pixels of a window."""
    path = write_raster(folder / "chip.tif", np.moveaxis(window_HWC, -1, 0), **options)
    return read_band_chip(layout.addresses(str(path)), SIZE, layout, 10**8).levels


def test_windows_are_the_chips_of_training(tmp_path: Path) -> None:
    pixels_HWC = content()
    pixels_HWC[30:45, 50:70] = 0  # no data, in part of some windows
    one = reader_of(write_scene(tmp_path / "a.tif", pixels_HWC, nodata=0), LAYOUT)
    padded = np.pad(pixels_HWC, [(0, SIZE), (0, SIZE), (0, 0)], mode="symmetric")
    seen = 0
    for number in range(one.grid.blocks):
        block = one.grid.block(number)
        chips_nHWC, positions_n, shares_HW = one.read(number)
        assert chips_nHWC.dtype == np.uint16
        assert shares_HW.shape == (block.shape[0] + 1, block.shape[1] + 1)
        for chip_HWC, position in zip(chips_nHWC, positions_n.tolist(), strict=True):
            row, column = divmod(position, block.shape[1])
            y, x = (block.top + row) * 16, (block.left + column) * 16
            expected = chip_of(tmp_path, padded[y : y + SIZE, x : x + SIZE], LAYOUT, nodata=0)
            np.testing.assert_array_equal(chip_HWC, expected)
            seen += 1
    rows, columns = one.grid.windows
    assert seen == rows * columns


def test_floats_take_their_range_and_their_own_nodata(tmp_path: Path) -> None:
    pixels_HWC = content(64, 96, 2).astype(np.float32) / 4000
    pixels_HWC[:, :40] = -1
    pixels_HWC[0, 60] = np.nan
    one = reader_of(write_scene(tmp_path / "a.tif", pixels_HWC), FLOATS)
    chips_nHWC, positions_n, shares_HW = one.read(0)
    assert positions_n.tolist() == [2, 5, 8]  # of three columns, the first two have too little data
    assert shares_HW[0, :2].tolist() == [0, 0]
    expected = chip_of(tmp_path, pixels_HWC[16:48, 32:64], FLOATS)
    np.testing.assert_array_equal(chips_nHWC[1], expected)
    pixels_HWC[:] = -1
    with pytest.raises(DataError, match="must hold data"):
        reader_of(write_scene(tmp_path / "b.tif", pixels_HWC), FLOATS)


def test_a_finer_scene_is_averaged_as_floats(tmp_path: Path) -> None:
    coarse = content(80, 80, 2).astype(np.float32) / 4000
    coarse[:10, :10] = -1
    fine = np.kron(coarse, np.ones((2, 2, 1), np.float32))
    path = write_scene(tmp_path / "a.tif", fine, transform=NORTH_UP @ Affine.scale(0.5))
    one = reader_of(path, FLOATS, factor=2)
    chips_nHWC, positions_n, _ = one.read(0)
    assert positions_n[0] == 0
    expected = chip_of(tmp_path, coarse[:SIZE, :SIZE], FLOATS)
    assert np.abs(chips_nHWC[0].astype(int) - expected).max() <= 1


@pytest.mark.parametrize(
    ("own", "of_file", "effective"),
    [
        ((-1, -2), None, "-1, -2"),
        ((0, None), None, "0, none"),
        ((0, None), 65535, "0, 65535"),
        ((0, None), 0, None),
        ((None, None), 7, None),
    ],
)
def test_bands_that_differ_in_nodata_are_not_resampled(
    own: tuple[float | None, float | None], of_file: float | None, effective: str | None, tmp_path: Path
) -> None:
    layout = BandLayout(tuple(derive(band, nodata=n) for band, n in zip(LAYOUT.bands[:2], own, strict=True)))
    scene = reader_of(write_scene(tmp_path / "a.tif", content(), nodata=of_file), layout).scene
    check_nodata(scene, 1)
    if effective is None:
        check_nodata(scene, 2)
        return
    with pytest.raises(DataError, match=f"one nodata for all bands .* resampled. Got: {effective}"):
        check_nodata(scene, 2)


@pytest.mark.parametrize(("factor", "dtype"), [(1.5, "uint8"), (2, "uint8"), (2, "uint16")])
def test_a_finer_scene_of_levels_is_averaged(
    factor: float, dtype: Literal["uint8", "uint16"], tmp_path: Path
) -> None:
    levels_HWC = (content(144, 144) // 16).astype(np.uint8) if dtype == "uint8" else content(144, 144)
    layout = BandLayout(LAYOUT.bands[:2], dtype=dtype)
    path = write_scene(tmp_path / "a.tif", levels_HWC, transform=NORTH_UP @ Affine.scale(1 / factor))
    one = reader_of(path, layout, factor)
    chips_nHWC, positions_n, _ = one.read(0)
    assert positions_n.tolist() == list(range(9))
    means_hwC = chips_nHWC[0].reshape(4, 8, 4, 8, 2).mean((1, 3))
    step = round(8 * factor)
    stored_HWC = levels_HWC[: 4 * step, : 4 * step, [2, 3]]
    expected_hwC = stored_HWC.reshape(4, step, 4, step, 2).mean((1, 3))
    np.testing.assert_allclose(means_hwC, expected_hwC, rtol=0.02)


def test_pixels_without_a_value_in_one_band_have_no_weight_in_a_finer_scene(tmp_path: Path) -> None:
    pixels_HWC = np.full((128, 128, 4), 1000, np.uint16)
    pixels_HWC[::2, :, 2] = 7  # half of every model pixel
    pixels_HWC[:40, :40, 2] = 7  # and all of some
    path = write_scene(tmp_path / "a.tif", pixels_HWC, transform=NORTH_UP @ Affine.scale(0.5), nodata=7)
    one = reader_of(path, LAYOUT, factor=2)
    chips_nHWC, _, shares_HW = one.read(0)
    assert np.unique(chips_nHWC[..., :2]).tolist() == [1000]
    assert shares_HW[0, 0] < shares_HW[-1, -1] == 1


@pytest.mark.parametrize("nodata", [None, 7])
def test_a_mask_counts_in_a_finer_scene(nodata: float | None, tmp_path: Path) -> None:
    pixels_HWC = content(128, 128)
    path = write_scene(tmp_path / "a.tif", pixels_HWC, transform=NORTH_UP @ Affine.scale(0.5), nodata=nodata)
    mask_HW = np.ones((128, 128), bool)
    mask_HW[:, :64] = False
    with rasterio.open(path, "r+") as file:
        file.write_mask(mask_HW)
    _, positions_n, shares_HW = reader_of(path, LAYOUT, factor=2).read(0)
    assert positions_n.tolist() == [1, 2, 4, 5, 7, 8]
    np.testing.assert_array_equal(shares_HW[:4, :4], [[0, 0, 1, 1]] * 4)


def test_the_unit_of_floats_is_that_of_the_whole_scene(tmp_path: Path) -> None:
    pixels_HWC = np.full((1200, 1200, 2), 0.2, np.float32)
    pixels_HWC[300:900, 300:900] = 5
    one = reader_of(write_scene(tmp_path / "a.tif", pixels_HWC), FLOATS)
    _, first_n, _ = one.read(0)
    assert len(first_n) == 9
    _, none_n, _ = one.read(one.grid.blocks // 2)
    assert len(none_n) == 0  # floats far outside the range


def test_bands_of_several_files_are_found_by_description_or_as_stated(tmp_path: Path) -> None:
    path = write_scene(tmp_path / "a.tif", content())
    with pytest.raises(DataError, match=r"must describe one band as red.*none, none.*--bands red=NUM"):
        reader_of(path, FILES)
    assert reader_of(path, FILES, red=2, nir=4).scene.bands == (2, 4)
    with rasterio.open(path, "r+") as file:
        file.set_band_description(1, "NIR")
        file.set_band_description(3, "red")
    assert reader_of(path, FILES).scene.bands == (3, 1)
    # One file per chip: numbers count, and a description that contradicts them is refused.
    with rasterio.open(path, "r+") as file:
        file.set_band_description(4, "red")
    with pytest.raises(DataError, match=r"must have nir as its band 4, as the training chips. Got: a"):
        reader_of(path, LAYOUT)
    one = reader_of(path, LAYOUT, red=4, nir=1)
    assert (one.scene.bands, one.scene.shown) == ((4, 1), (4, 1, 4))


@pytest.mark.parametrize(
    ("pixels_HWC", "layout", "problem"),
    [
        (content(bands=3), LAYOUT, r"must have the bands 3, 4 that the model reads. Got: 3 band"),
        (
            content(bands=4).astype(np.float32),
            LAYOUT,
            r"red has samples of type float32, which are",
        ),
        (
            content(bands=2).astype(np.float32),
            FLOATS,
            r"red has values around .*, far outside its range",
        ),
    ],
    ids=["bands", "type", "unit"],
)
def test_what_the_model_cannot_read_is_refused(
    pixels_HWC: NDArray[Any], layout: BandLayout, problem: str, tmp_path: Path
) -> None:
    path = write_scene(tmp_path / "a.tif", pixels_HWC)
    with pytest.raises(DataError, match=problem):
        reader_of(path, layout)


@pytest.mark.parametrize(
    ("given", "layout", "problem"),
    [
        (["red=1"], None, "must not be given for a model of RGB chips"),
        (["red"], LAYOUT, "must be of the form NAME=NUMBER. Got: red"),
        (["red=0"], LAYOUT, "must be of the form NAME=NUMBER"),
        (["ndvi=1"], LAYOUT, "must name each of the model's bands once. Got: ndvi=1"),
        (["red=1", "red=2"], LAYOUT, "must name each of the model's bands once"),
        (["red=1"], LAYOUT, "must name all of the model's bands: red, nir. Got: red=1. Add nir=NUMBER"),
    ],
)
def test_bad_options(given: list[str], layout: BandLayout | None, problem: str) -> None:
    with pytest.raises(ConfigError, match=problem):
        parse_bands(given, layout)


def test_good_options() -> None:
    assert parse_bands(["nir=4", "red=3"], LAYOUT) == {"red": 3, "nir": 4}
    assert parse_bands([], None) == {}


@pytest.fixture(scope="module")
def finished_bands(tmp_path_factory: pytest.TempPathFactory) -> RunDir:
    """A run of red, near infrared and an index, with random networks."""
    tiny = tiny_experiment(variants=1, trials=0)
    data = derive(tiny.data, source="table", root="/data", bands=BANDS, image_size=SIZE)
    experiment = derive(tiny, data=data, folds=FOLDS)
    levels = {"mean": (1500.0, 1500.0, 32768.0), "std": (900.0, 900.0, 9000.0), "low": (200.0,) * 3}
    statistics = BandStatistics(
        LAYOUT.names,
        "uint16",
        LAYOUT.ranges,
        **levels,
        median=(1500.0,) * 3,
        high=(3000.0,) * 3,
        display=(0, 1, 2),
    )
    return finished_run(tmp_path_factory.mktemp("bands"), experiment, statistics)


@pytest.mark.slow
@pytest.mark.usefixtures("ray_here")
def test_the_command_maps_a_scene_of_bands(
    finished_bands: RunDir, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    pixels_HWC = content(80, 96)
    scene = write_scene(tmp_path / "a.tif", pixels_HWC)
    words = ["--model", finished_bands.root, "--scene", str(scene), "--resolution", "10"]
    assert predict.main([*words, "--out", str(tmp_path / "out"), "--block-windows", "2"]) == 0
    model = canopy.load(finished_bands.root, device="cpu")
    padded = np.pad(pixels_HWC, [(0, SIZE), (0, SIZE), (0, 0)], mode="symmetric")
    windows = [padded[16 * i :, 16 * j :][:SIZE, :SIZE] for i in range(4) for j in range(5)]
    paths = [str(tmp_path / "chips" / f"{n}.tif") for n in range(len(windows))]
    for path, window_HWC in zip(paths, windows, strict=True):
        write_raster(Path(path), np.moveaxis(window_HWC, -1, 0))
    probs_HWK = model.predict(paths).probs_NK.reshape(4, 5, -1)
    with rasterio.open(tmp_path / "out" / "a" / "probabilities.tif") as raster:
        assert raster.crs.to_string() == UTM
        found_HWK = np.moveaxis(raster.read(), 0, -1)
    expected_HWK = blend(probs_HWK, window_weights(SIZE, 16), 0, 5, 6)
    assert np.ptp(expected_HWK) > 0.01
    np.testing.assert_allclose(found_HWK, expected_HWK, atol=2e-5)
    assert (tmp_path / "out" / "a" / "map.html").exists()
    assert predict.main([*words, "--out", str(tmp_path / "other"), "--bands", "red=1"]) == 2
    assert "--bands must name all of the model's bands" in capsys.readouterr().err
