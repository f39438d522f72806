"""Small made-up archives in the layouts of BigEarthNet, and the folder of a real patch."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from tests.bands import write_raster
from tests.support import REPOSITORY

from canopy.config import SENTINEL2, DataConfig, sentinel2_bands

SIDES = {"B01": 20, "B09": 20, "B05": 60, "B06": 60, "B07": 60, "B8A": 60, "B11": 60, "B12": 60}
"""Pixels of a patch's side, where it is not 120."""
PATCH = "S2A_MSIL2A_20170617T113321_36_85"
TILE = "S2A_MSIL2A_20170613T101031_N9999_R022_T33UUP"


def write_patch(folder: Path, name: str, seed: int) -> None:
    """The twelve files of a patch; patches lie side by side."""
    rng = np.random.default_rng(seed)
    for band in SENTINEL2.values():
        side = SIDES.get(band, 120)
        samples = rng.integers(0, 4000, (1, side, side)).astype(np.uint16)
        left = 600_000.0 + 1200 * seed
        write_raster(folder / name / f"{name}_{band}.tif", samples, pixel=1200 / side, left=left)


def write_version_1(root: Path, labels: Mapping[str, Sequence[str]], pixels: bool = True) -> None:
    """An archive of version 1, without lists."""
    for n, (name, tags) in enumerate(labels.items()):
        folder = root / "BigEarthNet-v1.0"
        if pixels:
            write_patch(folder, name, n)
        else:
            fake_patch(folder / name, name)
        content = json.dumps({"labels": list(tags), "tile_source": "x.SAFE"})
        (folder / name / f"{name}_labels_metadata.json").write_text(content)


def fake_patch(folder: Path, name: str) -> None:
    """A patch whose files exist and are never opened."""
    folder.mkdir(parents=True)
    for band in SENTINEL2.values():
        (folder / f"{name}_{band}.tif").write_bytes(b"x")


def write_version_2(root: Path, rows: Sequence[Mapping[str, Any]], table: str = "metadata.parquet") -> None:
    """An archive of version 2; each row has its patch_id and may have any other column."""
    common = {
        "labels": ["Pastures"],
        "split": "train",
        "country": "Ireland",
        "s1_name": "S1A_IW_GRDH_1SDV_20170613T165043_33UUP_61_39",
        "contains_seasonal_snow": False,
        "contains_cloud_or_shadow": False,
    }
    for row in rows:
        name = str(row["patch_id"])
        fake_patch(root / "BigEarthNet-S2" / name.rsplit("_", 2)[0] / name, name)
    pq.write_table(pa.Table.from_pylist([{**common, **row} for row in rows]), root / table)


def data_config(version: int, **changes: Any) -> DataConfig:
    """The data section of a made-up archive; ``changes`` of ``data.bigearthnet`` and of other fields."""
    own = {name: changes.pop(name) for name in list(changes) if name not in DataConfig.model_fields}
    given = {
        "source": "bigearthnet",
        "csv": "metadata.parquet",
        "images": "BigEarthNet-v1.0" if version == 1 else "BigEarthNet-S2",
        "extension": "",
        "image_size": 120,
        "bands": sentinel2_bands(),
        "bigearthnet": {"version": version, **own},
        **changes,
    }
    return DataConfig.model_validate(given)


@pytest.fixture
def real_patch() -> Path:
    """Folder of one real patch of version 1; skips where it is absent."""
    place = Path(os.environ.get("CANOPY_SHARED_DATA", REPOSITORY.parent / "shared" / "data"))
    folder = place / "bigearthnet-sample"
    if not (folder / f"{PATCH}_B02.tif").exists():
        pytest.skip(f"the real patch is not here ({folder}); set CANOPY_SHARED_DATA to the folder above")
    return folder
