"""The reporter of a round: its records, and its lines on the console."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from tests.support import tiny_experiment

from canopy.config import SweepConfig
from canopy.runtime.console import Console
from canopy.storage.run_dir import RunDir
from canopy.sweep.records import TrialRecord, TrialRecords
from canopy.sweep.schedulers import REPLAYED
from canopy.sweep.trial_reporter import TrialReporter, last_error_line
from canopy.sweep.trials import TrialContext, search_parameters, trial_variant

SETTINGS = SweepConfig(trials=3, epochs=4, grace_epochs=9)
VALUES = {"loss.gamma": 2.0, "loss.alpha": 0.25}
KEY = "0123456789abcdef"


def reporter_in(folder: Path) -> TrialReporter:
    variant = trial_variant(tiny_experiment().variants[0], SETTINGS)
    chips: Any = None  # no reporter reads chips
    records = TrialRecords(RunDir(str(folder)), KEY)
    return TrialReporter(Console(), TrialContext(variant, SETTINGS, chips, records), SETTINGS.trials)


def ended(epoch: int, error_file: str | None = None) -> Any:
    """The fields of a Ray Tune trial that callbacks read."""
    return SimpleNamespace(
        config=search_parameters(1, VALUES), last_result={"epoch": epoch, "score": 0.5}, error_file=error_file
    )


def epoch_of(number: int, score: float = 0.4567, **more: Any) -> dict[str, Any]:
    return {"epoch": number, "images_per_s": 1234.5, "score": score, "seconds": 2.0, **more}


@pytest.mark.parametrize(("epoch", "early"), [(4, False), (2, True)])
def test_an_ended_trial_is_recorded_with_its_curve(
    epoch: int, early: bool, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    reporter = reporter_in(tmp_path)
    reporter.on_trial_result(trial=ended(1), result=epoch_of(1, 0.25))
    reporter.on_trial_result(trial=ended(2), result=epoch_of(2, 0.5))
    reporter.on_trial_complete(trial=ended(epoch))
    record = reporter.records.read(1)
    assert record == TrialRecord(VALUES, 0.5, epoch, early, None, curve=(0.25, 0.5), seconds=4.0)
    word = "stopped early" if early else "finished"
    output = capsys.readouterr().out
    assert f"trial 2/3 (γ 2.00, α 0.25): {word}" in output
    assert "1 of 3 done, 0 running" in output
    assert ("best so far 0.500" in output) == (not early)
    assert " left" in output


def test_a_failed_trial_is_recorded_with_its_reason(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    error_file = tmp_path / "error.txt"
    error_file.write_text("Traceback (most recent call last):\n  File …\nValueError: too few rows\n\n")
    reporter = reporter_in(tmp_path)
    reporter.on_trial_error(trial=ended(1, str(error_file)))
    record = reporter.records.read(1)
    assert record is not None
    assert (record.score, record.epochs, record.error) == (None, 0, "ValueError: too few rows")
    output = capsys.readouterr().out
    assert "trial 2/3 (γ 2.00, α 0.25): FAILED: ValueError: too few rows" in output
    assert "1 failed" in output


def test_an_epoch_is_one_line_and_a_replayed_one_none(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    reporter = reporter_in(tmp_path)
    reporter.on_trial_result(trial=ended(1), result=epoch_of(1, **{REPLAYED: True}))
    assert capsys.readouterr().out == ""
    reporter.on_trial_result(trial=ended(2), result=epoch_of(2))
    assert "trial 2/3 (γ 2.00, α 0.25): epoch 2/4, 1,234 images/s, val score 0.457" in capsys.readouterr().out
    reporter.on_trial_complete(trial=ended(2))
    assert reporter.records.ended[1].curve == (0.4567, 0.4567)


def test_a_trial_without_an_error_file_lost_its_process() -> None:
    assert last_error_line(ended(1)) == "its process ended"
