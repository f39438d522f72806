"""The sweep stage around the tuner: when it is done, what it hands on."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from tests.stages.prepared import prepared_context

from canopy.config import derive, fingerprint
from canopy.errors import RunDirError
from canopy.runtime.stage import Stage
from canopy.stages import sweep
from canopy.stages.context import StageContext
from canopy.stages.prepare import load_catalogue
from canopy.storage import files
from canopy.storage.run_dir import LAYOUT
from canopy.sweep.result import StudyResult, SweepResult

BEST = {"gamma": 1.5, "alpha": 0.5, "score": 0.4}


def finish(context: StageContext, content: Any = BEST) -> None:
    """Leave the result of a sweep."""
    files.write_json(context.run_dir.path("sweep", "best.json"), content)
    context.run_dir.finish(Stage.SWEEP, sweep.key(context), seconds=1.0)


def test_the_fingerprint_of_a_focal_sweep_is_that_of_former_versions(tmp_path: Path) -> None:
    context = prepared_context(tmp_path)
    digest = load_catalogue(context).digest()
    reference = context.config.variants[0]
    assert sweep.key(context) == fingerprint(LAYOUT, "sweep", context.config.sweep, reference, digest)


def test_a_finished_sweep_hands_on_its_best_parameters(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    context = prepared_context(tmp_path)
    catalogue = load_catalogue(context)
    assert not sweep.is_done(context)
    with pytest.raises(RunDirError, match=r"finished sweep of this config.*jobs/sweep\.py"):
        sweep.load_best(context, catalogue)
    finish(context)
    assert sweep.is_done(context)
    values = {"loss.gamma": 1.5, "loss.alpha": 0.5}
    assert sweep.load_best(context, catalogue) == SweepResult(
        (StudyResult("resnet", values, 0.4, values),), former=True
    )
    sweep.run(context)
    assert "done already: γ 1.50, α 0.50" in capsys.readouterr().out


@pytest.mark.parametrize(
    "content",
    [None, [], {}, {**BEST, "gamma": -1}, {**BEST, "alpha": "0.5"}, {**BEST, "score": None}],
)
def test_a_damaged_result_means_not_done(tmp_path: Path, content: Any) -> None:
    context = prepared_context(tmp_path)
    finish(context, content)
    assert not sweep.is_done(context)


def test_without_swept_variants_there_is_nothing_to_do(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    context = prepared_context(tmp_path)
    settings = derive(context.config.sweep, trials=0)
    context = StageContext(derive(context.config, sweep=settings), context.run_dir, context.console)
    assert sweep.is_done(context)
    assert sweep.load_best(context, load_catalogue(context)) is None
    sweep.run(context)
    assert "skipped: no variant takes swept parameters" in capsys.readouterr().out
