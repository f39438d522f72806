"""Inspections: an image that cannot be read is a finding and not an error."""

from __future__ import annotations

import io

import numpy as np
from PIL import Image

from canopy.data.raster.try_decode import Inspection, try_decode

SIZE = 16


def png(image: Image.Image) -> bytes:
    stream = io.BytesIO()
    image.save(stream, "PNG")
    return stream.getvalue()


def test_a_readable_image() -> None:
    chip, found = try_decode(png(Image.new("L", (20, 10), 77)), SIZE)
    assert found == Inspection("L", 20, 10, "", 8)
    assert (chip == 77).all()


def test_the_depth_is_that_of_the_file() -> None:
    deep = Image.fromarray(np.full((SIZE, SIZE), 0x1200, np.uint16))
    assert try_decode(png(deep), SIZE)[1].bits == 16


def test_an_unreadable_image_is_black_with_a_problem() -> None:
    into = np.full((SIZE, SIZE, 3), 9, np.uint8)
    chip, found = try_decode(b"", SIZE, into=into)
    assert chip is into
    assert not chip.any()
    assert found == Inspection(problem="the file is empty")


def test_the_memory_limit_is_passed_on() -> None:
    assert (
        "data.max_image_mb (1)"
        in try_decode(png(Image.new("RGB", (900, 900))), 8, max_bytes=10**6)[1].problem
    )
