"""Decoding: every kind of file that real sets contain, against PIL and against known colours."""

from __future__ import annotations

import io
import itertools
import struct
import zlib
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image
from tests.damage import overwritten, truncated

from canopy.config import SensorConfig
from canopy.data.raster.decode import UnreadableImageError, decode, decode_image

SIZE = 32
Pixels = NDArray[np.uint8]


def scene(size: int = SIZE, seed: int = 0) -> Pixels:
    """A smooth picture with many colours, uint8, shape (size, size, 3)."""
    rng = np.random.default_rng(seed)
    small = Image.fromarray(rng.integers(0, 256, (5, 5, 3), dtype=np.uint8))
    return np.asarray(small.resize((size, size), Image.Resampling.BICUBIC))


def saved(image: Image.Image, kind: str, **options: Any) -> bytes:
    stream = io.BytesIO()
    image.save(stream, kind, **options)
    return stream.getvalue()


def by_pil(data: bytes) -> Pixels:
    return np.asarray(Image.open(io.BytesIO(data)).convert("RGB"))


def distance(a: Pixels, b: Pixels) -> int:
    return int(np.abs(a.astype(int) - b).max())


JPEGS = {
    "plain": (saved(Image.fromarray(scene()), "JPEG", quality=90), "RGB"),
    "fine": (saved(Image.fromarray(scene()), "JPEG", quality=95, subsampling=0), "RGB"),
    "progressive": (saved(Image.fromarray(scene()), "JPEG", progressive=True), "RGB"),
    "rgb inside": (saved(Image.fromarray(scene()), "JPEG", keep_rgb=True), "RGB"),
    "grey": (saved(Image.fromarray(scene()).convert("L"), "JPEG"), "L"),
    "cmyk": (saved(Image.fromarray(scene()).convert("CMYK"), "JPEG", quality=95), "CMYK"),
}


@pytest.mark.parametrize("name", JPEGS)
def test_jpegs_are_to_the_bit_what_pil_gives(name: str) -> None:
    data, mode = JPEGS[name]
    decoded = decode(data, SIZE)
    assert distance(decoded.pixels, by_pil(data)) == 0
    assert (decoded.mode, decoded.width, decoded.height) == (mode, SIZE, SIZE)
    assert decoded.pixels.dtype == np.uint8


def test_cmyk_shows_the_color_that_was_meant_and_not_its_inverse() -> None:
    green = np.full((SIZE, SIZE, 3), (30, 160, 60), np.uint8)
    chip = decode_image(saved(Image.fromarray(green).convert("CMYK"), "JPEG", quality=95), SIZE)
    assert distance(chip, green) <= 3


def test_cmyk_with_black_ink_is_to_the_bit_what_pil_gives() -> None:
    inks = np.random.default_rng(1).integers(0, 256, (64, 64, 4), dtype=np.uint8)
    data = saved(Image.fromarray(inks, mode="CMYK"), "JPEG", quality=100)
    assert distance(decode_image(data, 64), by_pil(data)) == 0


@pytest.mark.parametrize("kind", ["PNG", "TIFF", "WEBP", "BMP"])
def test_other_lossless_files_give_their_pixels(kind: str) -> None:
    options = {"lossless": True} if kind == "WEBP" else {}
    assert distance(decode_image(saved(Image.fromarray(scene()), kind, **options), SIZE), scene()) == 0


def test_alpha_goes_and_the_color_stays() -> None:
    alpha = np.random.default_rng(2).integers(0, 256, (SIZE, SIZE, 1), dtype=np.uint8)
    data = saved(Image.fromarray(np.concatenate([scene(), alpha], axis=2)), "PNG")
    decoded = decode(data, SIZE)
    assert distance(decoded.pixels, scene()) == 0
    assert decoded.mode == "RGBA"


def test_palettes_with_and_without_transparency() -> None:
    image = Image.fromarray(scene()).quantize(16)
    expected = np.asarray(image.convert("RGB"))
    assert distance(decode_image(saved(image, "PNG"), SIZE), expected) == 0
    assert distance(decode_image(saved(image, "PNG", transparency=b"\x80\x00\xff"), SIZE), expected) == 0


@pytest.mark.parametrize("kind", ["PNG", "TIFF"])
def test_gray_of_16_bits_keeps_its_scale(kind: str) -> None:
    values = np.linspace(0, 65535, SIZE * SIZE).astype(np.uint16).reshape(SIZE, SIZE)
    chip = decode_image(saved(Image.fromarray(values), kind), SIZE)
    assert distance(chip, (values >> 8).astype(np.uint8)[..., None].repeat(3, 2)) == 0
    assert chip.min() == 0
    assert chip.max() == 255
    assert len(np.unique(chip)) == 256  # not clipped


