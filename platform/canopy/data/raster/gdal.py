"""TIFF, JPEG 2000 and PNG of 16 bits through GDAL (rasterio).

GDAL runs with one driver per file, on memory, without side-car files, network and further threads.
"""

from __future__ import annotations

import contextlib
import logging
import re
import threading
import warnings
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import rasterio
from PIL import Image
from rasterio._err import CPLE_BaseError  # raised by rasterio itself, and in no public module
from rasterio.enums import ColorInterp
from rasterio.errors import NotGeoreferencedWarning, RasterioError
from rasterio.io import MemoryFile
from rasterio.session import DummySession

from canopy.data.raster import tiff_tags
from canopy.data.raster.errors import UnreadableImageError
from canopy.data.raster.formats import GDAL_DRIVERS, FileKind
from canopy.data.raster.limits import require_bands, require_memory, resize_bytes
from canopy.data.raster.rescale import to_uint8
from canopy.data.raster.tiff_tags import PageTags, sample_bits

if TYPE_CHECKING:
    from collections.abc import Iterator

    from numpy.typing import NDArray
    from rasterio.io import DatasetReader

    from canopy.config import SensorConfig

OPTIONS = {
    "GDAL_DISABLE_READDIR_ON_OPEN": "EMPTY_DIR",
    "GDAL_PAM_ENABLED": "NO",
    "GDAL_NUM_THREADS": "1",
    "GDAL_CACHEMAX": 32,  # MB
    "OPJ_NUM_THREADS": "1",
}
CACHE_BYTES = 32 * 2**20
JPEG2000_BYTES_PER_SAMPLE = 12
"""OpenJPEG's peak: samples of four bytes, before and after the wavelet transform and in the cache."""
PICTURE_MODES = {
    (ColorInterp.gray,): "L",
    (ColorInterp.gray, ColorInterp.alpha): "LA",
    (ColorInterp.red, ColorInterp.green, ColorInterp.blue): "RGB",
    (ColorInterp.red, ColorInterp.green, ColorInterp.blue, ColorInterp.undefined): "RGB",
    (ColorInterp.red, ColorInterp.green, ColorInterp.blue, ColorInterp.alpha): "RGBA",
}
"""Pillow's mode of pictures of 8 bits, by what their bands are."""
COLORS = (ColorInterp.red, ColorInterp.green, ColorInterp.blue)
DAMAGE_WARNING = re.compile(
    r"corrupt|premature|truncat|extraneous|not enough|bad code|invalid data"
    r"|(?:strip|tile)(?:offset|bytecount)",
    re.IGNORECASE,
)
"""Warnings of libjpeg and libtiff after which decoding continues with wrong or guessed pixels."""
PREFIX = re.compile(r"CPLE_\w+ in |(?:/vsimem/)?\S*[-0-9a-f]{36}(?:\.\w+)?(?::\s?|,\s?|\s)")
"""GDAL's class of an error, and the name under which the file lies in memory."""


class Bands(NamedTuple):
    """A decoded file.

    Attributes:
        pixels: red, green and blue, uint8, shape (height, width, 3).
        mode: kind of image in words, or Pillow's name of it.
        bits: depth of the samples as stored.
    """

    pixels: NDArray[np.uint8]
    mode: str
    bits: int


class _Messages(logging.Handler):
    """Collects GDAL's messages of the running call, per thread, in place of standard error."""

    def __init__(self) -> None:
        super().__init__()
        self.local = threading.local()

    def emit(self, record: logging.LogRecord) -> None:
        lines = getattr(self.local, "lines", None)
        if lines is not None:
            lines.append(PREFIX.sub("", record.getMessage()))

    @contextlib.contextmanager
    def collect(self) -> Iterator[list[str]]:
        self.local.lines = []
        try:
            yield self.local.lines
        finally:
            self.local.lines = None


MESSAGES = _Messages()
_rasterio_logger = logging.getLogger("rasterio")
_rasterio_logger.addHandler(MESSAGES)
_rasterio_logger.propagate = False


