"""The record of a training's progress and its JSON."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from canopy.storage import files
from canopy.train.monitor.progress_record import ProgressRecord, progress_file_name, read_progress_record

OLD = {
    "name": "resnet",
    "rank": 0,
    "ranks": 2,
    "state": "training",
    "epochs": 3,
    "time": 1700000000.5,
    "epoch": 2,
    "step": 3,
    "steps": 9,
    "images_per_s": 812.0,
    "wait_share": 0.04,
    "left_s": 42.0,
    "train_loss": 0.125,
    "score": 0.5,
    "val_map": 0.5,
    "val_macro_f1": 0.25,
    "scored": 1,
    "kept": 1,
    "kept_at": "epoch 1",
}
"""A file as versions before the record wrote it."""


def test_json_keeps_the_keys_of_former_files() -> None:
    record = ProgressRecord.from_json(OLD)
    assert record.to_json() == OLD
    assert (record.epoch, record.kept_at, record.reason) == (2, "epoch 1", None)


def test_fields_without_a_value_are_not_stored_and_unknown_keys_are_ignored() -> None:
    record = ProgressRecord.from_json(
        {"name": "v", "state": "failed", "reason": "no", "epochs": 0, "extra": [1]}
    )
    assert record == ProgressRecord("v", "failed", reason="no")
    assert record.to_json() == {
        "name": "v",
        "state": "failed",
        "rank": 0,
        "ranks": 1,
        "epochs": 0,
        "reason": "no",
    }


@pytest.mark.parametrize(
    "value",
    [
        [],
        None,
        {},
        {"name": "v"},
        {"name": "v", "state": "odd"},
        {**OLD, "epoch": "2"},
        {**OLD, "kept_at": 1},
    ],
)
def test_what_is_no_record_is_refused(value: Any) -> None:
    with pytest.raises(ValueError, match="progress record"):
        ProgressRecord.from_json(value)


def test_reading_files(tmp_path: Path) -> None:
    path = str(tmp_path / progress_file_name(1))
    assert path.endswith("progress-rank1.json")
    assert read_progress_record(path) is None
    files.write_json(path, OLD)
    assert read_progress_record(path) == ProgressRecord.from_json(OLD)
    Path(path).write_text('{"name": "v", ')
    with pytest.raises(ValueError, match=r"xpecting|JSON"):
        read_progress_record(path)
