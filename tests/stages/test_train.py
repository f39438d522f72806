"""The train stage around the fleet: which trainings there are, and which are missing."""

from __future__ import annotations

from pathlib import Path

import pytest
from tests.stages.prepared import prepared_context
from tests.support import tiny_experiment

from canopy.config import derive, fingerprint
from canopy.errors import RunDirError
from canopy.runtime.stage import Stage
from canopy.stages import train
from canopy.stages.context import StageContext
from canopy.stages.prepare import load_catalogue
from canopy.storage.run_dir import LAYOUT


@pytest.fixture
def context(tmp_path: Path) -> StageContext:
    """Two variants with two folds, no sweep."""
    return prepared_context(tmp_path, derive(tiny_experiment(variants=2, trials=0), folds=2))


def test_every_variant_is_trained_once_per_fold(context: StageContext) -> None:
    catalogue = load_catalogue(context)
    trainings = train.training_runs(context, catalogue)
    assert [one.name for one in trainings] == [
        f"{variant.name}/fold{fold}" for variant in context.config.variants for fold in range(2)
    ]
    digest = catalogue.digest()
    for one in trainings:
        assert one.fingerprint == fingerprint(LAYOUT, "train", one.variant, digest, one.fold, 2)
        assert one.config_hash == fingerprint(context.config)
    assert train.key(context) == fingerprint([one.fingerprint for one in trainings])


def test_the_stage_is_done_when_every_training_is(
    context: StageContext, capsys: pytest.CaptureFixture[str]
) -> None:
    catalogue = load_catalogue(context)
    trainings = train.training_runs(context, catalogue)
    for one in trainings[:-1]:
        context.run_dir.finish(one.directory, one.fingerprint)
    assert train.missing(context, trainings) == trainings[-1:]
    assert not train.is_done(context)
    with pytest.raises(RunDirError, match=r"finished training of resnet-cbam/fold1.*jobs/train\.py"):
        train.finished_training_runs(context, catalogue)
    context.run_dir.finish(trainings[-1].directory, trainings[-1].fingerprint)
    assert not train.is_done(context), "its own mark is missing"
    context.run_dir.finish(Stage.TRAIN, train.key(context), seconds=1.0)
    assert train.is_done(context)
    assert train.finished_training_runs(context, catalogue) == trainings
    train.run(context)
    assert capsys.readouterr().out.count("done already") == len(trainings)
