"""The five stages over one run directory, in order: prepare → sweep → train → ensemble → report.

Each reads files and writes files; a stage that is done for the same inputs is not done again, so the same
command, submitted again, goes on where it stopped.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

import numpy as np

from canopy.cli import Request
from canopy.config import Experiment, VariantConfig, derive, fingerprint
from canopy.data.catalogue import Catalogue
from canopy.errors import InputError, RunDirError
from canopy.runtime.cluster import connect, dashboard_url
from canopy.runtime.console import Console
from canopy.storage import files
from canopy.storage.run_dir import LAYOUT, RunDir, timed
from canopy.train.fleet.shutdown import end_on_sigterm
from canopy.train.training_run import TrainingRun

if TYPE_CHECKING:
    from canopy.data.loading.loader import Chips

Stage = Literal["prepare", "sweep", "train", "ensemble", "report"]
STAGES: tuple[Stage, ...] = ("prepare", "sweep", "train", "ensemble", "report")


@dataclass(frozen=True)
class Work:
    """What every stage gets."""

    config: Experiment
    run: RunDir
    console: Console


def run_stages(request: Request, stages: Sequence[Stage] = STAGES) -> Work:
    """Run ``stages`` in order; those before the first one must have been run.

    Raises:
        InputError: when something the user gave cannot be used.
        StageError: when a stage began and could not end.
    """
    work = Work(request.config, request.run, Console())
    check_variants(work.config)
    if request.dry_run:
        from canopy.stages.dry_run import plan_of

        print(plan_of(work.config))
        return work
    work.console.say(
        "run", f"{work.config.preset}, config {fingerprint(work.config)[:8]}, in {work.run.root}"
    )
    if any(stage in stages for stage in ("prepare", "sweep", "train")):
        connect()
        end_on_sigterm()
        work.console.say("run", f"Ray is up; dashboard {dashboard_url() or 'not started'}")
    for stage in stages:
        STEPS[stage](work)
    return work


def check_variants(config: Experiment) -> None:
    """Refuse, before anything is computed, a network that cannot be built.

    Raises:
        ConfigError: names the backbone and its nearest, what the variant asks of it in vain, or the file of
            weights that is not there.
    """
    from canopy.models.classifier import check_backbone
    from canopy.models.weights import read_weights

    for variant in config.variants:
        check_backbone(variant.model, variant.augment.crop or config.data.image_size)
        if variant.model.weights is not None:
            read_weights(variant.model.weights, f"variant {variant.name}: model.weights")


def prepared(work: Work) -> Catalogue:
    """The catalogue that prepare wrote for this very config.

    Raises:
        RunDirError: when it has not.
        InputError: when a variant's loss does not fit its labels.
    """
    from canopy.stages.prepare import UNIT, prepare_key

    identity_file = work.run.path("data.json")
    if files.exists(identity_file):
        known = files.read_json(identity_file)
        key = prepare_key(work.config, known["identity"], known.get("arrangement", ""))
        if work.run.done(UNIT, key):
            work.run.store_config(work.config)
            catalogue = Catalogue.read(work.run.path(UNIT, "catalogue.parquet"))
            check_losses(work.config, catalogue)
            return catalogue
    problem = "must hold a catalogue of this config"
    raise RunDirError(f"Run directory {work.run.root}", problem, "none", "Run jobs/prepare.py with it first.")


def prepare_stage(work: Work) -> None:
    """Read, validate, split."""
    from canopy.stages.prepare import prepare

    prepare(work.config, work.run, work.console)


def check_losses(config: Experiment, catalogue: Catalogue) -> None:
    """Refuse, before a network is trained, a loss that does not fit the labels of some fold.

    Raises:
        InputError: names the variant, and the label or the number of weights.
    """
    from canopy.losses.multilabel import build_loss

    for variant in config.variants:
        for fold in range(config.folds):
            rows = catalogue.rows("train", not_fold=fold if config.folds > 1 else None)
            counts_K = catalogue.targets_NK[rows].sum(0, dtype=np.int64)
            try:
                build_loss(variant.loss, counts_K, len(rows), catalogue.labels.names)
            except InputError as error:
                told = f"variant {variant.name}: {error.thing}", error.constraint, error.got, error.remedy
                raise type(error)(*told) from None


def sweep_stage(work: Work) -> None:
    """Find the focal parameters, where a variant wants them."""
    from canopy.sweep.tuner import UNIT, sweep, sweep_key

    catalogue = prepared(work)
    reference = work.config.sweep_reference
    if reference is None:
        work.console.say(UNIT, "skipped: no variant takes swept parameters")
        return
    if work.run.done(UNIT, sweep_key(work.config, reference, catalogue.digest())):
        best = files.read_json(work.run.path(UNIT, "best.json"))
        work.console.say(UNIT, f"done already: γ {best['gamma']:.2f}, α {best['alpha']:.2f}")
        return
    sweep(work.config, reference, catalogue, shared_chips(work, catalogue, "sweep"), work.run, work.console)


def swept(work: Work, catalogue: Catalogue) -> dict[str, float] | None:
    """What the sweep found.

    Raises:
        RunDirError: when it is wanted and has not been run.
    """
    from canopy.sweep.tuner import UNIT, sweep_key

    reference = work.config.sweep_reference
    if reference is None:
        return None
    if work.run.done(UNIT, sweep_key(work.config, reference, catalogue.digest())) is None:
        problem = "must hold a finished sweep of this config"
        raise RunDirError(
            f"Run directory {work.run.root}", problem, "none", "Run jobs/sweep.py with it first."
        )
    best: dict[str, float] = files.read_json(work.run.path(UNIT, "best.json"))
    return best


def training_runs_of(work: Work, catalogue: Catalogue) -> list[TrainingRun]:
    """Every training of the experiment, swept parameters filled in."""
    best = swept(work, catalogue)
    training_runs = []
    for variant in work.config.variants:
        final = with_swept_loss(variant, best)
        for fold in range(work.config.folds):
            key = fingerprint(LAYOUT, "train", final, catalogue.digest(), fold, work.config.folds)
            training_runs.append(
                TrainingRun(final, fold, work.config.folds, work.run.root, key, fingerprint(work.config))
            )
    return training_runs


def with_swept_loss(variant: VariantConfig, best: dict[str, float] | None) -> VariantConfig:
    """The variant with the sweep's focal parameters, if it wants them and there was a sweep."""
    if not variant.swept_loss or best is None:
        return variant
    return derive(variant, loss=derive(variant.loss, gamma=best["gamma"], alpha=best["alpha"]))


