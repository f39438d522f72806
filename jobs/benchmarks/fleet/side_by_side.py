"""Trainings side by side beside one after the other, and several workers beside one."""

from __future__ import annotations

import io
import shutil
import statistics
from collections.abc import Sequence
from functools import partial
from pathlib import Path

import torch
from jobs.benchmarks.chip_data import CORES
from jobs.benchmarks.fleet.workload import Workload, ray_for_fleets, workload
from jobs.benchmarks.measurement import CpuMeter, Report, alternate, spread
from rich.console import Console as RichConsole

from canopy.config import ModelConfig, OptimConfig, ScaleConfig, VariantConfig, derive
from canopy.errors import ConfigError
from canopy.runtime.console import Console
from canopy.storage import files
from canopy.train.training_run import TrainingRun

CPUS_PER_WORKER = 0.25


def parallel(
    repeats: int = 2,
    variants: int = 3,
    backbone: str = "test_resnet",
    rows: int = 2048,
    size: int = 64,
    batch_size: int = 64,
    epochs: int = 4,
    out: Path | None = None,
) -> None:
    """The makespan of a fleet that may run all its variants at once, over one that may run one at a time.

    Both go through the fleet's own queue. What keeps the second to one at a time is a resource of which each
    variant needs 1 (``scale.accelerator``), and of which there is 1. One thread each, on all cores.
    """
    optim, model = OptimConfig(epochs=epochs, batch_size=batch_size), ModelConfig(backbone=backbone)
    report = Report(f"parallel, {variants} x {backbone}, {epochs} epochs of {rows} images", out)
    seconds: dict[str, list[float]] = {"together": [], "alone": []}
    scale = ScaleConfig(cpus_per_worker=CPUS_PER_WORKER)
    ray_of_its_own = ray_for_fleets(max(CORES, variants), together=variants, alone=1)
    with workload("parallel", model, optim, scale, rows, size) as work, ray_of_its_own:
        fleet_of(work, variants_of(work, 1, "together"))  # a fresh Ray's first starts are not the fleet's
        meter = CpuMeter()

        def take(name: str) -> None:
            reading = meter.read(lambda: fleet_of(work, variants_of(work, variants, name)))
            seconds[name].append(report.add(name, reading).wall_s)

        alternate([partial(take, name) for name in seconds], repeats)
    ratios = [a / b for a, b in zip(seconds["together"], seconds["alone"], strict=True)]
    for name, values in seconds.items():
        report.note(f"makespan, seconds: {name}", spread(values))
    report.ratio("makespan: together / one after the other", ratios, "< 1")
    report.show()


def variants_of(work: Workload, count: int, resource: str) -> list[VariantConfig]:
    """``count`` variants that differ in their seeds, each in need of ``resource``."""
    scale = derive(work.variant.scale, accelerator=resource)
    return [derive(work.variant, name=f"v{n}", seed=n, scale=scale) for n in range(count)]


def fleet_of(work: Workload, variants: Sequence[VariantConfig]) -> int:
    """Train ``variants`` as a fleet, in a run directory without trainings; the images learned from."""
    from canopy.train.fleet.fleet import train_fleet

    shutil.rmtree(work.run.path("train"), ignore_errors=True)
    training_runs = [TrainingRun(variant, 0, 1, work.run.root, variant.name, "") for variant in variants]
    console = Console()
    console.rich = RichConsole(file=io.StringIO())
    config = derive(work.experiment(), variants=tuple(variants))
    train_fleet(training_runs, work.chips, work.run, config, console)
    return work.images * len(training_runs)


def ddp(
    repeats: int = 2,
    workers: int = 2,
    gpus: int = 0,
    backbone: str = "test_resnet",
    rows: int = 4096,
    size: int = 64,
    batch_size: int = 128,
    epochs: int = 3,
    out: Path | None = None,
) -> None:
    """Images per second of several workers over those of one, at the same global batch.

    One thread for each worker, on a CPU; with ``--gpus N``, N workers of one GPU each beside one. What is
    compared are the epochs after the first, without start, evaluation and checkpoints; ``workers`` is the
    most that it could be, where there are so many cores or GPUs with nothing else to do.
    """
    if gpus > torch.cuda.device_count():
        raise ConfigError(
            "--gpus", "must be at most the GPUs that torch can use here", gpus, "Run it where they are."
        )
    count = gpus or workers
    optim, model = OptimConfig(epochs=epochs, batch_size=batch_size), ModelConfig(backbone=backbone)
    if gpus:
        optim = derive(optim, precision="bfloat16")
    report = Report(f"ddp, {backbone}, global batch {batch_size}, {'GPUs' if gpus else 'CPU'}", out)
    rates: dict[int, list[float]] = {1: [], count: []}
    scale = ScaleConfig(cpus_per_worker=CPUS_PER_WORKER, gpus_per_worker=1.0 if gpus else 0.0)
    with workload("ddp", model, optim, scale, rows, size) as work, ray_for_fleets(max(CORES, count)):

        def take(number: int) -> None:
            variant = derive(work.variant, scale=derive(scale, workers=number))
            fleet_of(work, [variant])
            history = files.read_json(work.run.path(work.training_run().directory, "history.json"))
            rates[number].append(statistics.median(record["images_per_s"] for record in history[1:]))

        alternate([partial(take, number) for number in rates], repeats)
    for number, values in rates.items():
        report.note(f"images/s: {number} worker{'s' if number > 1 else ''}", spread(values))
    ratios = [b / a for a, b in zip(rates[1], rates[count], strict=True)]
    report.ratio(f"images/s: {count} workers / 1", ratios, f"up to {count}")
    report.show()
