"""Decodes an image without raising: the chip, black if unreadable, and what was found."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from canopy.data.raster.band_chips import read_band_chip
from canopy.data.raster.decode import PLAIN, UnreadableImageError, decode
from canopy.data.raster.limits import DEFAULT_MAX_BYTES

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from canopy.bands import BandLayout
    from canopy.config import SensorConfig


class Inspection(NamedTuple):
    """Findings about one image.

    Attributes:
        mode: kind of image, as in :class:`~canopy.data.raster.decode.Decoded`.
        width: columns of the stored image.
        height: rows of the stored image.
        problem: why the image cannot be read; empty when it can.
        bits: depth of the stored samples; 8 for chips of ``data.bands``, whose levels are no brightness.
        nodata: share of pixels without a value in some band, which were filled.
    """

    mode: str = ""
    width: int = 0
    height: int = 0
    problem: str = ""
    bits: int = 8
    nodata: float = 0.0


def try_decode(
    data: bytes,
    size: int,
    sensor: SensorConfig = PLAIN,
    into: NDArray[np.uint8] | None = None,
    *,
    max_bytes: int = DEFAULT_MAX_BYTES,
) -> tuple[NDArray[np.uint8], Inspection]:
    """Decode an image without raising.

    Args:
        data: the file.
        size: side of the chip in pixels.
        sensor: bands and levels.
        into: uint8 array (size, size, 3) that receives the chip; None for a new one.
        max_bytes: memory that decoding may take, in bytes.

    Returns:
        The chip, black when the image is unreadable, and the findings.
    """
    into = np.empty((size, size, 3), np.uint8) if into is None else into
    try:
        decoded = decode(data, size, sensor, into, max_bytes=max_bytes)
    except UnreadableImageError as error:
        into[:] = 0
        return into, Inspection(problem=error.why)
    return decoded.pixels, Inspection(decoded.mode, decoded.width, decoded.height, bits=decoded.bits)


def try_band_chip(
    address: str, size: int, layout: BandLayout, into: NDArray[Any], max_bytes: int = DEFAULT_MAX_BYTES
) -> Inspection:
    """Decode a chip of bands into ``into`` (size, size, C), zeros when it is unreadable; the findings.

    Raises:
        OSError: when a file is missing or may not be read.
        StorageError: when the object store refuses.
    """
    try:
        found = read_band_chip(address, size, layout, max_bytes)
    except UnreadableImageError as error:
        into[:] = 0
        return Inspection(problem=error.why)
    into[:] = found.levels
    return Inspection(found.mode, found.width, found.height, nodata=found.nodata)