def png_of_16_bits(bands_HWC: NDArray[np.uint16]) -> bytes:
    """A PNG as cameras and GIS tools write it, which PIL cannot: 1 to 4 channels of 16 bits."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    height, width, count = bands_HWC.shape
    header = struct.pack(">IIBBBBB", width, height, 16, {1: 0, 2: 4, 3: 2, 4: 6}[count], 0, 0, 0)
    lines = b"".join(b"\0" + row.astype(">u2").tobytes() for row in bands_HWC)
    body = chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(lines)) + chunk(b"IEND", b"")
    return b"\x89PNG\r\n\x1a\n" + body


@pytest.mark.parametrize("count", [1, 2, 3, 4])
def test_pngs_of_16_bits_with_and_without_levels(count: int) -> None:
    bands_HWC = np.random.default_rng(3).integers(0, 4096, (SIZE, SIZE, count), dtype=np.uint16)
    color_HW3 = bands_HWC[..., :3] if count > 2 else bands_HWC[..., :1].repeat(3, 2)
    data = png_of_16_bits(bands_HWC)
    chip = decode_image(data, SIZE)
    assert (chip == color_HW3 >> 8).all()
    assert distance(chip, by_pil(data)) == 0 or count == 1, "PIL clips grey at 255"
    assert (decode_image(data, SIZE, SensorConfig(white=4095)) == color_HW3 >> 4).all()
    spread = np.clip((color_HW3.astype(float) - 500) * 256 / 1501, 0, 255)
    assert (decode_image(data, SIZE, SensorConfig(black=500, white=2000)) == np.floor(spread)).all()


def test_tiffs_in_four_inks_are_no_satellite_bands() -> None:
    inks = np.random.default_rng(1).integers(0, 256, (SIZE, SIZE, 4), dtype=np.uint8)
    data = saved(Image.fromarray(inks, mode="CMYK"), "TIFF")
    assert distance(decode_image(data, SIZE), by_pil(data)) == 0


@pytest.mark.parametrize("name", ["RGB", "L", "RGBA", "CMYK"])
def test_levels_leave_files_of_8_bits_alone(name: str) -> None:
    image = Image.fromarray(scene()).convert(name)
    data = saved(image, "TIFF" if name == "CMYK" else "PNG")
    assert distance(decode_image(data, SIZE, SensorConfig(black=9, white=99)), by_pil(data)) == 0


def test_levels_that_make_no_range_are_refused() -> None:
    with pytest.raises(ValueError, match=r"sensor\.white must be above data\.sensor\.black. Got: 10 and 10"):
        SensorConfig(black=10, white=10)
    with pytest.raises(ValueError, match="greater than or equal to 1"):
        SensorConfig(bands=(0, 1, 2))


def test_bilevel_images_become_black_and_white() -> None:
    image = Image.fromarray(scene()).convert("1")
    chip = decode_image(saved(image, "PNG"), SIZE)
    assert set(np.unique(chip)) == {0, 255}


@pytest.mark.parametrize(
    ("kind", "options"), [("TIFF", {}), ("GIF", {}), ("WEBP", {}), ("PNG", {"default_image": False})]
)
def test_several_pages_or_frames_are_refused(kind: str, options: dict[str, Any]) -> None:
    pages = [Image.fromarray(scene(seed=seed)) for seed in (0, 1)]
    data = saved(pages[0], kind, save_all=True, append_images=pages[1:], **options)
    with pytest.raises(UnreadableImageError, match=r"2 pages|several frames"):
        decode_image(data, SIZE)


ORIENTED = [("TIFF", {}), ("JPEG", {"quality": 95}), ("PNG", {}), ("WEBP", {"lossless": True})]


@pytest.mark.parametrize("deep", [False, True])
@pytest.mark.parametrize(("kind", "options"), ORIENTED)
def test_an_orientation_tag_is_ignored(kind: str, options: dict[str, Any], deep: bool) -> None:
    image = Image.fromarray(scene())
    if deep:
        if kind in {"JPEG", "WEBP"}:
            pytest.skip("8 bits only")
        image = Image.fromarray(scene()[..., 0].astype(np.uint16) << 8)
    exif = Image.Exif()
    exif[0x0112] = 6
    turned, plain = saved(image, kind, exif=exif, **options), saved(image, kind, **options)
    assert turned != plain
    assert (decode_image(turned, SIZE) == decode_image(plain, SIZE)).all()


@pytest.mark.parametrize("size", [16, 24, 48])
def test_another_size_is_resampled_without_aliasing(size: int) -> None:
    stripes = np.zeros((64, 64, 3), np.uint8)
    stripes[:, ::2] = 200  # finer than any of the smaller sizes can show
    decoded = decode(saved(Image.fromarray(stripes), "PNG"), size)
    assert decoded.pixels.shape == (size, size, 3)
    assert (decoded.width, decoded.height) == (64, 64)
    inner = decoded.pixels[:, 2:-2].astype(int)
    assert inner.std() < 30  # picking every n-th column would give 100
    assert abs(inner.mean() - 100) < 5
    expected = Image.fromarray(scene(64)).resize((size, size), Image.Resampling.BILINEAR)
    assert distance(decode_image(saved(Image.fromarray(scene(64)), "PNG"), size), np.asarray(expected)) == 0


def test_an_oblong_image_becomes_square_and_its_own_size_is_told() -> None:
    decoded = decode(saved(Image.fromarray(scene(64)[:32]), "JPEG"), SIZE)
    assert decoded.pixels.shape == (SIZE, SIZE, 3)
    assert (decoded.width, decoded.height) == (64, 32)


@pytest.mark.parametrize("name", ["plain", "progressive", "grey", "cmyk"])
@pytest.mark.parametrize("kept", [0.15, 0.5, 0.98])
def test_truncated_jpegs_are_refused(name: str, kept: float) -> None:
    data = JPEGS[name][0]
    with pytest.raises(UnreadableImageError, match=r"truncated|damaged"):
        decode_image(data[: int(kept * len(data))], SIZE)


@pytest.mark.parametrize("name", ["plain", "cmyk"])
def test_damage_inside_a_jpeg_is_refused_where_pil_would_pass_over_it(name: str) -> None:
    noise = Image.fromarray(np.random.default_rng(0).integers(0, 256, (64, 64, 3), dtype=np.uint8))
    data = bytearray(saved(noise.convert("CMYK") if name == "cmyk" else noise, "JPEG"))
    del data[len(data) // 2 : len(data) // 2 + 300]  # a lost piece, with the end still there
    by_pil(bytes(data))
    with pytest.raises(UnreadableImageError, match="damaged JPEG"):
        decode_image(bytes(data), 64)


@pytest.mark.parametrize("kind", ["PNG", "TIFF"])
def test_other_truncated_files_are_refused(kind: str) -> None:
    data = saved(Image.fromarray(scene()), kind)
    with pytest.raises(UnreadableImageError, match=r"truncated|damaged|known kind"):
        decode_image(data[: len(data) // 2], SIZE)


@pytest.mark.parametrize(
    ("data", "why"),
    [
        (b"", "the file is empty"),
        (b"id,labels\n", "not an image of a known kind"),
        (b"\xff\xd8\xff\xe0", "damaged|known kind"),
        (b"<html>404</html>", "begins with b'<html>40'"),
    ],
)
def test_what_is_no_image_is_refused(data: bytes, why: str) -> None:
    with pytest.raises(UnreadableImageError, match=why):
        decode_image(data, SIZE)


def test_floating_point_has_no_known_scale() -> None:
    data = saved(Image.fromarray(scene()[..., 0].astype(np.float32)), "TIFF")
    with pytest.raises(UnreadableImageError, match=r"type float32, .* set data\.sensor\.white to the value"):
        decode_image(data, SIZE)


def test_giants_are_refused_before_memory_is_taken() -> None:
    data = saved(Image.new("1", (2000, 2000)), "PNG")
    assert decode_image(data, SIZE).max() == 0
    with pytest.raises(
        UnreadableImageError, match=r"2000 by 2000 pixels need 48 MB .* data\.max_image_mb \(10\)"
    ):
        decode_image(data, SIZE, max_bytes=10**7)
    with pytest.raises(UnreadableImageError, match=r"file has 11 MB, more than data\.max_image_mb \(10\)"):
        decode_image(data.ljust(11 * 10**6), SIZE, max_bytes=10**7)


LITTLE = Image.fromarray(scene(12))
SMALL_FILES = {
    "jpeg": saved(LITTLE, "JPEG"),
    "progressive jpeg": saved(LITTLE, "JPEG", progressive=True),
    "cmyk jpeg": saved(LITTLE.convert("CMYK"), "JPEG"),
    "png": saved(LITTLE, "PNG"),
    "png with a palette": saved(LITTLE.quantize(16), "PNG", transparency=b"\x80\x00\xff"),
    "png of 16 bits": saved(Image.fromarray(np.arange(144, dtype=np.uint16).reshape(12, 12)), "PNG"),
    "webp": saved(LITTLE, "WEBP"),
    "lossless webp": saved(LITTLE, "WEBP", lossless=True),
    "bmp": saved(LITTLE, "BMP"),
    "gif": saved(LITTLE.quantize(16), "GIF"),
    "tiff": saved(LITTLE, "TIFF"),
    "tiff under lzw": saved(LITTLE, "TIFF", compression="tiff_lzw"),
    "tiff under deflate": saved(LITTLE, "TIFF", compression="tiff_adobe_deflate"),
    "tiff with a palette": saved(LITTLE.quantize(16), "TIFF"),
    "tiff of 1 bit": saved(LITTLE.convert("1"), "TIFF"),
    "tiff of 16 bits": saved(Image.fromarray(np.arange(144, dtype=np.uint16).reshape(12, 12)), "TIFF"),
    "tiff of floats": saved(LITTLE.convert("F"), "TIFF"),
}


@pytest.mark.parametrize("name", SMALL_FILES)
def test_no_damage_raises_anything_but_unreadable(name: str) -> None:
    data = SMALL_FILES[name]
    step = 1 + len(data) // 120
    refused = 0
    for damaged in itertools.chain(overwritten(data, step=step), truncated(data, step=3 * step)):
        for sensor in (SensorConfig(), SensorConfig(black=10, white=3000)):
            try:
                assert decode(damaged, 12, sensor).pixels.shape == (12, 12, 3)
            except UnreadableImageError:
                refused += 1
    assert refused > 30
