from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

import pytest

from canopy.storage.run_dir import RunDir
from canopy.sweep.records import TrialRecord, TrialRecords, trial_name

POINT = {"loss.gamma": 2.0, "loss.alpha": 0.25}
FINISHED = TrialRecord(
    POINT, score=0.5, epochs=3, stopped_early=False, error=None, curve=(0.1, 0.2, 0.5), seconds=7.5
)
FAILED = TrialRecord(POINT, score=None, epochs=0, stopped_early=False, error="out of memory")
OTHER = TrialRecord({"optim.lr": 0.1, "loss.name": "bce"}, 0.5, 3, False, None)
KEY = "0123456789abcdef"


def test_focal_records_have_the_fields_of_former_versions(tmp_path: Path) -> None:
    records = TrialRecords(RunDir(str(tmp_path)), KEY)
    records.write(3, FINISHED)
    assert (tmp_path / "sweep" / "trials" / "0123456789ab-3.json").is_file()
    former = ["gamma", "alpha", "score", "epochs", "stopped_early", "error"]
    assert list(FINISHED.summary()) == former
    assert list(FINISHED.to_json()) == [*former, "curve", "seconds"]
    assert records.read(3) == FINISHED
    assert records.is_finished(3)


def test_records_of_former_versions_are_read() -> None:
    read = TrialRecord.from_json(FINISHED.summary())
    assert (read.values, read.score, read.epochs, read.curve) == (POINT, 0.5, 3, ())


def test_records_of_other_fields(tmp_path: Path) -> None:
    records = TrialRecords(RunDir(str(tmp_path)), KEY)
    records.write(0, OTHER)
    assert records.read(0) == OTHER
    assert OTHER.summary()["values"] == {"optim.lr": 0.1, "loss.name": "bce"}


def test_a_failed_or_missing_trial_runs_again(tmp_path: Path) -> None:
    records = TrialRecords(RunDir(str(tmp_path)), KEY)
    records.write(0, FAILED)
    assert records.read(0) == FAILED
    assert not records.is_finished(0)
    assert records.read(1) is None
    assert not records.is_finished(1)


def test_a_second_start_loads_finished_trials_only(tmp_path: Path) -> None:
    first = TrialRecords(RunDir(str(tmp_path)), KEY)
    first.write(0, FAILED)
    first.write(2, FINISHED)
    assert list(first.ended) == [0, 2], "a failed trial of this start has ended"
    second = TrialRecords(RunDir(str(tmp_path)), KEY)
    assert second.ended == {}
    second.load(5)
    assert second.ended == {2: FINISHED}
    second.refresh([0, 1])
    assert list(second.ended) == [0, 2]


def test_points_are_kept(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    records = TrialRecords(RunDir(str(tmp_path)), KEY)
    assert records.read_point(0) is None
    records.write_point(0, {"optim.lr": 0.1, "loss.name": None})
    assert records.read_point(0) == {"optim.lr": 0.1, "loss.name": None}
    Path(records.point_path(0)).write_text("{")
    assert records.read_point(0) is None


def test_records_of_another_sweep_are_not_read(tmp_path: Path) -> None:
    TrialRecords(RunDir(str(tmp_path)), KEY).write(0, FINISHED)
    assert TrialRecords(RunDir(str(tmp_path)), "fedcba9876543210").read(0) is None


@pytest.mark.parametrize(
    "text",
    [
        "",
        "{",
        "[]",
        '{"gamma": 2}',
        '{"gamma": 2, "alpha": 1, "score": "x", "epochs": 1, "stopped_early": false, "error": null}',
        '{"gamma": NaN, "alpha": 1, "score": 1, "epochs": 1, "stopped_early": false, "error": null}',
        '{"gamma": 2, "alpha": 1, "score": null, "epochs": 1, "stopped_early": false, "error": null}',
        '{"values": 2, "score": 1, "epochs": 1, "stopped_early": false, "error": null}',
        '{"values": {}, "score": 1, "epochs": 1, "stopped_early": false, "error": null, "curve": [null]}',
    ],
)
def test_a_damaged_record_is_logged_and_its_trial_runs_again(
    text: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    records = TrialRecords(RunDir(str(tmp_path)), KEY)
    records.write(0, FINISHED)
    Path(records.path(0)).write_text(text)
    logger = logging.getLogger("canopy")
    logger.addHandler(caplog.handler)
    try:
        assert not records.is_finished(0)
    finally:
        logger.removeHandler(caplog.handler)
    assert "unreadable record of a trial" in caplog.text
    assert "0123456789ab-0.json" in caplog.text


@pytest.mark.parametrize("content", [{**FINISHED.to_json(), "more": 1}, "text", None])
def test_a_record_has_exactly_its_fields(content: Any) -> None:
    with pytest.raises(TypeError):
        TrialRecord.from_json(content)


def test_names() -> None:
    assert trial_name(2, 9, POINT) == "trial 3/9 (γ 2.00, α 0.25)"


def test_records_that_another_object_wrote_are_read_again(tmp_path: Path) -> None:
    stopped = TrialRecord(POINT, 0.4, 1, stopped_early=True, error=None)
    records, other = (TrialRecords(RunDir(str(tmp_path)), KEY) for _ in range(2))
    records.write(0, stopped)
    records.write(1, stopped)
    other.write(0, FINISHED)
    other.write(1, FAILED)
    records.refresh((0, 1))
    assert records.ended == {0: stopped, 1: stopped}, "what is in memory stays"
    records.reload((0, 1, 2))
    assert records.ended == {0: FINISHED, 1: FAILED}
