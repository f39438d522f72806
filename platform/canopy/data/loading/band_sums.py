"""Sums of each band that decoding makes in passing, and the statistics of the training rows from them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from canopy.bands import BandLayout, BandStatistics, display_bands
from canopy.errors import RunDirError
from canopy.runtime.stage import Stage
from canopy.storage import files

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from canopy.config import DataConfig
    from canopy.data.loading.ray_stream import Batch
    from canopy.storage.run_dir import RunDir

FILE_NAME = "bands.json"
SAMPLED_PIXELS = 16
"""Pixels of each chip from which percentiles are taken, the same positions in all chips."""
SHOWN_PERCENTILES = (2, 50, 98)
SMALLEST_STD = 1e-3
"""Standard deviation, in levels, that stands for that of a constant band."""
ROWS_AT_ONCE = 1 << 20


def band_sums(chips_nHWC: NDArray[Any]) -> Batch:
    """Columns of n rows: ``sum`` and ``squares`` (n, C) of the levels, ``sample`` (n, pixels, C)."""
    flat_npC = chips_nHWC.reshape(len(chips_nHWC), -1, chips_nHWC.shape[3])
    at = np.random.default_rng(0).choice(flat_npC.shape[1], SAMPLED_PIXELS)
    wide_npC = flat_npC.astype(np.float64)
    return {
        "sum": wide_npC.sum(1),
        "squares": np.einsum("npc,npc->nc", wide_npC, wide_npC),
        "pixels": np.full(len(flat_npC), flat_npC.shape[1]),
        "sample": flat_npC[:, at].astype(np.uint16),
    }


@dataclass(frozen=True)
class BandSums:
    """Sums over the levels of N chips, per band.

    Attributes:
        sum_NC: sum of the levels.
        squares_NC: sum of their squares.
        pixels_N: pixels of each chip.
        sample_NPC: levels of some pixels, uint16.
    """

    sum_NC: NDArray[np.float64]
    squares_NC: NDArray[np.float64]
    pixels_N: NDArray[np.int64]
    sample_NPC: NDArray[np.uint16]

    @classmethod
    def empty(cls, rows: int, bands: int) -> BandSums:
        """Sums of ``rows`` chips, to be filled by :meth:`put`."""
        sums = np.zeros((rows, bands)), np.zeros((rows, bands)), np.zeros(rows, np.int64)
        return cls(*sums, np.zeros((rows, SAMPLED_PIXELS, bands), np.uint16))

    def put(self, rows_n: NDArray[np.int64], batch: Batch) -> None:
        """Fill in the columns of :func:`band_sums` for ``rows_n``."""
        self.sum_NC[rows_n], self.squares_NC[rows_n] = batch["sum"], batch["squares"]
        self.pixels_N[rows_n], self.sample_NPC[rows_n] = batch["pixels"], batch["sample"]

    def subset(self, rows_n: NDArray[np.int64]) -> BandSums:
        """The sums of ``rows_n``."""
        parts = self.sum_NC[rows_n], self.squares_NC[rows_n], self.pixels_N[rows_n]
        return BandSums(*parts, self.sample_NPC[rows_n])

    def statistics(self, rows_n: NDArray[np.int64], config: DataConfig) -> BandStatistics:
        """Statistics over ``rows_n``; percentiles are those of the sampled pixels."""
        layout = BandLayout.of(config)
        assert layout is not None
        assert len(rows_n)
        pixels = self.pixels_N[rows_n].sum()
        mean_C = self.sum_NC[rows_n].sum(0) / pixels
        variance_C = np.maximum(self.squares_NC[rows_n].sum(0) / pixels - mean_C**2, 0)
        sample_pC = self.sample_NPC[rows_n].reshape(-1, len(layout.bands))[:ROWS_AT_ONCE]
        low_C, median_C, high_C = np.percentile(sample_pC, SHOWN_PERCENTILES, axis=0)
        return BandStatistics(
            layout.names,
            layout.dtype,
            layout.ranges,
            tuple(mean_C.tolist()),
            tuple(np.maximum(np.sqrt(variance_C), SMALLEST_STD).tolist()),
            tuple(low_C.tolist()),
            tuple(median_C.tolist()),
            tuple(high_C.tolist()),
            display_bands(layout.names, config.display),
        )


def constant_bands(statistics: BandStatistics) -> list[str]:
    """Names of the bands that have one level in all chips."""
    return [n for n, std in zip(statistics.names, statistics.std, strict=True) if std <= SMALLEST_STD]


def write_band_statistics(run_dir: RunDir, statistics: BandStatistics) -> None:
    """Write the statistics into a run directory.

    Raises:
        StorageError: when the store cannot be written.
    """
    files.write_json(run_dir.path(Stage.PREPARE, FILE_NAME), statistics.to_json())


def read_band_statistics(run_dir: RunDir) -> BandStatistics:
    """The statistics in a run directory.

    Raises:
        RunDirError: when they are missing or damaged.
    """
    path = run_dir.path(Stage.PREPARE, FILE_NAME)
    try:
        content = files.read_json(path)
    except FileNotFoundError:
        content = None
    return BandStatistics.from_json(content, files.shown(path), RunDirError)
