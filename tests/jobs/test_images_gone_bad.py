"""Images that are damaged between validation and training, in the whole job: named, and nothing is lost."""

from __future__ import annotations

import io
from contextlib import redirect_stdout
from pathlib import Path

import numpy as np
import pytest
from tests.support import read_json, tiny_experiment, write_config

from canopy import prepare as stage
from canopy.config import Experiment, derive
from canopy.data.catalogue import SPLITS, Catalogue
from canopy.ensemble.predictions import read_predictions
from jobs import pipeline, prepare

pytestmark = [pytest.mark.usefixtures("ray_here"), pytest.mark.slow]


def experiment(root: Path) -> Experiment:
    """Two ranks, mixing, and chips that are decoded as they stream."""
    tiny = tiny_experiment(rows=300, variants=1, epochs=2, trials=0)
    variant = tiny.variants[0]
    variant = derive(
        variant,
        swept_loss=False,
        scale=derive(variant.scale, workers=2),
        augment=derive(variant.augment, mixup_alpha=0.4),
    )
    data = derive(tiny.data, root=str(root), max_bad_fraction=0.05)
    return derive(tiny, data=data, variants=(variant,))


def test_the_job_goes_on_and_names_them(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stage, "MAX_CACHE_BYTES", 0)
    config, run = experiment(tmp_path / "chips"), tmp_path / "run"
    arguments = ["--config", str(write_config(config, tmp_path / "c.yaml")), "--run-dir", str(run)]
    assert prepare.main(arguments) == 0
    catalogue = Catalogue.read(str(run / "prepare" / "catalogue.parquet"))
    damaged = [int(row) for split in SPLITS for row in catalogue.rows(split)[3:5]]
    for row in damaged:  # as a failing disk leaves them; a file of another size would be another data set
        Path(catalogue.uris[row]).write_bytes(bytes(Path(catalogue.uris[row]).stat().st_size))
    ids = {catalogue.ids[row] for row in damaged}
    said = io.StringIO()
    with redirect_stdout(said):
        status = pipeline.main(arguments)
    assert status == 0, said.getvalue()
    folder = run / "train" / "resnet" / "fold0"
    assert set(read_json(folder / "bad_images.json")) == ids
    assert read_json(folder / "facts.json")["bad_images"] == 6
    assert "6 images could no longer be read and were skipped" in said.getvalue()
    rates_K = catalogue.targets_NK[catalogue.rows("train")].mean(0)
    for split in ("val", "test"):
        found = read_predictions(str(folder / f"{split}.parquet"))
        assert found.ids.tolist() == [catalogue.ids[row] for row in catalogue.rows(split)]
        gone = np.isin(found.ids, list(ids))
        assert gone.sum() == 2
        np.testing.assert_allclose(found.probs_NK[gone], np.tile(rates_K, (2, 1)), atol=1e-4)
        assert np.isfinite(found.probs_NK).all()
