"""A finished run that keeps its chips, and its model."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest
from tests.ensemble.worlds import LABELS

import canopy
from canopy.data.catalogue import Catalogue
from canopy.inference.model import Model
from canopy.storage.run_dir import RunDir

CHIPS = 96


@pytest.fixture(scope="session")
def with_chips(finished: RunDir, tmp_path_factory: pytest.TempPathFactory) -> RunDir:
    """A copy of the run with chips: half for training, half of val, with the labels that the model gives."""
    run = RunDir(str(tmp_path_factory.mktemp("with-chips") / "run"))
    shutil.copytree(finished.root, run.root)
    generator = np.random.default_rng(5)
    chips_NHWC = generator.integers(0, 256, (CHIPS, 32, 32, 3), dtype=np.uint8)
    chips_NHWC[: CHIPS // 3] //= 3  # dark ones among them, so that labels vary
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
    return run


@pytest.fixture(scope="session")
def model(with_chips: RunDir) -> Model:
    """The run's model in float32 on the CPU."""
    return canopy.load(with_chips.root, device="cpu", precision="float32")
