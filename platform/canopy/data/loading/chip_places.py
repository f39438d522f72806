"""Reads where every chip of a data set lies, in Ray tasks."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from canopy.data.loading.uri_list import UriList
from canopy.data.raster.georeference import Place, place_of
from canopy.runtime.ray_tasks import map_blocks

ROWS_PER_TASK = 1024


@dataclass(frozen=True)
class _ReadPlaces:
    uris: UriList

    def __call__(self, rows: range) -> list[Place | None]:
        return [place_of(uri) for uri in self.uris.at(np.arange(rows.start, rows.stop))]


def read_places(uris: Sequence[str]) -> list[Place | None]:
    """The place of each chip; None where it has no georeference.

    Raises:
        StorageError: when the store of the images fails.
        ClusterError: when worker processes keep ending.
    """
    rows = range(len(uris))
    blocks = [rows[start : start + ROWS_PER_TASK] for start in rows[::ROWS_PER_TASK]]
    return [place for found in map_blocks(_ReadPlaces(UriList(uris)), blocks) for place in found]
