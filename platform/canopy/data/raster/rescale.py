"""Converts samples of any type and depth to 8 bits, between ``data.sensor.black`` and ``white``."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from canopy.config import SensorConfig
from canopy.config.data import EXACT_INTEGERS
from canopy.data.raster.errors import UnreadableImageError

CHUNK_VALUES = 1 << 20
"""Values converted at a time, which bounds the memory of intermediate results."""


def has_rescale_range(sensor: SensorConfig) -> bool:
    """Whether ``data.sensor.black`` or ``white`` is set."""
    return sensor.black != 0 or sensor.white is not None


def to_uint8(values: NDArray[Any], sensor: SensorConfig, bits: int) -> NDArray[np.uint8]:
    """Scale sample values to 0 to 255.

    Samples of 8 bits stay as they are, and fewer bits are spread over 0 to 255. Of more bits, ``black``
    becomes 0, and ``white`` and all above become 255; the default white is the highest value of the depth.
    Signed and floating-point samples have no natural full scale and need a ``white``. Levels of integer
    samples are whole numbers of their type: 0.3 for reflectance times 10,000 would show white everywhere.

    Args:
        values: samples of any shape; an integer or floating-point type.
        sensor: black and white level.
        bits: depth of the samples as the file declares it; at most that of the type.

    Raises:
        UnreadableImageError: when the samples have no known full scale, cannot have such levels, or hold NaN
            or infinity.
    """
    kind = values.dtype
    if kind.kind not in "uif":
        raise UnreadableImageError(f"samples of type {kind}, which are not read")
    if kind == np.uint8:
        if bits >= 8:
            return values.astype(np.uint8, copy=False)
        spread: NDArray[np.uint8] = np.minimum(np.arange(256) * 255 // ((1 << bits) - 1), 255).astype(
            np.uint8
        )
        return np.asarray(spread[values])
    if sensor.white is None and kind != np.uint16:
        raise UnreadableImageError(
            f"samples of type {kind}, whose full scale is unknown: set data.sensor.white to the value that "
            "shall be white (1 for reflectance as floats; 10000 for reflectance times 10,000), and "
            "data.sensor.black if 0 is not black"
        )
    _require_possible(kind, sensor)
    white = (1 << bits) - 1 if sensor.white is None else sensor.white
    if white <= sensor.black:
        raise UnreadableImageError(
            f"samples of {bits} bits, at most {white}: set data.sensor.white above data.sensor.black "
            f"({sensor.black:.15g})"
        )
    flat = np.ascontiguousarray(values).reshape(-1)
    out = np.empty(flat.shape, np.uint8)
    table = _table(kind, sensor.black, white) if kind.itemsize == 2 and kind.kind != "f" else None
    for start in range(0, len(flat), CHUNK_VALUES):
        part = flat[start : start + CHUNK_VALUES]
        shown = _scaled(part, sensor.black, white) if table is None else table[part.view(np.uint16)]
        out[start : start + CHUNK_VALUES] = shown
    return out.reshape(values.shape)


def _require_possible(kind: np.dtype[Any], sensor: SensorConfig) -> None:
    """Check that levels for integer samples are whole numbers of their type."""
    if kind.kind == "f":
        return
    lowest = max(int(np.iinfo(kind).min), -EXACT_INTEGERS)
    highest = min(int(np.iinfo(kind).max), EXACT_INTEGERS)
    for name, level in (("black", sensor.black), ("white", sensor.white)):
        if level is not None and not (float(level).is_integer() and lowest <= level <= highest):
            raise UnreadableImageError(
                f"samples of type {kind}, whole numbers from {lowest} to {highest}: set data.sensor.{name} "
                f"({level:.15g}) to one of them"
            )


def _table(kind: np.dtype[Any], black: float, white: float) -> NDArray[np.uint8]:
    """The 8-bit value of each of the 65,536 bit patterns of a 16-bit integer type."""
    return _scaled(np.arange(1 << 16).astype(np.uint16).view(kind), black, white)


def _scaled(values: NDArray[Any], black: float, white: float) -> NDArray[np.uint8]:
    if values.dtype.kind == "f":
        above = values.astype(np.float64) - black
        if not np.isfinite(above).all():
            raise UnreadableImageError(
                "samples that are NaN or infinite: replace them in the files by the value of "
                "data.sensor.black"
            )
        with np.errstate(over="ignore"):  # values far above a white close to black
            scaled = np.floor(above * 256 / (white - black))
    else:
        low, high = int(black), min(int(white) + 1, int(np.iinfo(values.dtype).max))
        # int64: uint32 differences times 256 do not fit 32 bits; clipped first, 64-bit samples fit, too
        scaled = (np.clip(values, low, high).astype(np.int64) - low) * 256 // (int(white) - low + 1)
    return np.clip(scaled, 0, 255).astype(np.uint8)
