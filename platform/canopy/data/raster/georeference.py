"""Where chips lie on the earth: their ground resolution, from a sample of the files."""

from __future__ import annotations

import math
import warnings
from collections.abc import Sequence

import rasterio
from rasterio.errors import NotGeoreferencedWarning, RasterioError
from rasterio.io import MemoryFile

from canopy.bands import SEVERAL_FILES
from canopy.storage import files

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


def _of_file(uri: str, size: int) -> float | None:
    """Ground size of a pixel of one file after its resize; None without a projected CRS."""
    with warnings.catch_warnings(action="ignore", category=NotGeoreferencedWarning), rasterio.Env():
        try:
            with MemoryFile(files.read_bytes(uri)) as memory, memory.open() as dataset:
                if dataset.crs is None or not dataset.crs.is_projected:
                    return None
                side = math.hypot(dataset.transform.a, dataset.transform.d) * dataset.width / size
                return float(side * dataset.crs.linear_units_factor[1])
        except (RasterioError, FileNotFoundError):  # prepare names damaged files by itself
            return None
