"""Files of a finished training: which belong to it, and its predictions."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from canopy.config import VariantConfig
from canopy.data.catalogue import Catalogue
from canopy.labels import LabelSet
from canopy.storage import files
from canopy.storage.run_dir import RunDir
from canopy.train.fleet.outputs import OUTPUTS, make_predictions, output_names
from canopy.train.training_run import TrainingRun


@pytest.mark.parametrize(
    ("folds", "present", "predictions"),
    [
        (1, ["val", "test", "heldout"], ["val", "test"]),
        (3, ["val", "test", "heldout"], ["val", "test", "heldout"]),
        (3, ["test", "heldout"], ["test", "heldout"]),
    ],
)
def test_predictions_of_another_config_are_no_output(
    tmp_path: Path, folds: int, present: list[str], predictions: list[str]
) -> None:
    run_dir = RunDir(str(tmp_path))
    training_run = TrainingRun(VariantConfig(name="v"), 0, folds, str(tmp_path), "f" * 64, "c" * 64)
    for name in present:
        files.write_bytes(run_dir.path(training_run.directory, f"{name}.parquet"), b"")
    assert output_names(training_run, run_dir) == [*OUTPUTS, *(f"{name}.parquet" for name in predictions)]


def test_predictions_hold_the_rows_in_their_order() -> None:
    ids = ["a", "b", "c"]
    targets_NK = np.array([[0, 1], [1, 0], [1, 1]], np.uint8)
    split, fold = np.array(["test"] * 3), np.full(3, -1, np.int8)
    catalogue = Catalogue(ids, ids, targets_NK, split, fold, np.array(ids), LabelSet(("x", "y")))
    logits_NK = np.array([[0.0, 2.0], [-2.0, 0.0]], np.float32)
    predictions = make_predictions(catalogue, np.array([2, 0]), logits_NK, "hash")
    assert list(predictions.ids) == ["c", "a"]
    assert predictions.probs_NK[0, 0] == pytest.approx(0.5)
    assert predictions.probs_NK[0, 1] == pytest.approx(1 / (1 + np.exp(-2.0)))
    assert predictions.targets_NK is not None
    assert predictions.targets_NK.tolist() == [[1, 1], [0, 1]]
    assert predictions.config_hash == "hash"
