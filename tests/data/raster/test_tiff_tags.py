"""Tags and blocks of TIFFs, in both layouts of the format and both byte orders."""

from __future__ import annotations

import itertools
import warnings
from typing import Any

import numpy as np
import pytest
from rasterio.errors import NotGeoreferencedWarning
from rasterio.io import MemoryFile
from tests.damage import overwritten, truncated
from tests.tiffs import write_tiff

from canopy.data.raster.decode import decode
from canopy.data.raster.errors import UnreadableImageError
from canopy.data.raster.tiff_tags import PageTags, read_page_tags

SIZE = 32
SMOOTH = np.add.outer(np.arange(SIZE), np.arange(SIZE)).astype(np.uint8)


def by_gdal(**options: Any) -> bytes:
    profile = {"count": 3, "dtype": "uint8", "width": SIZE, "height": SIZE, "photometric": "RGB"}
    with warnings.catch_warnings(action="ignore", category=NotGeoreferencedWarning), MemoryFile() as memory:
        with memory.open(driver="GTiff", **profile, **options) as file:
            file.write(np.stack([SMOOTH, SMOOTH[::-1], SMOOTH.T]))
        return bytes(memory.read())


@pytest.mark.parametrize("order", ["<", ">"])
def test_tags_of_a_classic_tiff(order: str) -> None:
    bands_HWC = np.zeros((4, 4, 5), np.uint8)
    data = write_tiff(bands_HWC, order=order, photometric=2, extra_bands=[1, 0])
    assert read_page_tags(data) == PageTags(2, (1, 0))


@pytest.mark.parametrize("endianness", ["LITTLE", "BIG"])
def test_tags_of_a_bigtiff(endianness: str) -> None:
    data = by_gdal(BIGTIFF="YES", ENDIANNESS=endianness)
    assert data[2:4] in (b"+\0", b"\0+")
    assert read_page_tags(data) == PageTags(2, ())


@pytest.mark.parametrize("big", ["YES", "NO"])
def test_no_damage_raises_anything_but_unreadable(big: str) -> None:
    data = by_gdal(BIGTIFF=big, compress="deflate")
    refused = 0
    for damaged in itertools.chain(overwritten(data, step=7), truncated(data, step=23)):
        try:
            decode(damaged, SIZE)
        except UnreadableImageError:
            refused += 1
    assert refused > 30


@pytest.mark.parametrize("options", [{"tiled": True, "blockxsize": 16, "blockysize": 16}, {"blockysize": 8}])
@pytest.mark.parametrize(("big", "interleave"), [("YES", "pixel"), ("NO", "band")])
def test_damage_under_deflate_never_changes_pixels(
    options: dict[str, Any], big: str, interleave: str
) -> None:
    data = by_gdal(BIGTIFF=big, interleave=interleave, compress="deflate", predictor=2, **options)
    right = decode(data, SIZE).pixels
    tried = refused = 0
    for damaged in overwritten(data, step=13):
        tried += 1
        try:
            decoded = decode(damaged, SIZE)
        except UnreadableImageError:
            refused += 1
            continue
        if decoded.mode == "RGB" and (decoded.width, decoded.height) == (SIZE, SIZE):
            assert (decoded.pixels == right).all()
    assert tried > 40
    assert refused > 20
