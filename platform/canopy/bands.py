"""The bands of a run's chips: their order and levels, and their statistics over the training rows.

A chip of ``data.bands`` holds levels, uint8 or uint16, of shape (S, S, C). A level stands for a value of its
band: ``low + level * (high - low) / highest`` with the band's range. Without ``data.bands`` a chip is RGB,
uint8, and neither class is used: their place is None.
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, fields
from functools import cached_property
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from canopy.config import COLORS, BandConfig, fingerprint_content
from canopy.errors import FourPartError, RunDirError

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from numpy.typing import NDArray

    from canopy.config import DataConfig

Dtype = Literal["uint8", "uint16"]
LevelType = np.dtype[np.uint8] | np.dtype[np.uint16]
Levels = "NDArray[np.uint8] | NDArray[np.uint16]"
RGB_CHANNELS = 3
SEVERAL_FILES = "\n"
"""Between the addresses of a chip whose bands lie in several files. No address holds a line break."""
METADATA_KEY = "bands"
"""Key of :class:`BandStatistics` in the metadata of a file of weights; its value is JSON."""


@dataclass(frozen=True)
class BandLayout:
    """What it takes to read a chip's bands.

    Args:
        bands: the bands in order.
        dtype: type of a level.
        max_nodata: largest share of pixels without a value, 0 to 1.
    """

    bands: tuple[BandConfig, ...]
    dtype: Dtype = "uint16"
    max_nodata: float = 0.5

    @classmethod
    def of(cls, config: DataConfig) -> BandLayout | None:
        """The layout of a data section; None for RGB."""
        return cls(config.bands, config.dtype, config.max_nodata) if config.bands else None

    @property
    def names(self) -> tuple[str, ...]:
        """Names of the bands."""
        return tuple(band.name for band in self.bands)

    @property
    def highest(self) -> int:
        """The highest level."""
        return int(np.iinfo(self.dtype).max)

    @property
    def ranges(self) -> tuple[tuple[float, float], ...]:
        """Lowest and highest value of each band."""
        return tuple(band.value_range or (0, self.highest) for band in self.bands)

    @cached_property
    def files(self) -> tuple[tuple[str | None, str | None], ...]:
        """Pattern and column of each file of a chip, each once, in the order of their first bands."""
        sources = [(band.file, band.column) for band in self.bands if band.expression is None]
        return tuple(dict.fromkeys(sources))

    def addresses(self, path: str, columns: Mapping[str, str] | None = None) -> str:
        """Addresses of a chip's files, joined by :data:`SEVERAL_FILES`.

        Args:
            path: path or URI of the chip.
            columns: path or URI by column of the table.
        """
        folder, _, last = path.rstrip("/").rpartition("/")
        stem = last.rpartition(".")[0] or last
        found = []
        for pattern, column in self.files:
            if column is not None:
                found.append((columns or {})[column])
            elif pattern is not None:
                inner = pattern.replace("{id}", stem)
                found.append(f"{folder}/{inner}" if folder or path.startswith("/") else inner)
            else:
                found.append(path)
        return SEVERAL_FILES.join(found)

    def to_json(self) -> dict[str, Any]:
        """The JSON form."""
        bands = [fingerprint_content(band) for band in self.bands]
        return {"bands": bands, "dtype": self.dtype, "max_nodata": self.max_nodata}

    @classmethod
    def from_json(cls, content: Mapping[str, Any]) -> BandLayout:
        """The inverse of :meth:`to_json`.

        Raises:
            pydantic.ValidationError: when a band is not valid.
            KeyError: when a part is missing.
        """
        bands = tuple(BandConfig.model_validate(band) for band in content["bands"])
        return cls(bands, content["dtype"], float(content["max_nodata"]))


def channels_of(layout: BandLayout | None) -> int:
    """Number of channels of a chip."""
    return RGB_CHANNELS if layout is None else len(layout.bands)


def dtype_of(layout: BandLayout | None) -> LevelType:
    """Type of a chip's levels."""
    return np.dtype(np.uint16) if layout is not None and layout.dtype == "uint16" else np.dtype(np.uint8)


def chip_bytes(size: int, layout: BandLayout | None) -> int:
    """Size of a decoded chip of ``size`` pixels a side, in bytes."""
    return size * size * channels_of(layout) * dtype_of(layout).itemsize


