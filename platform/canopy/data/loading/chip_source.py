"""Source of the chips of a stream: decoded chips that all processes share, or images decoded on demand."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import ray
from numpy.typing import NDArray

from canopy.bands import (
    SEVERAL_FILES,
    BandLayout,
    BandStatistics,
    LevelType,
    channels_of,
    chip_bytes,
    color_bands,
    dtype_of,
)
from canopy.config import DataConfig, SensorConfig
from canopy.data.catalogue import Catalogue
from canopy.data.loading.band_sums import read_band_statistics
from canopy.data.loading.chip_cache import ChipCache
from canopy.data.loading.uri_list import UriList
from canopy.data.raster.band_chips import read_band_chip
from canopy.data.raster.decode import PLAIN, UnreadableImageError, decode
from canopy.data.raster.errors import missing_file
from canopy.data.raster.limits import DEFAULT_MAX_BYTES, max_image_bytes
from canopy.errors import DataError, StorageError
from canopy.runtime.stage import Stage
from canopy.storage import files
from canopy.storage.run_dir import RunDir

NEEDS_MEMORY = "needs more memory than a worker may take"
STORE_SHARE = 0.5
"""Largest share of a node's object store that decoded chips may take; the rest is for batches."""


@dataclass(frozen=True)
class ChipSource:
    """Chips by row of the catalogue.

    Args:
        size: height and width of a chip in pixels.
        uris: path or URI of each row's image, for decoding on demand.
        resident: the decoded chips, uint8 or uint16 (N, size, size, C): path of a file that every process
            can map (one machine), or a reference into the object store (several). None decodes images on
            demand.
        sensor: how files with many bands or 16 bits are displayed.
        max_bad_fraction: share of the images that may have become unreadable since ``prepare``, 0 to 1.
        max_bytes: memory that decoding one image may take, in bytes.
        layout: the bands of a chip; None for RGB.
        statistics: statistics of the bands over the training rows; None for RGB.
    """

    size: int
    uris: UriList
    resident: str | ray.ObjectRef[Any] | None
    sensor: SensorConfig = PLAIN
    max_bad_fraction: float = 0.0
    max_bytes: int = DEFAULT_MAX_BYTES
    layout: BandLayout | None = None
    statistics: BandStatistics | None = None

    @property
    def channels(self) -> int:
        """Number of bands of a chip."""
        return channels_of(self.layout)

    @property
    def bands(self) -> int | None:
        """Number of bands of a chip; None for RGB."""
        return None if self.layout is None else self.channels

    @property
    def colors(self) -> tuple[int, int, int] | None:
        """Positions of red, green and blue among the bands of a chip; None for RGB, and where one lacks."""
        return None if self.layout is None else color_bands(self.layout.names)

    @property
    def dtype(self) -> LevelType:
        """Type of a chip's levels."""
        return dtype_of(self.layout)

    @property
    def chip_bytes(self) -> int:
        """Size of a chip in bytes."""
        return chip_bytes(self.size, self.layout)

    def array(self) -> NDArray[Any] | None:
        """The resident chips (N, size, size, C), shared; None if images are decoded on demand."""
        if isinstance(self.resident, str):
            return ChipCache(self.resident).open()
        return None if self.resident is None else ray.get(self.resident)

    def decode_rows(self, rows_n: NDArray[np.int64]) -> tuple[NDArray[Any], NDArray[np.object_]]:
        """Read and decode the images of ``rows_n``.

        Returns:
            Chips (n, size, size, C), black where unreadable; the problem of each image, "" without
            one.

        Raises:
            StorageError: when the store of the images fails.
        """
        chips_nHWC = np.empty((len(rows_n), self.size, self.size, self.channels), self.dtype)
        uris = self.uris.at(rows_n)
        problems = [self.decode_into(chip, uri) for chip, uri in zip(chips_nHWC, uris, strict=True)]
        return chips_nHWC, np.array(problems, dtype=object)

    def decode_into(self, chip: NDArray[Any], uri: str) -> str:
        """Decode one image into ``chip`` and return ""; if it is unreadable, fill with black and return why.

        Raises:
            StorageError: when the store of the images fails.
        """
        try:
            if self.layout is not None:
                chip[:] = read_band_chip(uri, self.size, self.layout, self.max_bytes).levels
            else:
                data = files.read_image(uri, self.max_bytes)
                decode(data, self.size, self.sensor, chip, max_bytes=self.max_bytes)
        except StorageError:
            raise  # the store fails, not the image
        except (UnreadableImageError, OSError) as error:
            problem = missing_file(error, uri) if isinstance(error, FileNotFoundError) else str(error)
        except MemoryError:
            problem = NEEDS_MEMORY
        else:
            return ""
        chip[:] = 0
        return f"{files.shown(uri.partition(SEVERAL_FILES)[0])}: {problem}"

    def decode_next_readable(self, rows_B: NDArray[np.int64], position: int) -> tuple[int, NDArray[Any]]:
        """Row and chip (size, size, C) of the first readable image after ``position`` in a batch, cyclic.

        Raises:
            DataError: when no image of the batch is readable.
        """
        chip = np.empty((self.size, self.size, self.channels), self.dtype)
        others_B = np.roll(rows_B, -position - 1)
        for row, uri in zip(others_B.tolist(), self.uris.at(others_B), strict=True):
            problem = self.decode_into(chip, uri)
            if not problem:
                return row, chip
        remedy = "Restore the images, or delete the run directory's prepare/ to validate them again."
        raise DataError("A training batch", "must hold a readable image", problem, remedy)


