"""Tags of a TIFF's first page that GDAL does not report, and checks of its blocks that GDAL does not make.

GDAL reads the pixels (:mod:`canopy.data.raster.gdal`). It shows missing strips and tiles as
zeros, it ignores the checksum of deflate streams, and it does not say how alpha was applied.
Source: Adobe, TIFF Revision 6.0 (1992), sections 2 and 8; the BigTIFF layout of libtiff 4.
"""

from __future__ import annotations

import itertools
import struct
import zlib
from typing import TYPE_CHECKING, NamedTuple

from canopy.data.raster.errors import UnreadableImageError

if TYPE_CHECKING:
    from collections.abc import Iterator

    from rasterio.io import DatasetReader

PHOTOMETRIC, EXTRA_SAMPLES = 262, 338
WHITE_IS_ZERO, BLACK_IS_ZERO, RGB, PALETTE, CMYK, YCBCR = 0, 1, 2, 3, 5, 6
KNOWN_PHOTOMETRIC = (WHITE_IS_ZERO, BLACK_IS_ZERO, RGB, PALETTE, CMYK, YCBCR)
ASSOCIATED_ALPHA = 1
INTEGER_CODES = {1: "B", 3: "H", 4: "I", 16: "Q"}
"""struct's code of each integer type of TIFF."""
MAX_VALUES = 64
"""Maximum number of values read per tag. The tags above have one per file or per extra band."""
MAX_BLOCKS = 1 << 18
"""Maximum number of strips or tiles of a file. A chip has a few; checking each takes microseconds."""
INFLATED_CHUNK = 1 << 20
"""Bytes inflated at a time."""
RAW_COMPRESSIONS = ("", "NONE")
DEFLATE = "DEFLATE"


class PageTags(NamedTuple):
    """Tags of a page.

    Attributes:
        photometric: what the samples mean, as TIFF numbers it.
        extra_samples: what each band beyond the colors is: 0 unspecified, 1 associated alpha, 2 alpha.
    """

    photometric: int
    extra_samples: tuple[int, ...]


def read_page_tags(data: bytes) -> PageTags:
    """The tags of the first page of a TIFF or BigTIFF.

    Raises:
        UnreadableImageError: when they cannot be read, or the samples have a meaning that is not supported.
    """
    try:
        values = _integer_tags(data, {PHOTOMETRIC, EXTRA_SAMPLES})
    except (struct.error, OverflowError):
        raise UnreadableImageError("damaged or truncated: the tags of the TIFF cannot be read") from None
    photometric = values.get(PHOTOMETRIC, ())
    if not photometric:
        raise UnreadableImageError("a TIFF without a photometric interpretation: save it again")
    if photometric[0] not in KNOWN_PHOTOMETRIC:
        raise UnreadableImageError(
            f"a TIFF with photometric interpretation {photometric[0]}, which is not read: save it as RGB"
        )
    return PageTags(photometric[0], values.get(EXTRA_SAMPLES, ()))


def _integer_tags(data: bytes, wanted: set[int]) -> dict[int, tuple[int, ...]]:
    order = "<" if data[:2] == b"II" else ">"
    big = struct.unpack_from(f"{order}H", data, 2)[0] == 43
    pointer, count_code, entry = ("Q", "Q", 20) if big else ("I", "H", 12)
    (start,) = struct.unpack_from(order + pointer, data, 8 if big else 4)
    (count,) = struct.unpack_from(order + count_code, data, start)
    first = start + struct.calcsize(order + count_code)
    found: dict[int, tuple[int, ...]] = {}
    for at in itertools.islice(range(first, len(data), entry), min(count, 1 << 16)):
        tag, kind = struct.unpack_from(f"{order}HH", data, at)
        if tag not in wanted or kind not in INTEGER_CODES:
            continue
        (number,) = struct.unpack_from(order + pointer, data, at + 4)
        code = f"{order}{min(number, MAX_VALUES)}{INTEGER_CODES[kind]}"
        place = at + 4 + struct.calcsize(order + pointer)
        if number * struct.calcsize(order + INTEGER_CODES[kind]) > struct.calcsize(order + pointer):
            (place,) = struct.unpack_from(order + pointer, data, place)
        found[tag] = struct.unpack_from(code, data, place)
    return found


