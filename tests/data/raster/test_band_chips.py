from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import rasterio
from tests.bands import layout, noise, write_raster
from tests.bigearthnet import PATCH, real_patch

from canopy.bands import BandLayout
from canopy.config import BandConfig
from canopy.config.band_expression import parse_expression
from canopy.data.raster.band_chips import evaluate, read_band_chip
from canopy.data.raster.errors import UnreadableImageError

__all__ = ["real_patch"]

MAX_BYTES = 400_000_000
BANDS = ("B01", "B02", "B03", "B04", "B05", "B06", "B07", "B08", "B8A", "B09", "B11", "B12")


def read(path: Path | str, wanted: BandLayout, size: int) -> Any:
    return read_band_chip(wanted.addresses(str(path)), size, wanted, MAX_BYTES)


def of_file(count: int, **options: Any) -> BandLayout:
    return layout(*(BandConfig(name=f"b{n}", band=n, **options) for n in range(1, count + 1)))


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"tiled": True, "blockxsize": 16, "blockysize": 16, "compress": "deflate", "interleave": "band"},
        {"tiled": True, "blockxsize": 16, "blockysize": 16, "compress": "zstd", "predictor": 2},
        {"compress": "lzw", "interleave": "pixel", "BIGTIFF": "YES"},
        {"compress": "packbits", "blockysize": 3},
        {"NBITS": 12, "high": 4096},
        {"driver": "JP2OpenJPEG", "QUALITY": "100", "REVERSIBLE": "YES", "high": 4096},
        {"dtype": "uint8", "high": 256},
        {"driver": "PNG", "count": 4, "high": 65536},
    ],
    ids=str,
)
def test_integers_become_levels_unchanged(tmp_path: Path, options: dict[str, Any]) -> None:
    given = dict(options)
    made = noise(given.pop("count", 5), 40, given.pop("dtype", "uint16"), given.pop("high", 60_000))
    path = write_raster(tmp_path / "a.tif", made, **given)
    chip = read(path, of_file(len(made)), 40)
    assert chip.levels.dtype == np.uint16
    np.testing.assert_array_equal(chip.levels, np.moveaxis(made, 0, -1))
    assert (chip.width, chip.height, chip.nodata) == (40, 40, 0)


def test_a_vrt_of_single_files(tmp_path: Path) -> None:
    made = noise(2, 20)
    for n in range(2):
        write_raster(tmp_path / f"{n}.tif", made[n : n + 1])
    source = '<VRTRasterBand dataType="UInt16" band="{}"><SimpleSource><SourceFilename relativeToVRT="1">'
    source += "{}.tif</SourceFilename><SourceBand>1</SourceBand></SimpleSource></VRTRasterBand>"
    bands = "".join(source.format(n + 1, n) for n in range(2))
    vrt = tmp_path / "a.vrt"
    vrt.write_text(f'<VRTDataset rasterXSize="20" rasterYSize="20">{bands}</VRTDataset>')
    np.testing.assert_array_equal(read(vrt, of_file(2), 20).levels, np.moveaxis(made, 0, -1))
    (tmp_path / "1.tif").unlink()
    with pytest.raises(UnreadableImageError, match="damaged or truncated"):
        read(vrt, of_file(2), 20)


def test_floats_take_their_range(tmp_path: Path) -> None:
    made = noise(1, 16, "float32")
    made[0, 0, :2] = [-0.25, 1.5]
    path = write_raster(tmp_path / "a.tif", made)
    chip = read(path, of_file(1, range=(0, 1)), 16).levels[..., 0]
    np.testing.assert_array_equal(chip, np.rint(np.clip(made[0], 0, 1).astype(np.float64) * 65535))
    scaled = layout(BandConfig(name="b", scale=0.01, offset=-0.1, range=(-0.1, 1.5)), dtype="uint8")
    stored = write_raster(tmp_path / "b.tif", noise(1, 16, "uint8", 160))
    with rasterio.open(stored) as file:
        value = file.read(1) * 0.01 - 0.1
    got = read(stored, scaled, 16).levels[..., 0]
    assert got.dtype == np.uint8
    assert np.abs(got - (value + 0.1) / 1.6 * 255).max() <= 0.51


@pytest.mark.parametrize(("dtype", "high"), [("int16", 3000), ("float32", 1), ("uint32", 9)])
def test_samples_that_are_no_levels_need_a_range(tmp_path: Path, dtype: str, high: int) -> None:
    path = write_raster(tmp_path / "a.tif", noise(1, 8, dtype, high))
    with pytest.raises(UnreadableImageError, match=r"b1 has samples of type .* set its range in data.bands"):
        read(path, of_file(1), 8)


def test_values_in_another_unit_are_refused(tmp_path: Path) -> None:
    path = write_raster(tmp_path / "a.tif", noise(1, 8, "float32") * 10_000)
    with pytest.raises(UnreadableImageError, match="far outside its range 0 to 1"):
        read(path, of_file(1, range=(0, 1)), 8)


def test_nodata_is_filled_with_the_mean_of_the_band(tmp_path: Path) -> None:
    made = noise(2, 10) + 1
    made[0, :3] = 0
    path = write_raster(tmp_path / "a.tif", made, nodata=0)
    chip = read(path, of_file(2), 10)
    assert chip.nodata == pytest.approx(0.3)
    assert (chip.levels[:3, :, 0] == round(made[0, 3:].mean())).all()
    np.testing.assert_array_equal(chip.levels[3:, :, 0], made[0, 3:])
    np.testing.assert_array_equal(chip.levels[..., 1], made[1])
    strict = BandLayout(of_file(2).bands, "uint16", 0.29)
    with pytest.raises(UnreadableImageError, match=r"30% of its pixels have no value .* data.max_nodata"):
        read(path, strict, 10)


