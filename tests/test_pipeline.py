"""The order of the stages; whole runs are checked by ``tests/jobs/test_pipeline.py``."""

from __future__ import annotations

from pathlib import Path

import pytest
from tests.stages.prepared import prepared_context

from canopy.config import Experiment
from canopy.errors import RunDirError
from canopy.pipeline import run_stages, stage_module
from canopy.runtime.stage import Stage
from canopy.storage.run_dir import RunDir


@pytest.mark.parametrize("stage", list(Stage))
def test_every_stage_has_the_three_functions(stage: Stage) -> None:
    module = stage_module(stage)
    assert all(callable(getattr(module, name)) for name in ("key", "is_done", "run"))


def test_a_dry_run_leaves_no_trace(
    tiny: Experiment, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run_stages(tiny, RunDir(str(tmp_path / "run")), dry_run=True)
    assert "3 variants × 1 fold = 3 trainings" in capsys.readouterr().out
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("stage", [Stage.SWEEP, Stage.TRAIN, Stage.ENSEMBLE, Stage.REPORT])
def test_a_stage_without_a_catalogue_is_refused_and_stores_nothing(
    stage: Stage, tiny: Experiment, tmp_path: Path
) -> None:
    with pytest.raises(RunDirError, match=r"Run jobs/prepare\.py with it first"):
        run_stages(tiny, RunDir(str(tmp_path / "run")), [stage])
    assert not (tmp_path / "run" / "config.yaml").exists()


def test_a_later_stage_records_the_config_once_the_data_is_known_to_be_its_own(tmp_path: Path) -> None:
    context = prepared_context(tmp_path)
    (tmp_path / "run" / "config.yaml").unlink()
    with pytest.raises(RunDirError, match="finished sweep"):
        run_stages(context.config, context.run_dir, [Stage.REPORT])
    assert context.run_dir.load_config() == context.config
