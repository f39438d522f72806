from __future__ import annotations

import json

import numpy as np
import pytest

from canopy.bands import SEVERAL_FILES, BandLayout, BandStatistics, display_bands
from canopy.config import BandConfig
from canopy.errors import RunDirError

STATISTICS = BandStatistics(
    names=("blue", "green", "red", "nir"),
    dtype="uint16",
    ranges=((0, 65535),) * 4,
    mean=(1.0, 2.0, 3.0, 4.0),
    std=(1.0, 1.0, 1.0, 2.0),
    low=(0.0, 10.0, 20.0, 0.0),
    median=(1.0, 2.0, 3.0, 4.0),
    high=(100.0, 110.0, 220.0, 50.0),
    display=(2, 1, 0),
)


def test_addresses_of_a_chip() -> None:
    a = BandConfig(name="a", file="{id}/{id}_B02.tif")
    one = BandLayout((a, BandConfig(name="b", band=2), BandConfig(name="c", column="radar")))
    found = one.addresses("s3://bucket/x/patch.7.tif", {"radar": "/r.tif"}).split(SEVERAL_FILES)
    assert found == ["s3://bucket/x/patch.7/patch.7_B02.tif", "s3://bucket/x/patch.7.tif", "/r.tif"]
    assert BandLayout((a,)).addresses("p/") == "p/p_B02.tif"
    assert BandLayout((a,)).addresses("/p") == "/p/p_B02.tif"


def test_a_layout_and_its_json() -> None:
    layout = BandLayout(
        (BandConfig(name="a", range=(0, 0.5)), BandConfig(name="i", expression="a * 2", range=(0, 1)))
    )
    assert BandLayout.from_json(json.loads(json.dumps(layout.to_json()))) == layout
    assert layout.ranges == ((0, 0.5), (0, 1))


def test_statistics_and_their_json() -> None:
    back = BandStatistics.from_metadata(STATISTICS.to_metadata(), "weights")
    assert back == STATISTICS
    assert BandStatistics.from_metadata({}, "weights") is None
    for change in (
        {"std": [1, 1, 1, 0]},
        {"mean": [1]},
        {"display": [0, 1, 4]},
        {"dtype": "int8"},
        {"more": 1},
    ):
        broken = {"bands": json.dumps({**STATISTICS.to_json(), **change})}
        with pytest.raises(RunDirError, match="must hold the statistics of bands"):
            BandStatistics.from_metadata(broken, "weights")
    with pytest.raises(RunDirError):
        BandStatistics.from_metadata({"bands": "text"}, "weights")


def test_chips_are_stretched_for_people() -> None:
    chip = np.array([[[[50, 60, 20, 9], [0, 110, 220, 9], [100, 200, 120, 9]]]], np.uint16)
    np.testing.assert_array_equal(
        STATISTICS.shown(chip)[0, 0], [[0, 128, 128], [255, 255, 0], [128, 255, 255]]
    )
    assert display_bands(("a", "b"), None) == (0, 0, 0)
    assert display_bands(("a", "b", "c"), ("c", "a", "a")) == (2, 0, 0)
