"""Checks of what an image claims: its memory, its file size, its bands.

Each reader estimates its peak from the header, before it allocates. Compressed formats allow headers of a few
bytes that describe gigabytes, so an image is refused by what its header claims.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from canopy.data.raster.errors import UnreadableImageError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from canopy.config import DataConfig

MB = 10**6
DEFAULT_MAX_BYTES = 400 * MB
"""Default of ``data.max_image_mb`` in bytes."""


def max_image_bytes(config: DataConfig) -> int:
    """``data.max_image_mb`` in bytes."""
    return int(config.max_image_mb * MB)


def require_memory(width: int, height: int, needed_bytes: float, max_bytes: int, details: str = "") -> None:
    """Check an image's size and the memory that decoding it takes.

    Args:
        width: columns of the image.
        height: rows of the image.
        needed_bytes: estimated peak of the decoder, in bytes.
        max_bytes: what it may take (``data.max_image_mb``).
        details: what else takes memory, such as the size of its tiles, as the end of a phrase.

    Raises:
        UnreadableImageError: when the image has no pixels, or needs more memory.
    """
    if min(width, height) < 1:
        raise UnreadableImageError(f"{width} by {height} pixels")
    if needed_bytes > max_bytes:
        raise UnreadableImageError(
            f"{width} by {height} pixels{details} need {needed_bytes / MB:,.0f} MB to decode, more than "
            f"data.max_image_mb ({max_bytes / MB:,.0f})"
        )


def require_file_size(file_bytes: int, max_bytes: int) -> None:
    """Check the size of a file, before it is read where the size is known.

    Raises:
        UnreadableImageError: when the file alone is larger than ``max_bytes``.
    """
    if file_bytes > max_bytes:
        size = f"{file_bytes / MB:,.0f} MB"
        raise UnreadableImageError(
            f"the file has {size}, more than data.max_image_mb ({max_bytes / MB:,.0f})"
        )


def resize_bytes(width: int, height: int, size: int) -> int:
    """Peak memory of Pillow's resize to (size, size), in bytes.

    It holds the horizontally resized rows, and filter coefficients of two float64 per column and row.
    """
    return 4 * size * height + 16 * (width + height)


def require_bands(count: int, bands: Sequence[int]) -> None:
    """Check that ``data.sensor.bands`` names bands that the file has.

    Raises:
        UnreadableImageError: when there are fewer.
    """
    if max(bands) > count:
        raise UnreadableImageError(f"it has {count} bands, and data.sensor.bands names band {max(bands)}")
