from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from canopy.config import Experiment, SweepConfig, derive
from canopy.runtime.console import Console
from canopy.storage.run_dir import RunDir
from canopy.sweep.space import sample_points
from canopy.sweep.trials import TrialRecords
from canopy.sweep.tuner import TrialReporter, last_error_line, sweep_key

SETTINGS = SweepConfig(trials=3, epochs=4, grace_epochs=9)


def reporter_in(folder: Path) -> TrialReporter:
    records = TrialRecords(RunDir(str(folder)), "0123456789abcdef")
    return TrialReporter(Console(), SETTINGS, sample_points(SETTINGS), records)


def ended(epoch: int, error_file: str | None = None) -> Any:
    """The fields of a Ray Tune trial that callbacks read."""
    return SimpleNamespace(
        config={"number": 1}, last_result={"epoch": epoch, "score": 0.5}, error_file=error_file
    )


@pytest.mark.parametrize(("epoch", "early"), [(4, False), (2, True)])
def test_an_ended_trial_is_recorded(
    epoch: int, early: bool, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    reporter = reporter_in(tmp_path)
    reporter.on_trial_complete(trial=ended(epoch))
    record = reporter.records.read(1)
    assert record is not None
    assert (record.score, record.epochs, record.stopped_early, record.error) == (0.5, epoch, early, None)
    assert (record.gamma, record.alpha) == (2.0, 0.25)
    word = "stopped early" if early else "finished"
    assert f"trial 2/3 (γ 2.00, α 0.25): {word}" in capsys.readouterr().out


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
    assert "trial 2/3 (γ 2.00, α 0.25): FAILED: ValueError: too few rows" in capsys.readouterr().out


def test_an_epoch_is_one_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    result = {"epoch": 2, "images_per_s": 1234.5, "score": 0.4567}
    reporter_in(tmp_path).on_trial_result(trial=ended(2), result=result)
    assert "trial 2/3 (γ 2.00, α 0.25): epoch 2/4, 1,234 images/s, val score 0.457" in capsys.readouterr().out


def test_a_trial_without_an_error_file_lost_its_process() -> None:
    assert last_error_line(ended(1)) == "its process ended"


def test_the_key_covers_settings_reference_and_catalogue(tiny: Experiment) -> None:
    reference = tiny.variants[0]
    key = sweep_key(tiny, reference, "digest")
    others = [
        sweep_key(derive(tiny, sweep=derive(tiny.sweep, trials=9)), reference, "digest"),
        sweep_key(tiny, derive(reference, seed=7), "digest"),
        sweep_key(tiny, reference, "other"),
    ]
    assert key not in others
    assert sweep_key(derive(tiny, sweep=derive(tiny.sweep, concurrent=9)), reference, "digest") == key
    assert sweep_key(derive(tiny, folds=3), reference, "digest") == key
