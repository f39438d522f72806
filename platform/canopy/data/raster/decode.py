"""Image bytes to one square RGB chip of 8 bits, right for whatever real data sets contain.

What comes out, by what goes in:

- JPEG, colour or grey: libjpeg-turbo through simplejpeg, 1.7 times as fast as PIL, and strict: PIL
  passes over damage inside the scan.
- JPEG in CMYK or YCCK (exports from print tools, Adobe's inverted values): the colour that prints.
- Grey, 1-bit, palette: the same grey or the palette's colour in three channels.
- With alpha: the colour stays, the alpha goes (a transparent pixel still has the colour it was given).
- 16 bits per channel, PNG or TIFF: the upper eight, so that full scale stays full scale and half stays
  half; or the range that ``data.sensor`` gives, spread over 0 to 255 (not for colour PNGs).
- TIFF with four bands and more: bands 3, 2, 1 as red, green, blue (satellites store blue first), unless
  the file says it is RGB (then the first three), or ``data.sensor.bands`` names others.
- More than one page: the first.
- Not square: stretched; the validation report names such images.

Truncated and damaged files are refused, never padded with grey.
"""

from __future__ import annotations

import io
import struct
import warnings
import zlib
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import simplejpeg
from PIL import Image, UnidentifiedImageError

from canopy.config import SensorConfig
from canopy.data.raster import tiff

if TYPE_CHECKING:
    from numpy.typing import NDArray

JPEG_MAGIC, PNG_MAGIC = b"\xff\xd8\xff", b"\x89PNG"
MAX_PIXELS = 2**26
"""Larger images are refused before memory is taken for them: a chip is not 67 megapixels."""

DAMAGE = (
    OSError,  # PIL's own errors, too
    SyntaxError,  # PIL's plugins: not my kind of file
    ValueError,
    TypeError,
    LookupError,
    ArithmeticError,
    RuntimeError,
    EOFError,
    MemoryError,
    struct.error,
    zlib.error,
    Image.DecompressionBombError,
)
"""What readers raise on bytes that they did not expect: a parser trusts what a damaged header says."""


class UnreadableImage(Exception):  # noqa: N818 (a state of the data, counted and named by the callers)
    """Bytes that do not hold a whole image that we understand; ``why`` says in what way."""

    def __init__(self, why: str) -> None:
        super().__init__(why)
        self.why = why


class Decoded(NamedTuple):  # a dataclass takes a microsecond to make, a thirtieth of a small JPEG's decoding
    """One image: its chip of shape (size, size, 3), and what the file itself was."""

    pixels: NDArray[np.uint8]
    mode: str
    """As PIL names it: RGB, L, CMYK, RGBA, P, I;16 …"""
    width: int
    height: int


PLAIN = SensorConfig()
"""Nothing asked for."""


def decode_image(data: bytes, size: int, sensor: SensorConfig = PLAIN) -> NDArray[np.uint8]:
    """Decode to RGB of shape (size, size, 3), 0 to 255; resampled only when the size differs.

    Resampling is PIL's bilinear filter, whose support grows with the reduction (antialiased).

    Raises:
        UnreadableImage: when the data is empty, truncated, damaged, too large or of an unknown kind.
    """
    return decode(data, size, sensor).pixels


def decode(
    data: bytes, size: int, sensor: SensorConfig = PLAIN, into: NDArray[np.uint8] | None = None
) -> Decoded:
    """As :func:`decode_image`, with the mode and size that the file had.

    With ``into`` (size, size, 3) the chip is written there: an allocation and a copy less for most JPEGs.
    What it holds after an error is undefined.

    Raises:
        UnreadableImage: when the data is empty, truncated, damaged, too large or of an unknown kind.
    """
    if not data:
        raise UnreadableImage("the file is empty")
    try:
        pixels, mode = _read(data, sensor, into)
    except DAMAGE as error:
        raise UnreadableImage(f"damaged or truncated: {str(error) or type(error).__name__}") from None
    height, width = pixels.shape[:2]
    if (height, width) != (size, size):
        resized = Image.fromarray(pixels).resize((size, size), Image.Resampling.BILINEAR)
        pixels = np.asarray(resized)
    if into is not None and pixels is not into:
        into[:] = pixels
        pixels = into
    return Decoded(pixels, mode, width, height)


def _read(data: bytes, sensor: SensorConfig, into: NDArray[np.uint8] | None) -> tuple[NDArray[np.uint8], str]:
    """RGB in the file's own size, and mode; raises UnreadableImage, or of DAMAGE what a reader happens to."""
    native = None
    if data.startswith(JPEG_MAGIC):
        native = _decode_jpeg(data, into)
    elif data.startswith(tiff.MAGIC):
        native = _decode_tiff(data, sensor)
    elif data.startswith(PNG_MAGIC) and has_levels(sensor):
        _refuse_lost_bits(data)
    return native or _decode_with_pil(data, sensor)


def _decode_jpeg(data: bytes, into: NDArray[np.uint8] | None) -> tuple[NDArray[np.uint8], str] | None:
    """RGB and mode of a JPEG, strictly; None for the rare kinds that only PIL knows.

    The pixels lie in ``into`` where their shape is the same.
    """
    try:
        height, width, colors, _ = simplejpeg.decode_jpeg_header(data)
    except ValueError:
        return None
    _refuse_giants(width, height)
    four_inks = colors in {"CMYK", "YCCK"}
    fits = into is not None and not four_inks and into.shape == (height, width, 3)
    space, place = "CMYK" if four_inks else "RGB", into if fits else None
    try:
        decoded: NDArray[np.uint8] = simplejpeg.decode_jpeg(data, space, strict=True, buffer=place)
    except ValueError as error:
        if any(word in str(error) for word in ("Premature end", "Corrupt JPEG data")):
            raise UnreadableImage(f"truncated or damaged JPEG: {error}") from None
        return None
    if four_inks:
        return _inverted_cmyk_to_rgb(decoded), "CMYK"
    pixels = decoded if place is None else place
    return pixels, "L" if colors == "Gray" else "RGB"


