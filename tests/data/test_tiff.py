"""TIFFs of many bands and 16 bits."""

from __future__ import annotations

import io
import struct
from typing import Any

import numpy as np
import pytest
from PIL import Image
from tests.tiffs import Bands, write_tiff

from canopy.config import SensorConfig
from canopy.data.decode import UnreadableImage, decode, decode_image

SIZE = 20


def four_bands(dtype: type[np.uint8 | np.uint16] = np.uint16) -> Bands:
    """Blue, green, red and near infrared."""
    top = np.iinfo(dtype).max
    return np.random.default_rng(0).integers(0, top, (SIZE, SIZE, 4), endpoint=True).astype(dtype)


FORMS: dict[str, dict[str, Any]] = {
    "plain": {},
    "big endian": {"order": ">"},
    "one strip": {"rows_per_strip": SIZE},
    "deflate": {"deflate": True},
    "predictor": {"deflate": True, "predictor": True},
    "planes": {"planar": True},
    "all": {"planar": True, "deflate": True, "predictor": True, "order": ">"},
}


@pytest.mark.parametrize("form", FORMS)
def test_four_bands_of_16_bits_show_red_green_and_blue(form: str) -> None:
    bands_HWC = four_bands()
    decoded = decode(write_tiff(bands_HWC, **FORMS[form]), SIZE)
    assert (decoded.pixels == bands_HWC[..., [2, 1, 0]] >> 8).all()
    assert decoded.mode == "TIFF with 4 bands of 16 bits"


def test_four_bands_of_8_bits() -> None:
    bands_HWC = four_bands(np.uint8)
    assert (decode_image(write_tiff(bands_HWC), SIZE) == bands_HWC[..., [2, 1, 0]]).all()
    as_rgb = decode_image(write_tiff(bands_HWC, photometric=2), SIZE)
    assert (as_rgb == bands_HWC[..., :3]).all()


def test_a_file_that_says_rgb_is_rgb() -> None:
    bands_HWC = four_bands()
    assert (decode_image(write_tiff(bands_HWC, photometric=2), SIZE) == bands_HWC[..., :3] >> 8).all()
    three = bands_HWC[..., :3]
    assert (decode_image(write_tiff(three, photometric=2), SIZE) == three >> 8).all()


def test_bands_and_white_can_be_chosen() -> None:
    bands_HWC = four_bands() // 16  # satellites fill a part of the 16 bits
    sensor = SensorConfig(bands=(4, 3, 2), white=4095)
    chip = decode_image(write_tiff(bands_HWC), SIZE, sensor)
    assert (chip == bands_HWC[..., [3, 2, 1]] >> 4).all()
    brighter = decode_image(write_tiff(bands_HWC), SIZE, SensorConfig(white=1023))
    assert (brighter == np.minimum(bands_HWC[..., [2, 1, 0]] >> 2, 255)).all()


@pytest.mark.parametrize("photometric", [1, 2])
def test_a_range_of_the_16_bits_is_spread_over_all_eight(photometric: int) -> None:
    bands_HWC = four_bands()
    bands_HWC[0, :4, 0] = 999, 1000, 9000, 9001
    sensor = SensorConfig(bands=(1, 2, 4), black=1000, white=9000)
    chip = decode_image(write_tiff(bands_HWC, photometric=photometric), SIZE, sensor)
    exact = np.clip((bands_HWC[..., [0, 1, 3]].astype(float) - 1000) / 8001 * 256, 0, 255)
    assert (chip == np.floor(exact)).all()
    assert chip[0, :4, 0].tolist() == [0, 0, 255, 255]


@pytest.mark.parametrize("compression", [None, "tiff_lzw"])
def test_bands_can_be_chosen_in_ordinary_colour_files_too(compression: str | None) -> None:
    colours = four_bands(np.uint8)[..., :3]
    stream = io.BytesIO()
    Image.fromarray(colours).save(stream, "TIFF", compression=compression)
    swapped = SensorConfig(bands=(3, 2, 1))
    if compression:
        with pytest.raises(UnreadableImage, match="save it with strips, raw or deflate"):
            decode_image(stream.getvalue(), SIZE, swapped)
    else:
        assert (decode_image(stream.getvalue(), SIZE, swapped) == colours[..., ::-1]).all()
    assert (decode_image(stream.getvalue(), SIZE, SensorConfig(white=4000)) == colours).all(), "8 bits stay"


def test_levels_of_kinds_that_only_pil_reads() -> None:
    values = np.linspace(0, 4000, SIZE * SIZE).astype(np.uint16).reshape(SIZE, SIZE)
    stream = io.BytesIO()
    Image.fromarray(values).save(stream, "TIFF", compression="tiff_lzw")
    chip = decode_image(stream.getvalue(), SIZE, SensorConfig(white=4095))
    assert (chip == (values >> 4)[..., None]).all()


def test_other_compressions_go_through_pil_where_it_reads_them_rightly() -> None:
    values = np.linspace(0, 65535, SIZE * SIZE).astype(np.uint16).reshape(SIZE, SIZE)
    stream = io.BytesIO()
    Image.fromarray(values).save(stream, "TIFF", compression="tiff_lzw")
    assert (decode_image(stream.getvalue(), SIZE) == (values >> 8)[..., None]).all()


def test_truncated_damaged_and_unknown() -> None:
    data = write_tiff(four_bands(), deflate=True)
    moved = data[:4] + struct.pack("<I", len(data) + 50) + data[8:]
    damaged = data[:30] + bytes(60) + data[90:]
    floats = write_tiff(four_bands()).replace(
        struct.pack("<HHII", 259, 4, 1, 1), struct.pack("<HHII", 259, 4, 1, 5)
    )
    short = write_tiff(four_bands()[: SIZE // 2]).replace(
        struct.pack("<HHII", 257, 4, 1, SIZE // 2), struct.pack("<HHII", 257, 4, 1, SIZE)
    )
    for bad, why in (
        (moved, "tags cannot be read"),
        (damaged, "a strip is damaged"),
        (floats, "4 bands of 16 bits, compression 5"),
        (short, "truncated: 800 of 1600 values"),
    ):
        with pytest.raises(UnreadableImage, match=why):
            decode_image(bad, SIZE)
    with pytest.raises(UnreadableImage, match=r"has 4 bands, and data\.sensor\.bands asks for band 5"):
        decode_image(data, SIZE, SensorConfig(bands=(5, 1, 1)))
