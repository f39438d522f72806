"""Files of 8 bits through Pillow: PNG, WebP, BMP, GIF, AVIF, and rare variants of JPEG."""

from __future__ import annotations

import io
import warnings
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
from PIL import Image
from PIL.PngImagePlugin import MAX_TEXT_CHUNK, MAX_TEXT_MEMORY

from canopy.data.raster.errors import UnreadableImageError
from canopy.data.raster.formats import PILLOW_FORMATS, FileKind
from canopy.data.raster.limits import require_bands, require_memory, resize_bytes

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

BYTES_PER_PIXEL = {FileKind.WEBP: 20, FileKind.AVIF: 20}
"""Estimated peak while a file is decoded. libwebp and libavif hold several canvases of four bytes a pixel."""
BYTES_OF_RGB, BYTES_OF_OTHERS = 4, 12
"""Peak bytes per pixel of the other formats: of an RGB image, and of an image that is converted to RGB."""
TOO_MUCH_TEXT = {"MAX_TEXT_CHUNK": MAX_TEXT_CHUNK, "MAX_TEXT_MEMORY": MAX_TEXT_MEMORY}
"""Pillow's limits, in bytes, for the text and the color profile of a PNG, by their names in its errors."""
AVIF_CONFIGURATION, HIGH_BIT_DEPTH = b"av1C", 0x40


class Picture(NamedTuple):
    """A decoded file: RGB pixels of shape (size, size, 3), Pillow's mode, and the stored size."""

    pixels: NDArray[np.uint8]
    mode: str
    width: int
    height: int


def read_with_pillow(
    data: bytes, kind: FileKind, size: int, bands: Sequence[int] | None, max_bytes: int
) -> Picture:
    """Decode a file of 8 bits per sample and resize it.

    Args:
        data: the file.
        kind: its kind; Pillow tries no other.
        size: side of the chip.
        bands: numbers of the channels to take as red, green and blue, from 1; None for the file's own colors.
        max_bytes: memory that decoding may take.

    Raises:
        UnreadableImageError: when the file is too large, has several frames, or not these channels.
    """
    if kind is FileKind.AVIF:
        _refuse_deep_avif(data)
    # Pillow warns about doubtful metadata, which does not change the pixels.
    with (
        warnings.catch_warnings(action="ignore"),
        Image.open(io.BytesIO(data), formats=PILLOW_FORMATS[kind]) as image,
    ):
        others = BYTES_OF_RGB if image.mode == "RGB" else BYTES_OF_OTHERS
        what = None if kind is FileKind.JPEG else kind.value
        return _picture(image, what, BYTES_PER_PIXEL.get(kind, others), size, bands, max_bytes)


def convert_image(
    image: Image.Image, size: int, bands: Sequence[int] | None, max_bytes: int
) -> NDArray[np.uint8]:
    """An image that the caller opened or drew, as a chip: RGB, uint8, (size, size, 3), as from a file.

    Args:
        image: Pillow's image, of 8 bits.
        size: side of the chip.
        bands: numbers of the channels to take as red, green and blue, from 1; None for the image's colors.
        max_bytes: memory that decoding may take.

    Raises:
        UnreadableImageError: when the image is too large or damaged, has several frames, or not these
            channels.
    """
    what = None if image.format in ("JPEG", "MPO") else "an image"
    return _picture(image, what, BYTES_OF_OTHERS, size, bands, max_bytes).pixels


def _picture(
    image: Image.Image,
    what: str | None,
    bytes_per_pixel: int,
    size: int,
    bands: Sequence[int] | None,
    max_bytes: int,
) -> Picture:
    """The pixels of an opened image, converted and resized.

    Args:
        image: the opened image.
        what: name of its kind, which may not have several frames; None where further frames are ignored.
        bytes_per_pixel: estimated peak while it is decoded.
        size: side of the chip.
        bands: numbers of the channels to take, or None.
        max_bytes: memory that decoding may take.
    """
    width, height = image.size
    peak = bytes_per_pixel * width * height + resize_bytes(width, height, size)
    require_memory(width, height, peak, max_bytes)
    if what is not None and getattr(image, "is_animated", False):
        raise UnreadableImageError(f"{what} with several frames: save one image per file")
    image.load()
    mode = image.mode
    shown = to_rgb(image) if bands is None else _choose(image, bands)
    if (width, height) != (size, size):
        shown = shown.resize((size, size), Image.Resampling.BILINEAR)
    return Picture(np.asarray(shown), mode, width, height)


def describe_damage(error: Exception) -> str:
    """Why a reader's error makes an image unreadable."""
    for name, limit in TOO_MUCH_TEXT.items():
        if name in str(error):
            return (
                f"a PNG whose text or color profile unpacks to more than {limit >> 20} MiB: save it without "
                "metadata"
            )
    return f"damaged or truncated: {str(error) or type(error).__name__}"


def to_rgb(image: Image.Image) -> Image.Image:
    """The colors of an image of 8 bits; alpha is dropped.

    Raises:
        UnreadableImageError: when the full scale of the mode is unknown.
    """
    if image.mode == "RGB" and "transparency" not in image.info:
        return image
    if image.mode not in {"1", "L", "LA", "La", "P", "PA", "RGB", "RGBA", "RGBa", "RGBX", "CMYK", "YCbCr"}:
        raise UnreadableImageError(f"pixels of Pillow's mode {image.mode}, whose full scale is unknown")
    if "transparency" in image.info or image.mode in {"PA", "LA", "La", "RGBa"}:
        image = image.convert("RGBA")
    return image.convert("RGB")


def _choose(image: Image.Image, bands: Sequence[int]) -> Image.Image:
    if image.mode not in {"1", "L", "LA", "RGB", "RGBA"}:
        raise UnreadableImageError(
            f"colors of the kind {image.mode}, which data.sensor.bands cannot choose from"
        )
    channels = image.getbands()
    require_bands(len(channels), bands)
    gray = image.convert("L") if image.mode == "1" else image
    return Image.merge("RGB", [gray.getchannel(band - 1) for band in bands])


def _refuse_deep_avif(data: bytes) -> None:
    """Refuse AVIF of 10 and 12 bits: Pillow gives 8 bits, so levels would be lost in silence."""
    at = data.find(AVIF_CONFIGURATION)
    flags = data[at + 6 : at + 7]
    if at >= 0 and flags and flags[0] & HIGH_BIT_DEPTH:
        raise UnreadableImageError("an AVIF of more than 8 bits, which is not read: save it as TIFF")
