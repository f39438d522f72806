"""Made files of every layout: each gives the pixels that rasterio reads, or is refused with a reason."""

from __future__ import annotations

import itertools
import warnings
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from rasterio._err import CPLE_BaseError
from rasterio.errors import NotGeoreferencedWarning, RasterioError
from rasterio.io import MemoryFile

from canopy.config import SensorConfig
from canopy.data.raster.try_decode import try_decode

SIZE = 32
SENSORS = (
    SensorConfig(),
    SensorConfig(black=100, white=3000),
    SensorConfig(bands=(1, 1, 2), white=2000),
    SensorConfig(black=-25.5, white=0.5),
)
TYPES = (
    ("uint8", 8),
    ("uint16", 16),
    ("uint16", 12),
    ("int16", 16),
    ("uint32", 32),
    ("float32", 32),
    ("int8", 8),
)


@dataclass(frozen=True)
class Made:
    """A file to make: rasterio's profile, and the depth of its samples."""

    driver: str
    count: int
    dtype: str
    bits: int
    options: tuple[tuple[str, Any], ...]

    def write(self) -> tuple[bytes, NDArray[Any]] | None:
        """The file, and the bands that rasterio reads from it; None where GDAL cannot write it."""
        rng = np.random.default_rng(self.count)
        shape = (self.count, SIZE, SIZE)
        if self.dtype == "float32":
            values = rng.choice(np.array([1, 5000], np.float32), shape) * rng.uniform(-30, 1, shape).astype(
                np.float32
            )
        else:
            top = min((1 << self.bits) - 1, 5000, int(np.iinfo(self.dtype).max))
            values = rng.integers(0, top, shape, endpoint=True).astype(self.dtype)
        profile = {"count": self.count, "dtype": self.dtype, "width": SIZE, "height": SIZE}
        with (
            warnings.catch_warnings(action="ignore", category=NotGeoreferencedWarning),
            MemoryFile() as memory,
        ):
            try:
                with memory.open(driver=self.driver, **profile, **dict(self.options)) as file:
                    file.write(values)
            except (RasterioError, CPLE_BaseError):
                return None
            data = memory.read()
            with MemoryFile(data) as again, again.open() as file:
                return data, file.read()


def tiffs() -> Iterator[Made]:
    layouts = ({"tiled": True, "blockxsize": 16, "blockysize": 16}, {"blockysize": 7})
    alternately = itertools.cycle(("NO", "YES"))
    compressions = ("none", "lzw", "deflate", "zstd", "packbits", "jpeg")
    for count, (dtype, bits), layout, interleave, compress, photometric in itertools.product(
        (1, 2, 3, 4, 5), TYPES, layouts, ("pixel", "band"), compressions,
        ("MINISBLACK", "RGB", "MINISWHITE"),
    ):  # fmt: skip
        if (photometric == "RGB" and count < 3) or (photometric == "MINISWHITE" and count > 1):
            continue
        if compress == "jpeg" and dtype != "uint8":  # GDAL writes files without pixels
            continue
        big = next(alternately)
        options: dict[str, Any] = {"interleave": interleave, "compress": compress, "BIGTIFF": big, **layout}
        options["photometric"] = photometric
        if bits == 12:
            options["nbits"] = 12
        elif compress in {"lzw", "deflate", "zstd"}:
            options["predictor"] = 2 if dtype != "float32" else 3
        yield Made("GTiff", count, dtype, bits, tuple(options.items()))


def others() -> Iterator[Made]:
    for count, bits in itertools.product((1, 2, 3, 4), (8, 10, 12, 15, 16)):
        options = (("NBITS", bits), ("QUALITY", 100), ("REVERSIBLE", "YES"))
        yield Made("JP2OpenJPEG", count, "uint8" if bits == 8 else "uint16", bits, options)
    for count, dtype in itertools.product((1, 2, 3, 4), ("uint8", "uint16")):
        yield Made("PNG", count, dtype, 8 if dtype == "uint8" else 16, ())


def expected_bands(made: Made, sensor: SensorConfig) -> tuple[int, ...] | None:
    """The bands that the documentation promises; None for a refusal."""
    if sensor.bands:
        return sensor.bands if max(sensor.bands) <= made.count else None
    named = made.driver == "PNG" or dict(made.options).get("photometric") == "RGB"
    if made.count in (1, 3) or (made.count == 2 and made.driver == "PNG"):
        return (1, 2, 3) if made.count == 3 else (1, 1, 1)
    if named and made.count > 3:
        return (1, 2, 3)
    return (3, 2, 1) if made.count == 4 and made.driver == "GTiff" else None


def expected(made: Made, values: NDArray[Any], sensor: SensorConfig) -> NDArray[np.uint8] | None:
    """The chip by the rules of docs/data.md; None for a refusal."""
    bands = expected_bands(made, sensor)
    if bands is None:
        return None
    chosen = np.moveaxis(values[[band - 1 for band in bands]], 0, -1)
    inverted = dict(made.options).get("photometric") == "MINISWHITE"
    if inverted:
        if not made.dtype.startswith("uint"):
            return None
        chosen = (1 << made.bits) - 1 - chosen.astype(np.int64)
    if made.dtype == "uint8":
        return chosen.astype(np.uint8)
    if sensor.white is None and made.dtype != "uint16":
        return None
    if made.dtype != "float32":
        limits = np.iinfo(made.dtype)
        levels = (sensor.black, limits.max if sensor.white is None else sensor.white)
        if any(level != int(level) or not limits.min <= level <= limits.max for level in levels):
            return None
    white = (1 << made.bits) - 1 if sensor.white is None else sensor.white
    steps = white - sensor.black + (made.dtype != "float32")
    return np.clip(np.floor((chosen.astype(float) - sensor.black) * 256 / steps), 0, 255).astype(np.uint8)


def check(made: list[Made]) -> Counter[tuple[str, str]]:
    """Decode every file with every sensor; the number of chips read and refused by kind."""
    seen: Counter[tuple[str, str]] = Counter()
    for one in made:
        written = one.write()
        if written is None:
            continue
        data, values = written
        kind = f"{one.driver} {one.dtype}" + (f" of {one.bits} bits" if one.bits not in (8, 16, 32) else "")
        for sensor in SENSORS:
            wanted = expected(one, values, sensor)
            chip, found = try_decode(data, SIZE, sensor)
            if found.problem:
                assert wanted is None, (one, sensor, found.problem)
                seen[kind, "refused"] += 1
                continue
            assert wanted is not None, (one, sensor, found.mode)
            assert (chip == wanted).all(), (one, sensor, found.mode)
            seen[kind, "read"] += 1
    return seen


def test_a_sample_of_all_kinds() -> None:
    seen = check([*list(tiffs())[::23], *others()])
    assert sum(seen.values()) > 200
    assert len({kind for kind, _ in seen}) > 10


@pytest.mark.slow
def test_all_kinds() -> None:
    seen = check([*tiffs(), *others()])
    for kind in sorted({kind for kind, _ in seen}):
        print(f"{kind:30} read {seen[kind, 'read']:5}  refused {seen[kind, 'refused']:5}")
    assert sum(seen.values()) > 2000
