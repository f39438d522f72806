"""Kinds of image files, recognized by their first bytes and never by their name."""

from __future__ import annotations

from enum import Enum


class FileKind(Enum):
    """A supported kind of file; the value is its name in messages."""

    JPEG = "JPEG"
    PNG = "PNG"
    TIFF = "TIFF"
    JPEG2000 = "JPEG 2000"
    WEBP = "WebP"
    BMP = "BMP"
    GIF = "GIF"
    AVIF = "AVIF"


SIGNATURES = (
    (b"\xff\xd8\xff", FileKind.JPEG),
    (b"\x89PNG\r\n\x1a\n", FileKind.PNG),
    (b"II*\0", FileKind.TIFF),
    (b"MM\0*", FileKind.TIFF),
    (b"II+\0", FileKind.TIFF),  # BigTIFF
    (b"MM\0+", FileKind.TIFF),
    (b"\0\0\0\x0cjP  \r\n\x87\n", FileKind.JPEG2000),
    (b"\xff\x4f\xff\x51", FileKind.JPEG2000),  # a bare codestream
    (b"BM", FileKind.BMP),
    (b"GIF87a", FileKind.GIF),
    (b"GIF89a", FileKind.GIF),
)
PILLOW_FORMATS = {
    FileKind.JPEG: ("JPEG",),
    FileKind.PNG: ("PNG",),
    FileKind.WEBP: ("WEBP",),
    FileKind.BMP: ("BMP",),
    FileKind.GIF: ("GIF",),
    FileKind.AVIF: ("AVIF",),
}
"""Pillow's name of each kind that it reads. Pillow must never guess: it would open EPS, ICO and others."""
GDAL_DRIVERS = {FileKind.TIFF: "GTiff", FileKind.JPEG2000: "JP2OpenJPEG", FileKind.PNG: "PNG"}
"""GDAL's driver of each kind that it reads. No other driver is ever tried."""
BRANDS_AVIF = (b"avif", b"avis")


def file_kind(data: bytes) -> FileKind | None:
    """The kind of file that ``data`` begins as; None when it is no supported one."""
    for signature, kind in SIGNATURES:
        if data.startswith(signature):
            return kind
    if data[:4] == b"RIFF" and data[8:12] == b"WEBP":
        return FileKind.WEBP
    if data[4:8] == b"ftyp" and data[8:12] in BRANDS_AVIF:
        return FileKind.AVIF
    return None