@contextlib.contextmanager
def decoding_in_memory(data: bytes) -> Iterator[MemoryFile]:
    """A file in GDAL's memory; errors, and warnings of damage within the block, refuse the image.

    Raises:
        UnreadableImageError: when GDAL finds the file damaged or truncated.
    """
    with (
        MESSAGES.collect() as messages,
        warnings.catch_warnings(action="ignore", category=NotGeoreferencedWarning),
        rasterio.Env(session=DummySession(), **OPTIONS),
        MemoryFile(data) as memory,
    ):
        try:
            yield memory
        except (RasterioError, CPLE_BaseError) as error:
            why = messages[0] if messages else str(error)
            raise UnreadableImageError(f"damaged or truncated: {why}") from None
        damage = next((line for line in messages if DAMAGE_WARNING.search(line)), None)
    if damage is not None:
        raise UnreadableImageError(f"damaged or truncated: {damage}")


def read_with_gdal(data: bytes, kind: FileKind, size: int, sensor: SensorConfig, max_bytes: int) -> Bands:
    """Decode a file and show three of its bands in 8 bits.

    Args:
        data: the file.
        kind: its kind, which names the driver.
        size: side of the chip to which the pixels will be resized.
        sensor: bands and levels.
        max_bytes: memory that decoding may take.

    Raises:
        UnreadableImageError: when the file is damaged, too large, or not fully understood.
    """
    tags = tiff_tags.read_page_tags(data) if kind is FileKind.TIFF else None
    with decoding_in_memory(data) as memory, _open(memory, kind, tags) as dataset:
        refuse_pages(dataset)
        bands = _shown_bands(dataset, sensor, kind, tags)
        _require_memory(dataset, kind, len(set(bands)), size, max_bytes)
        if kind is FileKind.TIFF:
            tiff_tags.check_blocks(data, dataset)
        pixels = _pixels(dataset, bands, sensor, tags)
        mode, bits = _mode(dataset, kind, tags), sample_bits(dataset)
    return Bands(pixels, mode, bits)


def _open(memory: MemoryFile, kind: FileKind, tags: PageTags | None) -> DatasetReader:
    if tags is not None and tags.photometric == tiff_tags.CMYK:  # GDAL would convert it, less exactly
        return rasterio.open(f"GTIFF_RAW:{memory.name}", driver="GTiff")
    return memory.open(driver=GDAL_DRIVERS[kind])


def refuse_pages(dataset: DatasetReader) -> None:
    """Refuse a file of several pages.

    Raises:
        UnreadableImageError: when it has them.
    """
    pages = len(dataset.subdatasets)
    if pages > 1:
        raise UnreadableImageError(
            f"a file of {pages} pages: save all bands in one page, or one image per file"
        )


def _shown_bands(
    dataset: DatasetReader, sensor: SensorConfig, kind: FileKind, tags: PageTags | None
) -> tuple[int, int, int]:
    """Numbers of the bands shown as red, green and blue, from 1.

    Raises:
        UnreadableImageError: when the file does not have them, or leaves open which they are.
    """
    count, interpretation = dataset.count, dataset.colorinterp
    if len(set(dataset.dtypes)) > 1:
        raise UnreadableImageError(f"bands of different types ({', '.join(dict.fromkeys(dataset.dtypes))})")
    if tags is not None and tags.photometric in (tiff_tags.CMYK, tiff_tags.PALETTE):
        return _bands_of_picture(dataset, sensor, tags)
    if sensor.bands is not None:
        require_bands(count, sensor.bands)
        return sensor.bands
    named = [[n + 1 for n, one in enumerate(interpretation) if one is color] for color in COLORS]
    if all(len(found) == 1 for found in named):
        return (named[0][0], named[1][0], named[2][0])
    alpha = interpretation[-1] is ColorInterp.alpha
    match count - alpha:
        case 1:
            return (1, 1, 1)
        case 3:
            return (1, 2, 3)
        case 4 if kind is FileKind.TIFF and not alpha:  # four-band satellites store blue first
            return (3, 2, 1)
    raise UnreadableImageError(
        f"it has {count} bands and does not say which are red, green and blue: set data.sensor.bands"
    )


def _bands_of_picture(dataset: DatasetReader, sensor: SensorConfig, tags: PageTags) -> tuple[int, int, int]:
    what = "inks" if tags.photometric == tiff_tags.CMYK else "a palette"
    if sensor.bands is not None:
        raise UnreadableImageError(f"colors by {what}, which data.sensor.bands cannot choose from")
    expected = 4 if tags.photometric == tiff_tags.CMYK else 1
    if dataset.count < expected or dataset.dtypes[0] != "uint8":
        raise UnreadableImageError(
            f"{dataset.count} bands of {dataset.dtypes[0]} with {what}, which are not read"
        )
    return (1, 1, 1)


