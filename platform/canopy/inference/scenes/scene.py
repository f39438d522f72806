"""Scenes: how GDAL opens them, which bands are read, and what is refused because it cannot be mapped.

A scene may be a local file of any kind that GDAL reads, or an object (``s3://…``) of which only the parts
that are needed are fetched.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
import rasterio
from affine import Affine
from rasterio.crs import CRS
from rasterio.enums import ColorInterp
from rasterio.errors import RasterioError
from rasterio.windows import Window

from canopy.bands import BandLayout
from canopy.config import SensorConfig
from canopy.data.raster.errors import UnreadableImageError
from canopy.data.raster.rescale import to_uint8
from canopy.data.raster.tiff_tags import sample_bits
from canopy.errors import DataError
from canopy.inference.scenes.bands import (
    band_nodata,
    band_numbers,
    check_levels,
    read_band_samples,
    shown_numbers,
)
from canopy.storage import files

if TYPE_CHECKING:
    from numpy.typing import NDArray
    from rasterio.io import DatasetReader

OPTION = "--scene"
OPTIONS = {"GDAL_DISABLE_READDIR_ON_OPEN": "EMPTY_DIR", "GDAL_NUM_THREADS": "1", "GDAL_CACHEMAX": 128}
"""GDAL's settings; its cache, in MB, holds the tiles at the borders of neighboring windows."""
COLORS = (ColorInterp.red, ColorInterp.green, ColorInterp.blue)
SAME_SCALE = 0.005
"""Relative difference of two ground resolutions below which they count as one."""
SKEW = 1e-6
"""Shear of a transform, relative to the size of a pixel, below which it counts as none."""
LOOK_SIDE = 512
"""Side in pixels of the reduced scene that is read to find out whether it holds any data."""


@dataclass(frozen=True)
class Scene:
    """A scene that can be predicted.

    Args:
        address: path or URI.
        height: rows, in pixels of the file.
        width: columns.
        transform: from (column, row) to coordinates of ``crs``; neither rotated nor mirrored.
        crs: projected coordinate system, as WKT.
        metres: size of a pixel on the ground.
        bands: numbers of the bands that become the channels of a chip, from 1; for a model of ``data.bands``
            those of its bands of files.
        shown: numbers of the bands of the quick look; None: the first of ``bands``.
        nodata: for a model of ``data.bands``, the sample without a value of each of ``bands``; None for none.
    """

    address: str
    height: int
    width: int
    transform: Affine
    crs: str
    metres: float
    bands: tuple[int, ...]
    shown: tuple[int, int, int] | None = None
    nodata: tuple[float | None, ...] = ()

    @property
    def name(self) -> str:
        """File name without its suffix."""
        return files.stem(self.address)

    @property
    def bounds(self) -> tuple[float, float, float, float]:
        """Left, bottom, right and top, in coordinates of ``crs``."""
        left, top = self.transform @ (0, 0)
        right, bottom = self.transform @ (self.width, self.height)
        return left, bottom, right, top


@contextlib.contextmanager
def opened(address: str) -> Iterator[DatasetReader]:
    """The open dataset at a path or URI.

    Raises:
        DataError: when GDAL cannot read it.
        StorageError: when the object store refuses.
    """
    filesystem, inner = files.resolve(address)
    try:
        with contextlib.ExitStack() as stack:
            stack.enter_context(rasterio.Env(**OPTIONS))
            source: Any = inner
            if files.is_uri(address):
                with files.store_errors(address):
                    source = stack.enter_context(filesystem.open_input_file(inner))
            yield stack.enter_context(rasterio.open(source))
    except FileNotFoundError:
        raise DataError(OPTION, "must be a scene that exists", files.shown(address), "Correct it.") from None
    except RasterioError as error:
        raise unreadable(address, error) from None


def unreadable(address: str, error: Exception) -> DataError:
    """The error of a scene that is damaged, truncated or of an unknown kind."""
    cause = error.__cause__ or error
    need = f"must be a complete raster file ({files.shown(address)})"
    return DataError(OPTION, need, cause, "Copy it again, or check it with gdalinfo.")


@dataclass(frozen=True)
class SceneBands:
    """What a model of ``data.bands`` reads from a scene.

    Args:
        layout: its bands.
        stated: numbers in the scene by the band's name, as the caller states them; empty for nothing.
        display: names of the bands of the quick look; None: by name, or the first.
    """

    layout: BandLayout
    stated: Mapping[str, int] = field(default_factory=dict)
    display: tuple[str, str, str] | None = None


