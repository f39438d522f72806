"""TIFFs of many bands and 16 bits, and what is refused of them."""

from __future__ import annotations

import io
import itertools
import struct
import subprocess
import sys
import zlib
from typing import Any

import numpy as np
import pytest
from PIL import Image
from tests.damage import overwritten, truncated
from tests.tiffs import Bands, with_tag, write_tiff

from canopy.config import SensorConfig
from canopy.data.raster.decode import UnreadableImageError, decode, decode_image

SIZE = 20
WIDTH, HEIGHT, PHOTOMETRIC, OFFSETS, ORIENTATION, BANDS = 256, 257, 262, 273, 274, 277
ROWS_PER_STRIP, BYTE_COUNTS, PREDICTOR, EXTRA = 278, 279, 317, 338


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


@pytest.mark.parametrize("compression", [None, "tiff_lzw", "jpeg", "packbits", "zstd"])
def test_bands_can_be_chosen_in_ordinary_color_files_too(compression: str | None) -> None:
    colors = four_bands(np.uint8)[..., :3]
    stream = io.BytesIO()
    Image.fromarray(colors).save(stream, "TIFF", compression=compression)
    plain = decode_image(stream.getvalue(), SIZE)
    swapped = SensorConfig(bands=(3, 2, 1))
    assert (decode_image(stream.getvalue(), SIZE, swapped) == plain[..., ::-1]).all()
    assert (decode_image(stream.getvalue(), SIZE, SensorConfig(white=4000)) == plain).all(), "8 bits stay"
    if compression != "jpeg":
        assert (plain == colors).all()


def test_levels_under_lzw() -> None:
    values = np.linspace(0, 4000, SIZE * SIZE).astype(np.uint16).reshape(SIZE, SIZE)
    stream = io.BytesIO()
    Image.fromarray(values).save(stream, "TIFF", compression="tiff_lzw")
    chip = decode_image(stream.getvalue(), SIZE, SensorConfig(white=4095))
    assert (chip == (values >> 4)[..., None]).all()


def test_16_bits_under_lzw() -> None:
    values = np.linspace(0, 65535, SIZE * SIZE).astype(np.uint16).reshape(SIZE, SIZE)
    stream = io.BytesIO()
    Image.fromarray(values).save(stream, "TIFF", compression="tiff_lzw")
    assert (decode_image(stream.getvalue(), SIZE) == (values >> 8)[..., None]).all()


