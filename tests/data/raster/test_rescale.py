"""Levels: samples of any type to 8 bits."""

from __future__ import annotations

import numpy as np
import pytest

from canopy.config import SensorConfig
from canopy.data.raster.errors import UnreadableImageError
from canopy.data.raster.rescale import has_rescale_range, to_uint8

PLAIN = SensorConfig()


@pytest.mark.parametrize("bits", [10, 12, 15, 16])
def test_the_default_white_is_the_highest_value_of_the_depth(bits: int) -> None:
    values = np.arange(1 << bits, dtype=np.uint16)
    assert (to_uint8(values, PLAIN, bits) == values >> (bits - 8)).all()


@pytest.mark.parametrize("bits", [1, 2, 4])
def test_fewer_than_8_bits_are_spread_over_the_whole_range(bits: int) -> None:
    values = np.arange(1 << bits, dtype=np.uint8)
    assert to_uint8(values, SensorConfig(white=9), bits).tolist() == [
        n * 255 // ((1 << bits) - 1) for n in range(1 << bits)
    ]


def test_8_bits_have_no_levels() -> None:
    values = np.arange(256, dtype=np.uint8)
    assert to_uint8(values, SensorConfig(black=5, white=50), 8) is values


@pytest.mark.parametrize("dtype", ["uint16", "int16", "uint32", "int32"])
def test_integers_of_one_value_give_one_result(dtype: str) -> None:
    values = np.array([[0, 99, 100], [1500, 3000, 32767]]).astype(dtype)
    assert to_uint8(values, SensorConfig(black=100, white=3000), 16).tolist() == [[0, 0, 0], [123, 255, 255]]


def test_negative_values_are_black() -> None:
    assert to_uint8(np.array([-32768, -1, 0, 100], np.int16), SensorConfig(white=100), 16).tolist() == [
        0,
        0,
        0,
        253,
    ]


def test_reflectance_as_floats() -> None:
    values = np.array([-0.5, 0, 0.25, 0.5, 1, 7], np.float32)
    assert to_uint8(values, SensorConfig(white=1), 32).tolist() == [0, 0, 64, 128, 255, 255]


@pytest.mark.parametrize("dtype", ["int8", "int16", "int32", "uint32", "float32", "float64"])
def test_types_without_a_full_scale_need_a_white(dtype: str) -> None:
    with pytest.raises(UnreadableImageError, match=rf"type {dtype}, .* set data\.sensor\.white to the value"):
        to_uint8(np.zeros(3, dtype), PLAIN, 32)


def test_levels_as_fractions_and_below_zero() -> None:
    decibels = np.array([-40, -25, -12.5, -0.1, 0, 3], np.float32)
    assert to_uint8(decibels, SensorConfig(black=-25, white=0), 32).tolist() == [0, 0, 128, 254, 255, 255]
    reflectance = np.array([0.05, 0.1, 0.2, 0.299, 0.3], np.float64)
    assert to_uint8(reflectance, SensorConfig(black=0.1, white=0.3), 64).tolist() == [0, 0, 128, 254, 255]
    far = np.array([-1e300, 0, 1e300])
    assert to_uint8(far, SensorConfig(black=0, white=1e-300), 64).tolist() == [0, 0, 255]
    signed = np.array([-32768, -2000, -1000, 0], np.int16)
    assert to_uint8(signed, SensorConfig(black=-2000, white=-1), 16).tolist() == [0, 0, 128, 255]


@pytest.mark.parametrize(
    ("dtype", "highest"), [("uint32", 2**32 - 1), ("int32", 2**31 - 1), ("uint64", 2**53), ("int64", 2**53)]
)
def test_the_whole_range_of_wide_integers(dtype: str, highest: int) -> None:
    quarters = [n * highest // 4 for n in range(5)]
    expected = [min(quarter * 256 // (highest + 1), 255) for quarter in quarters]
    assert to_uint8(np.array(quarters, dtype), SensorConfig(white=highest), 32).tolist() == expected
    assert (expected[0], expected[4]) == (0, 255)
    assert to_uint8(np.array(quarters, dtype), SensorConfig(white=highest - 1), 32).tolist()[4] == 255


@pytest.mark.parametrize("dtype", ["uint64", "int64"])
def test_64_bits_beyond_the_levels_do_not_wrap_around(dtype: str) -> None:
    values = np.array([0, 100, 2**56, np.iinfo(dtype).max], dtype)
    assert to_uint8(values, SensorConfig(white=255), 64).tolist() == [0, 100, 255, 255]
    assert to_uint8(np.array([-(2**63)]), SensorConfig(white=255), 64).tolist() == [0]


@pytest.mark.parametrize(
    ("dtype", "levels", "why"),
    [
        ("uint16", {"white": 0.3}, r"from 0 to 65535: set data\.sensor\.white \(0\.3\) to one of them"),
        ("uint16", {"white": 65536}, r"from 0 to 65535: set data\.sensor\.white \(65536\)"),
        ("uint16", {"black": -25}, r"from 0 to 65535: set data\.sensor\.black \(-25\)"),
        ("int16", {"black": 0.5, "white": 9}, r"from -32768 to 32767: set data\.sensor\.black \(0\.5\)"),
        ("int8", {"white": 128}, r"from -128 to 127: set data\.sensor\.white \(128\)"),
        ("uint32", {"white": 1e10}, r"from 0 to 4294967295: set data\.sensor\.white \(10000000000\)"),
        (
            "int64",
            {"white": 1e30},
            r"from -9007199254740992 to 9007199254740992: set data\.sensor\.white \(1e\+30\)",
        ),
    ],
)
def test_levels_that_integers_cannot_have(dtype: str, levels: dict[str, float], why: str) -> None:
    with pytest.raises(UnreadableImageError, match=rf"samples of type {dtype}, whole numbers {why}"):
        to_uint8(np.zeros(3, dtype), SensorConfig.model_validate(levels), 16)


@pytest.mark.parametrize(("dtype", "white"), [("float32", 1), ("int16", 10000)])
def test_samples_without_a_full_scale_need_a_white(dtype: str, white: float) -> None:
    values = np.array([0, white], dtype)
    with pytest.raises(UnreadableImageError, match=r"set data\.sensor\.white to the value .*, and data\.sen"):
        to_uint8(values, SensorConfig(), 32)
    assert to_uint8(values, SensorConfig(white=white), 32).tolist() == [0, 255]


def test_samples_that_are_no_numbers() -> None:
    with pytest.raises(UnreadableImageError, match=r"in the files by the value of data\.sensor\.black"):
        to_uint8(np.array([0, np.nan], np.float32), SensorConfig(white=1), 32)
    remedied = SensorConfig(black=-25, white=1)
    assert to_uint8(np.array([-25, 1], np.float32), remedied, 32).tolist() == [0, 255]
    with pytest.raises(UnreadableImageError, match="type complex64, which are not read"):
        to_uint8(np.zeros(3, np.complex64), SensorConfig(white=1), 64)


def test_a_black_above_the_depth() -> None:
    with pytest.raises(
        UnreadableImageError, match=r"of 10 bits, at most 1023: set data\.sensor\.white above"
    ):
        to_uint8(np.zeros(3, np.uint16), SensorConfig(black=2000), 10)


def test_whether_levels_are_set() -> None:
    assert not has_rescale_range(SensorConfig(bands=(3, 2, 1)))
    assert has_rescale_range(SensorConfig(black=1))
    assert has_rescale_range(SensorConfig(black=-1))
    assert has_rescale_range(SensorConfig(white=9))
