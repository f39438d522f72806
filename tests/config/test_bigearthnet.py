from __future__ import annotations

from typing import Any

import pytest
from pydantic import ValidationError
from tests.bigearthnet import data_config

from canopy.config import SENTINEL2, BandConfig, DataConfig, fingerprint_content, sentinel2_bands


def test_the_twelve_bands_are_those_of_a_patch() -> None:
    bands = sentinel2_bands()
    assert [band.name for band in bands] == list(SENTINEL2)
    assert bands[3].file == "{id}/{id}_B04.tif"
    assert DataConfig(bands=bands, display=("red", "green", "blue")).bands == bands


def test_other_sources_keep_their_fingerprint() -> None:
    assert "bigearthnet" not in fingerprint_content(DataConfig())
    assert fingerprint_content(data_config(1))["bigearthnet"]["version"] == 1


@pytest.mark.parametrize(
    ("version", "changes", "message"),
    [
        (2, {"nomenclature": 43}, r"data.bigearthnet.nomenclature must be 19 for version 2"),
        (2, {"lists": "x"}, r"data.bigearthnet.lists must not be set for version 2"),
        (1, {"more_metadata": "x"}, r"data.bigearthnet.more_metadata must not be set for version 1"),
        (1, {"bands": ()}, r"data.bands must be set for BigEarthNet, which has no RGB files"),
        (2, {"bands": (BandConfig(name="vv", column="vv", range=(0, 1)),)}, r"must be VV or VH"),
        (2, {"bands": (BandConfig(name="vv", column="VV", range=(0, 1)),)}, r"must name the folder"),
        (1, {"source": "folders", "leave_out": ["snow"]}, r"data.bigearthnet must not be set under"),
    ],
)
def test_options_that_contradict_each_other(version: int, changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ValidationError, match=message):
        data_config(version, **changes)


def test_sentinel_1_of_version_1_needs_the_lists() -> None:
    bands = (BandConfig(name="vv", column="VV", range=(0, 1)),)
    with pytest.raises(
        ValidationError, match=r"data.bigearthnet.official_splits must be true with Sentinel-1"
    ):
        data_config(1, bands=bands, sentinel1="S1", official_splits=False)
