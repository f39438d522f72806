"""The sweep on Ray Tune: runs the trials of one reference variant and stops bad ones early (ASHA)."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any

from ray import tune
from ray.tune.schedulers import ASHAScheduler

from canopy.config import Experiment, SweepConfig, VariantConfig, fingerprint
from canopy.data.catalogue import Catalogue
from canopy.data.loading.chip_source import ChipSource
from canopy.errors import StageError
from canopy.models.weights_source import with_absolute_weights
from canopy.runtime.console import Console
from canopy.runtime.logging import current_context
from canopy.runtime.stage import Stage
from canopy.storage import files
from canopy.storage.run_dir import LAYOUT, RunDir, timed
from canopy.sweep.selection import select_best
from canopy.sweep.space import FocalParameters, sample_points
from canopy.sweep.trials import TrialContext, TrialRecord, TrialRecords, run_trial, trial_variant


def sweep_key(config: Experiment, reference: VariantConfig | None, digest: str) -> str:
    """Fingerprint of the sweep: its config section, the reference variant and the catalogue's digest."""
    return fingerprint(LAYOUT, Stage.SWEEP, config.sweep, reference, digest)


def sweep(
    config: Experiment,
    reference: VariantConfig,
    catalogue: Catalogue,
    chips: ChipSource,
    run_dir: RunDir,
    console: Console,
) -> None:
    """Run the sweep and write ``best.json`` and ``trials.json`` below ``sweep/``.

    Args:
        config: the experiment.
        reference: the variant that all trials train.
        catalogue: the run's catalogue.
        chips: decoded images.
        run_dir: the run directory.
        console: prints one line per trial and epoch.

    Raises:
        StageError: when all trials failed.
    """
    key = sweep_key(config, reference, catalogue.digest())
    with timed() as watch:
        variant = with_absolute_weights(trial_variant(reference, config.sweep))
        context = TrialContext(variant, config.sweep, chips, current_context())
        records = run_trials(context, catalogue, TrialRecords(run_dir, key), console)
        best = select_best(records)
        if best is None:
            raise StageError(f"sweep: all {len(records)} trials failed, the first with: {records[0].error}")
        files.write_json(run_dir.path(Stage.SWEEP, "trials.json"), [record.to_json() for record in records])
        files.write_json(run_dir.path(Stage.SWEEP, "best.json"), best.to_json())
    point = FocalParameters(best.gamma, best.alpha)
    console.say(Stage.SWEEP, f"best: {point} (val score {best.score:.3f})")
    run_dir.finish(Stage.SWEEP, key, ("best.json", "trials.json"), **watch, reference=reference.name)


def run_trials(
    context: TrialContext, catalogue: Catalogue, records: TrialRecords, console: Console
) -> list[TrialRecord]:
    """Run the trials that no earlier start has finished; returns the records of all trials, in order."""
    settings, scale = context.settings, context.variant.scale
    points = sample_points(settings)
    missing = [number for number in range(len(points)) if not records.is_finished(number)]
    done = f"; {len(points) - len(missing)} done already" if len(missing) < len(points) else ""
    console.say(
        Stage.SWEEP,
        f"{len(points)} trials of {context.variant.name}, up to {settings.epochs} epochs, "
        f"{settings.concurrent} at a time{done}",
    )
    if missing:
        resources = {"cpu": scale.cpus_per_worker, "gpu": min(1.0, scale.gpus_per_worker)}
        trainable = tune.with_parameters(run_trial, context=context, catalogue=catalogue)
        reporter = TrialReporter(console, settings, points, records)
        # Tune pickles its own state: it goes to a temporary folder, and only the trial records are kept.
        with tempfile.TemporaryDirectory() as storage:
            trainable = tune.with_resources(trainable, resources)
            make_tuner(trainable, settings, missing, storage, reporter).fit()
    found = [records.read(number) for number in range(len(points))]
    return [record for record in found if record is not None]