def test_truncated_damaged_and_unknown() -> None:
    data = write_tiff(four_bands(), deflate=True)
    moved = data[:4] + struct.pack("<I", len(data) + 50) + data[8:]
    damaged = data[:30] + bytes(60) + data[90:]
    unknown = with_tag(write_tiff(four_bands()), 259, 60_000)
    short = with_tag(write_tiff(four_bands()[: SIZE // 2]), HEIGHT, SIZE)
    for bad, why in (
        (moved, "tags of the TIFF cannot be read"),
        (damaged, "strip 1 of 3 of the TIFF is damaged"),
        (unknown, "missing codec of code 60000"),
        (short, "truncated: strip 2 of 3 of the TIFF"),
    ):
        with pytest.raises(UnreadableImageError, match=why):
            decode_image(bad, SIZE)
    with pytest.raises(UnreadableImageError, match=r"has 4 bands, and data\.sensor\.bands names band 5"):
        decode_image(data, SIZE, SensorConfig(bands=(5, 1, 1)))


LEVELS_AND_BANDS = SensorConfig(bands=(1, 1, 1), black=10, white=3000)


@pytest.mark.parametrize("count", [1, 4])
@pytest.mark.parametrize("form", FORMS)
def test_no_damage_raises_anything_but_unreadable(form: str, count: int) -> None:
    data = write_tiff(four_bands()[:8, :4, :count], **FORMS[form])
    refused = 0
    for damaged in itertools.chain(overwritten(data, step=5), truncated(data, step=17)):
        for sensor in (SensorConfig(), LEVELS_AND_BANDS):
            try:
                decode(damaged, SIZE, sensor)
            except UnreadableImageError:
                refused += 1
    assert refused > 30


@pytest.mark.parametrize(
    ("tag", "value", "why"),
    [
        (WIDTH, 0, "damaged"),
        (HEIGHT, 0, "damaged"),
        (BANDS, 0, "damaged"),
        (ROWS_PER_STRIP, 0, "damaged|truncated"),
        (OFFSETS, 10**9, "truncated"),
        (BYTE_COUNTS, 10**9, "truncated|damaged"),
        (BYTE_COUNTS, 9, "damaged or truncated: .*StripByteCounts"),
        (WIDTH, 2**30, "MB to decode, more than"),
        (BANDS, 2**31, "damaged|bands"),
        (ROWS_PER_STRIP, 1, "truncated: strip 2 of 20 of the TIFF is missing"),
        (PHOTOMETRIC, 32803, "photometric interpretation 32803, which is not read"),
        (PHOTOMETRIC, 8, "photometric interpretation 8, which is not read"),
    ],
)
def test_tags_that_make_no_sense_are_refused(tag: int, value: int, why: str) -> None:
    whole = write_tiff(four_bands()[..., :1], rows_per_strip=SIZE)
    with pytest.raises(UnreadableImageError, match=why):
        decode(with_tag(whole, tag, value), SIZE, SensorConfig(bands=(1, 1, 1)))


@pytest.mark.parametrize("compression", [None, "tiff_lzw"])
def test_rows_of_missing_strips_are_not_shown_black(compression: str | None) -> None:
    stream = io.BytesIO()
    Image.fromarray(four_bands(np.uint8)[..., :3]).save(stream, "TIFF", compression=compression)
    cut = with_tag(stream.getvalue(), ROWS_PER_STRIP, SIZE // 2)
    with pytest.raises(UnreadableImageError, match="strip 2 of 2 of the TIFF is missing"):
        decode(cut, SIZE)


def test_a_strip_that_unpacks_to_gigabytes_is_refused_before_it_does() -> None:
    bomb = zlib.compress(bytes(2**24))
    data = write_tiff(four_bands()[..., :1], deflate=True, rows_per_strip=SIZE)
    data = with_tag(with_tag(data, OFFSETS, len(data)), BYTE_COUNTS, len(bomb)) + bomb
    with pytest.raises(UnreadableImageError, match="holds more rows than the image"):
        decode(data, SIZE)


PICTURES: dict[str, tuple[int, dict[str, Any]]] = {
    "L": (1, {}),
    "LA": (2, {"extra_bands": [2]}),
    "RGB": (3, {"photometric": 2}),
    "RGBA": (4, {"photometric": 2, "extra_bands": [2]}),
    "RGB and another": (4, {"photometric": 2}),
}


@pytest.mark.parametrize("order", ["<", ">"])
@pytest.mark.parametrize("planar", [False, True])
@pytest.mark.parametrize("predictor", [False, True])
@pytest.mark.parametrize("name", PICTURES)
def test_pictures_under_deflate_are_to_the_bit_what_pillow_gives(
    name: str, predictor: bool, planar: bool, order: str
) -> None:
    count, options = PICTURES[name]
    bands_HWC = four_bands(np.uint8)[:, :17, :count]
    data = write_tiff(bands_HWC, deflate=True, planar=planar, predictor=predictor, order=order, **options)
    decoded = decode(data, SIZE)
    with Image.open(io.BytesIO(data)) as image:
        assert decoded.mode == image.mode
        by_pillow = image.convert("RGB").resize((SIZE, SIZE), Image.Resampling.BILINEAR)
    assert (decoded.pixels == np.asarray(by_pillow)).all()
    assert (decoded.width, decoded.height) == (17, SIZE)
    levels = SensorConfig(black=9, white=99)
    assert (decode_image(data, SIZE, levels) == decoded.pixels).all(), "levels are for more than 8 bits"


@pytest.mark.parametrize("count", [2, 5, 8, 12])
def test_bands_that_nothing_names_are_asked_for(count: int) -> None:
    bands_HWC = np.repeat(four_bands(), 3, axis=2)[..., :count]
    data = write_tiff(bands_HWC)
    with pytest.raises(
        UnreadableImageError, match=rf"has {count} bands and does not say .* set data\.sensor\.bands"
    ):
        decode(data, SIZE)
    assert (decode_image(data, SIZE, SensorConfig(bands=(2, 1, 1))) == bands_HWC[..., [1, 0, 0]] >> 8).all()


def test_colors_multiplied_by_alpha_are_divided_by_it() -> None:
    bands_HWC = four_bands(np.uint8)
    data = write_tiff(bands_HWC, photometric=2, extra_bands=[1])
    expected = np.asarray(Image.fromarray(bands_HWC, mode="RGBa").convert("RGBA").convert("RGB"))
    assert (decode_image(data, SIZE) == expected).all()
    with pytest.raises(UnreadableImageError, match="multiplied by their alpha"):
        decode_image(write_tiff(four_bands(), photometric=2, extra_bands=[1]), SIZE)


def test_gray_where_white_is_zero_is_inverted_at_any_depth() -> None:
    gray = four_bands()[..., :1]
    data = with_tag(write_tiff(gray, extra_bands=[]), PHOTOMETRIC, 0)
    assert (decode_image(data, SIZE) == (65535 - gray) >> 8).all()
    assert (decode_image(data, SIZE, SensorConfig(white=4095)) == np.minimum((65535 - gray) >> 4, 255)).all()


def test_gdal_writes_nothing_to_standard_error() -> None:
    code = (
        "import sys; from canopy.data.raster.try_decode import try_decode; data = sys.stdin.buffer.read(); "
        "print([try_decode(data[:n] + bytes(9), 8)[1].problem[:7] for n in range(8, len(data), 40)])"
    )
    data = write_tiff(four_bands()[..., :1], deflate=True)
    done = subprocess.run([sys.executable, "-W", "error", "-c", code], input=data, capture_output=True)
    assert (done.returncode, done.stderr) == (0, b"")
    assert b"damaged" in done.stdout


@pytest.mark.parametrize("mode", ["L", "LA", "RGB", "RGBA", "P", "CMYK", "YCbCr", "1"])
def test_what_pillow_wrote_under_deflate_comes_back(mode: str) -> None:
    image = Image.fromarray(four_bands(np.uint8)[..., :3]).convert(mode)
    stream = io.BytesIO()
    image.save(stream, "TIFF", compression="tiff_adobe_deflate")
    with Image.open(stream) as saved:
        expected = np.asarray(saved.convert("RGBA" if "A" in mode else "RGB").convert("RGB"))
        decoded = decode(stream.getvalue(), SIZE)
        assert decoded.mode == saved.mode.replace("YCbCr", "RGB")
    assert (decoded.pixels == expected).all()


@pytest.mark.parametrize(("predictor", "planar"), [(False, False), (True, True)])
@pytest.mark.parametrize("name", ["L", "RGB"])
def test_any_damage_under_deflate_is_refused(name: str, predictor: bool, planar: bool) -> None:
    count, options = PICTURES[name]
    smooth = np.add.outer(np.arange(SIZE), np.arange(SIZE)).astype(np.uint8)[..., None]
    bands_HWC = smooth + four_bands(np.uint8)[..., :count] // 32
    data = write_tiff(bands_HWC, deflate=True, planar=planar, predictor=predictor, **options)
    (end_of_strips,) = struct.unpack_from("<I", data, 4)
    tried = 0
    for damaged in overwritten(data, 8, end_of_strips, step=11):
        with pytest.raises(UnreadableImageError, match=r"strip \d of \d of the TIFF is damaged"):
            decode(damaged, SIZE)
        tried += 1
    assert tried > 40


@pytest.mark.parametrize("planar", [False, True])
def test_a_last_strip_with_rows_below_the_image_is_refused(planar: bool) -> None:
    """GDAL shows such a strip as zeros, without an error."""
    filled = write_tiff(four_bands(np.uint8)[..., :3], deflate=True, planar=planar, photometric=2)
    with pytest.raises(UnreadableImageError, match="strip 3 of 3 of the TIFF is damaged, or holds more rows"):
        decode_image(with_tag(filled, HEIGHT, SIZE - 3), SIZE)
