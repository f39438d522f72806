"""JPEG files through libjpeg-turbo (simplejpeg).

simplejpeg is faster than Pillow and strict: Pillow ignores damage inside the scan.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import simplejpeg
from PIL import Image

from canopy.data.raster.errors import UnreadableImageError
from canopy.data.raster.limits import require_bands, require_memory, resize_bytes

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

PROGRESSIVE, START_OF_SCAN = b"\xff\xc2", b"\xff\xda"
MAX_SCAN_PIXELS = 2**29
"""Limit of pixels times scans, which bounds the time: a scan of a few bytes may visit every pixel."""
MIN_SCAN_BYTES = 8
"""Bytes of the shortest scan: its marker, and a header of six bytes or more."""


class JpegPixels(NamedTuple):
    """A decoded JPEG: RGB pixels of shape (height, width, 3), and Pillow's name of the stored mode."""

    pixels: NDArray[np.uint8]
    mode: str


def read_jpeg(data: bytes, size: int, into: NDArray[np.uint8] | None, max_bytes: int) -> JpegPixels | None:
    """Decode a JPEG strictly.

    Args:
        data: the file.
        size: side of the chip to which the pixels will be resized.
        into: uint8 array (size, size, 3); it receives the pixels where their shape is the same.
        max_bytes: memory that decoding may take.

    Returns:
        The pixels, or None for rare variants that only Pillow reads.

    Raises:
        UnreadableImageError: when the file is truncated, damaged or too large.
    """
    try:
        height, width, colors, _ = simplejpeg.decode_jpeg_header(data)
    except ValueError:
        return None
    require_jpeg_cost(data, width, height, size, max_bytes)
    four_inks = colors in {"CMYK", "YCCK"}
    fits = into is not None and not four_inks and into.shape == (height, width, 3)
    buffer = into if fits else None
    try:
        decoded: NDArray[np.uint8] = simplejpeg.decode_jpeg(
            data, "CMYK" if four_inks else "RGB", strict=True, buffer=buffer
        )
    except ValueError as error:
        if any(word in str(error) for word in ("Premature end", "Corrupt JPEG data")):
            raise UnreadableImageError(f"truncated or damaged JPEG: {error}") from None
        return None
    if four_inks:
        return JpegPixels(_inverted_cmyk_to_rgb(decoded), "CMYK")
    pixels = decoded if buffer is None else buffer
    return JpegPixels(pixels, "L" if colors == "Gray" else "RGB")


def choose_bands(pixels_HW3: NDArray[np.uint8], mode: str, bands: Sequence[int]) -> NDArray[np.uint8]:
    """Channels of a JPEG as red, green and blue, uint8, shape (H, W, 3).

    Args:
        pixels_HW3: its RGB pixels, uint8.
        mode: its mode; L has one channel, RGB three.
        bands: numbers of the channels, from 1.

    Raises:
        UnreadableImageError: when the file does not have them.
    """
    if mode not in {"L", "RGB"}:
        raise UnreadableImageError(f"colors of the kind {mode}, which data.sensor.bands cannot choose from")
    require_bands(1 if mode == "L" else 3, bands)
    return np.ascontiguousarray(pixels_HW3[..., [band - 1 for band in bands]])


def require_jpeg_cost(data: bytes, width: int, height: int, size: int, max_bytes: int) -> None:
    """Check the memory and the time that decoding a JPEG takes.

    The pixels take three bytes, and Pillow's copy for the resize four. Progressive files keep all
    coefficients, two bytes each, until the last scan.

    Raises:
        UnreadableImageError: when the image needs too much memory, or has too many scans for its size.
    """
    pixels, resize = width * height, resize_bytes(width, height, size)
    # Counting scans takes a tenth of the time of decoding a small image: not where any number of them passes.
    if 0 < pixels * len(data) <= MAX_SCAN_PIXELS * MIN_SCAN_BYTES and 13 * pixels + resize <= max_bytes:
        return
    scans = data.count(START_OF_SCAN)
    per_pixel = 3 + 4 + (6 if scans > 1 or PROGRESSIVE in data else 0)
    require_memory(width, height, per_pixel * pixels + resize, max_bytes)
    if scans * pixels > MAX_SCAN_PIXELS and scans > 1:
        raise UnreadableImageError(
            f"JPEG with {scans:,} scans of {width} by {height} pixels, too many to decode"
        )


def _inverted_cmyk_to_rgb(inks_HW4: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """RGB of CMYK values as JPEG files hold them by Adobe's convention, where 255 is no ink."""
    height, width = inks_HW4.shape[:2]
    image = Image.frombuffer("CMYK", (width, height), inks_HW4, "raw", "CMYK;I", 0, 1)
    return np.asarray(image.convert("RGB"))
