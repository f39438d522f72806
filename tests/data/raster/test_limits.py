"""Files that cost out of proportion: refused by their headers, within a memory limit and in seconds."""

from __future__ import annotations

import io
import json
import struct
import subprocess
import sys
import zlib
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest
from PIL import Image

from canopy.config import DataConfig
from canopy.data.raster.errors import UnreadableImageError
from canopy.data.raster.limits import (
    max_image_bytes,
    require_bands,
    require_file_size,
    require_memory,
    resize_bytes,
)

MAX_MB, MAX_S = 600, 5.0


def chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def zeros(count: int) -> bytes:
    """``count`` zero bytes under deflate, from one packed megabyte repeated, with their checksum."""
    packer = zlib.compressobj(9, wbits=-15)
    block = packer.compress(bytes(1 << 20)) + packer.flush(zlib.Z_FULL_FLUSH)
    rest = zlib.compressobj(9, wbits=-15)
    end = rest.compress(bytes(count & ((1 << 20) - 1))) + rest.flush()
    return b"\x78\xda" + block * (count >> 20) + end + struct.pack(">HH", count % 65521, 1)


def png(width: int, height: int, depth: int, kind: int, line_bytes: int, extra: bytes = b"") -> bytes:
    header = struct.pack(">IIBBBBB", width, height, depth, kind, 0, 0, 0)
    body = chunk(b"IDAT", zeros((line_bytes + 1) * height))
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + extra + body + chunk(b"IEND", b"")


def gif(screen: int, frame: int, frames: int = 1) -> bytes:
    head = b"GIF89a" + struct.pack("<HHBBB", screen, screen, 0x80, 0, 0) + b"\0\0\0\xff\xff\xff"
    one = b"\x2c" + struct.pack("<HHHHB", 0, 0, frame, frame, 0) + b"\x02\x02\x44\x01\x00"
    return head + one * frames + b"\x3b"


def tiff(tags: dict[int, Sequence[int]], blob: bytes) -> bytes:
    """A little-endian TIFF; tag 273 or 324 receives the offset of ``blob``."""
    start = 8 + 2 + 12 * len(tags) + 4
    lists = b""
    entries = b""
    blob_at = start + sum(4 * len(values) for values in tags.values() if len(values) > 1)
    for tag, values in sorted(tags.items()):
        if len(values) > 1:
            entries += struct.pack("<HHII", tag, 4, len(values), start + len(lists))
            lists += struct.pack(f"<{len(values)}I", *values)
        else:
            value = blob_at if tag in (273, 324) else values[0]
            entries += struct.pack("<HHII", tag, 4, 1, value)
    return b"II*\0" + struct.pack("<IH", 8, len(tags)) + entries + struct.pack("<I", 8) + lists + blob


def strip(width: int, height: int, bits: int, count: int, packed: bytes) -> bytes:
    tags = {
        256: [width],
        257: [height],
        258: [bits] * count,
        259: [8],
        262: [2 if count == 3 else 1],
        273: [0],
    }
    return tiff({**tags, 277: [count], 278: [height], 279: [len(packed)], 284: [1]}, packed)


def tile(side: int) -> bytes:
    packed = zeros(3 * side * side)
    tags = {256: [64], 257: [64], 258: [8] * 3, 259: [8], 262: [2], 277: [3], 284: [1]}
    return tiff({**tags, 322: [side], 323: [side], 324: [0], 325: [len(packed)]}, packed)


def scans(side: int, count: int) -> bytes:
    """A progressive JPEG whose last scan is repeated, empty."""
    stream = io.BytesIO()
    Image.new("RGB", (side, side)).save(stream, "JPEG", progressive=True)
    data = stream.getvalue()
    last = data.rfind(b"\xff\xda")
    return data[:-2] + data[last:-2] * count + b"\xff\xd9"


def saved(kind: str, **options: object) -> bytes:
    stream = io.BytesIO()
    Image.new("RGB", (8192, 8192)).save(stream, kind, **options)
    return stream.getvalue()


