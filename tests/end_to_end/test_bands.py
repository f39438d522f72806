"""A whole experiment on chips of four bands and an index, in which one label shows outside RGB only."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from tests.bands import write_raster
from tests.clusters import PATIENCE_S
from tests.support import start_job, tiny_experiment

import canopy
from canopy.config import DataConfig, Experiment, SweepConfig, VariantConfig, derive
from canopy.errors import ConfigError
from canopy.storage import files

pytestmark = pytest.mark.slow

ROWS, SIZE = 400, 32
BANDS: list[dict[str, Any]] = [
    {"name": "blue", "band": 1, "file": "{id}_rgb.tif"},
    {"name": "green", "band": 2, "file": "{id}_rgb.tif"},
    {"name": "red", "band": 3, "file": "{id}_rgb.tif"},
    {"name": "nir", "file": "{id}_nir.tif"},
    {"name": "ndvi", "expression": "ndvi"},
]


def make_chips(root: Path) -> None:
    """Chips in two files each, 32 and 16 pixels a side; ``water`` darkens near-infrared alone."""
    rng = np.random.default_rng(0)
    lines = ["image_name,tags"]
    for row in range(ROWS):
        water, bare = rng.random(2) < 0.4
        rgb = rng.normal(900, 120, (3, SIZE, SIZE))
        nir = rng.normal(2600, 300, (1, SIZE // 2, SIZE // 2))
        top, left = rng.integers(0, SIZE // 4, 2) * 2
        if bare:
            rgb[2, top : top + 16, left : left + 16] += 600
        if water:
            nir[0, top // 2 : top // 2 + 8, left // 2 : left // 2 + 8] = rng.normal(500, 80, (8, 8))
        write_raster(root / "chips" / f"c{row}_rgb.tif", rgb.clip(0, 9999).astype(np.uint16))
        write_raster(root / "chips" / f"c{row}_nir.tif", nir.clip(0, 9999).astype(np.uint16), pixel=20)
        labels = [name for name, shown in (("water", water), ("bare", bare)) if shown]
        lines.append(f"c{row},{' '.join(labels)}")
    (root / "train_v2.csv").write_text("\n".join(lines) + "\n")


def experiment(root: Path, bands: list[dict[str, Any]]) -> Experiment:
    """Two variants: CBAM with mixup and averaging over flips, and a CSRA head; both with band dropout."""
    tiny = tiny_experiment(variants=2, epochs=12)
    augment = {"flips": True, "brightness": 0.1, "contrast": 0.1, "band_dropout": 0.05}
    members = []
    changes: tuple[dict[str, Any], ...] = (
        {"tta": "flips", "augment": {**augment, "mixup_alpha": 0.2, "place": "device"}},
        {"augment": {**augment, "rotate_degrees": 10}, "model": {"cbam": "none", "head": "csra"}},
    )
    for variant, more in zip(tiny.variants, changes, strict=True):
        plain = variant.model_dump()
        merged = {k: {**plain[k], **v} if isinstance(v, dict) else v for k, v in more.items()}
        members.append(VariantConfig.model_validate({**plain, **merged, "swept": False}))
    data = DataConfig.model_validate(
        {
            "source": "table",
            "root": str(root),
            "images": "chips",
            "extension": ".tif",
            "image_size": SIZE,
            "val_fraction": 0.25,
            "test_fraction": 0.25,
            "bands": bands,
        }
    )
    return derive(tiny, data=data, variants=tuple(members), sweep=SweepConfig(trials=0))


def finish(config: Experiment, run: Path, log: Path) -> None:
    file = run.with_suffix(".yaml")
    file.write_text(yaml.safe_dump(config.model_dump(mode="json")))
    env = {**os.environ, "RAY_AUTH_MODE": "disabled", "RAY_ADDRESS": "local"}
    job = start_job("pipeline", "--config", str(file), "--run-dir", str(run), env=env, log=log)
    assert job.wait(timeout=PATIENCE_S) == 0, log.read_text()[-4000:]


def average_precision(run: Path, label: str) -> float:
    """The best member's average precision of a label on the test rows."""
    from sklearn.metrics import average_precision_score

    from canopy.predictions.io import read_predictions

    scores = []
    for path in (run / "train").glob("*/fold0/test.parquet"):
        found = read_predictions(str(path))
        k = found.labels.names.index(label)
        assert found.targets_NK is not None
        scores.append(average_precision_score(found.targets_NK[:, k], found.probs_NK[:, k]))
    return float(max(scores))


def test_four_bands_from_files_to_predictions(tmp_path: Path) -> None:
    make_chips(tmp_path / "data")
    run = tmp_path / "run"
    config = experiment(tmp_path / "data", BANDS)
    finish(config, run, tmp_path / "log")
    assert average_precision(run, "water") > 0.95
    assert average_precision(run, "bare") > 0.95

    chips = np.load(run / "prepare" / "chips.npy", mmap_mode="r")
    assert chips.dtype == np.uint16
    assert chips.shape == (ROWS, SIZE, SIZE, 5)
    statistics = files.read_json(str(run / "prepare" / "bands.json"))
    assert statistics["names"] == [band["name"] for band in BANDS]
    assert 2000 < statistics["mean"][3] < 2600
    assert (run / "report" / "contact_sheet.png").stat().st_size > 10_000
    assert files.read_json(str(run / "model.json"))["preprocessing"]["bands"]["bands"][3]["name"] == "nir"

    model = canopy.load(str(run))
    paths = [str(tmp_path / "data" / "chips" / f"c{n}.tif") for n in range(8)]
    found = model.predict(paths)
    again = model.predict([model.decoder.chip(path) for path in paths])
    np.testing.assert_array_equal(found.probs_NK, again.probs_NK)
    with pytest.raises(ConfigError, match="must hold levels of uint16"):
        model.predict(np.zeros((SIZE, SIZE, 3), np.uint8))
    assert model.explain(paths[0]).overlay("water").shape == (SIZE, SIZE, 3)

    from canopy.inference.export.export import ExportPlan, export_run
    from canopy.runtime.console import Console

    with pytest.raises(ConfigError, match="must read RGB chips to be exported"):
        export_run(str(run), str(tmp_path / "exported"), ExportPlan(), Console())

    before = {path: path.stat().st_mtime_ns for path in run.rglob("weights.safetensors")}
    finish(config, run, tmp_path / "log2")
    assert {path: path.stat().st_mtime_ns for path in run.rglob("weights.safetensors")} == before
    assert "done already" in (tmp_path / "log2").read_text()


def test_streamed_chips_and_a_twin_without_near_infrared(tmp_path: Path) -> None:
    make_chips(tmp_path / "data")
    config = experiment(tmp_path / "data", BANDS[:3])
    config = derive(config, data=derive(config.data, max_cache_gb=0), variants=config.variants[:1])
    finish(config, tmp_path / "run", tmp_path / "log")
    assert not (tmp_path / "run" / "prepare" / "chips.npy").exists()
    assert average_precision(tmp_path / "run", "water") < 0.7
    assert average_precision(tmp_path / "run", "bare") > 0.95
