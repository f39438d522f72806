from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from tests.bands import noise, write_raster

from canopy.data.raster.band_samples import read_samples
from canopy.data.raster.errors import UnreadableImageError


def test_samples_keep_their_place_on_the_earth(tmp_path: Path) -> None:
    made = noise(3, 16)
    path = write_raster(tmp_path / "a.tif", made)
    found = read_samples(path.read_bytes(), str(path), [3, 1], [None, 7], 16, 10**8)
    np.testing.assert_array_equal(found.values_bHW, made[[2, 0]])
    np.testing.assert_array_equal(found.valid_bHW[1], made[0] != 7)
    assert found.valid_bHW[0].all()
    assert (found.crs, found.bounds) == ("EPSG:32629", (600_000, 5_799_840, 600_160, 5_800_000))
    assert (found.bits, found.dtype) == (16, "uint16")


def test_a_vrt_in_a_store_and_complex_samples_are_refused(tmp_path: Path) -> None:
    with pytest.raises(UnreadableImageError, match="VRT in an object store"):
        read_samples(b"<VRTDataset/>", "s3://bucket/a.vrt", [1], [None], 16, 10**8)
    path = write_raster(tmp_path / "a.tif", noise(1, 8).astype(np.complex64))
    with pytest.raises(UnreadableImageError, match="complex64"):
        read_samples(path.read_bytes(), str(path), [1], [None], 16, 10**8)