def check_scene(address: str, sensor: SensorConfig, wanted: SceneBands | None = None) -> Scene:
    """Open a scene and refuse what cannot be mapped.

    Args:
        address: path or URI.
        sensor: conversion of samples to RGB.
        wanted: the bands of a model that is not of RGB chips.

    Raises:
        DataError: when it has no CRS, one in degrees, a rotated transform, oblong pixels, missing bands, no
            data at all, or cannot be read.
    """
    with opened(address) as dataset:
        thing = f"The scene {files.shown(address)}"
        if dataset.crs is None:
            need, remedy = "must have a coordinate reference system", "Set it: gdal_edit.py -a_srs EPSG:CODE."
            raise DataError(thing, need, "none", remedy)
        if not dataset.crs.is_projected:
            need = "must have a projected CRS, because windows are measured in metres"
            remedy = "Warp it first: gdalwarp -t_srs EPSG:CODE (its UTM zone)."
            raise DataError(thing, need, dataset.crs.to_string(), remedy)
        metres = check_transform(thing, dataset.transform, dataset.crs)
        nodata: tuple[float | None, ...] = ()
        if wanted is None:
            bands, shown = scene_bands(thing, dataset, sensor), None
        else:
            bands = band_numbers(thing, dataset, wanted.layout, wanted.stated)
            shown = shown_numbers(wanted.layout, bands, wanted.display)
            nodata = band_nodata(dataset, wanted.layout, bands)
        size = dataset.height, dataset.width
        scene = Scene(address, *size, dataset.transform, dataset.crs.to_wkt(), metres, bands, shown, nodata)
        refuse_empty(thing, dataset, scene, sensor, None if wanted is None else wanted.layout)
        return scene


def check_transform(thing: str, transform: Affine, crs: CRS) -> float:
    """Size of a pixel in metres.

    Raises:
        DataError: when the transform is rotated or mirrored, or pixels are oblong.
    """
    shear = max(abs(transform.b), abs(transform.d))
    if shear > SKEW * abs(transform.a) or transform.a <= 0 or transform.e >= 0:
        need, remedy = "must lie north up, its transform not rotated", "Warp it first with gdalwarp."
        raise DataError(thing, need, str(tuple(transform)[:6]), remedy)
    if abs(transform.a + transform.e) > SAME_SCALE * transform.a:
        need = "must have square pixels"
        got = f"{transform.a:g} by {-transform.e:g}"
        raise DataError(thing, need, got, "Warp it first: gdalwarp -tr SIZE SIZE.")
    return float(transform.a * crs.linear_units_factor[1])


def scene_bands(thing: str, dataset: DatasetReader, sensor: SensorConfig) -> tuple[int, ...]:
    """Numbers of the bands that the model reads, by the rules of a chip's file.

    Raises:
        DataError: when the scene lacks one, or leaves open which they are.
    """
    if sensor.bands is not None:
        if max(sensor.bands) > dataset.count:
            need = f"must have the bands {sensor.bands} that the model reads (data.sensor.bands)"
            raise DataError(thing, need, f"{dataset.count} band(s)", "Give a scene that has them.")
        return tuple(sensor.bands)
    named = [[n + 1 for n, one in enumerate(dataset.colorinterp) if one is color] for color in COLORS]
    if all(len(found) == 1 for found in named):
        return tuple(found[0] for found in named)
    plain = dataset.count - (dataset.colorinterp[-1] is ColorInterp.alpha)
    known = {1: (1, 1, 1), 3: (1, 2, 3), 4: (3, 2, 1)}
    if plain not in known:
        need = "must say which of its bands are red, green and blue"
        raise DataError(
            thing, need, f"{dataset.count} bands", "Set their color interpretation (gdal_edit.py)."
        )
    return known[plain]


def refuse_empty(
    thing: str, dataset: DatasetReader, scene: Scene, sensor: SensorConfig, layout: BandLayout | None = None
) -> None:
    """Refuse a scene without data, one whose end is missing, and samples that the model cannot read.

    Raises:
        DataError: naming the problem.
    """
    scale = min(1.0, LOOK_SIDE / max(scene.height, scene.width))
    shape = (max(1, round(scene.height * scale)), max(1, round(scene.width * scale)))
    mask_HW = dataset.read_masks(scene.bands[0], out_shape=shape)
    floats = dataset.dtypes[scene.bands[0] - 1].startswith("float")
    missing = scene.nodata[0] if layout is not None else None
    if floats or missing is not None:
        look_HW = dataset.read(scene.bands[0], out_shape=shape)
        mask_HW = mask_HW * np.isfinite(look_HW)
        mask_HW = mask_HW if missing is None else mask_HW * (look_HW != missing)
    if not mask_HW.any():
        raise DataError(thing, "must hold data", "nodata in every pixel", "Choose another scene.")
    corner = Window(max(0, scene.width - 16), max(0, scene.height - 16), 16, 16)
    # The last tile of a truncated file is missing.
    values = dataset.read(sorted(set(scene.bands)), window=corner)
    if layout is not None:
        # The unit of floats shows in the whole scene only; the type of samples in any part.
        part, side = (None, min(LOOK_SIDE, scene.height, scene.width)) if floats else (corner, 16)
        look = read_band_samples(dataset, dataset, scene.bands, layout, part, (side, side))
        check_levels(thing, look, layout)
        return
    eight_bits(scene, np.nan_to_num(values[..., :1, :1]), sensor, sample_bits(dataset))


def eight_bits(scene: Scene, values_CHW: NDArray[Any], sensor: SensorConfig, bits: int) -> NDArray[np.uint8]:
    """Samples of ``bits`` bits as a model of 8-bit chips reads them.

    Raises:
        DataError: when they are of another kind.
    """
    try:
        return to_uint8(values_CHW, sensor, bits)
    except UnreadableImageError as error:
        thing = f"The scene {files.shown(scene.address)}"
        raise DataError(thing, "must hold samples that the model reads", error.why, "Convert it.") from None