def open_chip_source(run_dir: RunDir, catalogue: Catalogue, config: DataConfig) -> tuple[ChipSource, str]:
    """Share the decoded chips of a run with all processes, or have images decoded on demand.

    Chips are shared when they take at most ``data.max_cache_gb``. On one machine all processes map the
    file; on several the chips go to the object store, if they take at most :data:`STORE_SHARE` of the
    smallest one.

    Returns:
        The source, and a sentence about it for the console.

    Raises:
        RunDirError: when the file of decoded chips is damaged or does not belong to the catalogue.
    """
    size, uris, cache = config.image_size, UriList(catalogue.uris), ChipCache.of_run(run_dir)
    layout = BandLayout.of(config)
    statistics = None if layout is None else read_band_statistics(run_dir)
    needed = len(catalogue) * chip_bytes(size, layout)
    reason = _not_shared(run_dir, cache, needed, config.max_cache_gb)
    if reason:
        max_bytes = max_image_bytes(config)
        limits = config.sensor, config.max_bad_fraction, max_bytes
        source = ChipSource(size, uris, None, *limits, layout=layout, statistics=statistics)
        return source, f"chips are decoded on demand ({reason})"
    shared = cache.share(len(catalogue), size, layout)
    source = ChipSource(size, uris, shared, layout=layout, statistics=statistics)
    where = "mapped into memory by all processes" if cache.is_mappable else "shared in the object store"
    return source, f"chips are {where} ({needed / 1e6:,.0f} MB, decoded once)"


def _not_shared(run_dir: RunDir, cache: ChipCache, needed: int, max_cache_gb: float) -> str:
    """Why ``needed`` bytes of decoded chips cannot be shared; "" if they can."""
    gigabytes = f"{needed / 1e9:.2f} GB decoded"
    if needed > max_cache_gb * 1e9:
        return f"{gigabytes} are more than data.max_cache_gb, {max_cache_gb:g}"
    if not cache.exists():
        folder = files.shown(run_dir.path(Stage.PREPARE))
        return f"prepare did not keep the {gigabytes}; to keep them, delete {folder}"
    if not cache.is_mappable:
        nodes = ray.nodes()  # type: ignore[no-untyped-call]
        stores = [node["Resources"].get("object_store_memory", 0) for node in nodes if node["Alive"]]
        room = STORE_SHARE * min(stores)
        if needed > room:
            return f"{gigabytes} do not fit {room / 1e9:.2f} GB of object store"
    return ""
