from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

import pytest

from canopy.config import Experiment, OptimConfig, ScalingConfig, derive
from canopy.storage.run_dir import RunDir
from canopy.sweep.space import FocalParameters
from canopy.sweep.trials import TrialRecord, TrialRecords, trial_variant, with_focal_parameters

FINISHED = TrialRecord(2.0, 0.25, score=0.5, epochs=3, stopped_early=False, error=None)
FAILED = TrialRecord(2.0, 0.25, score=None, epochs=0, stopped_early=False, error="out of memory")
KEY = "0123456789abcdef"


def test_a_trial_has_one_worker_and_the_sweeps_epochs(tiny: Experiment) -> None:
    optim = OptimConfig(epochs=30, patience=2, batch_size=32)
    reference = derive(tiny.variants[0], optim=optim, scale=ScalingConfig(workers=2))
    variant = trial_variant(reference, derive(tiny.sweep, epochs=5))
    assert (variant.optim.epochs, variant.optim.patience, variant.scale.workers) == (5, None, 1)
    assert derive(variant, optim=optim, scale=reference.scale) == reference


def test_focal_parameters_of_a_variant(tiny: Experiment) -> None:
    variant = with_focal_parameters(tiny.variants[0], FocalParameters(1.5, 0.3))
    assert (variant.loss.gamma, variant.loss.alpha) == (1.5, 0.3)
    assert derive(variant, loss=tiny.variants[0].loss) == tiny.variants[0]


def test_records_are_files_with_the_fields_of_former_versions(tmp_path: Path) -> None:
    records = TrialRecords(RunDir(str(tmp_path)), KEY)
    records.write(3, FINISHED)
    assert (tmp_path / "sweep" / "trials" / "0123456789ab-3.json").is_file()
    assert list(FINISHED.to_json()) == ["gamma", "alpha", "score", "epochs", "stopped_early", "error"]
    assert records.read(3) == FINISHED
    assert records.is_finished(3)


def test_a_failed_or_missing_trial_runs_again(tmp_path: Path) -> None:
    records = TrialRecords(RunDir(str(tmp_path)), KEY)
    records.write(0, FAILED)
    assert records.read(0) == FAILED
    assert not records.is_finished(0)
    assert records.read(1) is None
    assert not records.is_finished(1)


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
