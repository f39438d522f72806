"""Image bytes to one square RGB chip of 8 bits, right for whatever real data sets contain.

What comes out, by what goes in:

- JPEG, colour or grey: libjpeg-turbo through simplejpeg, 1.7 times as fast as PIL, and strict: PIL
  passes over damage inside the scan.
- JPEG in CMYK or YCCK (exports from print tools, Adobe's inverted values): the colour that prints.
- Grey, 1-bit, palette: the same grey or the palette's colour in three channels.
- With alpha: the colour stays, the alpha goes (a transparent pixel still has the colour it was given).
- 16 bits per channel: the upper eight, so that full scale stays full scale and half stays half.
- TIFF with four bands and more: bands 3, 2, 1 as red, green, blue (satellites store blue first), unless
  the file says it is RGB; then the first three.
- More than one page: the first.
- Not square: stretched; the validation report names such images.

Truncated and damaged files are refused, never padded with grey.
"""

from __future__ import annotations

import io
import warnings
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import simplejpeg
from PIL import Image, UnidentifiedImageError

from canopy.data import tiff

if TYPE_CHECKING:
    from numpy.typing import NDArray

JPEG_MAGIC = b"\xff\xd8\xff"
MAX_PIXELS = 2**26
"""Larger images are refused before memory is taken for them: a chip is not 67 megapixels."""


class UnreadableImage(Exception):  # noqa: N818 (a state of the data, counted and named by the callers)
    """Bytes that do not hold a whole image that we understand; ``why`` says in what way."""

    def __init__(self, why: str) -> None:
        super().__init__(why)
        self.why = why


@dataclass(frozen=True)
class Decoded:
    """One image: its chip of shape (size, size, 3), and what the file itself was."""

    pixels: NDArray[np.uint8]
    mode: str
    """As PIL names it: RGB, L, CMYK, RGBA, P, I;16 …"""
    width: int
    height: int


@dataclass(frozen=True)
class Sensor:
    """How to show what is not an ordinary picture: TIFFs of many bands or of 16 bits."""

    bands: tuple[int, int, int] | None = None
    """Which bands are red, green and blue, counted from 1; None chooses as the module says."""
    white: int | None = None
    """The value shown as white; None: the highest that the bits can hold."""


def decode_image(data: bytes, size: int, sensor: Sensor = Sensor()) -> NDArray[np.uint8]:
    """Decode to RGB of shape (size, size, 3), 0 to 255; resampled only when the size differs.

    Resampling is PIL's bilinear filter, whose support grows with the reduction (antialiased).

    Raises:
        UnreadableImage: when the data is empty, truncated, damaged, too large or of an unknown kind.
    """
    return decode(data, size, sensor).pixels


def decode(data: bytes, size: int, sensor: Sensor = Sensor()) -> Decoded:
    """As :func:`decode_image`, with the mode and size that the file had.

    Raises:
        UnreadableImage: when the data is empty, truncated, damaged, too large or of an unknown kind.
    """
    if not data:
        raise UnreadableImage("the file is empty")
    native = None
    if data.startswith(JPEG_MAGIC):
        native = _decode_jpeg(data)
    elif data.startswith(tiff.MAGIC):
        native = _decode_tiff(data, sensor)
    pixels, mode = native or _decode_with_pil(data)
    height, width = pixels.shape[:2]
    if (height, width) != (size, size):
        resized = Image.fromarray(pixels).resize((size, size), Image.Resampling.BILINEAR)
        pixels = np.asarray(resized)
    return Decoded(pixels, mode, width, height)


def _decode_jpeg(data: bytes) -> tuple[NDArray[np.uint8], str] | None:
    """RGB and mode of a JPEG, strictly; None for the rare kinds that only PIL knows."""
    try:
        height, width, colours, _ = simplejpeg.decode_jpeg_header(data)
    except ValueError:
        return None
    _refuse_giants(width, height)
    four_inks = colours in {"CMYK", "YCCK"}
    try:
        pixels: NDArray[np.uint8] = simplejpeg.decode_jpeg(data, "CMYK" if four_inks else "RGB", strict=True)
    except ValueError as error:
        if any(word in str(error) for word in ("Premature end", "Corrupt JPEG data")):
            raise UnreadableImage(f"truncated or damaged JPEG: {error}") from None
        return None
    if four_inks:
        return _inverted_cmyk_to_rgb(pixels), "CMYK"
    return pixels, "L" if colours == "Gray" else "RGB"


def _inverted_cmyk_to_rgb(inks_HW4: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """RGB of CMYK values as JPEG files hold them by Adobe's convention, where 255 is no ink."""
    height, width = inks_HW4.shape[:2]
    image = Image.frombuffer("CMYK", (width, height), inks_HW4, "raw", "CMYK;I", 0, 1)
    return np.asarray(image.convert("RGB"))


def _decode_tiff(data: bytes, sensor: Sensor) -> tuple[NDArray[np.uint8], str] | None:
    """RGB and kind of a TIFF with many bands or 16 bits; None for what PIL reads rightly."""
    try:
        tags = tiff.read_tags(data)
        if not (tiff.has_many_bands(tags) or tiff.has_16_bits(tags)):
            return None
        _refuse_giants(int(tags[tiff.WIDTH]), int(tags[tiff.HEIGHT]))
        try:
            bands_HWC = tiff.read_bands(data, tags)
        except tiff.UnknownKind:
            if tiff.has_many_bands(tags) or sensor != Sensor():
                raise
            return None
        pixels = tiff.visible(bands_HWC, tags.get(tiff.PHOTOMETRIC, 1), sensor.bands, sensor.white)
    except tiff.TiffError as error:
        raise UnreadableImage(f"TIFF: {error}") from None
    return pixels, f"TIFF with {bands_HWC.shape[2]} bands of {8 * bands_HWC.itemsize} bits"


def _decode_with_pil(data: bytes) -> tuple[NDArray[np.uint8], str]:
    """RGB and mode of any other image."""
    try:
        # PIL warns of doubtful metadata; the pixels load, or they do not.
        with warnings.catch_warnings(action="ignore"), Image.open(io.BytesIO(data)) as image:
            _refuse_giants(*image.size)
            image.load()
            return np.asarray(_to_rgb(image)), image.mode
    except UnidentifiedImageError:
        raise UnreadableImage(f"not an image of a known kind (it begins with {data[:8]!r})") from None
    except (OSError, SyntaxError, ValueError, EOFError, Image.DecompressionBombError) as error:
        raise UnreadableImage(f"damaged or truncated: {error}") from None


def _to_rgb(image: Image.Image) -> Image.Image:
    mode = image.mode
    if mode.startswith("I;16") or mode == "I":
        # PIL would clip at 255 and give white. Mode I comes from 16-bit PNGs in older files.
        values = np.asarray(image).astype(np.int64)
        if values.min() < 0 or values.max() > 0xFFFF:
            raise UnreadableImage(f"grey values beyond 16 bits ({values.min()} to {values.max()})")
        return Image.fromarray((values >> 8).astype(np.uint8)).convert("RGB")
    if mode == "F":
        raise UnreadableImage("floating-point pixels, whose full scale is unknown")
    if "transparency" in image.info or mode in {"PA", "LA", "La", "RGBa"}:
        image = image.convert("RGBA")
    return image.convert("RGB")


def _refuse_giants(width: int, height: int) -> None:
    if width * height > MAX_PIXELS:
        raise UnreadableImage(f"{width} by {height} pixels, more than {MAX_PIXELS} in all")
