"""Reads blocks of windows from a scene as chips, at the model's ground resolution."""

from __future__ import annotations

import contextlib
import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from affine import Affine
from rasterio.enums import MaskFlags, Resampling
from rasterio.vrt import WarpedVRT
from rasterio.windows import Window

from canopy.bands import BandLayout
from canopy.config import SensorConfig
from canopy.data.raster.tiff_tags import sample_bits
from canopy.inference.scenes.bands import read_band_samples, window_chips
from canopy.inference.scenes.blending import cell_shares, filled, mirrored, windows_of
from canopy.inference.scenes.grid import Block, Grid
from canopy.inference.scenes.scene import Scene, eight_bits, opened

if TYPE_CHECKING:
    from numpy.typing import NDArray
    from rasterio.io import DatasetReader

MIN_VALID = 0.5
"""Share of pixels with data below which a window is not scored, and a cell has no value."""


@dataclass(frozen=True)
class SceneReader:
    """Reads blocks of windows of a scene at the model's ground resolution.

    Args:
        scene: the scene.
        grid: its windows.
        factor: pixels of the scene along the side of a model pixel; 1 reads the scene as it is.
        sensor: conversion of samples to 8 bits.
        layout: the bands of the model's chips; None for RGB.
    """

    scene: Scene
    grid: Grid
    factor: float
    sensor: SensorConfig
    layout: BandLayout | None = None

    def read(self, number: int) -> tuple[NDArray[Any], NDArray[np.int64], NDArray[np.float32]]:
        """The chips of a block.

        Returns:
            chips_nHWC: uint8 or the type of the layout, (n, S, S, C), of the windows with data.
            positions_n: their positions among the windows of the block, row by row.
            shares_HW: share of pixels with data of every cell that the block's windows cover.

        Raises:
            DataError: when the file is damaged.
            StorageError: when the object store refuses.
        """
        grid, block = self.grid, self.grid.block(number)
        if self.layout is not None:
            return self._read_bands(block, self.layout)
        pixels_HWC, valid_HW = self._pixels(block)
        rows, columns = block.shape
        height = (rows - 1) * grid.stride + grid.size
        width = (columns - 1) * grid.stride + grid.size
        shares_HW = cell_shares(valid_HW, grid.stride, (rows + grid.reach - 1, columns + grid.reach - 1))
        valid_HW = mirrored(valid_HW, height, width)
        whole = bool(valid_HW.all())
        windows = windows_of(mirrored(pixels_HWC, height, width), grid.size, grid.stride, block.shape)
        valid = windows_of(valid_HW[..., None], grid.size, grid.stride, block.shape)[..., 0]
        share_N = valid.mean((2, 3), dtype=np.float32).ravel() if not whole else np.ones(rows * columns)
        positions_n = np.flatnonzero(share_N >= MIN_VALID)
        at = np.divmod(positions_n, columns)
        chips_nHWC = np.ascontiguousarray(windows[at])
        return chips_nHWC if whole else filled(chips_nHWC, valid[at]), positions_n, shares_HW

    def _read_bands(
        self, block: Block, layout: BandLayout
    ) -> tuple[NDArray[Any], NDArray[np.int64], NDArray[np.float32]]:
        """:meth:`read` for chips of bands."""
        grid, (rows, columns) = self.grid, block.shape
        top, bottom, left, right = grid.pixels(block)
        window = Window(left, top, right - left, bottom - top)
        with opened(self.scene.address) as dataset, self._resampled(dataset) as view:
            samples = read_band_samples(view, dataset, self.scene.bands, layout, window)
        cells = (rows + grid.reach - 1, columns + grid.reach - 1)
        shares_HW = cell_shares(np.asarray(samples.valid_bHW.all(0)), grid.stride, cells)
        chips_nHWC, positions_n = window_chips(
            samples, layout, grid.size, grid.stride, block.shape, MIN_VALID
        )
        return chips_nHWC, positions_n, shares_HW

    def _pixels(self, block: Block) -> tuple[NDArray[np.uint8], NDArray[np.bool_]]:
        """Pixels (H, W, C) of a block of windows, uint8, and which of them have data."""
        top, bottom, left, right = self.grid.pixels(block)
        window = Window(left, top, right - left, bottom - top)
        wanted = sorted(set(self.scene.bands))
        with opened(self.scene.address) as dataset, self._resampled(dataset) as view:
            values_CHW = view.read(wanted, window=window)
            if view is not dataset and _has_own_mask(dataset):
                valid_HW = view.read(view.count, window=window) > 0  # the added alpha
            else:
                valid_HW = (view.read_masks(wanted, window=window) > 0).all(0)
            bits = sample_bits(dataset)
        if values_CHW.dtype.kind == "f":
            valid_HW &= np.isfinite(values_CHW).all(0)
            values_CHW = np.where(valid_HW, values_CHW, values_CHW.dtype.type(self.sensor.black))
        shown_CHW = eight_bits(self.scene, values_CHW, self.sensor, bits)
        pixels_HWC = np.stack([shown_CHW[wanted.index(band)] for band in self.scene.bands], axis=-1)
        return pixels_HWC, valid_HW

    @contextlib.contextmanager
    def _resampled(self, dataset: DatasetReader) -> Iterator[Any]:
        """``dataset`` in model pixels; one grid for the whole scene, so that blocks meet without seams.

        Bands become floats, NaN where they have no value. RGB keeps its type and its nodata; a mask of its
        own, which GDAL would drop, becomes an alpha band after the others.
        """
        if self.factor == 1:
            yield dataset
            return
        options: dict[str, Any] = {}
        if self.layout is not None:
            (missing,) = set(self.scene.nodata)  # `check_nodata` refuses several
            source = math.nan if missing is None else missing
            # rasterio's default counts a pixel as missing only where all bands are.
            options = {"dtype": "float32", "src_nodata": source, "nodata": math.nan}
            options["UNIFIED_SRC_NODATA"] = "NO"
        elif _has_own_mask(dataset):
            options = {"add_alpha": True, "src_nodata": None}
        with WarpedVRT(
            dataset,
            crs=dataset.crs,
            transform=dataset.transform @ Affine.scale(self.factor),
            width=self.grid.width,
            height=self.grid.height,
            resampling=Resampling.average if self.factor > 1 else Resampling.bilinear,
            **options,
        ) as view:
            yield view


def _has_own_mask(dataset: DatasetReader) -> bool:
    """Whether a file says by a mask, not by nodata or an alpha band, which pixels have data."""
    flags = dataset.mask_flag_enums[0]
    return MaskFlags.per_dataset in flags and MaskFlags.alpha not in flags


def model_size(scene: Scene, factor: float) -> tuple[int, int]:
    """Rows and columns of a scene in model pixels."""
    return max(1, math.floor(scene.height / factor + 1e-6)), max(1, math.floor(scene.width / factor + 1e-6))
