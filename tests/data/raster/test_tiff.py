"""TIFFs of many bands and 16 bits."""

from __future__ import annotations

import io
import itertools
import struct
import zlib
from typing import Any

import numpy as np
import pytest
from PIL import Image
from tests.damage import overwritten, truncated
from tests.tiffs import Bands, with_tag, write_tiff

from canopy.config import SensorConfig
from canopy.data.raster import tiff
from canopy.data.raster.decode import UnreadableImage, decode, decode_image

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
def test_bands_can_be_chosen_in_ordinary_color_files_too(compression: str | None) -> None:
    colors = four_bands(np.uint8)[..., :3]
    stream = io.BytesIO()
    Image.fromarray(colors).save(stream, "TIFF", compression=compression)
    swapped = SensorConfig(bands=(3, 2, 1))
    if compression:
        with pytest.raises(UnreadableImage, match="save it with strips, raw or deflate"):
            decode_image(stream.getvalue(), SIZE, swapped)
    else:
        assert (decode_image(stream.getvalue(), SIZE, swapped) == colors[..., ::-1]).all()
    assert (decode_image(stream.getvalue(), SIZE, SensorConfig(white=4000)) == colors).all(), "8 bits stay"


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
        (short, "truncated: 2 of 3 strips"),
    ):
        with pytest.raises(UnreadableImage, match=why):
            decode_image(bad, SIZE)
    with pytest.raises(UnreadableImage, match=r"has 4 bands, and data\.sensor\.bands asks for band 5"):
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
            except UnreadableImage:
                refused += 1
    assert refused > 30


@pytest.mark.parametrize(
    ("tag", "value", "why"),
    [
        (tiff.WIDTH, 0, "tag 256 is damaged"),
        (tiff.HEIGHT, 0, "tag 257 is damaged"),
        (tiff.BANDS, 0, "tag 277 is damaged"),
        (tiff.ROWS_PER_STRIP, 0, "tag 278 is damaged"),
        (tiff.OFFSETS, 10**9, "truncated"),
        (tiff.BYTE_COUNTS, 10**9, "truncated"),
        (tiff.BYTE_COUNTS, 9, "truncated: 9 of 800 bytes in a strip"),
        (tiff.WIDTH, 2**31, "pixels, more than"),
        (tiff.BANDS, 2**31, "are more than 536870912 bytes"),
        (tiff.ROWS_PER_STRIP, 1, "truncated: 1 of 20 strips"),
        (tiff.PREDICTOR, 7, "of a kind that is not read"),
    ],
)
def test_tags_that_make_no_sense_are_named(tag: int, value: int, why: str) -> None:
    whole = write_tiff(four_bands()[..., :1], rows_per_strip=SIZE)
    with pytest.raises(UnreadableImage, match=why):
        decode(with_tag(whole, tag, value), SIZE, SensorConfig(bands=(1, 1, 1)))


@pytest.mark.parametrize("kind", [1, 2, 5, 11])
def test_a_tag_that_is_no_number_is_refused(kind: int) -> None:
    """Bytes, text, a fraction, a float."""
    with pytest.raises(UnreadableImage, match=r"damaged|cannot be read"):
        decode(with_tag(write_tiff(four_bands()), tiff.BANDS, 4, kind), SIZE)


