"""What each kind of search finds: test mAP of its choice, and the epochs that it trained for it.

Each search runs at several seeds. Its choice is then trained at full length with seeds that no search has
used, beside the untouched variant with the same seeds, and scored on the test chips, which no search sees.
"""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import numpy as np
from jobs.benchmarks.ablation.records import Records
from jobs.benchmarks.sweep.bare_loop import train_bare
from jobs.benchmarks.sweep.setting import DOCS, BenchmarkData, DataName, prepare_benchmark
from jobs.benchmarks.sweep.tables import show_quality

from canopy import metrics
from canopy.config import Experiment, FieldValues, SweepConfig, derive, fingerprint, set_fields
from canopy.data.catalogue import Catalogue
from canopy.runtime.cluster import connect
from canopy.runtime.console import Console
from canopy.storage.run_dir import RunDir
from canopy.sweep.search import StudySearch
from canopy.train.logits import logits_to_probs

EPOCHS = 4
CONTENDERS: dict[str, dict[str, Any]] = {
    "grid of nine": {"space": "focal-grid", "trials": 9, "scheduler": "none"},
    "random": {"space": "recipe", "trials": 9, "sampler": "random", "scheduler": "none"},
    "random + ASHA": {"space": "recipe", "trials": 9, "sampler": "random"},
    "TPE + ASHA": {"space": "recipe", "trials": 9},
    "TPE + ASHA, twice the trials": {"space": "recipe", "trials": 18},
}
"""Sweep section by contender; all have trials of :data:`EPOCHS` epochs."""
TEST_SEEDS = (1001, 1002, 1003)


def quality(
    data: DataName = "generated",
    seeds: int = 5,
    out: Path = DOCS,
    cache: Path = Path("runs/sweep-benchmark"),
    root: str | None = None,
    minutes: float | None = None,
) -> None:
    """Run every search at every seed and score what it chose.

    Args:
        data: generated chips, or Kaggle's at 32 px.
        seeds: number of seeds of each search.
        out: folder of the file of figures.
        cache: folder of chips and trials.
        root: folder of the Planet chips; default: below $CANOPY_SHARED_DATA.
        minutes: begin nothing new after this time; the same command goes on.
    """
    end = None if minutes is None else time.monotonic() + 60 * minutes
    connect()
    prepared = prepare_benchmark(data, cache.absolute(), root)
    records = Records.open(out / f"quality-{data}.jsonl")
    for seed in range(seeds):
        for name, settings in CONTENDERS.items():
            if end is not None and time.monotonic() > end:
                print("time is up; the same command goes on")
                return
            found = search(name, settings, seed, prepared, records)
            for one in TEST_SEEDS:
                score_on_test({}, one, prepared, records)
                score_on_test(found["values"], one, prepared, records)
    show_quality(records)


def search(
    name: str, settings: dict[str, Any], seed: int, prepared: BenchmarkData, records: Records
) -> dict[str, Any]:
    """Run one search, unless the figures hold it; its line of figures."""
    given = {**settings, "seed": seed, "epochs": EPOCHS, "finalists": 0, "objective": "map"}
    config: Experiment = derive(prepared.config, sweep=SweepConfig.model_validate(given))
    key = fingerprint(config.sweep, config.variants[0], prepared.catalogue.digest())
    known = records.find("search", key)
    if known is not None:
        return known
    run_dir = RunDir(str(prepared.cache / f"search-{key[:12]}"))
    one = StudySearch(config, config.sweep_studies[0], prepared.catalogue, prepared.chips, run_dir, Console())
    start = time.monotonic()
    trials = one.run()
    seconds = time.monotonic() - start
    result = one.judge(trials)
    line = {
        **{"kind": "search", "fingerprint": key, "contender": name, "seed": seed},
        **{"values": dict(result.values), "val_map": result.score, "trials": len(trials)},
        "epochs": sum(trial.epochs for trial in trials),
        "seconds": round(seconds, 2),
    }
    records.add(line)
    return line


def score_on_test(values: FieldValues, seed: int, prepared: BenchmarkData, records: Records) -> float:
    """Test mAP of a point at full length with one seed, unless the figures hold it."""
    variant = set_fields(prepared.config.variants[0], {**values, "seed": seed})
    key = fingerprint(variant, prepared.catalogue.digest())
    known = records.find("test", key)
    if known is None:
        catalogue: Catalogue = prepared.catalogue
        rows_N = catalogue.rows("test")
        logits_NK = train_bare(variant, catalogue, prepared.chips, rows_N)
        found = float(
            metrics.mean_average_precision(catalogue.targets_NK[rows_N], logits_to_probs(logits_NK))
        )
        assert np.isfinite(found)
        known = {
            **{"kind": "test", "fingerprint": key, "values": dict(values), "seed": seed},
            "test_map": round(found, 5),
        }
        records.add(known)
    return float(known["test_map"])
