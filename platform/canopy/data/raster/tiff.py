"""TIFFs that PIL cannot read rightly: more than three bands, 16 bits per band, and damage under deflate.

Satellite chips come so: Planet's analytic scenes have four bands of 16 bits, blue, green, red and near
infrared. Ordinary pictures under deflate are read here because libtiff, which PIL asks, passes over the
stream's checksum and gives wrong pixels for a damaged file. Read are strips (not tiles), raw or deflate,
bands pixel by pixel or plane by plane.
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

MAX_BYTES = 2**29
"""Pixels that would take more are refused before memory is taken: four bands of 16 bits, 67 megapixels."""
MAGIC = (b"II*\x00", b"MM\x00*")
WIDTH, HEIGHT, BITS, COMPRESSION, PHOTOMETRIC, OFFSETS, BANDS = 256, 257, 258, 259, 262, 273, 277
ROWS_PER_STRIP, BYTE_COUNTS, PLANAR, PREDICTOR, FORMAT = 278, 279, 284, 317, 339
FILL_ORDER, ORIENTATION, EXTRA = 266, 274, 338
NUMBERS = (WIDTH, HEIGHT, COMPRESSION, PHOTOMETRIC, BANDS, ROWS_PER_STRIP, PLANAR, PREDICTOR)
LISTS = (BITS, OFFSETS, BYTE_COUNTS, FORMAT)
USED = (*NUMBERS, *LISTS, FILL_ORDER, ORIENTATION, EXTRA)
"""Doubtful values of all other tags, resolutions and dates, say nothing about the pixels."""
RAW, DEFLATE = (1,), (8, 32946)
GRAY, RGB = (0, 1), 2
BLACK_IS_ZERO = 1
PICTURES: dict[tuple[Any, ...], str] = {
    (BLACK_IS_ZERO, 1, ()): "L",
    (BLACK_IS_ZERO, 2, (0,)): "L",
    (BLACK_IS_ZERO, 2, (2,)): "LA",
    (RGB, 3, ()): "RGB",
    (RGB, 4, (0,)): "RGB",
    (RGB, 4, (2,)): "RGBA",
}
"""Photometric tag, bands and extra bands of pictures whose colour is their bands as stored: PIL's name.

