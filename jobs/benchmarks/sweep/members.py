"""Does a sweep to ensemble pay: K chosen trials against K copies of the best one with other seeds.

Each search runs once per seed. Its K members, K copies of its best trial and K copies of the untouched
variant are trained at full length, with seeds that no search has used: three ensembles of the same number of
trainings. Each is fitted on the half of the validation rows that selected no epoch, and scored on the test
chips, which no search sees.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from jobs.benchmarks.ablation.records import Records
from jobs.benchmarks.sweep.bare_loop import train_bare
from jobs.benchmarks.sweep.setting import DOCS, BenchmarkData, DataName, prepare_benchmark
from jobs.benchmarks.sweep.tables import show_members

from canopy import metrics
from canopy.config import Experiment, FieldValues, SweepConfig, derive, fingerprint, set_fields
from canopy.ensemble.fit import fit_ensemble
from canopy.predictions.predictions import Predictions
from canopy.runtime.cluster import connect
from canopy.runtime.console import Console
from canopy.storage.run_dir import RunDir
from canopy.sweep.search import StudySearch
from canopy.train.logits import logits_to_probs

EPOCHS = 4
SEARCH = {"space": "recipe", "scheduler": "none", "objective": "map"}
FIRST_SEED = 2001
"""Seed of the first training of each ensemble."""


def members(
    data: DataName = "generated",
    count: int = 4,
    trials: int = 18,
    seeds: int = 5,
    out: Path = DOCS,
    cache: Path = Path("runs/sweep-benchmark"),
    root: str | None = None,
    minutes: float | None = None,
) -> None:
    """Compare ensembles of equal compute: chosen trials, copies of the best, copies of the default.

    Args:
        data: generated chips, or Kaggle's at 32 px.
        count: number K of members.
        trials: number of trials of each search.
        seeds: number of searches.
        out: folder of the file of figures.
        cache: folder of chips and trials.
        root: folder of the Planet chips; default: below $CANOPY_SHARED_DATA.
        minutes: begin nothing new after this time; the same command goes on.
    """
    end = None if minutes is None else time.monotonic() + 60 * minutes
    connect()
    prepared = prepare_benchmark(data, cache.absolute(), root)
    records = Records.open(out / f"members-{data}.jsonl")
    for seed in range(seeds):
        given = {**SEARCH, "members": count, "trials": trials, "epochs": EPOCHS, "seed": seed}
        config: Experiment = derive(prepared.config, sweep=SweepConfig.model_validate(given))
        key = fingerprint(config.sweep, config.variants[0], config.ensemble, prepared.catalogue.digest())
        if records.find("members", key) is not None:
            continue
        if end is not None and time.monotonic() > end:
            print("time is up; the same command goes on")
            break
        found = {"kind": "members", "fingerprint": key, "count": count, "trials": trials, "seed": seed}
        records.add({**found, **compare(config, prepared, key)})
    show_members(records)


def compare(config: Experiment, prepared: BenchmarkData, key: str) -> dict[str, Any]:
    """Run one search, and train and score the three ensembles."""
    count = config.sweep.members
    assert count is not None, "the sweep has members"
    run_dir = RunDir(str(prepared.cache / f"members-{key[:12]}"))
    (study,) = config.sweep_studies
    search = StudySearch(config, study, prepared.catalogue, prepared.chips, run_dir, Console())
    start = time.monotonic()
    result = search.judge(search.run())
    line: dict[str, Any] = {
        "ranks": [one.rank for one in result.members],
        "search_s": round(time.monotonic() - start, 1),
    }
    contenders: dict[str, list[FieldValues]] = {
        "chosen": [one.values for one in result.members],
        "best": [result.best_trial] * count,
        "default": [{}] * count,
    }
    for name, points in contenders.items():
        line[name] = ensemble_scores(points, config, prepared)
    return line


def ensemble_scores(
    points: list[FieldValues], config: Experiment, prepared: BenchmarkData
) -> dict[str, float]:
    """Macro-F1, micro-F1 and mAP on the test chips of the ensemble of ``points``, each with its own seed."""
    catalogue = prepared.catalogue
    fitting, test = catalogue.rows("val", fold=1), catalogue.rows("test")
    rows_N = np.concatenate([fitting, test])
    ids_N = np.array(catalogue.ids)
    fitted_on: dict[str, Predictions] = {}
    scored: dict[str, Any] = {}
    for number, values in enumerate(points):
        variant = set_fields(config.variants[0], {**values, "seed": FIRST_SEED + number})
        probs_NK = logits_to_probs(train_bare(variant, catalogue, prepared.chips, rows_N))
        name = f"member{number}"
        fitted_on[name] = Predictions(
            ids_N[fitting],
            probs_NK[: len(fitting)],
            catalogue.labels,
            targets_NK=catalogue.targets_NK[fitting],
        )
        scored[name] = probs_NK[len(fitting) :]
    ensemble = fit_ensemble(fitted_on, config.ensemble)
    used: Mapping[str, Any] = {name: scored[name] for name in ensemble.members}
    probs_NK, decisions_NK = ensemble.predict(used)
    targets_NK = catalogue.targets_NK[test]
    counts = metrics.Counts.of(targets_NK, decisions_NK)
    return {
        "macro_f1": round(float(metrics.macro_f1(counts)), 5),
        "micro_f1": round(float(metrics.micro_f1(counts)), 5),
        "map": round(float(metrics.mean_average_precision(targets_NK, probs_NK)), 5),
    }