COSTLY: dict[str, Callable[[], bytes]] = {
    "png of gigapixels": lambda: png(60000, 60000, 8, 2, 10)[:5000],
    "png at the limit": lambda: png(8192, 8192, 8, 2, 3 * 8192),
    "png of 16 bits": lambda: png(8192, 8192, 16, 6, 8 * 8192),
    "png of 1 bit": lambda: png(8192, 8192, 1, 0, 1024),
    "png of one line": lambda: png(2**26, 1, 8, 0, 2**26),
    "png with a text bomb": lambda: png(8, 8, 8, 2, 24, chunk(b"zTXt", b"a\0\0" + zeros(300_000_000))),
    "png with a profile bomb": lambda: png(8, 8, 8, 2, 24, chunk(b"iCCP", b"a\0\0" + zeros(300_000_000))),
    "gif with a giant frame": lambda: gif(1, 65535),
    "gif of 35 bytes": lambda: gif(8192, 1),
    "gif of many frames": lambda: gif(64, 1, 200_000),
    "tiff of terapixels": lambda: strip(2**20, 2**20, 8, 3, b"x" * 100),
    "tiff with a strip bomb": lambda: strip(64, 64, 8, 3, zeros(1_000_000_000)),
    "tiff of four bands": lambda: strip(8192, 8192, 16, 4, zeros(8192 * 8192 * 8)),
    "tiff with a giant tile": lambda: tile(16384),
    "tiff of many tags": lambda: b"II*\0" + struct.pack("<IH", 8, 20000) + bytes(240_004),
    "jpeg of gigapixels": lambda: giant_jpeg(65500),
    "jpeg without its data": lambda: giant_jpeg(8192),
    "jpeg of many scans": lambda: scans(4096, 2000),
    "small jpeg of many scans": lambda: scans(256, 20_000),
    "ico": lambda: b"\0\0\1\0\1\0" + bytes(16) + png(9000, 9000, 8, 6, 36000),
    "eps": lambda: b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 64 64\n%%EndComments\nshowpage\n%%EOF\n",
    "ppm": lambda: b"P6 8192 8192 255\n",
}
SLOW_TO_MAKE: dict[str, Callable[[], bytes]] = {
    "jpeg 2000": lambda: saved("JPEG2000"),
    "avif": lambda: saved("AVIF", speed=10),
}
REASONS = {
    "png with a text bomb": "text or color profile unpacks to more than 1 MiB: save it without metadata",
    "png with a profile bomb": "text or color profile unpacks to more than 1 MiB: save it without metadata",
    "tiff with a giant tile": "64 by 64 pixels in tiles of 16384 by 16384 need",
}
READABLE = {"png at the limit"}

CODE = """
import json, re, sys, time
from canopy.data.raster.try_decode import try_decode
data = open(sys.argv[1], "rb").read()
start = time.process_time()
problem = try_decode(data, 64)[1].problem
seconds = time.process_time() - start
status = open("/proc/self/status").read()  # getrusage would count the process that started this one
print(json.dumps([problem, seconds, int(re.search(r"VmHWM:\\s+(\\d+) kB", status).group(1)) / 1024]))
"""


def giant_jpeg(side: int) -> bytes:
    """A small JPEG whose header claims another size."""
    stream = io.BytesIO()
    Image.new("RGB", (256, 256)).save(stream, "JPEG")
    data = bytearray(stream.getvalue())
    at = data.find(b"\xff\xc0")
    data[at + 5 : at + 9] = struct.pack(">HH", side, side)
    return bytes(data)


SLOW = [pytest.param(name, marks=pytest.mark.slow) for name in SLOW_TO_MAKE]


@pytest.mark.parametrize("name", [*COSTLY, *SLOW])
def test_costly_files_stay_within_memory_and_time(tmp_path: Path, name: str) -> None:
    (tmp_path / "image.jpg").write_bytes({**COSTLY, **SLOW_TO_MAKE}[name]())
    done = subprocess.run(
        [sys.executable, "-c", CODE, str(tmp_path / "image.jpg")], capture_output=True, text=True, timeout=60
    )
    assert (done.returncode, done.stderr) == (0, "")
    problem, seconds, peak_mb = json.loads(done.stdout)
    assert peak_mb < MAX_MB
    assert seconds < MAX_S
    assert bool(problem) != (name in READABLE), problem
    assert REASONS.get(name, "") in problem


def test_memory_is_compared_with_the_option() -> None:
    limit = max_image_bytes(DataConfig(max_image_mb=50))
    assert limit == 50_000_000
    require_memory(10, 10, limit, limit)
    with pytest.raises(
        UnreadableImageError, match=r"10 by 10 pixels need 51 MB .* data\.max_image_mb \(50\)"
    ):
        require_memory(10, 10, limit + 10**6, limit)
    with pytest.raises(UnreadableImageError, match="0 by 10 pixels"):
        require_memory(0, 10, 0, limit)
    with pytest.raises(UnreadableImageError, match=r"file has 60 MB, more than data\.max_image_mb \(50\)"):
        require_file_size(60_000_000, limit)


def test_a_wide_image_needs_memory_for_the_filter_of_its_resize() -> None:
    assert resize_bytes(2**26, 1, 64) > 10**9
    assert resize_bytes(256, 256, 64) < 10**5


def test_bands_beyond_those_of_the_file() -> None:
    require_bands(3, (3, 2, 1))
    with pytest.raises(UnreadableImageError, match=r"has 3 bands, and data\.sensor\.bands names band 4"):
        require_bands(3, (4, 2, 1))