def _inverted_cmyk_to_rgb(inks_HW4: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """RGB of CMYK values as JPEG files hold them by Adobe's convention, where 255 is no ink."""
    height, width = inks_HW4.shape[:2]
    image = Image.frombuffer("CMYK", (width, height), inks_HW4, "raw", "CMYK;I", 0, 1)
    return np.asarray(image.convert("RGB"))


def _decode_tiff(data: bytes, sensor: SensorConfig) -> tuple[NDArray[np.uint8], str] | None:
    """RGB and kind of a TIFF with many bands, 16 bits, chosen bands or a checksum; None for all else."""
    try:
        tags = tiff.read_tags(data)
        picture, deep = tiff.checked_picture(tags), tiff.has_16_bits(tags)
        if not (picture or deep or tiff.has_many_bands(tags) or sensor.bands):
            return None
        _refuse_giants(tags[tiff.WIDTH], tags[tiff.HEIGHT])
        try:
            bands_HWC = tiff.read_bands(data, tags)
        except tiff.UnknownKind:
            # PIL knows more kinds, but no fourth band, and of colour the upper eight bits only
            if (
                sensor.bands
                or tiff.has_many_bands(tags)
                or (deep and has_levels(sensor) and tags.get(tiff.BANDS, 1) > 1)
            ):
                raise
            return None
        bands = sensor.bands or tiff.usual_bands(bands_HWC.shape[2], tags.get(tiff.PHOTOMETRIC, 1))
        pixels = visible(tiff.chosen(bands_HWC, bands), sensor)
    except tiff.TiffError as error:
        raise UnreadableImage(f"TIFF: {error}") from None
    if picture and not sensor.bands:
        return pixels, picture
    count = bands_HWC.shape[2]
    return pixels, f"TIFF with {count} band{'s' * (count > 1)} of {8 * bands_HWC.itemsize} bits"


def _refuse_lost_bits(data: bytes) -> None:
    """Refuse a colour PNG of 16 bits: PIL keeps the upper eight, and levels ask for the lower ones, too."""
    depth, kind = data[24:26].ljust(2, b"\0")
    if depth == 16 and kind != 0:  # 0 is grey
        raise UnreadableImage(
            "a PNG with colours of 16 bits, whose lower eight are not read: save it as TIFF, or leave "
            "data.sensor.black and white unset"
        )


def visible(bands_HWC: NDArray[np.unsignedinteger[Any]], sensor: SensorConfig) -> NDArray[np.uint8]:
    """Bands of 16 bits as bands of 8 by the sensor's black and white level; bands of 8 as they are."""
    if bands_HWC.dtype == np.uint8:
        return bands_HWC.astype(np.uint8)
    white = np.iinfo(bands_HWC.dtype).max if sensor.white is None else sensor.white
    above_HWC = np.maximum(bands_HWC.astype(np.int64) - sensor.black, 0)
    shown_HWC: NDArray[np.uint8] = np.minimum(above_HWC * 256 // (white - sensor.black + 1), 255).astype(
        np.uint8
    )
    return shown_HWC


def has_levels(sensor: SensorConfig) -> bool:
    """Whether 16 bits are to be shown otherwise than by their upper eight."""
    return sensor.black > 0 or sensor.white is not None


def _decode_with_pil(data: bytes, sensor: SensorConfig) -> tuple[NDArray[np.uint8], str]:
    """RGB and mode of any other image; raises UnreadableImage, or of DAMAGE what PIL happens to."""
    try:
        # PIL warns of doubtful metadata; the pixels load, or they do not.
        with warnings.catch_warnings(action="ignore"), Image.open(io.BytesIO(data)) as image:
            _refuse_giants(*image.size)
            image.load()
            return np.asarray(_to_rgb(image, sensor)), image.mode
    except UnidentifiedImageError:
        raise UnreadableImage(f"not an image of a known kind (it begins with {data[:8]!r})") from None


def _to_rgb(image: Image.Image, sensor: SensorConfig) -> Image.Image:
    mode = image.mode
    if mode.startswith("I;16") or mode == "I":
        # PIL would clip at 255 and give white. Mode I comes from 16-bit PNGs in older files.
        values = np.asarray(image).astype(np.int64)
        if values.min() < 0 or values.max() > 0xFFFF:
            raise UnreadableImage(f"grey values beyond 16 bits ({values.min()} to {values.max()})")
        return Image.fromarray(visible(values.astype(np.uint16), sensor)).convert("RGB")
    if mode == "F":
        raise UnreadableImage("floating-point pixels, whose full scale is unknown")
    if "transparency" in image.info or mode in {"PA", "LA", "La", "RGBa"}:
        image = image.convert("RGBA")
    return image.convert("RGB")


def _refuse_giants(width: int, height: int) -> None:
    if min(width, height) < 1:
        raise UnreadableImage(f"{width} by {height} pixels")
    if width * height > MAX_PIXELS:
        raise UnreadableImage(f"{width} by {height} pixels, more than {MAX_PIXELS} in all")
