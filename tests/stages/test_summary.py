"""Parts of the summary that need no training; ``tests/jobs/test_pipeline.py`` checks the whole of it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from tests.stages.prepared import LABELS, ROWS, prepared_context

from canopy.config import derive, fingerprint
from canopy.errors import RunDirError
from canopy.runtime.stage import Stage
from canopy.stages import summary
from canopy.stages.context import StageContext
from canopy.stages.prepare import load_catalogue
from canopy.storage import files
from canopy.sweep.result import StudyResult, SweepResult


@pytest.fixture
def context(tmp_path: Path) -> StageContext:
    """A run after prepare."""
    return prepared_context(tmp_path)


def test_rows_and_positives_add_up(context: StageContext) -> None:
    catalogue = load_catalogue(context)
    found = summary.data_summary(catalogue, 3)
    assert sum(found.rows.values()) == ROWS
    assert found.bad_images == 3
    totals = catalogue.targets_NK.sum(0).tolist()
    for name, total in zip(LABELS.names, totals, strict=True):
        assert found.labels[name]["all"] == total == sum(found.labels[name][split] for split in found.rows)


def test_seconds_are_those_of_finished_stages(context: StageContext) -> None:
    context.run_dir.finish(Stage.TRAIN, "f", seconds=7.5)
    context.run_dir.finish(Stage.REPORT, "f", seconds=1.0)
    assert summary.stage_seconds(context.run_dir) == {"prepare": 2.0, "train": 7.5}


@pytest.mark.parametrize("content", [None, b"", b"{", b"\xff"])
def test_a_damaged_file_is_one_clear_error(context: StageContext, content: bytes | None) -> None:
    if content is not None:
        files.write_bytes(context.run_dir.path("ensemble", "scores.json"), content)
    with pytest.raises(RunDirError, match=r"scores\.json must be a readable file.*run ensemble again"):
        summary.read_part(context.run_dir, Stage.ENSEMBLE, "scores.json")


FOCAL = StudyResult("a", {"loss.gamma": 1.0, "loss.alpha": 0.5}, 0.4, {"loss.gamma": 1.0, "loss.alpha": 0.5})


def test_a_sweep_over_other_fields_lists_its_studies() -> None:
    found = summary.SweepSummary("a", SweepResult((FOCAL,)), 2, 1).to_json()
    assert list(found) == ["reference", "studies", "trials", "stopped_early"]
    (study,) = found["studies"]
    assert study["values"] == FOCAL.values
    assert study["verdict"] == "best: γ 1.00, α 0.50 (val score 0.400)"


def test_the_json_form_keeps_the_order_that_people_read() -> None:
    card: dict[str, Any] = dict.fromkeys(summary.CARD, 0.5)
    ensemble = summary.EnsembleSummary(card, {"a": 1.0}, {"forest": 0.5}, "mean", None, None)
    found = summary.Summary(
        config_hash="c",
        preset="demo",
        data=summary.DataSummary({"train": 1}, {}, 0),
        sweep=summary.SweepSummary("a", SweepResult((FOCAL,), former=True), 2, 1),
        variants={},
        members={"a": card},
        ensemble=ensemble,
        ceiling=None,
        seconds={},
    ).to_json()
    assert list(found) == [
        *("schema", "config_hash", "preset", "canopy_version", "data", "sweep", "variants", "members"),
        *("ensemble", "ceiling", "seconds"),
    ]
    best = {"gamma": 1.0, "alpha": 0.5, "score": 0.4}
    assert found["sweep"] == {"reference": "a", "best": best, "trials": 2, "stopped_early": 1}
    ensemble_keys = ["weights", "thresholds", "method", "estimated", "versus_best_member"]
    assert list(found["ensemble"]) == [*summary.CARD, *ensemble_keys]


def test_only_generated_chips_have_a_ceiling(context: StageContext) -> None:
    data = derive(context.config.data, source="kaggle")
    config = derive(context.config, data=data)
    assert summary.ceiling(config, load_catalogue(context), context.run_dir) is None
    assert fingerprint(config) != fingerprint(context.config)
