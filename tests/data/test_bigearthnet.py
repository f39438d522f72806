"""BigEarthNet in both versions, from made-up archives of its layouts and from one real patch."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import rasterio
from tests.bands import write_raster
from tests.bigearthnet import (
    PATCH,
    TILE,
    data_config,
    real_patch,
    write_patch,
    write_version_1,
    write_version_2,
)

from canopy.bands import SEVERAL_FILES, BandLayout
from canopy.config import SENTINEL2, BandConfig, DataConfig, sentinel2_bands
from canopy.data.bigearthnet_labels import LABELS_19
from canopy.data.listing import Listing
from canopy.data.raster.band_chips import read_band_chip
from canopy.data.raster.georeference import metres_per_pixel
from canopy.data.sources import list_images
from canopy.errors import DataError

__all__ = ["real_patch"]

NAMES = tuple(f"S2A_MSIL2A_20170613T101031_{n}_4" for n in range(5))
LABELS = dict(
    zip(
        NAMES,
        (
            ["Sea and ocean", "Estuaries"],
            ["Pastures", "Airports"],
            ["Airports"],
            ["Transitional woodland/shrub"],
            ["Pastures"],
        ),
        strict=True,
    )
)


def listed(root: Path, config: DataConfig) -> Listing:
    return list_images(config, str(root))


def lists(folder: Path, **content: str) -> None:
    folder.mkdir(exist_ok=True)
    for name, lines in content.items():
        (folder / f"{name}.csv").write_text(lines)


def test_version_1_with_its_lists(tmp_path: Path) -> None:
    write_version_1(tmp_path, LABELS, pixels=False)
    lists(
        tmp_path / "lists",
        train=f"{NAMES[1]}\n{NAMES[0]}\r\n\n",
        val=f"{NAMES[3]},S1A_x\n",
        test=f"{NAMES[2]}\n",
        patches_with_seasonal_snow=f"{NAMES[3]}\n",
        patches_with_cloud_and_shadow="",
    )
    listing = listed(tmp_path, data_config(1, lists="lists"))
    assert listing.ids == [NAMES[0], NAMES[1], NAMES[3]]
    assert listing.splits == ["train", "train", "val"]
    assert listing.tags == [("Marine waters",), ("Pastures",), ("Transitional woodland, shrub",)]
    assert listing.labels.names == ("Pastures", "Transitional woodland, shrub", "Marine waters")
    assert listing.notes == ("1 patch has none of the 19 labels and is left out.",)
    assert listing.bad == {}
    assert listing.groups is None
    without = listed(tmp_path, data_config(1, lists="lists", leave_out=("clouds", "snow")))
    assert without.ids == [NAMES[0], NAMES[1]]
    assert without.notes[0] == "1 patch with seasonal snow is left out."


def test_version_1_with_all_labels_and_no_lists(tmp_path: Path) -> None:
    write_version_1(tmp_path, LABELS, pixels=False)
    listing = listed(tmp_path, data_config(1, nomenclature=43, official_splits=False))
    assert listing.ids == list(NAMES)
    assert listing.splits is None
    assert listing.tags[1] == ("Pastures", "Airports")
    assert listing.labels.names == (
        "Airports",
        "Pastures",
        "Transitional woodland/shrub",
        "Estuaries",
        "Sea and ocean",
    )
    assert listing.notes == ()


def test_a_patch_of_version_1_without_metadata_or_files_is_named(tmp_path: Path) -> None:
    write_version_1(tmp_path, LABELS, pixels=False)
    folder = tmp_path / "BigEarthNet-v1.0"
    (folder / NAMES[0] / f"{NAMES[0]}_labels_metadata.json").unlink()
    (folder / NAMES[1] / f"{NAMES[1]}_labels_metadata.json").write_text("{")
    (folder / NAMES[3] / f"{NAMES[3]}_labels_metadata.json").write_text('{"labels": "Pastures"}')
    (folder / NAMES[2] / f"{NAMES[2]}_B8A.tif").unlink()
    (folder / ".thumbnails").mkdir()
    (folder / "__MACOSX").mkdir()
    lists(tmp_path, train="\n".join([*NAMES, "elsewhere"]), val="", test="")
    listing = listed(tmp_path, data_config(1, nomenclature=19))
    assert listing.ids == [NAMES[4]]
    assert set(listing.bad) == {NAMES[0], NAMES[1], NAMES[3], "elsewhere"}  # NAMES[2] has no label of the 19
    assert "cannot be read: No such file" in listing.bad[NAMES[0]]
    assert "it has no list of labels" in listing.bad[NAMES[3]]
    assert "there is no folder" in listing.bad["elsewhere"]
    at_random = listed(tmp_path, data_config(1, nomenclature=19, official_splits=False))
    assert set(at_random.bad) == {NAMES[0], NAMES[1], NAMES[3]}  # hidden folders are no patches
    all_labels = listed(tmp_path, data_config(1, nomenclature=43))
    assert f"there is no file {folder}/{NAMES[2]}/{NAMES[2]}_B8A.tif" in all_labels.bad[NAMES[2]]


@pytest.mark.parametrize(
    ("train", "options", "message"),
    [
        (None, {}, r"A list of BigEarthNet must be a file that can be read. Got: .*/train.csv. Put it there"),
        ("a", {"leave_out": ["snow"]}, r"patches_with_seasonal_snow.csv"),
        (f"{NAMES[4]}\n", {}, rf"val.csv, line 1 must not name a patch of train. Got: {NAMES[4]}"),
        ("a\n", {"sentinel1": "S1"}, r"train.csv, line 1 must name the Sentinel-1 patch"),
    ],
)
def test_lists_of_version_1_that_cannot_be_used(
    tmp_path: Path, train: str | None, options: dict[str, Any], message: str
) -> None:
    write_version_1(tmp_path, {NAMES[4]: ["Pastures"]}, pixels=False)
    if train is not None:
        lists(tmp_path, train=train, val=f"{NAMES[4]}\n", test="")
    bands: dict[str, Any] = {}
    if "sentinel1" in options:
        bands["bands"] = (*sentinel2_bands(), BandConfig(name="vv", column="VV", range=(-30, 5)))
    with pytest.raises(DataError, match=message):
        listed(tmp_path, data_config(1, **options, **bands))


def test_a_label_that_version_1_does_not_have(tmp_path: Path) -> None:
    write_version_1(tmp_path, {NAMES[0]: ["Pasture"]}, pixels=False)
    with pytest.raises(
        DataError, match=r"must have labels of the 43 of BigEarthNet. Got: 'Pasture'. Nearest: Past"
    ):
        listed(tmp_path, data_config(1, official_splits=False))


def test_version_2(tmp_path: Path) -> None:
    rows: list[dict[str, Any]] = [
        {"patch_id": f"{TILE}_61_39", "labels": ["Marine waters", "Pastures"]},
        {"patch_id": f"{TILE}_61_40", "split": "validation", "contains_seasonal_snow": True},
        {"patch_id": f"{TILE}_61_41", "split": "test", "contains_cloud_or_shadow": True},
        {"patch_id": f"{TILE}_61_42", "labels": []},
    ]
    write_version_2(tmp_path, rows)
    listing = listed(tmp_path, data_config(2))
    assert listing.ids == [f"{TILE}_61_{n}" for n in (39, 40, 41)]
    assert listing.splits == ["train", "val", "test"]
    assert listing.labels.names == ("Pastures", "Marine waters")
    first = listing.uris[0].split(SEVERAL_FILES)
    assert first[0] == f"{tmp_path}/BigEarthNet-S2/{TILE}/{TILE}_61_39/{TILE}_61_39_B01.tif"
    assert len(first) == 12
    assert listing.notes == ("1 patch has none of the 19 labels and is left out.",)
    without = listed(tmp_path, data_config(2, leave_out=("snow",), official_splits=False))
    assert without.ids == [f"{TILE}_61_39", f"{TILE}_61_41"]
    assert without.splits is None
    more = [{"patch_id": f"{TILE}_7_1", "contains_seasonal_snow": True}]
    write_version_2(tmp_path, more, "more.parquet")
    assert listed(tmp_path, data_config(2, more_metadata="more.parquet")).ids[-1] == f"{TILE}_7_1"


@pytest.mark.parametrize(
    ("row", "options", "message"),
    [
        ({"patch_id": "x"}, {}, r"row 1 must name a patch, TILE_COLUMN_ROW. Got: x"),
        ({"split": ""}, {}, r"row 1 must have train, validation or test as its split"),
        ({"split": "holdout"}, {}, r"row 1 must have train, validation or test as its split. Got: holdout"),
        ({"labels": ["Airports"]}, {}, r"must have labels of the 19 of BigEarthNet. Got: 'Airports'"),
        ({"contains_seasonal_snow": None}, {"leave_out": ["snow"]}, r"must be true or false"),
    ],
)
def test_metadata_of_version_2_that_cannot_be_used(
    tmp_path: Path, row: dict[str, Any], options: dict[str, Any], message: str
) -> None:
    write_version_2(tmp_path, [{"patch_id": f"{TILE}_1_1", **row}])
    with pytest.raises(DataError, match=message):
        listed(tmp_path, data_config(2, **options))


def test_a_table_that_is_no_metadata(tmp_path: Path) -> None:
    (tmp_path / "BigEarthNet-S2").mkdir()
    (tmp_path / "metadata.csv").write_text("patch,labels\na,b\n")
    with pytest.raises(
        DataError, match=r"must have the columns patch_id and labels and split. Got: patch, labels"
    ):
        listed(tmp_path, data_config(2, csv="metadata.csv"))
    (tmp_path / "metadata.csv").write_text("patch_id,labels,split\n")
    with pytest.raises(DataError, match=r"must hold a patch that can be used. Got: none"):
        listed(tmp_path, data_config(2, csv="metadata.csv"))


def test_sentinel_1_as_further_bands(tmp_path: Path) -> None:
    pair = "S1A_IW_GRDH_1SDV_20170613T165043_33UUP_61_39"
    backscatter = np.linspace(-30, 5, 120 * 120, dtype=np.float32).reshape(1, 120, 120)
    name = f"{TILE}_61_39"
    write_version_2(tmp_path, [{"patch_id": name, "s1_name": pair}])
    write_patch(tmp_path / "BigEarthNet-S2" / TILE, name, 0)
    scene = "S1A_IW_GRDH_1SDV_20170613T165043"
    for polarization in ("VV", "VH"):
        write_raster(tmp_path / "S1" / scene / pair / f"{pair}_{polarization}.tif", backscatter)
    bands = (sentinel2_bands()[1], BandConfig(name="vv", column="VV", range=(-30, 5)))
    config = data_config(2, sentinel1="S1", bands=bands)
    (uri,) = listed(tmp_path, config).uris
    layout = BandLayout.of(config)
    assert layout is not None
    chip = read_band_chip(uri, 120, layout, 10**8).levels
    assert (chip[0, 0, 1], chip[-1, -1, 1]) == (0, 65535)


def test_the_real_patch(real_patch: Path, tmp_path: Path) -> None:
    """Read right, pixel for pixel, with its labels and its ground resolution."""
    images = tmp_path / "BigEarthNet-v1.0"
    images.mkdir()
    (images / PATCH).symlink_to(real_patch)
    config = data_config(1, official_splits=False)
    listing = listed(tmp_path, config)
    assert listing.ids == [PATCH]
    assert listing.tags == [("Arable land", "Pastures")]
    assert set(listing.labels.names) < set(LABELS_19)
    assert metres_per_pixel(listing.uris, 120) == 10
    layout = BandLayout.of(config)
    assert layout is not None
    chip = read_band_chip(listing.uris[0], 120, layout, 10**8)
    assert (chip.levels.shape, chip.nodata) == ((120, 120, 12), 0)
    for channel, band in enumerate(SENTINEL2.values()):
        with rasterio.open(real_patch / f"{PATCH}_{band}.tif") as file:
            if file.shape == (120, 120):
                np.testing.assert_array_equal(chip.levels[..., channel], file.read(1))
    all_labels = json.loads((real_patch / f"{PATCH}_labels_metadata.json").read_text())["labels"]
    config = data_config(1, official_splits=False, nomenclature=43)
    assert listed(tmp_path, config).tags == [tuple(all_labels)]