def _require_memory(dataset: DatasetReader, kind: FileKind, bands: int, size: int, max_bytes: int) -> None:
    """Check the memory of the samples read, of the decoder's blocks, and of the 8-bit pixels."""
    width, height, item = dataset.width, dataset.height, np.dtype(dataset.dtypes[0]).itemsize
    pixels = width * height
    samples, details = bands * item * pixels, ""
    if kind is FileKind.JPEG2000:
        decoder = JPEG2000_BYTES_PER_SAMPLE * dataset.count * pixels
    else:
        by_pixel = dataset.tags(ns="IMAGE_STRUCTURE").get("INTERLEAVE") == "PIXEL"
        block_height, block_width = dataset.block_shapes[0]
        block = block_height * block_width * item * (dataset.count if by_pixel else 1)
        if block_width > width or block_height > height:
            details = f" in tiles of {block_width} by {block_height}"
        decoder = 2 * block + min(CACHE_BYTES, dataset.count * item * pixels)
    needed = samples + decoder + (2 * 3 + 4) * pixels + resize_bytes(width, height, size)
    require_memory(width, height, needed, max_bytes, details)


def _pixels(
    dataset: DatasetReader, bands: tuple[int, int, int], sensor: SensorConfig, tags: PageTags | None
) -> NDArray[np.uint8]:
    bits = sample_bits(dataset)
    if tags is not None and tags.photometric == tiff_tags.CMYK:
        inks_HW4 = np.moveaxis(dataset.read([1, 2, 3, 4]), 0, -1)
        image = Image.fromarray(np.ascontiguousarray(inks_HW4), mode="CMYK")
        return np.asarray(image.convert("RGB"))
    if tags is not None and tags.photometric == tiff_tags.PALETTE:
        return np.asarray(_palette(dataset)[dataset.read(1)])
    wanted = sorted(set(bands))
    values_bHW = dataset.read(wanted)
    if tags is not None and tags.photometric == tiff_tags.WHITE_IS_ZERO:
        if values_bHW.dtype.kind != "u":
            raise UnreadableImageError(f"samples of type {values_bHW.dtype} where white is zero")
        values_bHW = ((1 << bits) - 1 - values_bHW).astype(values_bHW.dtype)
    shown_bHW = to_uint8(values_bHW, sensor, bits)
    del values_bHW
    pixels = np.stack([shown_bHW[wanted.index(band)] for band in bands], axis=-1)
    return _without_alpha(dataset, pixels, tags)


def _palette(dataset: DatasetReader) -> NDArray[np.uint8]:
    """Colors of the palette, uint8, shape (256, 3)."""
    colors_C3 = np.zeros((256, 3), np.uint8)
    for index, color in dataset.colormap(1).items():
        colors_C3[index] = color[:3]
    return colors_C3


def _without_alpha(
    dataset: DatasetReader, pixels: NDArray[np.uint8], tags: PageTags | None
) -> NDArray[np.uint8]:
    """Undo the multiplication by alpha, where the file declares associated alpha."""
    if tags is None or tiff_tags.ASSOCIATED_ALPHA not in tags.extra_samples:
        return pixels
    if dataset.dtypes[0] != "uint8":
        raise UnreadableImageError(
            "colors of more than 8 bits, multiplied by their alpha: save it without alpha"
        )
    colors = dataset.count - len(tags.extra_samples)
    alpha_HW = dataset.read(colors + 1 + tags.extra_samples.index(tiff_tags.ASSOCIATED_ALPHA))
    multiplied = Image.fromarray(np.dstack([pixels, alpha_HW]), mode="RGBa")
    return np.asarray(multiplied.convert("RGBA").convert("RGB"))


def _mode(dataset: DatasetReader, kind: FileKind, tags: PageTags | None) -> str:
    bits, count, kind_of_sample = sample_bits(dataset), dataset.count, dataset.dtypes[0]
    if tags is not None and tags.photometric in (tiff_tags.CMYK, tiff_tags.PALETTE):
        return "CMYK" if tags.photometric == tiff_tags.CMYK else "P"
    if bits == 1 and count == 1:
        return "1"
    if bits == 8 and kind_of_sample == "uint8" and dataset.colorinterp in PICTURE_MODES:
        return PICTURE_MODES[dataset.colorinterp]
    samples = f"{bits} bits" if kind_of_sample.startswith("uint") else kind_of_sample
    return f"{kind.value} with {count} band{'s' * (count > 1)} of {samples}"