class _Block(NamedTuple):
    """One strip or tile.

    Attributes:
        name: its name in messages.
        start: offset of its encoded bytes in the file.
        length: number of its encoded bytes.
        decoded_bytes: size of its rows when decoded.
    """

    name: str
    start: int
    length: int
    decoded_bytes: int


def check_blocks(data: bytes, dataset: DatasetReader) -> None:
    """Check that every strip or tile is there, complete, and true to its checksum where it has one.

    Raises:
        UnreadableImageError: naming the first block that is not.
    """
    compression = dataset.tags(ns="IMAGE_STRUCTURE").get("COMPRESSION", "")
    for block in _blocks(dataset):
        if block.start + block.length > len(data):
            raise UnreadableImageError(f"truncated: {block.name} of the TIFF ends behind the end of the file")
        if compression in RAW_COMPRESSIONS and block.length < block.decoded_bytes:
            raise UnreadableImageError(
                f"truncated: {block.name} of the TIFF has {block.length} of {block.decoded_bytes} bytes"
            )
        if compression == DEFLATE:
            _check_deflate(data[block.start : block.start + block.length], block)


def _blocks(dataset: DatasetReader) -> Iterator[_Block]:
    block_height, block_width = dataset.block_shapes[0]
    down, across = -(-dataset.height // block_height), -(-dataset.width // block_width)
    by_pixel = dataset.tags(ns="IMAGE_STRUCTURE").get("INTERLEAVE") == "PIXEL"
    bands = 1 if by_pixel else dataset.count
    if down * across * bands > MAX_BLOCKS:
        raise UnreadableImageError(
            f"a TIFF of {down * across * bands:,} strips or tiles, more than {MAX_BLOCKS:,}"
        )
    bits = sample_bits(dataset) * (dataset.count if by_pixel else 1)
    tiled = block_width != dataset.width
    for band, row, column in itertools.product(range(1, bands + 1), range(down), range(across)):
        name = f"{'tile' if tiled else 'strip'} {row * across + column + 1} of {down * across}"
        start = dataset.get_tag_item(f"BLOCK_OFFSET_{column}_{row}", "TIFF", bidx=band)
        length = dataset.get_tag_item(f"BLOCK_SIZE_{column}_{row}", "TIFF", bidx=band)
        if not (start and length and int(start) and int(length)):
            raise UnreadableImageError(f"truncated: {name} of the TIFF is missing")
        rows = block_height if tiled else min(block_height, dataset.height - row * block_height)
        row_bytes = -(-block_width * bits // 8)
        yield _Block(name, int(start), int(length), rows * row_bytes)


def sample_bits(dataset: DatasetReader) -> int:
    """Depth of the samples in bits, as the file declares it."""
    declared = dataset.tags(1, ns="IMAGE_STRUCTURE").get("NBITS")
    return int(declared) if declared else int(dataset.dtypes[0].strip("abcdefghijklmnopqrstuvwxyz_") or 8)


def _check_deflate(encoded: bytes, block: _Block) -> None:
    """Inflate a block to the end of its stream, where zlib checks the sum; a chunk at a time."""
    stream = zlib.decompressobj()
    left, total = encoded, 0
    try:
        while left and not stream.eof:
            total += len(stream.decompress(left, INFLATED_CHUNK))
            left = stream.unconsumed_tail
            if total > block.decoded_bytes:  # GDAL would show the whole block as zeros
                raise UnreadableImageError(
                    f"{block.name} of the TIFF is damaged, or holds more rows than the image: save it again"
                )
        total += len(stream.flush())
    except zlib.error as error:
        raise UnreadableImageError(f"{block.name} of the TIFF is damaged ({error})") from None
    if not stream.eof:
        raise UnreadableImageError(f"{block.name} of the TIFF is damaged (it is incomplete)")
    if total < block.decoded_bytes:
        raise UnreadableImageError(
            f"truncated: {block.name} of the TIFF has {total} of {block.decoded_bytes} bytes"
        )
