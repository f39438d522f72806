"""The sweep: Ray Tune over the focal parameters of one reference variant, bad trials stopped early.

A trial has one worker, so it runs the training loop in its own process (a plain Tune trial starts in
seconds, a nested trainer in tens of seconds) and actors are reused from trial to trial. Early stopping is
ASHA (Li et al. 2020), whose memory spans one start: trials left over from a start that was cut off compete
among themselves. The first trials are fixed anchors: plain balanced BCE (γ = 0, α = ½), and the values that
the focal paper recommends (γ = 2, α = ¼; Lin et al. 2017).
"""

from __future__ import annotations

import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from ray import tune
from ray.tune.schedulers import ASHAScheduler
from scipy.stats import qmc

from canopy.config import Experiment, SweepConfig, VariantConfig, derive, fingerprint
from canopy.data.catalogue import Catalogue
from canopy.data.loading.loader import Chips
from canopy.errors import StageError
from canopy.runtime.console import Console
from canopy.runtime.malloc import keep_freed_memory
from canopy.storage import files
from canopy.storage.run_dir import LAYOUT, RunDir, timed
from canopy.train.loop import Progress, train
from canopy.train.task import DistributedContext, TrainTask
from canopy.train.training_run import sweep_rows

UNIT = "sweep"
ANCHORS = ({"gamma": 0.0, "alpha": 0.5}, {"gamma": 2.0, "alpha": 0.25})


def sweep(
    config: Experiment,
    reference: VariantConfig,
    catalogue: Catalogue,
    chips: Chips,
    run: RunDir,
    console: Console,
) -> None:
    """Do the stage; afterwards ``sweep/best.json`` holds the best focal parameters and their score.

    The best is the highest score among the trials that ran longest: a trial stopped early was judged by
    fewer epochs.

    Raises:
        StageError: when no trial came to a score.
    """
    key = sweep_key(config, reference, catalogue.digest())
    with timed() as watch:
        trials = run_trials(config.sweep, reference, catalogue, chips, Records(run, key), console)
        scored = [trial for trial in trials if trial["score"] is not None]
        if not scored:
            raise StageError(f"sweep: none of {len(trials)} trials came to a score: {trials[0]['error']}")
        best = max(scored, key=lambda trial: (trial["epochs"], trial["score"]))
        files.write_json(run.path(UNIT, "trials.json"), trials)
        files.write_json(run.path(UNIT, "best.json"), {k: best[k] for k in ("gamma", "alpha", "score")})
    console.say(UNIT, f"best: γ {best['gamma']:.2f}, α {best['alpha']:.2f} (val score {best['score']:.3f})")
    run.finish(UNIT, key, **watch, reference=reference.name)


def sweep_key(config: Experiment, reference: VariantConfig, digest: str) -> str:
    """The stage's fingerprint: sweep section, reference variant, catalogue."""
    return fingerprint(LAYOUT, UNIT, config.sweep, reference, digest)


def run_trials(
    settings: SweepConfig,
    reference: VariantConfig,
    catalogue: Catalogue,
    chips: Chips,
    records: Records,
    console: Console,
) -> list[dict[str, Any]]:
    """Run the trials that an earlier start has not finished; the records of all."""
    points = trial_points(settings)
    missing = [n for n in range(len(points)) if not records.finished(n)]
    console.say(
        UNIT,
        f"{len(points)} trials of {reference.name}, up to {settings.epochs} epochs, {settings.concurrent} at "
        f"a time{f'; {len(points) - len(missing)} done already' if len(missing) < len(points) else ''}",
    )
    if missing:
        job = {"variant": trial_variant(reference, settings), "chips": chips, "settings": settings}
        resources = {"cpu": reference.scale.cpus_per_worker, "gpu": min(1.0, reference.scale.gpus_per_worker)}
        trainable = tune.with_parameters(trial, job=job, catalogue=catalogue)
        teller = Teller(console, settings, points, records)
        # Tune's own state is pickled: it lives in a temporary folder, and what is kept are our records.
        with tempfile.TemporaryDirectory() as storage:
            make_tuner(tune.with_resources(trainable, resources), settings, missing, storage, teller).fit()
    found = [records.read(n) for n in range(len(points))]
    return [record for record in found if record is not None]


def trial_points(settings: SweepConfig) -> list[dict[str, float]]:
    """Where to look: the anchors in range, then a scrambled Halton sequence (Owen 2017) over both ranges."""
    points = [dict(a) for a in ANCHORS if in_range(a, settings)][: settings.trials]
    more = settings.trials - len(points)
    unit_N2 = qmc.Halton(2, rng=settings.seed).random(more) if more else []
    (g0, g1), (a0, a1) = settings.gamma, settings.alpha
    points += [{"gamma": float(g0 + (g1 - g0) * u), "alpha": float(a0 + (a1 - a0) * v)} for u, v in unit_N2]
    return points


def trial_variant(reference: VariantConfig, settings: SweepConfig) -> VariantConfig:
    """The reference as a trial trains it: one process, as many epochs as a trial may have."""
    optim = derive(reference.optim, epochs=settings.epochs, patience=None)
    return derive(reference, optim=optim, scale=derive(reference.scale, workers=1))


