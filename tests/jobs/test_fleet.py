"""``jobs/pipeline.py`` with folds, and with a variant that fails."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from tests.support import read_json, tiny_experiment, write_config

from canopy.config import derive
from canopy.data.catalogue import Catalogue
from canopy.predictions.io import read_predictions
from jobs import pipeline

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("ray_here")]


def test_folds_give_out_of_fold_probabilities_for_every_training_row(tmp_path: Path) -> None:
    config = derive(tiny_experiment(variants=1, trials=0, epochs=1), folds=2)
    run = tmp_path / "run"
    file = write_config(config, tmp_path / "c.yaml")
    assert pipeline.main(["--config", str(file), "--run-dir", str(run)]) == 0
    catalogue = Catalogue.read(str(run / "prepare" / "catalogue.parquet"))
    seen: list[str] = []
    for fold in range(2):
        found = read_predictions(str(run / "train" / "resnet" / f"fold{fold}" / "heldout.parquet"))
        assert set(found.ids) == {catalogue.ids[row] for row in catalogue.rows("train", fold=fold)}
        seen += found.ids.tolist()
    assert sorted(seen) == sorted(catalogue.ids[row] for row in catalogue.rows("train"))
    summary = read_json(run / "summary.json")
    assert set(summary["variants"]) == {"resnet/fold0", "resnet/fold1"}
    assert set(summary["members"]) == {"resnet"}


def test_one_failing_variant_leaves_the_others_and_is_named(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    config = tiny_experiment(variants=2, trials=0, epochs=1)
    good, bad = config.variants
    save_file({"another": torch.zeros(2)}, tmp_path / "other.safetensors")
    bad = derive(bad, model=derive(bad.model, weights=str(tmp_path / "other.safetensors")))
    run = tmp_path / "run"
    arguments = ["--config", str(write_config(config, tmp_path / "c.yaml")), "--run-dir", str(run)]
    broken = derive(config, variants=(good, bad))
    file = write_config(broken, tmp_path / "broken.yaml")
    assert pipeline.main(["--config", str(file), "--run-dir", str(run)]) == 1
    error = capsys.readouterr().err
    assert "1 of 2 trainings failed: resnet-cbam: model.weights must fit" in error
    kept = (run / "train" / "resnet" / "fold0" / "done.json").stat().st_mtime_ns
    assert pipeline.main(arguments) == 0
    assert (run / "train" / "resnet" / "fold0" / "done.json").stat().st_mtime_ns == kept
