"""Kinds of files by their first bytes."""

from __future__ import annotations

import io

import pytest
from PIL import Image

from canopy.data.raster.formats import FileKind, file_kind

KINDS = {
    "JPEG": FileKind.JPEG,
    "PNG": FileKind.PNG,
    "TIFF": FileKind.TIFF,
    "JPEG2000": FileKind.JPEG2000,
    "WEBP": FileKind.WEBP,
    "BMP": FileKind.BMP,
    "GIF": FileKind.GIF,
    "AVIF": FileKind.AVIF,
}


@pytest.mark.parametrize("name", KINDS)
def test_files_that_pillow_writes(name: str) -> None:
    stream = io.BytesIO()
    Image.new("RGB", (16, 16)).save(stream, name)
    assert file_kind(stream.getvalue()) is KINDS[name]


@pytest.mark.parametrize("start", [b"II*\0", b"MM\0*", b"II+\0", b"MM\0+"])
def test_tiffs_of_both_byte_orders_and_sizes(start: bytes) -> None:
    assert file_kind(start + bytes(20)) is FileKind.TIFF


@pytest.mark.parametrize("name", ["ICO", "PPM", "EPS", "PDF", "TGA", "ICNS", "DDS", "PCX", "SGI"])
def test_kinds_that_are_not_supported(name: str) -> None:
    stream = io.BytesIO()
    Image.new("RGB", (32, 32)).save(stream, name)
    assert file_kind(stream.getvalue()) is None
    assert file_kind(b"") is None
