"""Decodes an image without raising: the chip, black if unreadable, and what was found."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from canopy.data.raster.decode import PLAIN, UnreadableImageError, decode
from canopy.data.raster.limits import DEFAULT_MAX_BYTES

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from canopy.config import SensorConfig


class Inspection(NamedTuple):
    """Findings about one image.

    Attributes:
        mode: kind of image, as in :class:`~canopy.data.raster.decode.Decoded`.
        width: columns of the stored image.
        height: rows of the stored image.
        problem: why the image cannot be read; empty when it can.
        bits: depth of the stored samples.
    """

    mode: str = ""
    width: int = 0
    height: int = 0
    problem: str = ""
    bits: int = 8


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
