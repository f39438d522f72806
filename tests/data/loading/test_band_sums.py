from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from canopy.config import BandConfig, DataConfig
from canopy.data.loading.band_sums import (
    BandSums,
    band_sums,
    constant_bands,
    read_band_statistics,
    write_band_statistics,
)
from canopy.errors import RunDirError
from canopy.storage.run_dir import RunDir

CONFIG = DataConfig(bands=(BandConfig(name="a"), BandConfig(name="b"), BandConfig(name="c")))


def test_statistics_are_those_of_the_training_rows(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    chips = rng.integers(0, 60_000, (50, 9, 9, 3)).astype(np.uint16)
    chips[..., 1] = 7
    chips[40:] = 65_535  # not in train
    sums = BandSums.empty(50, 3)
    for start in (0, 30):
        rows = np.arange(start, min(start + 30, 50))
        sums.put(rows, band_sums(chips[rows]))
    train = np.arange(40)
    found = sums.statistics(train, CONFIG)
    np.testing.assert_allclose(found.mean, chips[:40].mean((0, 1, 2), dtype=np.float64))
    np.testing.assert_allclose(found.std[0], chips[:40, ..., 0].std(dtype=np.float64))
    assert constant_bands(found) == ["b"]
    assert found.low[0] < 5_000
    assert 55_000 < found.high[0] < 60_000
    again = sums.subset(np.arange(5, 50)).statistics(np.arange(35), CONFIG)
    np.testing.assert_allclose(again.mean, chips[5:40].mean((0, 1, 2), dtype=np.float64))
    run_dir = RunDir(str(tmp_path))
    with pytest.raises(RunDirError, match="statistics of bands"):
        read_band_statistics(run_dir)
    write_band_statistics(run_dir, found)
    assert read_band_statistics(run_dir) == found
