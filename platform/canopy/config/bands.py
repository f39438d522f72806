"""The bands of a chip: where each comes from, its unit and range, and spectral indices as further bands."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Self

from pydantic import AfterValidator, Field, PlainSerializer, model_validator

from canopy.config.band_expression import INDICES, expression_names, parse_expression
from canopy.config.section import Section
from canopy.errors import ConfigError, nearest

EXACT_INTEGERS = 2**53
"""Magnitude up to which float64 holds every whole number."""
MAX_BANDS = 64
COLORS = ("red", "green", "blue")


def _whole_as_int(level: float) -> float:
    """``level`` as an int where it is whole: 3000 and 3000.0 are one config with one fingerprint."""
    return int(level) if float(level).is_integer() and abs(level) <= EXACT_INTEGERS else level


# The serializer keeps ints, which pydantic would write as floats.
Level = Annotated[
    float, Field(ge=-1e38, le=1e38), AfterValidator(_whole_as_int), PlainSerializer(lambda level: level)
]


class BandConfig(Section):
    """One band of a chip: samples of a file, or an expression over other bands."""

    name: str = Field(pattern=r"^[a-z][a-z0-9_]{0,31}$")
    """Name of the band, small letters, digits and ``_``; ``red``, ``green`` and ``blue`` mark the colors,
    ``nir`` and ``swir2`` those that indices take."""
    band: int = Field(default=1, ge=1, le=1024)
    """Number of the band in its file, counted from 1, 1 to 1024."""
    file: str | None = None
    """File of the band, relative to the folder of the chip's path; ``{id}`` stands for the last part of that
    path without an extension. None: the file at the chip's path."""
    column: str | None = None
    """Column of the label table that names the band's file (``data.source: table``); None: no column."""
    scale: Level = 1
    """Factor from a stored sample to a value, -1e+38 to 1e+38 and not 0: 0.0001 for reflectance times
    10,000."""
    offset: Level = 0
    """Number added after the factor, -1e+38 to 1e+38: a value is sample * scale + offset."""
    nodata: Level | None = None
    """Stored sample that means that there is no value, -1e+38 to 1e+38; None: what the file declares. NaN
    always means it."""
    range: tuple[Level, Level] | None = None
    """Lowest and highest value that the chip distinguishes, -1e+38 to 1e+38; they become 0 and the highest
    level of ``data.dtype``. Values beyond become the nearest of the two. None: samples become
    levels unchanged, which needs unsigned integers that fit; -1 and 1 for a named index."""
    expression: str | None = None
    """``ndvi``, ``ndwi``, ``nbr``, or an expression over the values of bands named before, such as
    ``(nir - red) / (nir + red)``; the band then has no file."""

    @model_validator(mode="after")
    def _has_one_source(self) -> Self:
        if self.file is not None and self.column is not None:
            raise ConfigError(
                f"data.bands: {self.name}",
                "must have one of file and column",
                f"{self.file} and {self.column}",
                "Drop one.",
            )
        if self.file is not None and (self.file.startswith("/") or ".." in self.file.split("/")):
            need = "must be relative to the folder of the chip's path and stay in it"
            raise ConfigError(f"data.bands: {self.name}.file", need, self.file, "Correct it.")
        if self.file is not None and self.file.replace("{id}", "").count("{"):
            need = "must hold no other name in braces than {id}"
            raise ConfigError(f"data.bands: {self.name}.file", need, self.file, "Correct it.")
        if self.expression is None:
            return self
        own = {name: getattr(self, name) for name in ("file", "column", "nodata")}
        set_too = [name for name, value in own.items() if value is not None]
        set_too += [n for n, d in (("band", 1), ("scale", 1), ("offset", 0)) if getattr(self, n) != d]
        if set_too:
            need = "must not be set for a band with an expression"
            raise ConfigError(f"data.bands: {self.name}.{set_too[0]}", need, own.get(set_too[0]), "Drop it.")
        parse_expression(self.expression, f"data.bands: {self.name}.expression")
        return self

    @model_validator(mode="after")
    def _levels_are_possible(self) -> Self:
        if self.scale == 0:
            raise ConfigError(f"data.bands: {self.name}.scale", "must not be 0", 0, "Correct it.")
        if self.range is not None and self.range[0] >= self.range[1]:
            need = "must begin with the lower value"
            raise ConfigError(f"data.bands: {self.name}.range", need, self.range, "Exchange the two.")
        stored = self.expression is None and (self.scale, self.offset) == (1, 0)
        named_index = self.expression is not None and self.expression.strip().lower() in INDICES
        if self.range is None and not (stored or named_index):
            raise ConfigError(
                f"data.bands: {self.name}.range",
                "must be set for a band with a scale, an offset or an expression",
                None,
                "Give the lowest and highest value, such as [0, 1] for reflectance.",
            )
        return self

    @property
    def value_range(self) -> tuple[float, float] | None:
        """Values that become 0 and the highest level; None where samples are levels."""
        if self.range is None and self.expression is not None:
            return (-1, 1)
        return self.range


def check_colors(bands: Sequence[BandConfig], thing: str, given: object) -> None:
    """Check that a step of color augmentation finds red, green and blue, in one unit.

    Args:
        bands: the bands.
        thing: the option, for errors.
        given: its value.

    Raises:
        ConfigError: when one of the three is missing, or their ranges or units differ.
    """
    colors = {band.name: band for band in bands if band.name in COLORS}
    remedy = "Set it to 0; brightness, contrast, noise and band_dropout work per band."
    if len(colors) < len(COLORS):
        need = f"must be 0 unless data.bands declares {', '.join(COLORS)}"
        raise ConfigError(thing, need, f"{given} and {', '.join(band.name for band in bands)}", remedy)
    ranges = {name: band.value_range for name, band in colors.items()}
    if len(set(ranges.values())) > 1:
        need = "must be 0 unless red, green and blue have one range: their levels are compared"
        got = ", ".join(f"{name} {limits or 'without one'}" for name, limits in ranges.items())
        raise ConfigError(thing, need, got, remedy)


def check_bands(bands: Sequence[BandConfig], display: Sequence[str] | None) -> None:
    """Check the bands of a chip against each other.

    Raises:
        ConfigError: when two have one name, an expression or the display names an unknown band, or there are
            too many.
    """
    names: list[str] = []
    if len(bands) > MAX_BANDS:
        raise ConfigError("data.bands", f"must be at most {MAX_BANDS}", len(bands), "Leave some out.")
    for band in bands:
        if band.name in names:
            raise ConfigError("data.bands", "must have distinct names", f"{band.name} twice", "Rename one.")
        if band.expression is not None:
            thing = f"data.bands: {band.name}.expression"
            for name in expression_names(parse_expression(band.expression, thing)):
                if name not in names:
                    need = "must use bands that come before it"
                    raise ConfigError(thing, need, name, nearest(name, names))
        names.append(band.name)
    if bands and all(band.expression is not None for band in bands):
        raise ConfigError("data.bands", "must hold a band of a file", "expressions only", "Add one.")
    for name in display or ():
        if name not in names:
            raise ConfigError("data.display", "must name bands of data.bands", name, nearest(name, names))
