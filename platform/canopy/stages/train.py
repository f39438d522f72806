"""Third stage: train every variant and fold that is not trained yet, in parallel where resources allow.

Files written under ``train/VARIANT/foldN/`` of the run directory: weights, history and predictions of one
training (:mod:`canopy.train.fleet`).
"""

from __future__ import annotations

from collections.abc import Sequence

from canopy.bands import BandLayout
from canopy.config import fingerprint
from canopy.data.catalogue import Catalogue
from canopy.errors import RunDirError
from canopy.models.weights_source import with_absolute_weights
from canopy.runtime.stage import Stage
from canopy.stages.context import StageContext
from canopy.stages.prepare import load_catalogue, shared_chips
from canopy.stages.sweep import load_best
from canopy.storage import files
from canopy.storage.run_dir import LAYOUT, timed
from canopy.train.distillation import soft_labels, with_absolute_teacher
from canopy.train.fleet.fleet import train_fleet
from canopy.train.training_run import TrainingRun


def key(context: StageContext) -> str:
    """Fingerprint of the stage, from the fingerprints of all trainings.

    Raises:
        RunDirError: when an earlier stage has not finished for this config.
    """
    return key_of(training_runs(context, load_catalogue(context)))


def key_of(trainings: Sequence[TrainingRun]) -> str:
    """Fingerprint of the stage for given trainings."""
    return fingerprint([training_run.fingerprint for training_run in trainings])


def is_done(context: StageContext) -> bool:
    """Whether every training of this config has finished.

    Raises:
        RunDirError: when an earlier stage has not finished for this config.
    """
    trainings = training_runs(context, load_catalogue(context))
    return (
        not missing(context, trainings) and context.run_dir.done(Stage.TRAIN, key_of(trainings)) is not None
    )


def run(context: StageContext) -> None:
    """Train every variant and fold that is not trained yet.

    Raises:
        RunDirError: when an earlier stage has not finished for this config.
        FleetError: when a training failed.
        Stopped: when a signal ended the trainings.
    """
    catalogue = load_catalogue(context)
    trainings = training_runs(context, catalogue)
    to_train = missing(context, trainings)
    for training_run in trainings:
        if training_run not in to_train:
            context.console.say(Stage.TRAIN, f"{training_run.name} done already")
    if not to_train and context.run_dir.done(Stage.TRAIN, key_of(trainings)):
        return
    with timed() as watch:
        if to_train:
            say_soft_labels(context, to_train, catalogue)
            context.run_dir.withdraw(Stage.TRAIN)
            chips = shared_chips(context, catalogue, Stage.TRAIN)
            train_fleet(to_train, chips, context.run_dir, context.config, context.console)
    context.run_dir.finish(Stage.TRAIN, key_of(trainings), (), **watch)


def say_soft_labels(context: StageContext, trainings: Sequence[TrainingRun], catalogue: Catalogue) -> None:
    """Check the runs that trainings take soft labels from, and say what they give.

    Raises:
        ConfigError: see :func:`canopy.train.distillation.soft_labels`.
    """
    for training_run in trainings:
        found = soft_labels(training_run.variant, catalogue)
        if found is not None:
            members = ", ".join(found.members)
            line = (
                f"{training_run.name} learns from soft labels of {found.rows:,} chips, ensemble of {members}"
            )
            context.console.say(Stage.TRAIN, line)


def missing(context: StageContext, trainings: Sequence[TrainingRun]) -> list[TrainingRun]:
    """The trainings that have not finished."""
    return [
        training_run
        for training_run in trainings
        if context.run_dir.done(training_run.directory, training_run.fingerprint) is None
    ]


def training_runs(context: StageContext, catalogue: Catalogue) -> list[TrainingRun]:
    """Every training of the experiment, with the swept values in its variant.

    Raises:
        RunDirError: when a variant takes swept values and the sweep has not finished.
    """
    config, best = context.config, load_best(context, catalogue)
    digest, config_hash = catalogue.digest(), fingerprint(config)
    layout = BandLayout.of(config.data)
    bands = () if layout is None else (layout.to_json(), config.data.image_size)
    trainings = []
    for final in config.variants if best is None else best.variants(config):
        # The fingerprint keeps what the config says.
        located = with_absolute_teacher(with_absolute_weights(final))
        for fold in range(config.folds):
            run_key = fingerprint(LAYOUT, Stage.TRAIN, final, digest, fold, config.folds, *bands)
            trainings.append(
                TrainingRun(located, fold, config.folds, context.run_dir.root, run_key, config_hash)
            )
    return trainings


def finished_training_runs(context: StageContext, catalogue: Catalogue) -> list[TrainingRun]:
    """Every training of the experiment.

    Raises:
        RunDirError: when one of them has not finished.
    """
    trainings = training_runs(context, catalogue)
    for training_run in missing(context, trainings):
        thing = f"Run directory {files.shown(context.run_dir.root)}"
        need = f"must hold the finished training of {training_run.name}"
        raise RunDirError(thing, need, "none", "Run jobs/train.py with it first.")
    return trainings
