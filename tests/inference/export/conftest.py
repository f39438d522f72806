"""A finished run that keeps its chips, and its model."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from tests.ensemble.worlds import LABELS
from tests.inference.conftest import FOLDS, finished_run
from tests.support import tiny_experiment

import canopy
from canopy.bands import BandStatistics
from canopy.config import BandConfig, derive
from canopy.data.catalogue import Catalogue
from canopy.inference.model import Model
from canopy.storage.run_dir import RunDir

CHIPS = 96
BANDS = (
    BandConfig(name="red", band=3, range=(0, 4000)),
    BandConfig(name="green", band=2, range=(0, 4000)),
    BandConfig(name="nir", band=4, range=(0, 6000)),
    BandConfig(name="ndvi", expression="ndvi"),
)


@pytest.fixture(scope="session")
def with_chips(finished: RunDir, tmp_path_factory: pytest.TempPathFactory) -> RunDir:
    """A copy of the run with chips: half for training, half of val, with the labels that the model gives."""
    run = RunDir(str(tmp_path_factory.mktemp("with-chips") / "run"))
    shutil.copytree(finished.root, run.root)
    generator = np.random.default_rng(5)
    chips_NHWC = generator.integers(0, 256, (CHIPS, 32, 32, 3), dtype=np.uint8)
    chips_NHWC[: CHIPS // 3] //= 3  # dark ones among them, so that labels vary
    keep_chips(run, chips_NHWC)
    return run


def keep_chips(run: RunDir, chips_NHWC: NDArray[Any]) -> None:
    """Write the chips of a run, half for training, half of val, with the labels that its model gives."""
    targets_NK = canopy.load(run.root, precision="float32").predict_decoded(chips_NHWC).decisions_NK.copy()
    targets_NK[:4] = 1 - targets_NK[:4]
    catalogue = Catalogue(
        ids=[f"{n}" for n in range(CHIPS)],
        uris=[""] * CHIPS,
        targets_NK=targets_NK,
        split=np.array(["train", "val"] * (CHIPS // 2)),
        fold=np.zeros(CHIPS, np.int8),
        group=np.array([""] * CHIPS),
        labels=LABELS,
    )
    catalogue.write(run.path("prepare", "catalogue.parquet"))
    np.save(Path(run.path("prepare", "chips.npy")), chips_NHWC)


@pytest.fixture(scope="session")
def band_chips_NHWC() -> NDArray[np.uint16]:
    """Chips of :data:`BANDS`: smooth levels around the statistics of :func:`with_bands`."""
    coarse = np.random.default_rng(6).random((CHIPS, 4, 4, len(BANDS)))
    smooth = np.repeat(np.repeat(coarse, 8, 1), 8, 2)
    return np.rint(smooth * [20_000, 20_000, 60_000, 65_535]).astype(np.uint16)


@pytest.fixture(scope="session")
def with_bands(tmp_path_factory: pytest.TempPathFactory, band_chips_NHWC: NDArray[np.uint16]) -> RunDir:
    """A finished run over :data:`BANDS` with random networks; it keeps its chips."""
    tiny = tiny_experiment(variants=2, trials=0)
    data = derive(tiny.data, source="table", root="/data", bands=BANDS)
    first, second = tiny.variants
    cropped = derive(first, augment=derive(first.augment, crop=24), tta="flips")
    experiment = derive(tiny, data=data, variants=(cropped, second), folds=FOLDS)
    statistics = BandStatistics(
        names=tuple(band.name for band in BANDS),
        dtype="uint16",
        ranges=((0, 4000), (0, 4000), (0, 6000), (-1, 1)),
        mean=(10_000, 9_000, 30_000, 40_000),
        std=(6_000, 5_500, 17_000, 12_000),
        low=(500, 500, 2_000, 8_000),
        median=(10_000, 9_000, 30_000, 40_000),
        high=(19_000, 19_500, 58_000, 60_000),
        display=(0, 1, 2),
    )
    run = finished_run(tmp_path_factory.mktemp("with-bands") / "run", experiment, statistics)
    keep_chips(run, band_chips_NHWC)
    return run


@pytest.fixture(scope="session")
def model(with_chips: RunDir) -> Model:
    """The run's model in float32 on the CPU."""
    return canopy.load(with_chips.root, device="cpu", precision="float32")