def test_not_a_number_has_no_weight_in_a_resize(tmp_path: Path) -> None:
    made = np.full((1, 20, 20), 0.5, np.float32)
    made[0, :4] = np.nan
    path = write_raster(tmp_path / "a.tif", made)
    chip = read(path, of_file(1, range=(0, 1)), 10)
    assert chip.nodata == pytest.approx(0.2)
    assert (chip.levels == round(0.5 * 65535)).all()


def test_a_chip_without_any_value(tmp_path: Path) -> None:
    path = write_raster(tmp_path / "a.tif", np.zeros((1, 8, 8), np.uint16), nodata=0)
    with pytest.raises(UnreadableImageError, match="100% of its pixels"):
        read(path, of_file(1), 8)
    assert not read(path, BandLayout(of_file(1).bands, "uint16", 1.0), 8).levels.any()


@pytest.mark.parametrize(("sizes", "problem"), [((24, 12, 4), ""), ((24, 10), "pixels do not nest")])
def test_files_of_several_sizes(tmp_path: Path, sizes: Sequence[int], problem: str) -> None:
    for n, size in enumerate(sizes):
        write_raster(tmp_path / "p" / f"p_{n}.tif", noise(1, size), pixel=240 / size)
    wanted = layout(*(BandConfig(name=f"b{n}", file=f"{{id}}/{{id}}_{n}.tif") for n in range(len(sizes))))
    if problem:
        with pytest.raises(UnreadableImageError, match=problem):
            read(tmp_path / "p", wanted, 24)
        return
    chip = read(tmp_path / "p", wanted, 24)
    assert chip.levels.shape == (24, 24, len(sizes))
    np.testing.assert_array_equal(chip.levels[..., 0], noise(1, 24)[0])


def test_files_of_several_places(tmp_path: Path) -> None:
    wanted = layout(BandConfig(name="a", file="a.tif"), BandConfig(name="b", file="b.tif"))
    write_raster(tmp_path / "a.tif", noise(1, 8))
    write_raster(tmp_path / "b.tif", noise(1, 8), left=700_000)
    with pytest.raises(UnreadableImageError, match=r"files of different places: b.tif and a.tif"):
        read(tmp_path / "chip", wanted, 8)
    write_raster(tmp_path / "b.tif", noise(1, 8), crs="EPSG:32630")
    with pytest.raises(UnreadableImageError, match=r"different coordinate systems: b.tif EPSG:32630"):
        read(tmp_path / "chip", wanted, 8)


def test_bad_files_are_named(tmp_path: Path) -> None:
    path = write_raster(
        tmp_path / "a.tif", noise(3, 64), compress="deflate", tiled=True, blockxsize=32, blockysize=32
    )
    with pytest.raises(UnreadableImageError, match=r"it has 3 bands, and data.bands names band 4"):
        read(path, of_file(4), 64)
    whole = path.read_bytes()
    for length in (100, len(whole) // 2, len(whole) - 10):
        path.write_bytes(whole[:length])
        with pytest.raises(UnreadableImageError):
            read(path, of_file(3), 64)
    path.write_bytes(b"")
    with pytest.raises(UnreadableImageError, match="empty"):
        read(path, of_file(3), 64)
    path.write_bytes(whole)
    with pytest.raises(UnreadableImageError, match=r"data.max_image_mb"):
        read_band_chip(str(path), 64, of_file(3), 100_000)
    path.write_text("text")
    with pytest.raises(UnreadableImageError, match="no TIFF"):
        read(path, of_file(3), 64)


def test_an_index_is_computed_from_values(tmp_path: Path) -> None:
    made = noise(2, 12) + 1
    path = write_raster(tmp_path / "a.tif", made)
    red, nir = BandConfig(name="red"), BandConfig(name="nir", band=2)
    chip = read(path, layout(red, nir, BandConfig(name="ndvi", expression="ndvi")), 12).levels
    red_HW, nir_HW = made.astype(np.float64)
    expected = np.rint(((nir_HW - red_HW) / (nir_HW + red_HW) + 1) / 2 * 65535)
    assert np.abs(chip[..., 2].astype(float) - expected).max() <= 1


def test_an_expression_without_a_value_is_filled() -> None:
    values = {"a": np.array([[1, 0]], np.float32), "b": np.array([[1, 0]], np.float32)}
    found = evaluate(parse_expression("-(a / b) + max(a, 2) ** 2 - abs(-1)", "x"), values)
    assert found[0, 0] == 2
    assert np.isnan(found[0, 1])


def test_a_real_patch_pixel_for_pixel(real_patch: Path) -> None:
    bands = [BandConfig(name=name.lower(), file=f"{{id}}_{name}.tif") for name in BANDS]
    chip = read(real_patch / PATCH, layout(*bands), 120)
    assert chip.levels.shape == (120, 120, 12)
    native = 0
    for channel, name in enumerate(BANDS):
        with rasterio.open(real_patch / f"{PATCH}_{name}.tif") as file:
            expected = file.read(1)
            smooth = file.read(1, out_shape=(120, 120), resampling=rasterio.enums.Resampling.bilinear)
        if expected.shape == (120, 120):
            np.testing.assert_array_equal(chip.levels[..., channel], expected)
            native += 1
        else:
            assert np.abs(chip.levels[..., channel].astype(int) - smooth).max() <= 1
    assert native == 4