def make_tuner(
    trainable: Any, settings: SweepConfig, numbers: list[int], storage: str, teller: Teller
) -> tune.Tuner:
    """The trials of ``numbers``."""
    return tune.Tuner(
        trainable,
        param_space={"number": tune.grid_search(numbers)},
        tune_config=tune.TuneConfig(
            metric="score",
            mode="max",
            max_concurrent_trials=settings.concurrent,
            reuse_actors=True,
            scheduler=ASHAScheduler(
                time_attr="epoch",
                max_t=settings.epochs,
                grace_period=min(settings.grace_epochs, settings.epochs),
                reduction_factor=settings.reduction_factor,
            ),
        ),
        run_config=tune.RunConfig(
            name=UNIT,
            storage_path=storage,
            verbose=0,
            callbacks=[teller],
            failure_config=tune.FailureConfig(max_failures=1),
        ),
    )


def in_range(point: dict[str, float], settings: SweepConfig) -> bool:
    """Whether a fixed point lies in the ranges to sweep."""
    ranges = {"gamma": settings.gamma, "alpha": settings.alpha}
    return all(low <= point[name] <= high for name, (low, high) in ranges.items())


@dataclass(frozen=True)
class Records:
    """One small file per finished trial, so that a second start runs only the missing ones."""

    run: RunDir
    key: str

    def path(self, number: int) -> str:
        """Where trial ``number`` is recorded."""
        return self.run.path(UNIT, "trials", f"{self.key[:12]}-{number}.json")

    def read(self, number: int) -> dict[str, Any] | None:
        """The record of a trial that came to its end, else None."""
        path = self.path(number)
        if not files.exists(path):
            return None
        record: dict[str, Any] = files.read_json(path)
        return record

    def finished(self, number: int) -> bool:
        """Whether a trial need not be run again; one that failed gets another chance."""
        record = self.read(number)
        return record is not None and record["error"] is None


def trial(search: dict[str, int], job: dict[str, Any], catalogue: Catalogue) -> None:
    """One setting of γ and α: train in this process, report each epoch's score."""
    variant: VariantConfig = job["variant"]
    point = trial_points(job["settings"])[search["number"]]
    loss = derive(variant.loss, gamma=point["gamma"], alpha=point["alpha"])
    variant = derive(variant, loss=loss)
    torch.set_num_threads(variant.scale.threads_per_worker)
    keep_freed_memory()
    device = torch.device("cuda" if variant.scale.gpus_per_worker else "cpu")
    rows = sweep_rows(catalogue, job["settings"])
    selection = catalogue.rows("val", fold=0 if catalogue.folds == 1 else None)
    task = TrainTask(variant, catalogue, job["chips"], DistributedContext(0, 1, device), rows, selection)
    train_state = task.train_state(lambda network: network)

    def report(progress: Progress) -> None:
        record = progress.history[-1]
        tune.report({**record, "epoch": int(record["epoch"]), "score": record["score"]})

    train(
        train_state,
        task.batches(0),
        task.plan.steps_per_epoch,
        variant.optim,
        Progress(),
        evaluate=task.evaluate,
        keep=report,
        tell=lambda *_: None,
        name=f"sweep γ {point['gamma']:.2f} α {point['alpha']:.2f}",
        seed=variant.seed,
    )


class Teller(tune.Callback):
    """One line per trial and epoch, one record per ended trial."""

    def __init__(
        self, console: Console, settings: SweepConfig, points: list[dict[str, float]], records: Records
    ) -> None:
        self.console = console
        self.settings = settings
        self.points = points
        self.records = records

    def point(self, trial: Any) -> dict[str, float]:
        """γ and α of a trial."""
        number: int = trial.config["number"]
        return self.points[number]

    def on_trial_result(  # type: ignore[override]  # (Tune calls it by keywords)
        self, *, trial: Any, result: dict[str, Any], **_: Any
    ) -> None:
        """A trial has finished an epoch."""
        self.console.say(
            UNIT,
            f"{self.where(trial)}: epoch {result['epoch']}/{self.settings.epochs}, "
            f"{result['images_per_s']:,.0f} images/s, val score {result['score']:.3f}",
        )

    def on_trial_complete(self, *, trial: Any, **_: Any) -> None:  # type: ignore[override]
        """A trial has ended, by itself or stopped early."""
        result = trial.last_result
        epochs = int(result["epoch"])
        early = epochs < self.settings.epochs
        facts = {"score": result["score"], "epochs": epochs, "stopped_early": early, "error": None}
        self.keep(trial, facts)
        self.console.say(UNIT, f"{self.where(trial)}: {'stopped early' if early else 'finished'}")

    def on_trial_error(self, *, trial: Any, **_: Any) -> None:  # type: ignore[override]
        """A trial has failed for good."""
        # The local text: Tune copies it to its storage later, and its other form is a pickle.
        lines = Path(trial.error_file).read_text().split("\n") if trial.error_file else []
        why = next((line.strip() for line in reversed(lines) if line.strip()), "its process ended")
        self.keep(trial, {"score": None, "epochs": 0, "stopped_early": False, "error": why})
        self.console.say(UNIT, f"{self.where(trial)}: FAILED: {why}")

    def where(self, trial: Any) -> str:
        """Which trial, for the console."""
        point = self.point(trial)
        number, total = trial.config["number"] + 1, self.settings.trials
        return f"trial {number}/{total} (γ {point['gamma']:.2f}, α {point['alpha']:.2f})"

    def keep(self, trial: Any, facts: dict[str, Any]) -> None:
        """Write the trial's record."""
        files.write_json(self.records.path(trial.config["number"]), {**self.point(trial), **facts})
