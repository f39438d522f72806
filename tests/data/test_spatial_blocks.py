"""Spatial blocks: neighbors stay together, whatever their coordinate system; what has no place is refused."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray
from rasterio.crs import CRS
from rasterio.warp import transform

from canopy.config import BlockConfig, DataConfig
from canopy.data.duplicates import Duplicates
from canopy.data.raster.georeference import Place
from canopy.data.spatial_blocks import Footprints, block_notes, footprints
from canopy.data.split import assign_splits
from canopy.errors import ConfigError, DataError

UTM = CRS.from_epsg(32633).to_wkt()
SIDE = 100.0


def grid(count: int, crs: str = UTM, left: float = 400_000.0) -> tuple[list[str], list[Place | None]]:
    """A square of ``count`` by ``count`` chips, side by side."""
    names, places = [], []
    for row in range(count):
        for column in range(count):
            x, y = left + column * SIDE, 5_200_000.0 + row * SIDE
            names.append(f"{row}-{column}")
            places.append(Place(crs, (x, y, x + SIDE, y + SIDE)))
    return names, list(places)


def split_of(found: Footprints, ids: list[str], metres: float) -> NDArray[np.str_]:
    targets_NK = (np.random.default_rng(0).random((len(ids), 3)) < 0.5).astype(np.uint8)
    blocks = found.blocks(metres)
    group = Duplicates([], [], [], []).groups(ids, None, blocks)
    split, fold = assign_splits(targets_NK, DataConfig(), 3, group)
    for name in set(blocks):
        rows = np.array(blocks) == name
        assert len(set(split[rows])) == len(set(fold[rows])) == 1
    return split


def test_the_chips_of_a_block_stay_in_one_split_and_fold() -> None:
    ids, places = grid(24)
    found = footprints(ids, places, BlockConfig(metres=400))
    np.testing.assert_allclose(found.sides_N2, SIDE)
    assert len(set(found.blocks(400))) == 36
    split = split_of(found, ids, 400)
    assert set(split) == {"train", "val", "test"}
    random, _ = assign_splits(np.ones((len(ids), 1), np.uint8), DataConfig(), 3)
    with_blocks, without = found.touching(split), found.touching(random)
    assert 0 < with_blocks["test"] < 0.8 * without["test"]
    assert without["test"] == int((random == "test").sum())


def test_touching_chips_are_those_whose_squares_meet() -> None:
    centers_N2 = np.array([(0, 0), (100, 100), (201, 0), (0, 99.0), (500, 0)], float)
    found = Footprints(centers_N2, np.full((5, 2), SIDE))
    assert found.touching(np.array(["train", "test", "test", "val", "val"])) == {"val": 1, "test": 1}
    assert found.touching(np.array(["val"] * 5)) == {"val": 0, "test": 0}


def test_notes_name_blocks_and_what_still_touches() -> None:
    ids, places = grid(4)
    config = BlockConfig(metres=200)
    found = footprints(ids, places, config)
    split = np.array(["train", "train", "test", "test"] * 4)
    first, second = block_notes(found, config, split)
    assert first == "4 spatial blocks of 200 m, the largest of 4 chips, stay in one split each."
    assert second.startswith("4 of 8 test chips touch a training chip across a border of blocks")
    assert len(block_notes(found, config, np.array(["train"] * 16))) == 1


def test_chips_of_two_zones_share_one_grid_of_blocks() -> None:
    """The same ground in two UTM zones falls into the same block of a common system."""
    ids, places = grid(6)
    zone_34 = CRS.from_epsg(32634)
    again: list[Place | None] = []
    for place in places:
        assert place is not None
        left, bottom, right, top = place.bounds
        xs, ys = transform(CRS.from_wkt(UTM), zone_34, [left, right], [bottom, top])
        again.append(Place(zone_34.to_wkt(), (xs[0], ys[0], xs[1], ys[1])))
    both = [*ids, *(f"{name} again" for name in ids)]
    config = BlockConfig(metres=5000, crs="EPSG:3035")
    found = footprints(both, [*places, *again], config)
    np.testing.assert_allclose(found.centers_N2[:36], found.centers_N2[36:], atol=2)
    assert abs(found.centers_N2[0] - found.centers_N2[35]).max() == pytest.approx(500, rel=0.2)
    with pytest.raises(DataError, match=r"of one .* system. Got: EPSG:32633 of 0-0, EPSG:32634 of 0-0 a"):
        footprints(both, [*places, *again], BlockConfig(metres=5000))


def test_neighbors_touch_also_where_the_system_of_the_blocks_turns_them() -> None:
    """Far from the middle of EPSG:3035 its north and that of a UTM zone differ by degrees."""
    utm = CRS.from_epsg(32629).to_wkt()
    left, bottom, side = 500_000.0, 4_600_000.0, 1200.0
    places = [Place(utm, (left + n * side, bottom, left + (n + 1) * side, bottom + side)) for n in range(2)]
    found = footprints(["a", "b"], places, BlockConfig(metres=1000, crs="EPSG:3035"))
    assert found.touching(np.array(["train", "val"])) == {"val": 1, "test": 0}
    assert (found.sides_N2 > side).all()


def test_degrees_need_a_system_in_metres() -> None:
    degrees = CRS.from_epsg(4326).to_wkt()
    places: list[Place | None] = [
        Place(degrees, (15 + n / 100, 47, 15.01 + n / 100, 47.01)) for n in range(3)
    ]
    ids = ["a", "b", "c"]
    with pytest.raises(DataError, match=r"of a projected .* system. Got: EPSG:4326 of a, which is in deg"):
        footprints(ids, places, BlockConfig(metres=1000))
    found = footprints(ids, places, BlockConfig(metres=1000, crs="EPSG:32633"))
    np.testing.assert_allclose(np.diff(found.centers_N2[:, 0]), 760, rtol=0.01)
    np.testing.assert_allclose(found.sides_N2, [[760, 1112]] * 3, rtol=0.02)


def test_feet_are_metres_too() -> None:
    feet = CRS.from_epsg(2263).to_wkt()  # New York, US survey feet
    found = footprints(["a"], [Place(feet, (1e6, 2e5, 1e6 + 1000, 2e5 + 1000))], BlockConfig(metres=100))
    np.testing.assert_allclose(found.sides_N2, [[304.8, 304.8]], rtol=1e-4)


def test_chips_without_a_georeference_are_refused_by_name() -> None:
    ids, places = grid(3)
    places[2] = places[4] = None
    with pytest.raises(DataError, match=r"a georeference for every chip. Got: none for 0-2, 1-1. Give"):
        footprints(ids, places, BlockConfig(metres=1000))


@pytest.mark.parametrize("crs", ["EPSG:4326", "EPSG:999999", "nonsense"])
def test_a_system_that_has_no_metres(crs: str) -> None:
    with pytest.raises(ConfigError, match=r"data.blocks.crs must be the code of a projected coordinate"):
        footprints(*grid(2), BlockConfig(metres=1000, crs=crs))


def test_a_chip_beyond_the_configured_system() -> None:
    degrees = CRS.from_epsg(4326).to_wkt()
    places = [Place(degrees, (15, 47, 15.1, 47.1)), Place(degrees, (190, 89, 500, 95))]
    with pytest.raises(DataError, match=r"The chip b must lie in an area that EPSG:32633 covers"):
        footprints(["a", "b"], places, BlockConfig(metres=1000, crs="EPSG:32633"))
