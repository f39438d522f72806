"""Speed of variants trained in parallel or one after the other, and of several workers or one."""

from __future__ import annotations

import io
import shutil
import statistics
from collections.abc import Sequence
from functools import partial
from pathlib import Path

import torch
from jobs.benchmarks.chip_data import CORES
from jobs.benchmarks.fleet.workload import Workload, fleet_ray, workload
from jobs.benchmarks.measurement import CpuMeter, Report, alternate, median_and_range
from rich.console import Console as RichConsole

from canopy.config import ModelConfig, OptimConfig, ResourcesConfig, VariantConfig, derive
from canopy.errors import ConfigError
from canopy.runtime.console import Console
from canopy.storage import files
from canopy.train.training_run import TrainingRun

CPUS_PER_WORKER = 0.25
"""Logical CPUs of a worker; a fraction leaves CPUs for the data tasks."""


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
    """Ratio of the makespans of a fleet that runs all variants at once and one that runs one at a time.

    Both use the fleet's queue. The second runs one variant at a time because each variant needs 1 of a
    custom resource (``scale.accelerator``) of which Ray has 1. Each variant has one thread, on all cores.
    """
    optim, model = OptimConfig(epochs=epochs, batch_size=batch_size), ModelConfig(backbone=backbone)
    report = Report(f"parallel, {variants} x {backbone}, {epochs} epochs of {rows} images", out)
    seconds: dict[str, list[float]] = {"together": [], "alone": []}
    scale = ResourcesConfig(cpus_per_worker=CPUS_PER_WORKER)
    private_ray = fleet_ray(max(CORES, variants), together=variants, alone=1)
    with workload("parallel", model, optim, scale, rows, size) as work, private_ray:
        # The first starts on a new Ray are slower, so one training runs before the measurement.
        run_fleet(work, make_variants(work, 1, "together"))
        meter = CpuMeter()

        def take(name: str) -> None:
            reading = meter.measure(lambda: run_fleet(work, make_variants(work, variants, name)))
            seconds[name].append(report.add_reading(name, reading).wall_s)

        alternate([partial(take, name) for name in seconds], repeats)
    ratios = [a / b for a, b in zip(seconds["together"], seconds["alone"], strict=True)]
    for name, values in seconds.items():
        report.add_value(f"makespan, seconds: {name}", median_and_range(values))
    report.add_ratio("makespan: together / one after the other", ratios, "< 1")
    report.show()


def make_variants(work: Workload, count: int, resource: str) -> list[VariantConfig]:
    """Return ``count`` variants with different seeds, each of which needs 1 of ``resource``."""
    scale = derive(work.variant.scale, accelerator=resource)
    return [derive(work.variant, name=f"v{n}", seed=n, scale=scale) for n in range(count)]


def run_fleet(work: Workload, variants: Sequence[VariantConfig]) -> int:
    """Train ``variants`` as a fleet, after deleting earlier trainings; return the number of images."""
    from canopy.train.fleet.fleet import train_fleet

    shutil.rmtree(work.run_dir.path("train"), ignore_errors=True)
    training_runs = [TrainingRun(variant, 0, 1, work.run_dir.root, variant.name, "") for variant in variants]
    console = Console()
    console.rich = RichConsole(file=io.StringIO())
    config = derive(work.experiment(), variants=tuple(variants))
    train_fleet(training_runs, work.chips, work.run_dir, config, console)
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
    """Ratio of the images per second of several workers and of one, at the same global batch size.

    On CPUs each worker has one thread; ``--gpus N`` compares N workers of one GPU each with one. The epochs
    after the first are compared, without start-up, evaluation and checkpoints. The upper limit of the ratio
    is the number of workers, if there are as many idle cores or GPUs.

    Raises:
        ConfigError: when there are fewer than ``gpus`` GPUs.
    """
    if gpus > torch.cuda.device_count():
        raise ConfigError(
            "--gpus",
            "must be at most the number of GPUs that torch can use",
            gpus,
            "Use a machine with more GPUs.",
        )
    count = gpus or workers
    optim, model = OptimConfig(epochs=epochs, batch_size=batch_size), ModelConfig(backbone=backbone)
    if gpus:
        optim = derive(optim, precision="bfloat16")
    report = Report(f"ddp, {backbone}, global batch {batch_size}, {'GPUs' if gpus else 'CPU'}", out)
    rates: dict[int, list[float]] = {1: [], count: []}
    scale = ResourcesConfig(cpus_per_worker=CPUS_PER_WORKER, gpus_per_worker=1.0 if gpus else 0.0)
    with workload("ddp", model, optim, scale, rows, size) as work, fleet_ray(max(CORES, count)):

        def take(number: int) -> None:
            variant = derive(work.variant, scale=derive(scale, workers=number))
            run_fleet(work, [variant])
            history = files.read_json(work.run_dir.path(work.training_run().directory, "history.json"))
            rates[number].append(statistics.median(record["images_per_s"] for record in history[1:]))

        alternate([partial(take, number) for number in rates], repeats)
    for number, values in rates.items():
        report.add_value(f"images/s: {number} worker{'s' if number > 1 else ''}", median_and_range(values))
    ratios = [b / a for a, b in zip(rates[1], rates[count], strict=True)]
    report.add_ratio(f"images/s: {count} workers / 1", ratios, f"up to {count}")
    report.show()
