"""JPEG: what it costs is checked first, and channels can be chosen."""

from __future__ import annotations

import io

import numpy as np
import pytest
from PIL import Image

from canopy.data.raster.errors import UnreadableImageError
from canopy.data.raster.jpeg import choose_bands, read_jpeg, require_jpeg_cost

SIZE, LIMIT = 64, 400 * 10**6


def jpeg(progressive: bool = False) -> bytes:
    stream = io.BytesIO()
    pixels = np.random.default_rng(0).integers(0, 256, (SIZE, SIZE, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(stream, "JPEG", progressive=progressive)
    return stream.getvalue()


def test_pixels_are_written_in_place() -> None:
    into = np.zeros((SIZE, SIZE, 3), np.uint8)
    found = read_jpeg(jpeg(), SIZE, into, LIMIT)
    assert found is not None
    assert found.pixels is into
    assert (into == np.asarray(Image.open(io.BytesIO(jpeg())))).all()


def test_progressive_files_need_more_memory() -> None:
    limit = 10 * 3000 * 3000
    require_jpeg_cost(jpeg(), 3000, 3000, SIZE, limit)
    with pytest.raises(UnreadableImageError, match=r"more than data\.max_image_mb \(90\)"):
        require_jpeg_cost(jpeg(progressive=True), 3000, 3000, SIZE, limit)


def test_many_scans_are_refused_by_the_pixels_that_they_visit() -> None:
    many = jpeg(progressive=True) + b"\xff\xda" * 1000
    require_jpeg_cost(many, SIZE, SIZE, SIZE, LIMIT)
    with pytest.raises(UnreadableImageError, match="JPEG with 1,010 scans of 2000 by 2000 pixels"):
        require_jpeg_cost(many, 2000, 2000, SIZE, LIMIT)


def test_bands() -> None:
    pixels = np.arange(12, dtype=np.uint8).reshape(2, 2, 3)
    assert (choose_bands(pixels, "RGB", (3, 2, 1)) == pixels[..., ::-1]).all()
    with pytest.raises(UnreadableImageError, match="has 1 bands"):
        choose_bands(pixels, "L", (1, 2, 1))
    with pytest.raises(UnreadableImageError, match="colors of the kind CMYK"):
        choose_bands(pixels, "CMYK", (1, 2, 3))
