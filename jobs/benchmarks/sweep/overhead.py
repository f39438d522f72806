"""Trials per hour of the sweep against a plain loop over the same points; the seconds added to a trial."""

from __future__ import annotations

import time
from pathlib import Path

from jobs.benchmarks.ablation.records import Records
from jobs.benchmarks.sweep.bare_loop import train_bare
from jobs.benchmarks.sweep.setting import DOCS, prepare_benchmark
from jobs.benchmarks.sweep.tables import show_overhead

from canopy.config import Experiment, SweepConfig, derive, set_fields
from canopy.runtime.cluster import connect
from canopy.runtime.console import Console
from canopy.storage.run_dir import RunDir
from canopy.sweep.samplers import next_point
from canopy.sweep.search import StudySearch
from canopy.sweep.trials import trial_variant


def overhead(
    trials: int = 8,
    epochs: int = 8,
    repeats: int = 3,
    out: Path = DOCS,
    cache: Path = Path("runs/sweep-benchmark"),
) -> None:
    """Run the same random points through the sweep, one at a time, and through a plain loop.

    Args:
        trials: number of points.
        epochs: epochs of a trial.
        repeats: number of repeats; the contenders alternate.
        out: folder of the file of figures.
        cache: folder of chips and trials.
    """
    connect()
    prepared = prepare_benchmark("generated", cache.absolute(), None)
    records = Records.open(out / "overhead.jsonl")
    settings = SweepConfig.model_validate(
        {
            **{"space": "recipe", "sampler": "random", "scheduler": "none", "objective": "map"},
            **{"trials": trials, "epochs": epochs, "concurrent": 1, "finalists": 0},
        }
    )
    config: Experiment = derive(prepared.config, sweep=settings)
    (study,) = config.sweep_studies
    for repeat in range(repeats):
        line = {"kind": "overhead", "trials": trials, "epochs": epochs, "repeat": repeat}
        for contender in ("sweep", "loop")[:: 1 if repeat % 2 == 0 else -1]:
            start = time.monotonic()
            if contender == "sweep":
                run_dir = RunDir(str(prepared.cache / f"overhead-{time.time_ns()}"))
                StudySearch(config, study, prepared.catalogue, prepared.chips, run_dir, Console()).run()
            else:
                base = trial_variant(study.variant, settings)
                for number in range(trials):
                    values = next_point(study, settings, number, {}, [])
                    assert values is not None
                    train_bare(set_fields(base, values), prepared.catalogue, prepared.chips)
            line[f"{contender}_s"] = round(time.monotonic() - start, 2)
        records.add(line)
    show_overhead(records)
