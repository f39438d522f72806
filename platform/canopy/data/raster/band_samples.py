"""Samples of chosen bands of one raster file, with the pixels that have a value and the place on the earth.

GDAL reads TIFF, JPEG 2000, PNG and JPEG from memory, with one driver per file; a VRT, which names other
files, is opened at its local path.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import rasterio
from rasterio.enums import ColorInterp, MaskFlags

from canopy.data.raster import tiff_tags
from canopy.data.raster.errors import UnreadableImageError
from canopy.data.raster.formats import GDAL_DRIVERS, FileKind, file_kind
from canopy.data.raster.gdal import (
    CACHE_BYTES,
    JPEG2000_BYTES_PER_SAMPLE,
    decoding_in_memory,
    refuse_pages,
)
from canopy.data.raster.limits import require_memory, resize_bytes
from canopy.storage import files

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray
    from rasterio.io import DatasetReader
    from rasterio.windows import Window

VRT = b"<VRTDataset"
DRIVERS = {**GDAL_DRIVERS, FileKind.JPEG: "JPEG"}
REFUSED_COLORS = (tiff_tags.WHITE_IS_ZERO, tiff_tags.PALETTE, tiff_tags.CMYK)
BYTES_PER_VALUE = 16
"""Memory of a sample beyond its own: as float32 before and after the resize, its mask, a copy."""


class Samples(NamedTuple):
    """Bands of one file.

    Attributes:
        values_bHW: samples as float32.
        valid_bHW: whether a pixel has a value.
        bits: depth of the samples as stored.
        dtype: type of the samples, such as uint16.
        crs: coordinate reference system as a text; empty without one.
        bounds: left, bottom, right, top in units of ``crs``; None without a georeference.
    """

    values_bHW: NDArray[np.float32]
    valid_bHW: NDArray[np.bool_]
    bits: int
    dtype: str
    crs: str
    bounds: tuple[float, float, float, float] | None


def read_samples(
    data: bytes,
    address: str,
    numbers: Sequence[int],
    nodata: Sequence[float | None],
    size: int,
    max_bytes: int,
) -> Samples:
    """Read bands of a file.

    Args:
        data: the file.
        address: its path or URI, at which a VRT is opened; else for messages.
        numbers: numbers of the bands, from 1.
        nodata: per band, the sample that means that there is no value; None: what the file declares.
        size: side of the chip to which the bands will be resized.
        max_bytes: memory that decoding may take.

    Raises:
        UnreadableImageError: when the file is damaged, too large, lacks a band, or is of another kind.
    """
    is_vrt = data.lstrip()[: len(VRT)] == VRT
    kind = None if is_vrt else file_kind(data)
    if is_vrt and files.is_uri(address):
        raise UnreadableImageError(
            "a VRT in an object store, which is not read: give the files that it names"
        )
    if not is_vrt and kind not in DRIVERS:
        raise UnreadableImageError("no TIFF, JPEG 2000, PNG, JPEG or VRT, which bands can be read from")
    tags = tiff_tags.read_page_tags(data) if kind is FileKind.TIFF else None
    if tags is not None and tags.photometric in REFUSED_COLORS:
        raise UnreadableImageError(
            "colors by inks, by a palette or with white as zero: save bands of samples"
        )
    with (
        decoding_in_memory(b"" if is_vrt else data) as memory,
        rasterio.open(address, driver="VRT")
        if kind is None
        else memory.open(driver=DRIVERS[kind]) as dataset,
    ):
        refuse_pages(dataset)
        if max(numbers) > dataset.count:
            raise UnreadableImageError(
                f"it has {dataset.count} bands, and data.bands names band {max(numbers)}"
            )
        _require_memory(dataset, kind, len(numbers), size, max_bytes)
        if kind is FileKind.TIFF:
            tiff_tags.check_blocks(data, dataset)
        return samples_of(dataset, numbers, nodata)


def _require_memory(
    dataset: DatasetReader, kind: FileKind | None, bands: int, size: int, max_bytes: int
) -> None:
    width, height = dataset.width, dataset.height
    item, pixels = np.dtype(dataset.dtypes[0]).itemsize, width * height
    if kind is FileKind.JPEG2000:
        decoder = JPEG2000_BYTES_PER_SAMPLE * dataset.count * pixels
    else:
        block_height, block_width = dataset.block_shapes[0]
        decoder = 2 * block_height * block_width * item * dataset.count
        decoder += min(CACHE_BYTES, dataset.count * item * pixels)
    needed = bands * (item + BYTES_PER_VALUE) * pixels + decoder + resize_bytes(width, height, size)
    require_memory(width, height, needed, max_bytes)


def samples_of(
    dataset: DatasetReader,
    numbers: Sequence[int],
    nodata: Sequence[float | None],
    window: Window | None = None,
    shape: tuple[int, int] | None = None,
) -> Samples:
    """Samples of an open file, or of a part of it.

    Args:
        dataset: the file.
        numbers: as for :func:`read_samples`.
        nodata: as for :func:`read_samples`.
        window: the part; None for all. The bounds are those of the whole file.
        shape: rows and columns to which the part is reduced; None: as it is.

    Raises:
        UnreadableImageError: when the bands are of different types, or of one that is not read.
    """
    kinds = {dataset.dtypes[number - 1] for number in numbers}
    if len(kinds) > 1:
        raise UnreadableImageError(f"bands of different types ({', '.join(sorted(kinds))})")
    (kind,) = kinds
    if np.dtype(kind).kind not in "uif":
        raise UnreadableImageError(f"samples of type {kind}, which are not read")
    many = None if shape is None else (len(numbers), *shape)
    stored_bHW: NDArray[Any] = dataset.read(list(numbers), window=window, out_shape=many)
    values_bHW = stored_bHW.astype(np.float32)
    valid_bHW = np.isfinite(values_bHW)
    for position, (number, own) in enumerate(zip(numbers, nodata, strict=True)):
        missing = dataset.nodatavals[number - 1] if own is None else own
        if missing is not None and np.isfinite(missing):
            valid_bHW[position] &= stored_bHW[position] != missing
        flags = dataset.mask_flag_enums[number - 1]
        if MaskFlags.per_dataset in flags and MaskFlags.alpha not in flags:
            valid_bHW[position] &= dataset.read_masks(number, window=window, out_shape=shape) != 0
        if dataset.colorinterp[number - 1] is ColorInterp.palette:
            raise UnreadableImageError("a palette, which bands cannot be read from")
    placed = dataset.crs is not None or not dataset.transform.is_identity
    left, bottom, right, top = map(float, dataset.bounds)
    bounds = (left, bottom, right, top) if placed else None
    crs = "" if dataset.crs is None else dataset.crs.to_string()
    return Samples(values_bHW, valid_bHW, tiff_tags.sample_bits(dataset), kind, crs, bounds)
