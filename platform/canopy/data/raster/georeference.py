"""Where chips lie on the earth: their ground resolution, from a sample of the files."""

from __future__ import annotations

import contextlib
import itertools
import math
import warnings
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, NamedTuple

import rasterio
from rasterio.errors import NotGeoreferencedWarning, RasterioError
from rasterio.io import MemoryFile

from canopy.bands import SEVERAL_FILES
from canopy.data.raster.formats import GDAL_DRIVERS, FileKind, file_kind
from canopy.storage import files

if TYPE_CHECKING:
    from rasterio.io import DatasetReader

SAMPLE = 16
"""Files that are looked at."""
SUFFIXES = (".tif", ".tiff", ".jp2")
"""Files that may have a georeference."""
SPREAD = 0.01
"""Relative difference of ground resolutions above which the chips have no common one."""


def metres_per_pixel(uris: Sequence[str], size: int) -> float | None:
    """Ground size of a pixel of decoded chips; None where the files have no common one in metres.

    Args:
        uris: files of the chips; of a chip in several files (:data:`~canopy.bands.SEVERAL_FILES`) the first.
        size: height and width to which chips are resized, pixels.

    Raises:
        StorageError: when the object store fails.
    """
    step = max(1, len(uris) // SAMPLE)
    found = []
    for several in uris[::step][:SAMPLE]:
        uri = several.split(SEVERAL_FILES)[0]
        metres = _of_file(uri, size) if files.suffix(uri).lower() in SUFFIXES else None
        if metres is None:
            return None
        found.append(metres)
    if not found or max(found) > min(found) * (1 + SPREAD):
        return None
    return sorted(found)[len(found) // 2]


class Place(NamedTuple):
    """Where a chip lies.

    Attributes:
        crs: coordinate reference system as WKT.
        bounds: left, bottom, right and top in its units; of a rotated chip those of its envelope.
    """

    crs: str
    bounds: tuple[float, float, float, float]


def place_of(address: str) -> Place | None:
    """The place of a chip, of whose files the first counts; None without a georeference, or when damaged.

    Raises:
        StorageError: when the object store fails.
    """
    uri = address.split(SEVERAL_FILES, maxsplit=1)[0]
    with _opened(uri) as dataset:
        if dataset is None or dataset.crs is None or dataset.transform.is_identity:
            return None
        corners = itertools.product((0, dataset.width), (0, dataset.height))
        xs, ys = zip(*(dataset.transform @ corner for corner in corners), strict=True)
        return Place(dataset.crs.to_wkt(), (min(xs), min(ys), max(xs), max(ys)))


def _of_file(uri: str, size: int) -> float | None:
    """Ground size of a pixel of one file after its resize; None without a projected CRS."""
    with _opened(uri) as dataset:
        if dataset is None or dataset.crs is None or not dataset.crs.is_projected:
            return None
        side = math.hypot(dataset.transform.a, dataset.transform.d) * dataset.width / size
        return float(side * dataset.crs.linear_units_factor[1])


@contextlib.contextmanager
def _opened(uri: str) -> Iterator[DatasetReader | None]:
    """A file opened from memory; None when it is missing, damaged or of no known kind."""
    with (
        warnings.catch_warnings(action="ignore", category=NotGeoreferencedWarning),
        rasterio.Env(),
        contextlib.ExitStack() as stack,
    ):
        dataset = None
        with contextlib.suppress(RasterioError, FileNotFoundError):  # prepare names damaged files by itself
            data = files.read_bytes(uri)
            if (driver := GDAL_DRIVERS.get(file_kind(data) or FileKind.GIF)) is not None:
                memory = stack.enter_context(MemoryFile(data))
                dataset = stack.enter_context(memory.open(driver=driver))
        yield dataset
