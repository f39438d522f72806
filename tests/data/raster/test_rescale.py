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
    with pytest.raises(UnreadableImageError, match=rf"type {dtype}, .* set data\.sensor\.black and white"):
        to_uint8(np.zeros(3, dtype), PLAIN, 32)


def test_samples_that_are_no_numbers() -> None:
    with pytest.raises(UnreadableImageError, match="NaN or infinite"):
        to_uint8(np.array([0, np.nan], np.float32), SensorConfig(white=1), 32)
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
    assert has_rescale_range(SensorConfig(white=9))
