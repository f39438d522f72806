"""Places are read in the order of the chips."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from tests.bands import write_raster

from canopy.data.loading import chip_places
from canopy.data.loading.chip_places import read_places

pytestmark = pytest.mark.usefixtures("ray_here")


def test_places_come_in_order(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(chip_places, "ROWS_PER_TASK", 3)
    samples = np.zeros((1, 8, 8), np.uint8)
    lefts = [600_000.0 + 80 * n for n in range(8)]
    uris = [str(write_raster(tmp_path / f"{n}.tif", samples, left=left)) for n, left in enumerate(lefts)]
    uris.insert(4, str(tmp_path / "none.tif"))
    found = read_places(uris)
    assert found[4] is None
    assert [place.bounds[0] for place in found if place is not None] == lefts
