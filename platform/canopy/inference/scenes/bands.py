"""Bands of a scene for models of ``data.bands``: which they are, and the windows of a block as chips.

A window becomes levels by the function that decodes a chip's file, so both give equal chips. A chip whose
bands lie in several files names none of them in a scene: there the scene's band descriptions do, or the
caller.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np

from canopy.bands import BandLayout, display_bands
from canopy.data.raster.band_chips import band_levels, unchanged
from canopy.data.raster.band_samples import Samples, samples_of
from canopy.data.raster.errors import FarFromRangeError, UnreadableImageError
from canopy.data.raster.tiff_tags import sample_bits
from canopy.errors import ConfigError, DataError, nearest
from canopy.inference.scenes.blending import mirrored, windows_of

if TYPE_CHECKING:
    from numpy.typing import NDArray
    from rasterio.io import DatasetReader
    from rasterio.windows import Window

OPTION = "--bands"


def stored_bands(layout: BandLayout) -> tuple[str, ...]:
    """Names of the bands that come from files, in order."""
    return tuple(band.name for band in layout.bands if band.expression is None)


def parse_bands(given: Sequence[str], layout: BandLayout | None) -> dict[str, int]:
    """The numbers of the option ``--bands``, such as ``red=3``, by the band's name; empty without any.

    Raises:
        ConfigError: when one is of another form, or the names are not those of the model.
    """
    if not given:
        return {}
    if layout is None:
        raise ConfigError(OPTION, "must not be given for a model of RGB chips", given[0], "Leave it out.")
    names, found = stored_bands(layout), {}
    for part in given:
        name, _, number = part.partition("=")
        if not number.isdecimal() or not 1 <= int(number) <= 65535:
            raise ConfigError(OPTION, "must be of the form NAME=NUMBER", part, "Give one such as red=3.")
        if name not in names or name in found:
            need = "must name each of the model's bands once"
            raise ConfigError(OPTION, need, part, nearest(name, names))
        found[name] = int(number)
    missing = [name for name in names if name not in found]
    if missing:
        need = f"must name all of the model's bands: {', '.join(names)}"
        raise ConfigError(OPTION, need, " ".join(given), f"Add {missing[0]}=NUMBER.")
    return found


def band_numbers(
    thing: str, dataset: DatasetReader, layout: BandLayout, stated: Mapping[str, int]
) -> tuple[int, ...]:
    """Number in the scene of each band of :func:`stored_bands`.

    Args:
        thing: the scene, for errors.
        dataset: the open scene.
        layout: the model's bands.
        stated: what the caller says; empty for nothing.

    Raises:
        DataError: when the scene lacks a band, leaves open which is which, or names them otherwise.
    """
    names = stored_bands(layout)
    described = [(text or "").strip().lower() for text in dataset.descriptions]
    remedy = f"Say which is which: --bands {' '.join(f'{name}=NUMBER' for name in names)}."
    if stated:
        numbers = tuple(stated[name] for name in names)
    elif all(file is None and column is None for file, column in layout.files):
        numbers = tuple(band.band for band in layout.bands if band.expression is None)
        for name, number in zip(names, numbers, strict=True):
            text = described[number - 1] if number <= dataset.count else ""
            if text in names and text != name:
                need = f"must have {name} as its band {number}, as the training chips"
                raise DataError(thing, need, f"a band described as {text}", remedy)
    else:
        lacking = [name for name in names if described.count(name) != 1]
        if lacking:
            need = f"must describe one band as {lacking[0]}, as the training chips have several files"
            got = ", ".join(text or "none" for text in described)
            raise DataError(thing, need, f"the descriptions {got}", remedy)
        numbers = tuple(described.index(name) + 1 for name in names)
    if max(numbers) > dataset.count:
        need = f"must have the bands {', '.join(map(str, numbers))} that the model reads"
        raise DataError(thing, need, f"{dataset.count} band(s)", remedy)
    return numbers


def band_nodata(
    dataset: DatasetReader, layout: BandLayout, numbers: Sequence[int]
) -> tuple[float | None, ...]:
    """The sample without a value of each band of :func:`stored_bands`: its own, else the file's.

    None where a band has none, or NaN, which never is a value.
    """
    own = [band.nodata for band in layout.bands if band.expression is None]
    found = [
        dataset.nodatavals[number - 1] if value is None else value
        for number, value in zip(numbers, own, strict=True)
    ]
    return tuple(None if value is None or math.isnan(value) else float(value) for value in found)


def shown_numbers(
    layout: BandLayout, numbers: Sequence[int], display: Sequence[str] | None
) -> tuple[int, int, int]:
    """Numbers of the scene's bands for its quick look; an index is shown by the first band."""
    number_of = dict(zip(stored_bands(layout), numbers, strict=True))
    red, green, blue = (
        number_of.get(layout.names[band], numbers[0]) for band in display_bands(layout.names, display)
    )
    return red, green, blue


