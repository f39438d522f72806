"""Decodes the bytes of an image file into one square RGB chip of 8 bits.

Which library reads what:

- JPEG: libjpeg-turbo through simplejpeg; rare variants through Pillow. CMYK becomes the color that prints.
- PNG of at most 8 bits, WebP, BMP, GIF, AVIF: Pillow.
- TIFF and BigTIFF, JPEG 2000, PNG of 16 bits: GDAL through rasterio.

What becomes of the samples:

- Gray, 1 bit, palette: the same gray, or the palette's color, in three channels.
- Alpha is dropped; the color of a transparent pixel stays.
- More than 8 bits: ``data.sensor.black`` to ``white`` is spread over 0 to 255. The default white is the
  highest value of the file's depth, so 16 bits become their upper eight.
- Bands: those of ``data.sensor.bands``; else those that the file names red, green and blue; else the first
  three of three, and 3, 2, 1 of the four bands of a TIFF (satellites store blue first). Other counts are
  refused until ``data.sensor.bands`` is set.
- An orientation tag (EXIF) is ignored for every kind of file: the pixels are taken as stored, as in GDAL.
- An oblong image is stretched; the validation report names it.

Refused, with a reason: empty, truncated, damaged and oversized files, several pages or frames, and any
kind of file, sample type or color that is not listed here.
"""

from __future__ import annotations

import struct
import zlib
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
from PIL import Image, UnidentifiedImageError

from canopy.config import SensorConfig
from canopy.data.raster.errors import UnreadableImageError as UnreadableImageError  # noqa: PLC0414 (public here)
from canopy.data.raster.formats import FileKind, file_kind
from canopy.data.raster.gdal import read_with_gdal
from canopy.data.raster.jpeg import choose_bands, read_jpeg
from canopy.data.raster.limits import DEFAULT_MAX_BYTES, require_file_size
from canopy.data.raster.pillow import describe_damage, read_with_pillow

if TYPE_CHECKING:
    from numpy.typing import NDArray

DAMAGE = (
    OSError,  # includes Pillow's own errors
    SyntaxError,  # Pillow's plugins, for a broken header
    ValueError,
    TypeError,
    LookupError,
    ArithmeticError,
    RuntimeError,
    EOFError,
    MemoryError,
    struct.error,
    zlib.error,
)
"""Errors that readers raise on bytes that they did not expect: a parser trusts what a damaged header says."""
PNG_DEPTH_AT = 24
"""Offset of the bit depth in the header of a PNG."""


class Decoded(NamedTuple):  # a dataclass takes a microsecond to make, a thirtieth of a small JPEG's decoding
    """One decoded image.

    Attributes:
        pixels: the chip, uint8, shape (size, size, 3).
        mode: kind of image as Pillow names it (RGB, L, CMYK, RGBA, P), or in words (TIFF with 4 bands of 16
            bits).
        width: columns of the stored image.
        height: rows of the stored image.
        bits: depth of the stored samples.
    """

    pixels: NDArray[np.uint8]
    mode: str
    width: int
    height: int
    bits: int = 8


PLAIN = SensorConfig()
"""Default bands and levels."""


def decode_image(
    data: bytes, size: int, sensor: SensorConfig = PLAIN, *, max_bytes: int = DEFAULT_MAX_BYTES
) -> NDArray[np.uint8]:
    """Decode to RGB, uint8, shape (size, size, 3); arguments and errors as for :func:`decode`."""
    return decode(data, size, sensor, max_bytes=max_bytes).pixels


def decode(
    data: bytes,
    size: int,
    sensor: SensorConfig = PLAIN,
    into: NDArray[np.uint8] | None = None,
    *,
    max_bytes: int = DEFAULT_MAX_BYTES,
) -> Decoded:
    """Decode an image and resize it where its size differs.

    Resizing is Pillow's bilinear filter, whose support grows with the reduction (antialiased).

    Args:
        data: the file.
        size: side of the chip in pixels.
        sensor: bands and levels of files that are not plain RGB of 8 bits.
        into: uint8 array (size, size, 3) that receives the chip, which saves most JPEGs an allocation and a
            copy. Its contents after an error are undefined.
        max_bytes: memory that decoding may take, in bytes (``data.max_image_mb``).

    Raises:
        UnreadableImageError: when the data is empty, truncated, damaged, too large or of an unsupported kind.
    """
    if not data:
        raise UnreadableImageError("the file is empty")
    require_file_size(len(data), max_bytes)
    kind = file_kind(data)
    if kind is None:
        raise UnreadableImageError(f"not an image of a known kind (it begins with {data[:8]!r})")
    try:
        decoded = _read(data, kind, size, sensor, into, max_bytes)
    except Image.DecompressionBombError:
        raise UnreadableImageError(f"{kind.value} of more pixels than data.max_image_mb allows") from None
    except UnidentifiedImageError:
        raise UnreadableImageError(f"damaged or truncated: its {kind.value} header cannot be read") from None
    except DAMAGE as error:
        raise UnreadableImageError(describe_damage(error)) from None
    if into is None or decoded.pixels is into:
        return decoded
    into[:] = decoded.pixels
    return decoded._replace(pixels=into)


def _read(
    data: bytes,
    kind: FileKind,
    size: int,
    sensor: SensorConfig,
    into: NDArray[np.uint8] | None,
    max_bytes: int,
) -> Decoded:
    """Decode by the library of the kind; raises UnreadableImageError or one of DAMAGE."""
    if kind is FileKind.JPEG:
        jpeg = read_jpeg(data, size, into if sensor.bands is None else None, max_bytes)
        if jpeg is not None:
            height, width = jpeg.pixels.shape[:2]
            pixels = (
                jpeg.pixels if sensor.bands is None else choose_bands(jpeg.pixels, jpeg.mode, sensor.bands)
            )
            return Decoded(resize_pixels(pixels, size), jpeg.mode, width, height)
    deep_png = kind is FileKind.PNG and data[PNG_DEPTH_AT : PNG_DEPTH_AT + 1] == b"\x10"
    if deep_png or kind in (FileKind.TIFF, FileKind.JPEG2000):
        shown = read_with_gdal(data, kind, size, sensor, max_bytes)
        height, width = shown.pixels.shape[:2]
        return Decoded(resize_pixels(shown.pixels, size), shown.mode, width, height, shown.bits)
    picture = read_with_pillow(data, kind, size, sensor.bands, max_bytes)
    return Decoded(picture.pixels, picture.mode, picture.width, picture.height)


def resize_pixels(pixels: NDArray[np.uint8], size: int) -> NDArray[np.uint8]:
    """RGB pixels (H, W, 3) as (size, size, 3), by the filter of :func:`decode`."""
    if pixels.shape[:2] == (size, size):
        return pixels
    return np.asarray(Image.fromarray(pixels).resize((size, size), Image.Resampling.BILINEAR))
