"""TIFFs of many bands and 16 bits, as satellites have them, written tag by tag."""

from __future__ import annotations

import struct
import zlib
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

Bands = NDArray[np.unsignedinteger[Any]]


def with_tag(data: bytes, tag: int, value: int, kind: int = 4) -> bytes:
    """The little-endian file with one value in a tag that has one; ``kind`` 4 is a 32-bit number."""
    (start,) = struct.unpack_from("<I", data, 4)
    (count,) = struct.unpack_from("<H", data, start)
    for at in range(start + 2, start + 2 + 12 * count, 12):
        if struct.unpack_from("<H", data, at) == (tag,):
            return data[:at] + struct.pack("<HHII", tag, kind, 1, value) + data[at + 12 :]
    raise KeyError(tag)


def write_tiff(
    bands_HWC: Bands,
    *,
    order: str = "<",
    deflate: bool = False,
    predictor: bool = False,
    planar: bool = False,
    photometric: int = 1,
    extra_bands: Sequence[int] | None = None,
    rows_per_strip: int = 7,
) -> bytes:
    """A minimal TIFF file; ``order`` is struct's sign for the byte order.

    ``extra_bands`` says what the bands beyond the colours are; left out, nothing is known of them.
    """
    height, width, count = bands_HWC.shape
    planes = [bands_HWC[..., band : band + 1] for band in range(count)] if planar else [bands_HWC]
    if predictor:
        planes = [np.diff(p, axis=1, prepend=np.zeros_like(p[:, :1])) for p in planes]
    stored = [p.astype(p.dtype.newbyteorder(order)) for p in planes]  # type: ignore[arg-type]
    strips = [p[r : r + rows_per_strip].tobytes() for p in stored for r in range(0, height, rows_per_strip)]
    if deflate:
        strips = [zlib.compress(strip) for strip in strips]
    offsets = list(np.cumsum([8, *map(len, strips)]).tolist())
    body = b"".join(strips)
    tags = {
        256: [width],
        257: [height],
        258: [8 * bands_HWC.itemsize] * count,
        259: [8 if deflate else 1],
        262: [photometric],
        273: offsets[:-1],
        277: [count],
        278: [rows_per_strip],
        279: [len(strip) for strip in strips],
        284: [2 if planar else 1],
        317: [2 if predictor else 1],
        338: [0] * (count - (3 if photometric == 2 else 1)) if extra_bands is None else list(extra_bands),
    }
    tags = {tag: values for tag, values in tags.items() if values}
    start = offsets[-1] + 2 + 12 * len(tags) + 4
    entries, extra = b"", b""
    for tag, values in tags.items():
        packed = struct.pack(f"{order}{len(values)}I", *values)
        if len(values) > 1:
            where, extra = struct.pack(f"{order}I", start + len(extra)), extra + packed
            packed = where
        entries += struct.pack(f"{order}HHI", tag, 4, len(values)) + packed
    magic = b"II*\x00" if order == "<" else b"MM\x00*"
    header = magic + struct.pack(f"{order}I", offsets[-1])
    return header + body + struct.pack(f"{order}H", len(tags)) + entries + b"\0\0\0\0" + extra
