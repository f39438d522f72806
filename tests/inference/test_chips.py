"""From images in every form to chips: the same as from the file, by the decoder of training."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from canopy.config import DataConfig, SensorConfig
from canopy.data.raster.decode import UnreadableImageError, decode_image
from canopy.errors import ConfigError, DataError
from canopy.inference.chips import ChipDecoder, listed, name_of, parts

SIZE = 24


def picture(mode: str, size: tuple[int, int] = (40, 30)) -> Image.Image:
    pixels = np.random.default_rng(0).integers(0, 256, (size[1], size[0], 3), dtype=np.uint8)
    return Image.fromarray(pixels).convert(mode)


def encoded(image: Image.Image, kind: str) -> bytes:
    sink = io.BytesIO()
    image.save(sink, kind, **({"quality": 95, "subsampling": 0} if kind == "JPEG" else {}))
    return sink.getvalue()


@pytest.mark.parametrize(
    ("mode", "kind"),
    [("RGB", "PNG"), ("RGB", "JPEG"), ("CMYK", "JPEG"), ("L", "JPEG"), ("L", "PNG"), ("P", "PNG"),
     ("RGBA", "PNG"), ("1", "PNG"), ("RGB", "WEBP"), ("RGB", "TIFF")],
)  # fmt: skip
def test_an_opened_image_gives_the_chip_of_its_file(mode: str, kind: str, tmp_path: Path) -> None:
    data = encoded(picture(mode), kind)
    path = tmp_path / "image"
    path.write_bytes(data)
    decoder = ChipDecoder(SIZE)
    expected = decode_image(data, SIZE)
    np.testing.assert_array_equal(decoder.chip(path), expected)
    np.testing.assert_array_equal(decoder.chip(data), expected)
    np.testing.assert_array_equal(decoder.chip(bytearray(data)), expected)  # type: ignore[arg-type]
    with Image.open(io.BytesIO(data)) as opened:
        np.testing.assert_array_equal(decoder.chip(opened), expected)
        colors = np.asarray(opened.convert("RGB"))
    if mode != "RGBA":
        np.testing.assert_array_equal(decoder.chip(colors), expected)


def test_the_decoder_follows_the_runs_config() -> None:
    config = DataConfig(image_size=SIZE, sensor=SensorConfig(bands=(3, 2, 1)), max_image_mb=2)
    decoder = ChipDecoder.of(config)
    image = picture("RGB")
    swapped = ChipDecoder(SIZE).chip(np.asarray(image)[..., ::-1])
    np.testing.assert_array_equal(decoder.chip(encoded(image, "PNG")), swapped)
    np.testing.assert_array_equal(decoder.chip(image), swapped)
    np.testing.assert_array_equal(decoder.chip(np.asarray(image)), ChipDecoder(SIZE).chip(image))
    with pytest.raises(UnreadableImageError, match=r"more than data\.max_image_mb \(2\)"):
        decoder.chip(picture("RGB", (1000, 1000)))


def animated() -> Image.Image:
    sink = io.BytesIO()
    picture("P").save(sink, "GIF", save_all=True, append_images=[picture("L").convert("P")])
    return Image.open(io.BytesIO(sink.getvalue()))


def cut_off() -> Image.Image:
    return Image.open(io.BytesIO(encoded(picture("RGB"), "PNG")[:500]))


@pytest.mark.parametrize(
    ("image", "said"),
    [
        (animated(), "several frames"),
        (cut_off(), "damaged or truncated"),
        (Image.new("I;16", (4, 4)), "whose full scale is unknown"),
        (b"", "the file is empty"),
        (b"GIF89a", "damaged or truncated"),
    ],
)
def test_what_cannot_be_read_is_named_by_its_number(image: Any, said: str) -> None:
    good: NDArray[np.uint8] = np.zeros((4, 4, 3), np.uint8)
    with pytest.raises(DataError, match=rf"Image 11 must be readable\. Got: .*{said}"):
        ChipDecoder(SIZE).chips([good, image], first=10)


def test_one_image_is_a_list_of_one() -> None:
    pixels = np.zeros((4, 4, 3), np.uint8)
    assert len(listed(pixels)) == len(listed("a.png")) == len(listed(b"x")) == len(listed(Path("a"))) == 1
    assert len(listed(np.zeros((5, 4, 4, 3), np.uint8))) == 5
    assert [len(part) for _, part in parts(listed([pixels] * 5), 2)] == [2, 2, 1]
    assert [first for first, _ in parts([b"", b"", b""], 2)] == [0, 2]
    assert (name_of(Path("a")), name_of("s3://b/a"), name_of(b"a")) == ("a", "s3://b/a", None)
    for wrong in ({"a": 1}, 3, None, {"a.png"}):
        with pytest.raises(ConfigError, match="The images must be"):
            listed(wrong)  # type: ignore[arg-type]
