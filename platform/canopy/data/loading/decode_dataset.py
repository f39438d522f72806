"""Decodes a data set once: chips, inspections, hashes and thumbnails of all images."""

from __future__ import annotations

import logging
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from canopy.bands import BandLayout, channels_of, chip_bytes, dtype_of
from canopy.config import DataConfig
from canopy.data.duplicates import THUMBNAIL, pixel_hashes, thumbnails
from canopy.data.loading.band_sums import BandSums, band_sums
from canopy.data.loading.chip_cache import ChipCache
from canopy.data.loading.decode_blocks import decode_blocks
from canopy.data.loading.ray_stream import Batch
from canopy.data.raster.limits import max_image_bytes
from canopy.data.raster.try_decode import Inspection
from canopy.errors import StorageError
from canopy.runtime.console import Console
from canopy.runtime.stage import Stage

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class DecodedImages:
    """N images, decoded once.

    Attributes:
        inspections: properties and problems of the N images.
        hashes: N pixel hashes, to find equal chips.
        thumbs_NSS: small grayscale versions, to find near-duplicates.
        chips_NHWC: the decoded chips, uint8; None when they are too large to keep.
        cache: the file of decoded chips.
        sums: sums of the levels of each band, for statistics; None for RGB.
        in_file: whether ``chips_NHWC`` is the growing file of ``cache``; else it is in memory, or None.
    """

    inspections: list[Inspection]
    hashes: list[bytes]
    thumbs_NSS: NDArray[np.float32]
    chips_NHWC: NDArray[Any] | None
    cache: ChipCache
    in_file: bool
    sums: BandSums | None = None

    def subset(self, rows_n: NDArray[np.int64]) -> DecodedImages:
        """The images of ``rows_n`` (ascending); a growing file is reduced in place."""
        if len(rows_n) == len(self.inspections):
            return self
        chips = None
        if self.in_file:
            chips = self.cache.keep_rows(rows_n)
        elif self.chips_NHWC is not None:
            chips = self.chips_NHWC[rows_n]
        parts = [self.inspections[n] for n in rows_n], [self.hashes[n] for n in rows_n]
        sums = None if self.sums is None else self.sums.subset(rows_n)
        return DecodedImages(*parts, self.thumbs_NSS[rows_n], chips, self.cache, self.in_file, sums)

    def publish(self) -> None:
        """Publish the chips as the file of the cache; without chips, delete the file of an earlier run."""
        if self.chips_NHWC is None:
            self.cache.delete()
        else:
            self.cache.publish(None if self.in_file else self.chips_NHWC)


def decode_dataset(
    uris: Sequence[str], config: DataConfig, cache: ChipCache, console: Console
) -> DecodedImages:
    """Read and decode the images of ``uris`` once, in parallel.

    Chips that take at most ``data.max_cache_gb`` are kept: in the growing file of ``cache`` if all
    processes can map it, else in memory.

    Raises:
        StorageError: when the store of the images fails.
        ClusterError: when worker processes keep ending.
    """
    total, size, layout = len(uris), config.image_size, BandLayout.of(config)
    fits = total * chip_bytes(size, layout) <= config.max_cache_gb * 1e9
    in_file = fits and cache.is_mappable
    chips_NHWC = None
    if in_file:
        try:
            chips_NHWC = cache.create(total, size, layout)
        except StorageError as error:
            logger.warning("decoded chips are not kept: %s", error)
            console.say(Stage.PREPARE, f"decoded chips are not kept, training decodes on demand: {error}")
            in_file = False
    elif fits:
        chips_NHWC = np.empty((total, size, size, channels_of(layout)), dtype_of(layout))
    in_memory = chips_NHWC if not in_file else None
    thumbs_NSS = np.empty((total, THUMBNAIL, THUMBNAIL), np.float32)
    sums = None if layout is None else BandSums.empty(total, len(layout.bands))
    inspections, hashes = [Inspection()] * total, [b""] * total
    since, done = time.monotonic(), 0
    blocks = decode_blocks(
        uris,
        size,
        config.sensor,
        max_bytes=max_image_bytes(config),
        cache=cache if in_file else None,
        statistics=chip_statistics if layout is None else band_chip_statistics,
        with_images=in_memory is not None,
        layout=layout,
    )
    for batch, found in blocks:
        rows_n = batch["row"]
        if in_memory is not None:
            in_memory[rows_n] = batch["image"]
        thumbs_NSS[rows_n] = batch["thumb"]
        if sums is not None:
            sums.put(rows_n, batch)
        for row, inspection, digest in zip(rows_n, found, batch["digest"], strict=True):
            inspections[row], hashes[row] = inspection, digest.tobytes()
        done += len(found)
        console.count(Stage.PREPARE, "images decoded", done, total, since)
    return DecodedImages(inspections, hashes, thumbs_NSS, chips_NHWC, cache, in_file, sums)


def chip_statistics(chips_NHWC: NDArray[Any]) -> Batch:
    """The columns by which equal and similar chips are found: ``thumb`` and ``digest``."""
    digests = np.frombuffer(b"".join(pixel_hashes(chips_NHWC)), np.uint8)
    return {"thumb": thumbnails(chips_NHWC), "digest": digests.reshape(len(chips_NHWC), -1)}


def band_chip_statistics(chips_NHWC: NDArray[Any]) -> Batch:
    """:func:`chip_statistics` of C-band chips, with the columns of :func:`band_sums`."""
    return {**chip_statistics(chips_NHWC), **band_sums(chips_NHWC)}
