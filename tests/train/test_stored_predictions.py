"""Stored predictions of finished trainings, joined by member."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from tests.ensemble.worlds import LABELS, world

from canopy.data.catalogue import Catalogue
from canopy.errors import PredictionsError
from canopy.predictions.io import write_predictions
from canopy.storage.run_dir import RunDir
from canopy.train.stored_predictions import fitting_members

ROWS = 120


def catalogue(split: str) -> Catalogue:
    """The rows of a world in one split, its odd rows in fold 1."""
    first = world(ROWS)["m0"]
    assert first.targets_NK is not None
    return Catalogue(
        ids=first.ids.tolist(),
        uris=[""] * ROWS,
        targets_NK=first.targets_NK,
        split=np.array([split] * ROWS),
        fold=np.array([n % 2 for n in range(ROWS)], np.int8),
        group=np.array([""] * ROWS),
        labels=LABELS,
    )


def test_held_out_rows_of_all_folds_are_joined(tmp_path: Path) -> None:
    run, members = RunDir(str(tmp_path)), world(ROWS)
    for name, member in members.items():
        for fold in (0, 1):
            path = run.path("train", name, f"fold{fold}", "heldout.parquet")
            write_predictions(path, member.rows(np.arange(fold, ROWS, 2)))
    found = fitting_members(run, ["m2", "m0"], 2, catalogue("train"))
    assert sorted(found) == ["m0", "m2"]
    order = np.argsort(members["m2"].ids)
    np.testing.assert_array_equal(found["m2"].ids, members["m2"].ids[order])
    np.testing.assert_array_equal(found["m2"].probs_NK, members["m2"].probs_NK[order])


def test_without_folds_only_the_validation_rows_that_chose_no_epoch_count(tmp_path: Path) -> None:
    run, members = RunDir(str(tmp_path)), world(ROWS)
    write_predictions(run.path("train", "m0", "fold0", "val.parquet"), members["m0"])
    found = fitting_members(run, ["m0"], 1, catalogue("val"))["m0"]
    assert sorted(found.ids.tolist()) == sorted(members["m0"].ids[1::2].tolist())


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(PredictionsError, match=r"m0/fold0/val\.parquet"):
        fitting_members(RunDir(str(tmp_path)), ["m0"], 1, catalogue("val"))