def train_stage(work: Work) -> None:
    """Train what is not trained yet."""
    from canopy.train.fleet.fleet import train_fleet

    catalogue = prepared(work)
    training_runs = training_runs_of(work, catalogue)
    missing = [
        training_run
        for training_run in training_runs
        if work.run.done(training_run.directory, training_run.fingerprint) is None
    ]
    for training_run in training_runs:
        if training_run not in missing:
            work.console.say("train", f"{training_run.name} done already")
    key = fingerprint([training_run.fingerprint for training_run in training_runs])
    if not missing and work.run.done("train", key):
        return
    with timed() as watch:
        if missing:
            chips = shared_chips(work, catalogue, "train")
            train_fleet(missing, chips, work.run, work.config, work.console)
    work.run.finish("train", key, **watch)


def ensemble_stage(work: Work) -> None:
    """Tune the ensemble and score it on the test split."""
    from canopy.stages.ensemble import ensemble

    catalogue = prepared(work)
    training_runs = training_runs_of(work, catalogue)
    for training_run in training_runs:
        if work.run.done(training_run.directory, training_run.fingerprint) is None:
            problem = f"must hold the finished training of {training_run.name}"
            raise RunDirError(
                f"Run directory {work.run.root}", problem, "none", "Run jobs/train.py with it first."
            )
    ensemble(work.config.ensemble, training_runs, catalogue, work.run, work.console)


def report_stage(work: Work) -> None:
    """Write ``summary.json`` and the page; print the closing tables.

    Raises:
        RunDirError: when the run holds no ensemble of this very config.
    """
    from canopy.stages.ensemble import UNIT, ensemble_key
    from canopy.stages.report import report

    catalogue = prepared(work)
    training_runs = training_runs_of(work, catalogue)
    if work.run.done(UNIT, ensemble_key(work.config.ensemble, training_runs)) is None:
        problem = "must hold a finished ensemble of this config"
        raise RunDirError(
            f"Run directory {work.run.root}", problem, "none", "Run jobs/ensemble.py with it first."
        )
    report(work.config, training_runs, catalogue, work.run, work.console)


_SHARED: dict[str, Chips] = {}


def shared_chips(work: Work, catalogue: Catalogue, stage: Stage) -> Chips:
    """The decoded chips, put into the object store once for all stages of this process."""
    from canopy.stages.prepare import place_chips

    key = f"{work.run.root} {catalogue.digest()}"
    if key not in _SHARED:
        _SHARED.clear()
        _SHARED[key] = place_chips(work.run, catalogue, work.config.data, work.console, stage)
    return _SHARED[key]


STEPS: dict[Stage, Callable[[Work], None]] = {
    "prepare": prepare_stage,
    "sweep": sweep_stage,
    "train": train_stage,
    "ensemble": ensemble_stage,
    "report": report_stage,
}