def read_band_samples(
    view: DatasetReader,
    dataset: DatasetReader,
    numbers: Sequence[int],
    layout: BandLayout,
    window: Window | None,
    shape: tuple[int, int] | None = None,
) -> Samples:
    """Samples of a part of a scene.

    Args:
        view: the scene in model pixels; where it is not ``dataset``, NaN where a band has no value.
        dataset: the scene as stored, whose type and depth of samples count.
        numbers: of :func:`band_numbers`.
        layout: the model's bands.
        window: the part, in pixels of ``view``; None for all.
        shape: rows and columns to which the part is reduced; None: as it is.

    Raises:
        UnreadableImageError: when the samples are of a kind that is not read.
    """
    nodata = [band.nodata if view is dataset else None for band in layout.bands if band.expression is None]
    found = samples_of(view, numbers, nodata, window, shape)
    return found._replace(dtype=dataset.dtypes[numbers[0] - 1], bits=sample_bits(dataset))


def check_levels(thing: str, samples: Samples, layout: BandLayout) -> None:
    """Refuse samples that the model cannot read: of another type or unit than its chips.

    Args:
        thing: the scene, for errors.
        samples: a part of the scene, as many rows as columns.
        layout: the model's bands.

    Raises:
        DataError: naming the problem.
    """
    try:
        band_levels(_named(samples, layout), layout, samples.valid_bHW.shape[1], unchanged)
    except UnreadableImageError as error:
        remedy = "Convert it to the samples of the training chips."
        raise DataError(thing, "must hold samples that the model reads", error.why, remedy) from None


def window_chips(
    samples: Samples, layout: BandLayout, size: int, stride: int, shape: tuple[int, int], min_valid: float
) -> tuple[NDArray[np.unsignedinteger], NDArray[np.int64]]:
    """The windows of a block as chips.

    Args:
        samples: pixels of the block, without those beyond the scene.
        layout: the model's bands.
        size: side of a window.
        stride: distance of windows.
        shape: rows and columns of windows.
        min_valid: share of pixels with a value in all bands below which a window is left out. One whose
            values are far from a band's range is left out too.

    Returns:
        Chips (n, size, size, C), and their positions among the windows, row by row.
    """
    rows, columns = shape
    height, width = (rows - 1) * stride + size, (columns - 1) * stride + size
    values = windows_of(mirrored(np.moveaxis(samples.values_bHW, 0, -1), height, width), size, stride, shape)
    valid = windows_of(mirrored(np.moveaxis(samples.valid_bHW, 0, -1), height, width), size, stride, shape)
    chips, positions = [], []
    for position in range(rows * columns):
        at = divmod(position, columns)
        valid_bSS = np.moveaxis(valid[at], -1, 0)
        if valid_bSS.all(0).mean() < min_valid:
            continue
        own = samples._replace(values_bHW=np.moveaxis(values[at], -1, 0), valid_bHW=valid_bSS)
        try:
            levels_SSC, _ = band_levels(_named(own, layout), layout, size, unchanged)
        except FarFromRangeError:  # values far from the range, as in a chip that training leaves out
            continue
        chips.append(levels_SSC)
        positions.append(position)
    empty = np.zeros((0, size, size, len(layout.bands)), layout.dtype)
    return np.stack(chips) if chips else empty, np.array(positions, np.int64)


def _named(samples: Samples, layout: BandLayout) -> dict[str, tuple[Samples, int]]:
    return {name: (samples, position) for position, name in enumerate(stored_bands(layout))}
