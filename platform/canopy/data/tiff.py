"""TIFFs that PIL cannot read rightly: more than three bands, and 16 bits per band.

Satellite chips come so: Planet's analytic scenes have four bands of 16 bits, blue, green, red and near
infrared. Read are strips (not tiles), raw or deflate, bands pixel by pixel or plane by plane.
Source: Adobe, TIFF Revision 6.0 (1992), sections 2, 8 and 14.
"""

from __future__ import annotations

import io
import struct
import warnings
import zlib
from typing import TYPE_CHECKING, Any

import numpy as np
from PIL.TiffImagePlugin import ImageFileDirectory_v2

if TYPE_CHECKING:
    from collections.abc import Mapping

    from numpy.typing import NDArray

MAGIC = (b"II*\x00", b"MM\x00*")
WIDTH, HEIGHT, BITS, COMPRESSION, PHOTOMETRIC, OFFSETS, BANDS = 256, 257, 258, 259, 262, 273, 277
ROWS_PER_STRIP, BYTE_COUNTS, PLANAR, PREDICTOR, FORMAT = 278, 279, 284, 317, 339
RAW, DEFLATE = (1,), (8, 32946)
GREY, RGB = (0, 1), 2
Tags = dict[int, Any]


class TiffError(Exception):
    """A TIFF that is damaged, or of a kind that is not read here."""


class UnknownKind(TiffError):  # noqa: N818
    """A whole TIFF of a kind that is not read here; PIL may know it."""


def read_tags(data: bytes) -> Tags:
    """The tags of the first page.

    Raises:
        TiffError: when they cannot be read.
    """
    try:
        stream = io.BytesIO(data)
        directory = ImageFileDirectory_v2(stream.read(8))
        stream.seek(directory.next)
        with warnings.catch_warnings(action="error"):  # PIL warns of damage and goes on
            directory.load(stream)
        return {WIDTH: directory[WIDTH], HEIGHT: directory[HEIGHT], **dict(directory)}
    except (UserWarning, SyntaxError, struct.error, KeyError, ValueError, TypeError, OSError) as error:
        raise TiffError(f"its tags cannot be read ({error})") from None


def has_many_bands(tags: Mapping[int, Any]) -> bool:
    """Whether there are more bands than a picture has: PIL would refuse the file, or mistake them.

    The four inks of a CMYK file are a picture, and so are red, green, blue and alpha.
    """
    return bool(tags.get(BANDS, 1) > 3 and tags.get(PHOTOMETRIC, 1) in GREY)


def has_16_bits(tags: Mapping[int, Any]) -> bool:
    """Whether the bands are of 16 bits, of which PIL keeps the upper eight."""
    return bool(tags.get(BITS, (1,))[0] == 16)


def read_bands(data: bytes, tags: Mapping[int, Any]) -> NDArray[np.unsignedinteger[Any]]:
    """All bands as stored, uint8 or uint16, shape (height, width, bands).

    Raises:
        TiffError: when the file is truncated or damaged.
        UnknownKind: when it is of a kind that is not read here.
    """
    bits, count = tags.get(BITS, (1,)), int(tags.get(BANDS, 1))
    kind = f"{count} bands of {bits[0]} bits, compression {tags.get(COMPRESSION, 1)}"
    kind += "" if tags.get(PHOTOMETRIC, 1) in (*GREY, RGB) else f", colours {tags[PHOTOMETRIC]}"
    planar = int(tags.get(PLANAR, 1)) == 2
    plain = (set(bits) <= {8} or set(bits) <= {16}) and tags.get(PHOTOMETRIC, 1) in (*GREY, RGB)
    whole = set(tags.get(FORMAT, (1,))) == {1} and tags.get(COMPRESSION, 1) in RAW + DEFLATE
    if not (plain and whole and OFFSETS in tags and BYTE_COUNTS in tags):
        raise UnknownKind(f"it is of a kind that is not read ({kind}): save it with strips, raw or deflate")
    height, width = int(tags[HEIGHT]), int(tags[WIDTH])
    depth = 1 if planar else count
    order = "<" if data[:2] == b"II" else ">"
    values = np.frombuffer(_strips(data, tags), f"{order}u{bits[0] // 8}")
    expected = height * width * count
    if len(values) < expected:
        raise TiffError(f"it is truncated: {len(values)} of {expected} values")
    pixels = values[:expected].reshape(-1, height, width, depth).astype(values.dtype.newbyteorder("="))
    if tags.get(PREDICTOR, 1) == 2:  # each value is the difference from its left neighbour, modulo 2^bits
        pixels = np.cumsum(pixels, axis=2, dtype=pixels.dtype)
    return pixels.transpose(1, 2, 0, 3).reshape(height, width, count)


def _strips(data: bytes, tags: Mapping[int, Any]) -> bytes:
    out = []
    for offset, size in zip(tags[OFFSETS], tags[BYTE_COUNTS], strict=True):
        strip = data[offset : offset + size]
        if len(strip) < size:
            raise TiffError("it is truncated")
        try:
            out.append(zlib.decompress(strip) if tags.get(COMPRESSION, 1) in DEFLATE else strip)
        except zlib.error as error:
            raise TiffError(f"a strip is damaged ({error})") from None
    return b"".join(out)


def usual_bands(count: int, photometric: int) -> tuple[int, int, int]:
    """Which of ``count`` bands are red, green and blue, counted from 1, when nobody says.

    In files that call themselves RGB, or have three bands, the first three; in files of one or two the
    first (grey); else 3, 2, 1, as satellites order theirs.
    """
    if count < 3:
        return (1, 1, 1)
    return (1, 2, 3) if photometric == RGB or count == 3 else (3, 2, 1)


def chosen(
    bands_HWC: NDArray[np.unsignedinteger[Any]], bands: tuple[int, int, int]
) -> NDArray[np.unsignedinteger[Any]]:
    """Three of the bands, counted from 1, shape (height, width, 3).

    Raises:
        TiffError: when there are fewer.
    """
    count = bands_HWC.shape[2]
    if max(bands) > count:
        raise TiffError(f"it has {count} bands, and data.sensor.bands asks for band {max(bands)}")
    return bands_HWC[..., [band - 1 for band in bands]]