def make_tuner(
    trainable: Any, settings: SweepConfig, numbers: list[int], storage: str, reporter: TrialReporter
) -> tune.Tuner:
    """Ray Tune's tuner for the trials ``numbers``.

    A trial has one worker and trains in its own process: a plain Tune trial starts in seconds, a nested
    trainer in tens of seconds. Early stopping is ASHA (Li et al. 2020). Its rungs are not stored: after a
    restart, the remaining trials compete among themselves.

    Args:
        trainable: :func:`run_trial` with its parameters and resources.
        settings: the sweep's config.
        numbers: numbers of the trials to run.
        storage: folder for Tune's own files.
        reporter: callback that prints and records.
    """
    scheduler = ASHAScheduler(
        time_attr="epoch",
        max_t=settings.epochs,
        grace_period=min(settings.grace_epochs, settings.epochs),
        reduction_factor=settings.reduction_factor,
    )
    return tune.Tuner(
        trainable,
        param_space={"number": tune.grid_search(numbers)},
        tune_config=tune.TuneConfig(
            metric="score",
            mode="max",
            max_concurrent_trials=settings.concurrent,
            reuse_actors=True,
            scheduler=scheduler,
        ),
        run_config=tune.RunConfig(
            name=Stage.SWEEP.value,
            storage_path=storage,
            verbose=0,
            callbacks=[reporter],
            failure_config=tune.FailureConfig(max_failures=1),
        ),
    )


class TrialReporter(tune.Callback):
    """Prints a line per trial and epoch, and writes a record per ended trial."""

    def __init__(
        self, console: Console, settings: SweepConfig, points: list[FocalParameters], records: TrialRecords
    ) -> None:
        self.console = console
        self.settings = settings
        self.points = points
        self.records = records

    def on_trial_result(  # type: ignore[override]  # (Tune passes keywords)
        self, *, trial: Any, result: dict[str, Any], **_: Any
    ) -> None:
        """Print the result of an epoch."""
        epoch = f"epoch {result['epoch']}/{self.settings.epochs}"
        speed, score = f"{result['images_per_s']:,.0f} images/s", f"val score {result['score']:.3f}"
        self.console.say(Stage.SWEEP, f"{self.name(trial)}: {epoch}, {speed}, {score}")

    def on_trial_complete(self, *, trial: Any, **_: Any) -> None:  # type: ignore[override]
        """Record a trial that ran to its end or was stopped early."""
        score, epochs = trial.last_result["score"], int(trial.last_result["epoch"])
        early = epochs < self.settings.epochs
        point = self.point(trial)
        record = TrialRecord(
            point.gamma, point.alpha, score=score, epochs=epochs, stopped_early=early, error=None
        )
        self.records.write(trial.config["number"], record)
        self.console.say(Stage.SWEEP, f"{self.name(trial)}: {'stopped early' if early else 'finished'}")

    def on_trial_error(self, *, trial: Any, **_: Any) -> None:  # type: ignore[override]
        """Record a trial that failed for good."""
        reason, point = last_error_line(trial), self.point(trial)
        record = TrialRecord(
            point.gamma, point.alpha, score=None, epochs=0, stopped_early=False, error=reason
        )
        self.records.write(trial.config["number"], record)
        self.console.say(Stage.SWEEP, f"{self.name(trial)}: FAILED: {reason}")

    def point(self, trial: Any) -> FocalParameters:
        """The trial's point of the search space."""
        number: int = trial.config["number"]
        return self.points[number]

    def name(self, trial: Any) -> str:
        """The trial's name on the console."""
        return f"trial {trial.config['number'] + 1}/{self.settings.trials} ({self.point(trial)})"


def last_error_line(trial: Any) -> str:
    """The last line of a failed trial's traceback."""
    # The text file is read in Tune's local folder; Tune's other copy of the error is a pickle.
    lines = Path(trial.error_file).read_text().split("\n") if trial.error_file else []
    return next((line.strip() for line in reversed(lines) if line.strip()), "its process ended")
