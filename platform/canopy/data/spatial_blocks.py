"""Spatial blocks: squares on the ground whose chips stay in one split.

Neighboring chips resemble each other, so a random split scores a model on what it has almost seen. A chip
belongs to the block of its center; blocks are the squares of a grid through the origin of the coordinate
system. Chips on the two sides of a border of blocks may still touch, and are counted.

Source: Roberts et al., "Cross-validation strategies for data with temporal, spatial, hierarchical, or
phylogenetic structure", Ecography 40, 2017.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from rasterio._err import CPLE_BaseError  # raised by rasterio itself, and in no public module
from rasterio.crs import CRS
from rasterio.errors import CRSError, RasterioError
from rasterio.warp import transform
from scipy.spatial import cKDTree

from canopy.errors import ConfigError, DataError

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from canopy.config import BlockConfig
    from canopy.data.raster.georeference import Place

THING = "Spatial blocks (data.blocks)"
NEED_CRS = "Set data.blocks.crs to a projected system that covers all chips, such as EPSG:3035 for Europe."


@dataclass(frozen=True)
class Footprints:
    """The ground that N chips cover, in metres of one coordinate reference system.

    Attributes:
        centers_N2: x and y of the centers.
        sides_N2: width and height; of the box around a chip that the coordinate system turns.
    """

    centers_N2: NDArray[np.float64]
    sides_N2: NDArray[np.float64]

    def blocks(self, metres: float) -> list[str]:
        """Name of the block of ``metres`` a side that each chip lies in."""
        return [f"{x}:{y}" for x, y in np.floor(self.centers_N2 / metres).astype(np.int64).tolist()]

    def touching(self, split: NDArray[np.str_]) -> dict[str, int]:
        """Number of chips of val and of test that overlap or touch a training chip.

        Args:
            split: "train", "val" or "test", shape (N,).
        """
        train = np.flatnonzero(split == "train")
        reach = float(self.sides_N2.max(initial=0)) * (1 + 1e-6)
        tree = cKDTree(self.centers_N2[train])
        return {
            name: self._touching(np.flatnonzero(split == name), train, tree, reach)
            for name in ("val", "test")
        }

    def _touching(
        self, rows: NDArray[np.int64], train: NDArray[np.int64], tree: cKDTree, reach: float
    ) -> int:
        count = 0
        for row, near in zip(
            rows, tree.query_ball_point(self.centers_N2[rows], reach, p=np.inf), strict=True
        ):
            apart_n2 = np.abs(self.centers_N2[train[near]] - self.centers_N2[row])
            limit_n2 = (self.sides_N2[train[near]] + self.sides_N2[row]) / 2 * (1 + 1e-6)
            count += bool((apart_n2 <= limit_n2).all(1).any())
        return count


def footprints(ids: Sequence[str], places: Sequence[Place | None], config: BlockConfig) -> Footprints:
    """The footprints of N chips.

    Args:
        ids: names of the chips.
        places: their places.
        config: the coordinate system of the blocks.

    Raises:
        ConfigError: when ``data.blocks.crs`` is no projected coordinate reference system.
        DataError: when a chip has no georeference; when the chips have several systems, or one in degrees,
            and none is configured; when a chip lies outside the configured one.
    """
    without = [name for name, place in zip(ids, places, strict=True) if place is None]
    known = [place for place in places if place is not None]
    if without:
        more = f" and {len(without) - 3:,} more" if len(without) > 3 else ""
        got = f"none for {', '.join(without[:3])}{more}"
        remedy = "Give chips as GeoTIFFs, a column of groups (data.table.group), or no blocks."
        raise DataError(THING, "must have a georeference for every chip", got, remedy)
    corners_N4 = np.array([place.bounds for place in known], np.float64).reshape(-1, 4)
    wkts = [place.crs for place in known]
    target = block_crs(config) or _common_crs(ids, wkts)
    centers_N2 = (corners_N4[:, :2] + corners_N4[:, 2:]) / 2
    points_5N2 = np.stack([centers_N2, *(corners_N4[:, [x, y]] for x in (0, 2) for y in (1, 3))])
    for wkt in dict.fromkeys(wkts):
        source = CRS.from_wkt(wkt)
        rows = np.flatnonzero([one == wkt for one in wkts])
        if source != target:
            points_5N2[:, rows] = _transformed(source, target, points_5N2[:, rows])
    outside = np.flatnonzero(~np.isfinite(points_5N2).all((0, 2)))
    if len(outside):
        need = f"must lie in an area that {config.crs} covers"
        raise DataError(
            f"The chip {ids[outside[0]]}", need, "another place", "Choose another data.blocks.crs."
        )
    points_5N2 *= float(target.linear_units_factor[1])
    return Footprints(points_5N2[0], np.ptp(points_5N2[1:], axis=0))


def _transformed(source: CRS, target: CRS, points_5n2: NDArray[np.float64]) -> NDArray[np.float64]:
    """Points (5, n, 2) in ``target``; not finite for chips that it does not cover."""
    try:
        xs, ys = transform(source, target, *points_5n2.reshape(-1, 2).T)
    except (RasterioError, CPLE_BaseError):
        if points_5n2.shape[1] == 1:
            return np.full_like(points_5n2, np.inf)
        return np.concatenate(
            [_transformed(source, target, one) for one in np.array_split(points_5n2, 2, 1)], 1
        )
    return np.stack([xs, ys], -1).reshape(points_5n2.shape)


def block_crs(config: BlockConfig) -> CRS | None:
    """The configured coordinate reference system of the blocks; None where there is none.

    Raises:
        ConfigError: when it is none, or not projected.
    """
    if config.crs is None:
        return None
    try:
        found = CRS.from_user_input(config.crs)
    except CRSError:
        found = None
    if found is None or not found.is_projected:
        need = "must be the code of a projected coordinate reference system"
        raise ConfigError("data.blocks.crs", need, config.crs, "Give one in metres, such as EPSG:3035.")
    return found


def _common_crs(ids: Sequence[str], wkts: Sequence[str]) -> CRS:
    """The one projected system of all chips."""
    first = CRS.from_wkt(wkts[0])
    for wkt in dict.fromkeys(wkts):
        if (other := CRS.from_wkt(wkt)) != first:
            got = f"{_short(first)} of {ids[0]}, {_short(other)} of {ids[wkts.index(wkt)]}"
            raise DataError(THING, "must have chips of one coordinate reference system", got, NEED_CRS)
    if not first.is_projected:
        got = f"{_short(first)} of {ids[0]}, which is in degrees"
        raise DataError(THING, "must have chips of a projected coordinate reference system", got, NEED_CRS)
    return first


def _short(crs: CRS) -> str:
    """The code of a system, or its name."""
    authority = crs.to_authority()
    return ":".join(authority) if authority else crs.to_wkt().split('"')[1]


def block_notes(found: Footprints, config: BlockConfig, split: NDArray[np.str_]) -> list[str]:
    """What blocks do to a split: their number, and the chips that still touch, one sentence each."""
    assert config.metres is not None
    blocks, sizes = np.unique(found.blocks(config.metres), return_counts=True)
    notes = [
        f"{len(blocks):,} spatial blocks of {config.metres:,g} m, the largest of {sizes.max():,} chips, stay "
        "in one split each."
    ]
    for name, count in found.touching(split).items():
        if count:
            total = int((split == name).sum())
            notes.append(
                f"{count:,} of {total:,} {name} chips touch a training chip across a border of blocks; "
                "larger blocks have fewer."
            )
    return notes
