"""Files that Pillow reads: only their own kind is tried, and channels can be chosen."""

from __future__ import annotations

import io

import numpy as np
import pytest
from PIL import Image, UnidentifiedImageError

from canopy.data.raster.errors import UnreadableImageError
from canopy.data.raster.formats import FileKind
from canopy.data.raster.pillow import read_with_pillow

SIZE, LIMIT = 16, 400 * 10**6
PIXELS = np.random.default_rng(0).integers(0, 256, (SIZE, SIZE, 4), dtype=np.uint8)


def saved(image: Image.Image, kind: str) -> bytes:
    stream = io.BytesIO()
    image.save(stream, kind)
    return stream.getvalue()


def test_a_file_of_another_kind_is_not_opened() -> None:
    with pytest.raises(UnidentifiedImageError):
        read_with_pillow(saved(Image.new("RGB", (8, 8)), "BMP"), FileKind.PNG, SIZE, None, LIMIT)


@pytest.mark.parametrize("bands", [(3, 2, 1), (4, 1, 1)])
def test_bands_of_a_png(bands: tuple[int, int, int]) -> None:
    found = read_with_pillow(saved(Image.fromarray(PIXELS), "PNG"), FileKind.PNG, SIZE, bands, LIMIT)
    assert (found.pixels == PIXELS[..., [band - 1 for band in bands]]).all()
    assert found.mode == "RGBA"


def test_a_palette_has_no_bands() -> None:
    data = saved(Image.fromarray(PIXELS[..., :3]).quantize(8), "PNG")
    with pytest.raises(UnreadableImageError, match="colors of the kind P"):
        read_with_pillow(data, FileKind.PNG, SIZE, (1, 1, 1), LIMIT)


def test_avif_of_more_than_8_bits_is_refused() -> None:
    data = saved(Image.fromarray(PIXELS[..., :3]), "AVIF")
    at = data.index(b"av1C") + 6
    deep = data[:at] + bytes([data[at] | 0x40]) + data[at + 1 :]
    assert read_with_pillow(data, FileKind.AVIF, SIZE, None, LIMIT).mode == "RGB"
    with pytest.raises(UnreadableImageError, match="AVIF of more than 8 bits"):
        read_with_pillow(deep, FileKind.AVIF, SIZE, None, LIMIT)
