"""Splits the images of a listing: duplicates, groups and spatial blocks stay in one split."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from canopy.config import Experiment
from canopy.data.catalogue import Catalogue
from canopy.data.duplicates import Duplicates
from canopy.data.listing import Listing
from canopy.data.loading.chip_places import read_places
from canopy.data.raster.georeference import SAMPLE, place_of
from canopy.data.spatial_blocks import block_crs, block_notes, footprints
from canopy.data.split import assign_splits, stratification_warnings
from canopy.data.validate import label_warnings, leakage_warnings


def split_listing(
    config: Experiment, listing: Listing, keep: NDArray[np.int64], duplicates: Duplicates
) -> tuple[Catalogue, list[str]]:
    """The catalogue of the images that are kept, and notes on its labels and splits, one sentence each.

    Args:
        config: data section and folds.
        listing: the images.
        keep: rows of the listing, ascending.
        duplicates: the duplicates among them.

    Raises:
        ConfigError: when the coordinate reference system of the spatial blocks cannot be used.
        DataError: when a chip has no place for its spatial block, or the images cannot be split.
    """
    ids, uris = [listing.ids[n] for n in keep], [listing.uris[n] for n in keep]
    targets_NK = listing.labels.encode([listing.tags[n] for n in keep])
    ground_N, blocks = None, None
    if (block_side := config.data.blocks.metres) is not None:
        ground_N = footprints(ids, read_places(uris), config.data.blocks)
        blocks = ground_N.blocks(block_side)
    group = duplicates.groups(ids, listing.groups and [listing.groups[n] for n in keep], blocks)
    own = listing.splits and [listing.splits[n] for n in keep]
    split, fold = assign_splits(targets_NK, config.data, config.folds, group, own)
    catalogue = Catalogue(ids, uris, targets_NK, split, fold, group, listing.labels)
    notes = [*label_warnings(catalogue), *leakage_warnings(catalogue, duplicates)]
    notes += stratification_warnings(catalogue, config.data, own)
    notes += [] if ground_N is None else block_notes(ground_N, config.data.blocks, split)
    return catalogue, notes


def check_blocks(config: Experiment, listing: Listing) -> None:
    """Refuse spatial blocks that the first chips show to be impossible, before all are decoded.

    Raises:
        ConfigError: when the coordinate reference system of the blocks cannot be used.
        DataError: when none of the first chips has a georeference, or theirs differ.
    """
    blocks = config.data.blocks
    if blocks.metres is None:
        return
    block_crs(blocks)
    found = {name: place_of(uri) for name, uri in zip(listing.ids[:SAMPLE], listing.uris, strict=False)}
    names = [name for name, place in found.items() if place is not None] or list(found)
    footprints(names, [found[name] for name in names], blocks)  # a damaged file is named later