Not so white is zero (inverted), palettes, inks, and colours that were multiplied by their alpha (1, and
what libtiff supposes of a fourth band in planes of which nothing is said)."""
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
            tags = {tag: directory[tag] for tag in USED if tag in directory or tag in (WIDTH, HEIGHT)}
    except (UserWarning, SyntaxError, struct.error, KeyError, ValueError, TypeError, OSError) as error:
        raise TiffError(f"its tags cannot be read ({error})") from None
    _refuse_nonsense(tags)
    return tags


def _refuse_nonsense(tags: Mapping[int, Any]) -> None:
    """Refuse tags that no writer writes: what is computed from them would be nonsense, or an error."""
    for tag in tags.keys() & {*NUMBERS, *LISTS}:
        value = tags[tag]
        numbers = value if tag in LISTS else (value,)
        whole = isinstance(numbers, tuple) and all(isinstance(number, int) for number in numbers)
        if not whole or not numbers or min(numbers) < 0:
            raise TiffError(f"its tag {tag} is damaged ({str(value)[:40]})")
    for tag in (WIDTH, HEIGHT, BANDS, ROWS_PER_STRIP):
        if tags.get(tag, 1) < 1:
            raise TiffError(f"its tag {tag} is damaged ({tags[tag]})")
    # PIL shows the rows of strips that are not there as black
    planes = tags.get(BANDS, 1) if tags.get(PLANAR, 1) == 2 else 1
    expected = -(-tags[HEIGHT] // tags.get(ROWS_PER_STRIP, tags[HEIGHT])) * planes
    for tag in tags.keys() & {OFFSETS, BYTE_COUNTS}:
        if len(tags[tag]) < expected:
            raise TiffError(f"it is truncated: {len(tags[tag])} of {expected} strips")


def has_many_bands(tags: Mapping[int, Any]) -> bool:
    """Whether there are more bands than a picture has: PIL would refuse the file, or mistake them.

    The four inks of a CMYK file are a picture, and so are red, green, blue and alpha.
    """
    return bool(tags.get(BANDS, 1) > 3 and tags.get(PHOTOMETRIC, 1) in GRAY)


def has_16_bits(tags: Mapping[int, Any]) -> bool:
    """Whether the bands are of 16 bits, of which PIL keeps the upper eight."""
    return bool(tags.get(BITS, (1,))[0] == 16)


def checked_picture(tags: Mapping[int, Any]) -> str | None:
    """PIL's name for a picture of 8 bits under deflate, which :func:`read_bands` reads to the bit as PIL.

    None for all else. Without deflate there is no checksum, and PIL sees as much damage as we do.
    """
    as_stored = tags.get(FILL_ORDER, 1) == 1 and tags.get(ORIENTATION, 1) == 1
    if not (as_stored and set(tags.get(BITS, (1,))) == {8} and tags.get(COMPRESSION, 1) in DEFLATE):
        return None
    # PIL takes a file that does not say for white is zero, so there is no default of 1 here
    return PICTURES.get((tags.get(PHOTOMETRIC), tags.get(BANDS, 1), tags.get(EXTRA, ())))


def read_bands(data: bytes, tags: Mapping[int, Any]) -> NDArray[np.unsignedinteger[Any]]:
    """All bands as stored, uint8 or uint16, shape (height, width, bands).

    Raises:
        TiffError: when the file is truncated or damaged.
        UnknownKind: when it is of a kind that is not read here.
    """
    bits, count = tags.get(BITS, (1,)), tags.get(BANDS, 1)
    kind = f"{count} bands of {bits[0]} bits, compression {tags.get(COMPRESSION, 1)}"
    kind += "" if tags.get(PHOTOMETRIC, 1) in (*GRAY, RGB) else f", colours {tags[PHOTOMETRIC]}"
    planar = tags.get(PLANAR, 1) == 2
    plain = (set(bits) <= {8} or set(bits) <= {16}) and tags.get(PHOTOMETRIC, 1) in (*GRAY, RGB)
    whole = set(tags.get(FORMAT, (1,))) == {1} and tags.get(COMPRESSION, 1) in RAW + DEFLATE
    whole = whole and tags.get(PREDICTOR, 1) in (1, 2)
    if not (plain and whole and OFFSETS in tags and BYTE_COUNTS in tags):
        raise UnknownKind(f"it is of a kind that is not read ({kind}): save it with strips, raw or deflate")
    height, width, item = tags[HEIGHT], tags[WIDTH], bits[0] // 8
    if height * width * count * item > MAX_BYTES:
        raise TiffError(f"{width} by {height} pixels of {kind} are more than {MAX_BYTES} bytes")
    planes, depth = (count, 1) if planar else (1, count)
    order = "<" if data[:2] == b"II" else ">"
    values = np.frombuffer(_strips(data, tags, planes, width * depth * item), f"{order}u{item}")
    pixels = values.reshape(planes, height, width, depth).astype(values.dtype.newbyteorder("="))
    if tags.get(PREDICTOR, 1) == 2:  # each value is the difference from its left neighbour, modulo 2^bits
        pixels = np.cumsum(pixels, axis=2, dtype=pixels.dtype)
    return pixels.transpose(1, 2, 0, 3).reshape(height, width, count)


def _strips(data: bytes, tags: Mapping[int, Any], planes: int, row_bytes: int) -> bytes:
    """All rows of all planes, unpacked, without what a writer may have put behind a strip's last row."""
    height = tags[HEIGHT]
    rows = min(tags.get(ROWS_PER_STRIP, height), height)
    tops = [*range(0, height, rows)] * planes
    out = []
    for top, offset, size in zip(tops, tags[OFFSETS], tags[BYTE_COUNTS], strict=False):
        strip = data[offset : offset + size]
        if len(strip) < size:
            raise TiffError("it is truncated")
        if tags.get(COMPRESSION, 1) in DEFLATE:
            strip = _inflated(strip, rows * row_bytes)
        wanted = min(rows, height - top) * row_bytes
        if len(strip) < wanted:
            raise TiffError(f"it is truncated: {len(strip)} of {wanted} bytes in a strip")
        out.append(strip[:wanted])
    return b"".join(out)


def _inflated(strip: bytes, most: int) -> bytes:
    """What deflate packed, to the end of its stream, where the checksum is."""
    stream = zlib.decompressobj()
    try:
        unpacked = stream.decompress(strip, most + 1)  # a small strip can unpack to gigabytes
    except zlib.error as error:
        raise TiffError(f"a strip is damaged ({error})") from None
    if len(unpacked) > most:
        raise TiffError("a strip is damaged (it holds more than its rows)")
    if not stream.eof:
        raise TiffError("a strip is damaged (it is incomplete)")
    return unpacked


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