@dataclass(frozen=True)
class BandStatistics:
    """Bands of C-band chips with their statistics, in levels, over a run's training rows.

    Args:
        names: names of the bands, in order.
        dtype: type of a level.
        ranges: lowest and highest value of each band; they are level 0 and the highest level.
        mean: mean level per band.
        std: standard deviation per band, above 0.
        low: 2nd percentile per band.
        median: 50th percentile per band.
        high: 98th percentile per band.
        display: positions of the bands that pictures show as red, green and blue.
    """

    names: tuple[str, ...]
    dtype: Dtype
    ranges: tuple[tuple[float, float], ...]
    mean: tuple[float, ...]
    std: tuple[float, ...]
    low: tuple[float, ...]
    median: tuple[float, ...]
    high: tuple[float, ...]
    display: tuple[int, int, int]

    @property
    def colors(self) -> tuple[int, int, int] | None:
        """Positions of red, green and blue; None where one is not declared."""
        return color_bands(self.names)

    @property
    def highest(self) -> int:
        """The highest level."""
        return int(np.iinfo(self.dtype).max)

    def shown(self, chips_NHWC: NDArray[Any]) -> NDArray[np.uint8]:
        """Chips as pictures for people: uint8 RGB (N, H, W, 3).

        Each displayed band is stretched linearly, from its 2nd to its 98th percentile over the training rows.
        """
        out = np.empty((*chips_NHWC.shape[:-1], 3), np.uint8)
        for channel, band in enumerate(self.display):
            low, high = self.low[band], self.high[band]
            stretched = (chips_NHWC[..., band].astype(np.float32) - low) * (255 / max(high - low, 1))
            out[..., channel] = np.clip(np.rint(stretched), 0, 255)
        return out

    def to_json(self) -> dict[str, Any]:
        """The JSON form."""
        return asdict(self)

    def to_metadata(self) -> dict[str, str]:
        """The statistics as metadata of a file of weights."""
        return {METADATA_KEY: json.dumps(self.to_json())}

    @classmethod
    def from_json(
        cls, content: object, thing: str, error: type[FourPartError] = RunDirError
    ) -> BandStatistics:
        """The inverse of :meth:`to_json`.

        Raises:
            FourPartError: of the class ``error``, when the content is not of this form.
        """
        names = {field.name for field in fields(cls)}
        try:
            if not isinstance(content, dict) or set(content) != names:
                raise ValueError
            found = cls(**{name: _tuples(value) for name, value in content.items()})
            if not found._is_possible():
                raise ValueError
        except (TypeError, ValueError):
            remedy = "Restore the file, or make it again."
            raise error(thing, "must hold the statistics of bands", "other content", remedy) from None
        return found

    def _is_possible(self) -> bool:
        count, numbers = len(self.names), (self.mean, self.std, self.low, self.median, self.high)
        return (
            all(len(part) == count and bool(np.isfinite(part).all()) for part in numbers)
            and len(self.ranges) == count
            and min(self.std) > 0
            and self.dtype in ("uint8", "uint16")
            and len(self.display) == 3
            and all(0 <= band < count for band in self.display)
        )

    @classmethod
    def from_metadata(
        cls, metadata: Mapping[str, str], thing: str, error: type[FourPartError] = RunDirError
    ) -> BandStatistics | None:
        """What the metadata of a file of weights says; None where it says nothing.

        Raises:
            FourPartError: of the class ``error``, when it is not of the form of :meth:`to_metadata`.
        """
        if METADATA_KEY not in metadata:
            return None
        try:
            content = json.loads(metadata[METADATA_KEY])
        except ValueError:
            content = None
        return cls.from_json(content, thing, error)


def _tuples(value: object) -> Any:
    return tuple(_tuples(item) for item in value) if isinstance(value, list | tuple) else value


def color_bands(names: Sequence[str]) -> tuple[int, int, int] | None:
    """Positions of red, green and blue; None where one is not declared."""
    if not set(COLORS) <= set(names):
        return None
    red, green, blue = (names.index(name) for name in COLORS)
    return red, green, blue


def display_bands(names: Sequence[str], display: Sequence[str] | None) -> tuple[int, int, int]:
    """Positions of the bands that pictures show as red, green and blue (``data.display``)."""
    if display is not None:
        red, green, blue = (names.index(name) for name in display)
        return red, green, blue
    if (colors := color_bands(names)) is not None:
        return colors
    return (0, 1, 2) if len(names) >= 3 else (0, 0, 0)