@pytest.mark.parametrize("compression", [None, "tiff_lzw"])
def test_rows_of_strips_that_are_not_there_are_not_shown_black(compression: str | None) -> None:
    stream = io.BytesIO()
    Image.fromarray(four_bands(np.uint8)[..., :3]).save(stream, "TIFF", compression=compression)
    tags = tiff.read_tags(stream.getvalue())
    assert (tags[tiff.HEIGHT], len(tags[tiff.OFFSETS])) == (SIZE, 1)
    cut = with_tag(stream.getvalue(), tiff.ROWS_PER_STRIP, SIZE // 2)
    with pytest.raises(UnreadableImage, match="truncated: 1 of 2 strips"):
        decode(cut, SIZE)


def test_doubtful_tags_that_say_nothing_of_the_pixels_are_passed_over() -> None:
    bands_HWC = four_bands()
    data = with_tag(write_tiff(bands_HWC), tiff.EXTRA, 9, kind=2)
    assert (decode_image(data, SIZE) == bands_HWC[..., [2, 1, 0]] >> 8).all()


def test_a_strip_that_unpacks_to_gigabytes_is_refused_before_it_does() -> None:
    bomb = zlib.compress(bytes(2**24))
    data = write_tiff(four_bands()[..., :1], deflate=True, rows_per_strip=SIZE)
    data = with_tag(with_tag(data, tiff.OFFSETS, len(data)), tiff.BYTE_COUNTS, len(bomb)) + bomb
    with pytest.raises(UnreadableImage, match="holds more than its rows"):
        decode(data, SIZE)


PICTURES: dict[str, tuple[int, dict[str, Any]]] = {
    "L": (1, {}),
    "LA": (2, {"extra_bands": [2]}),
    "L and another": (2, {}),
    "RGB": (3, {"photometric": 2}),
    "RGBA": (4, {"photometric": 2, "extra_bands": [2]}),
    "RGB and another": (4, {"photometric": 2}),
}


@pytest.mark.parametrize("order", ["<", ">"])
@pytest.mark.parametrize("planar", [False, True])
@pytest.mark.parametrize("predictor", [False, True])
@pytest.mark.parametrize("name", PICTURES)
def test_pictures_under_deflate_are_to_the_bit_what_pil_gives(
    name: str, predictor: bool, planar: bool, order: str
) -> None:
    count, options = PICTURES[name]
    bands_HWC = four_bands(np.uint8)[:, :17, :count]
    data = write_tiff(bands_HWC, deflate=True, planar=planar, predictor=predictor, order=order, **options)
    tags = tiff.read_tags(data)
    own = tiff.read_bands(data, tags)
    assert (own == bands_HWC).all()
    decoded = decode(data, SIZE)
    with Image.open(io.BytesIO(data)) as image:
        assert tiff.checked_picture(tags) == decoded.mode == image.mode
        by_pil = image.convert("RGB").resize((SIZE, SIZE), Image.Resampling.BILINEAR)
    assert (decoded.pixels == np.asarray(by_pil)).all()
    assert (decoded.width, decoded.height) == (17, SIZE)
    levels = SensorConfig(black=9, white=99)
    assert (decode_image(data, SIZE, levels) == decoded.pixels).all(), "levels are for 16 bits"


@pytest.mark.parametrize("mode", ["L", "LA", "RGB", "RGBA", "P", "CMYK", "YCbCr", "1"])
def test_what_pil_wrote_under_deflate_comes_back(mode: str) -> None:
    image = Image.fromarray(four_bands(np.uint8)[..., :3]).convert(mode)
    stream = io.BytesIO()
    image.save(stream, "TIFF", compression="tiff_adobe_deflate")
    with Image.open(stream) as saved:
        expected = np.asarray(saved.convert("RGBA" if "A" in mode else "RGB").convert("RGB"))
        decoded = decode(stream.getvalue(), SIZE)
        assert decoded.mode == saved.mode
    assert (decoded.pixels == expected).all()


@pytest.mark.parametrize(
    ("tag", "value"),
    [(tiff.PHOTOMETRIC, 0), (tiff.ORIENTATION, 3), (tiff.ORIENTATION, 6)],
)
def test_gray_that_is_not_shown_as_stored_is_left_to_pil(tag: int, value: int) -> None:
    """White is zero; turned pictures."""
    data = write_tiff(four_bands(np.uint8)[..., :1], deflate=True, rows_per_strip=SIZE, extra_bands=[0])
    entry = struct.pack("<HHII", tiff.EXTRA, 4, 1, 0)
    changed = data.replace(entry, struct.pack("<HHII", tag, 4, 1, value))
    assert changed != data
    with Image.open(io.BytesIO(changed)) as image:
        expected = np.asarray(image.convert("RGB"))
    assert (decode_image(changed, SIZE) == expected).all()


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
        with pytest.raises(UnreadableImage, match="a strip is damaged"):
            decode(damaged, SIZE)
        tried += 1
    assert tried > 40


@pytest.mark.parametrize("planar", [False, True])
def test_rows_behind_the_last_one_are_no_part_of_the_picture(planar: bool) -> None:
    """Some writers fill the last strip up; then the next plane does not follow at once."""
    full, height = four_bands(np.uint8)[..., :3], SIZE - 3
    filled = write_tiff(full, deflate=True, planar=planar, photometric=2, rows_per_strip=7)
    data = with_tag(filled, tiff.HEIGHT, height)
    assert tiff.checked_picture(tiff.read_tags(data)) == "RGB"
    with Image.open(io.BytesIO(data)) as image:
        by_pil = image.convert("RGB")
    assert (np.asarray(by_pil) == full[:height]).all()
    expected = by_pil.resize((SIZE, SIZE), Image.Resampling.BILINEAR)
    assert (decode_image(data, SIZE) == np.asarray(expected)).all()
